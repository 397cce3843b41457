//! Features that were computed before, in a file beside the pictures that they are of.
//!
//! The file holds features of one backbone alone: those of another are of no use to it and are replaced. Whatever is not as it
//! was written is as good as not there, since features can be computed again.
//!
//! Its bytes are a magic word, a version, the backbone's key, the number of features of a picture and of pictures, for each
//! picture its digest and its features, and the SHA-256 of all this; numbers are little-endian.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use revoada_bundle::partial::Partial;
use revoada_core::Digest;

use crate::hash::Hashed;

/// Below a folder of labelled pictures: everything that was made of them. Hidden, so that it is no label.
const FOLDER: &str = ".revoada-learn";
const FILE: &str = "features";
const MAGIC: &[u8; 8] = b"RVDAFEAT";
const VERSION: u32 = 1;
/// Pictures of one file; a folder has no more.
const PICTURES_MAX: u64 = 200_000;

/// Where everything lies that is made of the pictures in a folder, so that [`forget`](crate::forget()) finds it. Whoever keeps
/// weights or updates that were learned from them keeps them here, too.
pub fn derived_folder(pictures: &Path) -> PathBuf {
    pictures.join(FOLDER)
}

/// Features by the digests of their pictures.
pub(crate) struct Cache {
    path: PathBuf,
    key: Digest,
    features: usize,
    known: HashMap<Digest, Box<[f32]>>,
    changed: bool,
}

impl Cache {
    /// Reads what is known of the `wanted` pictures; what keeps it from being read is logged.
    pub(crate) fn open(folder: &Path, key: Digest, features: usize, wanted: &[Digest]) -> Self {
        let path = derived_folder(folder).join(FILE);
        let mut cache = Self { path, key, features, known: HashMap::new(), changed: false };
        match cache.read(wanted) {
            Ok(known) => cache.known = known,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %cache.path.display(), %error, "features are computed anew"),
        }
        cache
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self, picture: &Digest) -> Option<&[f32]> {
        self.known.get(picture).map(|features| &**features)
    }

    pub(crate) fn put(&mut self, picture: Digest, features: &[f32]) {
        self.known.insert(picture, features.into());
        self.changed = true;
    }

    fn read(&self, wanted: &[Digest]) -> io::Result<HashMap<Digest, Box<[f32]>>> {
        let bad = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
        let file = File::open(&self.path)?;
        let bytes = file.metadata()?.len();
        let mut reader = Hashed::new(BufReader::new(file));
        if &reader.take::<8>()? != MAGIC {
            return Err(bad("this is no file of features"));
        }
        if u32::from_le_bytes(reader.take()?) != VERSION {
            return Err(bad("they are of another version"));
        }
        if reader.take::<32>()? != *self.key.as_bytes() {
            return Err(bad("they are of another model"));
        }
        let (features, count) = (u64::from_le_bytes(reader.take()?), u64::from_le_bytes(reader.take()?));
        let row = (self.features as u64).checked_mul(4).and_then(|row| row.checked_add(32));
        let expected = row.and_then(|row| row.checked_mul(count)?.checked_add(8 + 4 + 32 + 8 + 8 + 32));
        if features != self.features as u64 || count > PICTURES_MAX || expected != Some(bytes) {
            return Err(bad("they are not of the size that they say"));
        }
        let wanted: HashSet<&Digest> = wanted.iter().collect();
        let mut known = HashMap::new();
        let mut row = vec![0; self.features * 4];
        for _ in 0..count {
            let picture = Digest::new(reader.take()?);
            reader.read_exact(&mut row)?;
            if wanted.contains(&picture) {
                let numbers = row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                known.insert(picture, numbers.collect());
            }
        }
        let (digest, mut rest) = reader.finish();
        let mut written = [0; 32];
        rest.read_exact(&mut written)?;
        if *digest.as_bytes() == written { Ok(known) } else { Err(bad("they are damaged")) }
    }

    /// Writes what is known, where there is something new.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        fs::create_dir_all(self.path.parent().expect("the file lies in a folder"))?;
        let partial = Partial::create(&self.path)?;
        let mut writer = Hashed::new(BufWriter::new(File::create(partial.path())?));
        writer.write_all(MAGIC)?;
        writer.write_all(&VERSION.to_le_bytes())?;
        writer.write_all(self.key.as_bytes())?;
        writer.write_all(&(self.features as u64).to_le_bytes())?;
        writer.write_all(&(self.known.len() as u64).to_le_bytes())?;
        let mut pictures: Vec<&Digest> = self.known.keys().collect();
        pictures.sort();
        for picture in pictures {
            writer.write_all(picture.as_bytes())?;
            let numbers = self.known[picture].iter().flat_map(|number| number.to_le_bytes());
            writer.write_all(&numbers.collect::<Vec<u8>>())?;
        }
        let (digest, mut rest) = writer.finish();
        rest.write_all(digest.as_bytes())?;
        rest.flush()?;
        drop(rest);
        partial.commit()?;
        self.changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Digest = Digest::new([9; 32]);

    fn picture(byte: u8) -> Digest {
        Digest::new([byte; 32])
    }

    fn filled(folder: &Path) -> PathBuf {
        let mut cache = Cache::open(folder, KEY, 2, &[]);
        cache.put(picture(1), &[1.0, -0.5]);
        cache.put(picture(2), &[3.0, 4.0]);
        cache.save().unwrap();
        cache.path
    }

    #[test]
    fn features_are_read_as_they_were_written_where_they_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let cache = Cache::open(folder.path(), KEY, 2, &[picture(2), picture(3)]);
        assert_eq!(cache.get(&picture(2)), Some(&[3.0, 4.0][..]));
        assert_eq!((cache.get(&picture(1)), cache.get(&picture(3))), (None, None));
    }

    #[test]
    fn what_is_damaged_or_foreign_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path());
        let known = |key: Digest, features: usize| {
            Cache::open(folder.path(), key, features, &[picture(1), picture(2)]).known.len()
        };
        assert_eq!(known(KEY, 2), 2);
        assert_eq!((known(picture(8), 2), known(KEY, 3)), (0, 0), "of another model, or of another width");
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(known(KEY, 2), 0, "byte {place}");
        }
        for cut in [0, 7, 60, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(known(KEY, 2), 0, "cut at {cut}");
        }
    }
}
