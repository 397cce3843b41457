//! What the pipeline and the agent say, within a bound on disk.
//!
//! The pipeline writes into the file itself rather than into a pipe of the agent, so that it goes on when the agent is
//! restarted. A file that is full is copied to `.1` and emptied in place: the pipeline appends, and goes on at its beginning.
//! What is written between the two is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One answer of a command.
const TAIL_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(super) struct Log {
    path: PathBuf,
    bytes_max: u64,
}

impl Log {
    pub(super) fn new(path: &Path, bytes_max: u64) -> Self {
        Self { path: path.to_owned(), bytes_max }
    }

    /// For a child to write to.
    pub(super) fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.path)
    }

    /// Adds a line of the agent's.
    pub(super) fn note(&self, text: &str) -> io::Result<()> {
        self.open()?.write_all(format!("agent: {}\n", text.replace('\n', " ")).as_bytes())
    }

    /// Makes room where the file has reached its bound.
    pub(super) fn rotate(&self) -> io::Result<()> {
        let length = match fs::metadata(&self.path) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if length < self.bytes_max {
            return Ok(());
        }
        // The newest part, should a child have written very much since the last look.
        let mut newest = File::open(&self.path)?;
        newest.seek(SeekFrom::Start(length.saturating_sub(self.bytes_max)))?;
        let copied = io::copy(&mut newest.take(self.bytes_max), &mut File::create(self.older())?);
        OpenOptions::new().write(true).open(&self.path)?.set_len(0)?;
        copied.map(drop)
    }

    /// The newest lines, as far as they fit into an answer.
    pub(super) fn tail(&self, lines: u32) -> io::Result<Vec<u8>> {
        let Some(before) = (lines as usize).checked_sub(1) else { return Ok(Vec::new()) };
        let mut text = end_of(&self.older())?;
        text.extend(end_of(&self.path)?);
        let too_many = text.len().saturating_sub(TAIL_BYTES_MAX as usize);
        text.drain(..too_many);
        let begins = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
        let begin = begins.skip_while(|begin| *begin == text.len()).nth(before).unwrap_or(0);
        text.drain(..begin);
        Ok(text)
    }

    fn older(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }
}

fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_found_in_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(&folder.path().join("log"), 100);
        assert_eq!(log.tail(5).unwrap(), b"");
        let mut child = log.open().unwrap();
        for index in 0..30 {
            writeln!(child, "line {index}").unwrap();
            log.rotate().unwrap();
        }
        log.note("two\nlines").unwrap();
        assert_eq!(log.tail(3).unwrap(), b"line 28\nline 29\nagent: two lines\n");
        assert_eq!(log.tail(0).unwrap(), b"");
        let all = log.tail(1000).unwrap();
        assert!(all.len() < 220, "{}", String::from_utf8_lossy(&all));
        assert!(fs::metadata(&log.path).unwrap().len() < 120, "the child's file is emptied under it");
    }
}
