//! A file that appears under its name only when it is whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use revoada_core::StreamId;

use crate::SinkError;

/// Large enough that a system call is shared by many records.
const BUFFER_BYTES: usize = 64 * 1024;

/// A name beside the target, `.name.partial`, that becomes the target at [`Partial::commit`] and is
/// removed when dropped before. What stood under the target's name stays until then.
#[derive(Debug)]
pub(super) struct Partial {
    target: PathBuf,
    partial: PathBuf,
    committed: bool,
}

impl Partial {
    /// Reserves the name by creating an empty file, so that a folder that does not exist or cannot
    /// be written is found before any work is done. Folders are not created: a mistyped path is to
    /// fail, not to grow a tree.
    pub(super) fn create(target: &Path) -> Result<Self, SinkError> {
        // Through a symbolic link the file it points to is replaced, not the link.
        let target = match fs::canonicalize(target) {
            Ok(pointed_to) if target.is_symlink() => pointed_to,
            _ => target.to_path_buf(),
        };
        check_folder(&target)?;
        let name = target.file_name().filter(|_| !target.is_dir()).ok_or_else(|| SinkError::Write {
            path: target.clone(),
            source: io::Error::new(io::ErrorKind::IsADirectory, "this is a folder, not a file"),
        })?;
        let mut partial_name = OsString::from(".");
        partial_name.push(name);
        partial_name.push(".partial");
        let partial = target.with_file_name(partial_name);
        File::create(&partial).map_err(|source| SinkError::Write { path: target.clone(), source })?;
        Ok(Self { target, partial, committed: false })
    }

    /// Where to write meanwhile.
    pub(super) fn path(&self) -> &Path {
        &self.partial
    }

    /// Makes what was written durable and gives it its name.
    pub(super) fn commit(mut self) -> Result<PathBuf, SinkError> {
        let moved = File::open(&self.partial)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.partial, &self.target))
            .and_then(|()| sync_parent(&self.target));
        moved.map_err(|source| SinkError::Write { path: self.target.clone(), source })?;
        self.committed = true;
        Ok(self.target.clone())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = fs::remove_file(&self.partial)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.partial.display(), %error, "cannot remove a partial file");
        }
    }
}

/// Refuses a path in a folder that does not exist, naming the folder.
pub(super) fn check_folder(path: &Path) -> Result<(), SinkError> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        None => Ok(()),
        Some(folder) => Err(SinkError::Write {
            path: path.to_path_buf(),
            source: io::Error::new(io::ErrorKind::NotFound, format!("there is no folder `{}`", folder.display())),
        }),
    }
}

/// A renamed file is durable only once its folder is.
fn sync_parent(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A text file written line by line. A device or pipe (`/dev/stdout`, a FIFO) has no whole to wait
/// for: it is written in place, each line at once.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    /// `None` for what is written in place.
    partial: Option<Partial>,
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self, SinkError> {
        let in_place = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
        let (partial, file) = if in_place {
            (None, File::options().write(true).open(path))
        } else {
            let partial = Partial::create(path)?;
            let file = File::options().write(true).open(partial.path());
            (Some(partial), file)
        };
        let file = file.map_err(|source| SinkError::Write { path: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), file: BufWriter::with_capacity(BUFFER_BYTES, file), partial })
    }

    /// Writes one line; `line` ends with its line break.
    pub(super) fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError> {
        let mut written = self.file.write_all(line);
        if self.partial.is_none() {
            written = written.and_then(|()| self.file.flush());
        }
        written.map_err(|source| SinkError::Write { path: self.path.clone(), source })
    }

    /// Completes the file and returns its path.
    pub(super) fn finish(mut self) -> Result<PathBuf, SinkError> {
        self.file.flush().map_err(|source| SinkError::Write { path: self.path.clone(), source })?;
        match self.partial {
            Some(partial) => partial.commit(),
            None => Ok(self.path),
        }
    }
}

/// Writes a whole small file beside its name and renames it. Not synced to disk one by one: a
/// folder of pictures is a stream, and what a power cut takes is its end.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), SinkError> {
    let cannot = |source| SinkError::Write { path: path.to_path_buf(), source };
    let partial = Partial::create(path)?;
    fs::write(partial.path(), bytes).map_err(cannot)?;
    fs::rename(partial.path(), path).map_err(cannot)?;
    Ok(())
}

const STREAM_MARK: &str = "{stream}";

/// `template` with the stream's id in place of `{stream}`. An id cannot leave the folder: what
/// would separate folders becomes `_`.
pub(super) fn path_for(template: &Path, stream: &StreamId) -> PathBuf {
    match template.to_str() {
        Some(text) if text.contains(STREAM_MARK) => PathBuf::from(text.replace(STREAM_MARK, &file_name(stream))),
        _ => template.to_path_buf(),
    }
}

/// Whether each stream has a path of its own.
pub(super) fn is_per_stream(template: &Path) -> bool {
    template.to_str().is_some_and(|text| text.contains(STREAM_MARK))
}

/// A stream's id as part of a file's name.
pub(super) fn file_name(stream: &StreamId) -> String {
    let safe = stream.as_str().replace(|c: char| matches!(c, '/' | '\\') || c.is_control(), "_");
    // A hidden file would not be found.
    safe.strip_prefix('.').map(|rest| format!("_{rest}")).unwrap_or(safe)
}

/// Refuses two streams that would write the same file.
pub(super) fn check_distinct(template: &Path, streams: &[StreamId]) -> Result<(), SinkError> {
    let mut paths: Vec<_> = streams.iter().map(|stream| path_for(template, stream)).collect();
    paths.sort();
    match paths.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SinkError::Write {
            path: pair[0].clone(),
            source: io::Error::new(
                io::ErrorKind::InvalidInput,
                "two streams would write this file; put `{stream}` into its path",
            ),
        }),
        None => Ok(()),
    }
}
