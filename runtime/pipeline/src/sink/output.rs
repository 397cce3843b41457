//! Files of results: written line by line, and named after streams.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use revoada_bundle::partial::Partial;
use revoada_core::StreamId;

use crate::SinkError;

/// Large enough that a system call is shared by many records.
const BUFFER_BYTES: usize = 64 * 1024;

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
        let cannot = |source| SinkError::Write { path: path.to_path_buf(), source };
        let in_place = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
        let partial = if in_place { None } else { Some(Partial::create(path).map_err(cannot)?) };
        let written = partial.as_ref().map_or(path, Partial::path);
        let file = File::options().write(true).open(written).map_err(cannot)?;
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

    /// Hands what was written to the system, where others can read it and the end of this process does no harm.
    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        self.file.flush().map_err(|source| SinkError::Write { path: self.path.clone(), source })
    }

    /// Completes the file and returns its path.
    pub(super) fn finish(mut self) -> Result<PathBuf, SinkError> {
        let partial = self.partial.take();
        let finished = self.file.flush().and_then(|()| partial.map(Partial::commit).transpose());
        match finished {
            Ok(target) => Ok(target.unwrap_or(self.path)),
            Err(source) => Err(SinkError::Write { path: self.path, source }),
        }
    }
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
pub(crate) fn file_name(stream: &StreamId) -> String {
    let safe = stream.as_str().replace(|c: char| matches!(c, '/' | '\\') || c.is_control(), "_");
    // A hidden file would not be found.
    safe.strip_prefix('.').map(|rest| format!("_{rest}")).unwrap_or(safe)
}

/// Which stream has which file, so that no file is written by two streams, nor by one stream twice.
#[derive(Debug)]
pub(super) struct Claims {
    template: PathBuf,
    owners: BTreeMap<PathBuf, StreamId>,
}

impl Claims {
    pub(super) fn new(template: &Path) -> Self {
        Self { template: template.to_path_buf(), owners: BTreeMap::new() }
    }

    /// The stream's next file: the template's name, then `name-2.mp4` after `name.mp4`, or the next number
    /// that is free.
    pub(super) fn claim(&mut self, stream: &StreamId) -> Result<PathBuf, SinkError> {
        let first = path_for(&self.template, stream);
        let path = match self.owners.get(&first) {
            None => first,
            Some(owner) if owner == stream => self.next_part(&first),
            Some(_) => {
                let message = "two streams would write this file; put `{stream}` into its path";
                let source = io::Error::new(io::ErrorKind::InvalidInput, message);
                return Err(SinkError::Write { path: first, source });
            }
        };
        self.owners.insert(path.clone(), stream.clone());
        Ok(path)
    }

    fn next_part(&self, first: &Path) -> PathBuf {
        let stem = first.file_stem().unwrap_or_default().to_string_lossy();
        let extension = first.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
        let extension = extension.unwrap_or_default();
        (2u64..)
            .map(|part| first.with_file_name(format!("{stem}-{part}{extension}")))
            .find(|path| !self.owners.contains_key(path))
            .expect("fewer than 2⁶⁴ files are claimed")
    }
}
