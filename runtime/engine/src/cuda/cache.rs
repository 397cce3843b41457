//! Compiled kernels kept on disk, so that only the first start on a device compiles.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use revoada_core::Architecture;
use sha2::{Digest as _, Sha256};

use super::error::CudaError;
use super::nvrtc::{Compiler, Image, KernelSource, KernelTarget, OPTIONS};

/// A folder of images, each named by everything that it depends on. Processes may share it: an image is written
/// beside and renamed, and verified before it is used. One that is broken is compiled again.
///
/// A disk that cannot be read or written costs time and not the start: it is logged, and the kernel compiled.
#[derive(Clone, Debug)]
pub struct KernelCache {
    folder: PathBuf,
    images_max: usize,
}

/// A few kernels for a few architectures and versions of the compiler; beyond, the oldest are removed.
const IMAGES_MAX: usize = 64;

/// Changes with the format of the files.
const MAGIC: &[u8; 8] = b"RVKERN01";

const SUFFIX: &str = "kernel";

/// How the suffix of a file that is being written begins.
const BESIDE: &str = "tmp";

impl KernelCache {
    /// Makes the folder when the first image is written.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), images_max: IMAGES_MAX }
    }

    /// Keeps up to `images_max` images, at least one.
    pub fn with_images_max(folder: &Path, images_max: usize) -> Self {
        Self { folder: folder.to_owned(), images_max: images_max.max(1) }
    }

    /// The kernel for a device, compiled only where the cache lacks it.
    pub fn image(
        &self,
        compiler: &Compiler,
        source: &KernelSource,
        architecture: Architecture,
    ) -> Result<Image, CudaError> {
        let target = compiler.target(architecture)?;
        let path = self.folder.join(format!("{}.{SUFFIX}", key(compiler.version(), source, target)));
        match read(&path) {
            Ok(Some(image)) => return Ok(image),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a cached kernel cannot be read; compiling it again");
            }
        }
        let image = compiler.compile(source, target)?;
        if let Err(error) = self.keep(&path, &image) {
            tracing::warn!(path = %path.display(), %error, "a kernel cannot be cached; the next start compiles again");
        }
        Ok(image)
    }

    fn keep(&self, path: &Path, image: &Image) -> io::Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.folder)?;
        let unique = format!("{BESIDE}{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let beside = path.with_extension(unique);
        let written = write(&beside, image).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            // Nothing may be there to remove; the first error is the one that matters.
            let _ = fs::remove_file(&beside);
        }
        written?;
        revoada_bundle::partial::sync_folder_of(path)?;
        self.shrink(path)
    }

    /// Removes the oldest images until the bound holds; never `newest`. What a process that was killed has left
    /// beside counts as an image.
    fn shrink(&self, newest: &Path) -> io::Result<()> {
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if (extension == SUFFIX || extension.starts_with(BESIDE)) && path != newest {
                images.push((entry.metadata()?.modified()?, path));
            }
        }
        images.sort();
        let surplus = (images.len() + 1).saturating_sub(self.images_max);
        for (_, path) in &images[..surplus] {
            match fs::remove_file(path) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }
}

fn key(version: (u32, u32), source: &KernelSource, target: KernelTarget) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(source.text.as_bytes());
    part(target.to_string().as_bytes());
    part(format!("{}.{}", version.0, version.1).as_bytes());
    for option in OPTIONS {
        part(option.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` where there is no image; one that is damaged is an error.
fn read(path: &Path) -> io::Result<Option<Image>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the file is damaged");
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (digest, image) = rest.split_at_checked(32).ok_or_else(damaged)?;
    if Sha256::digest(image)[..] != *digest {
        return Err(damaged());
    }
    Ok(Some(Image::new(image.to_vec())))
}

fn write(path: &Path, image: &Image) -> io::Result<()> {
    let bytes = image.terminated();
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&Sha256::digest(bytes))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_all_that_it_depends_on() {
        let source = KernelSource { name: "a.cu", text: "a", entry: "a" };
        let orin = KernelTarget { number: 87, binary: true };
        let names = [
            key((12, 9), &source, orin),
            key((12, 8), &source, orin),
            key((12, 9), &KernelSource { text: "b", ..source }, orin),
            key((12, 9), &source, KernelTarget { number: 90, ..orin }),
            key((12, 9), &source, KernelTarget { binary: false, ..orin }),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{index}");
            assert_eq!(name.len(), 64);
        }
        // The name of the file says nothing about what is in it.
        assert_eq!(key((12, 9), &KernelSource { name: "b.cu", ..source }, orin), names[0]);
    }
}
