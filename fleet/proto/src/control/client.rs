//! The asking end of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::{Command, Request};

/// The slowest answer but that to `swap` is a reload that opens streams.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Loading a model may take a small device minutes.
const SWAP_TIMEOUT: Duration = Duration::from_secs(600);

/// Statistics of the most streams are some hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A connection to a running pipeline.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    reader: BufReader<UnixStream>,
    next_id: u64,
    answer_time_max: Duration,
}

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("no pipeline listens on `{}`", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("lost the pipeline on `{}`", path.display())]
    Lost {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` does not speak as a pipeline does: {reason}", path.display())]
    Answer { path: PathBuf, reason: String },
    /// The pipeline understood, and will not or cannot.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connect = |source| ClientError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(connect)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(connect)?;
        let reader = BufReader::new(stream);
        Ok(Self { path: path.to_owned(), reader, next_id: 1, answer_time_max: ANSWER_TIMEOUT })
    }

    /// Waits for so long at most for an answer to anything but a swap, which a pipeline takes its time for.
    pub fn with_answer_time_max(self, answer_time_max: Duration) -> Self {
        Self { answer_time_max, ..self }
    }

    /// Sends a command and waits for its result.
    pub fn request(&mut self, command: Command) -> Result<Value, ClientError> {
        let request = Request { id: self.next_id, command };
        self.next_id += 1;
        let line = self.exchange(&request).map_err(|source| ClientError::Lost { path: self.path.clone(), source })?;
        let bad = |reason: String| ClientError::Answer { path: self.path.clone(), reason };
        let mut answer: Value = serde_json::from_slice(&line).map_err(|error| bad(error.to_string()))?;
        // The refusal of a client too many comes before anything was asked.
        if !matches!(answer["id"].as_u64(), Some(id) if id == request.id || id == 0) {
            return Err(bad(format!("it answered {} to {}", answer["id"], request.id)));
        }
        match (answer["result"].take(), &answer["error"]) {
            (_, Value::String(reason)) => Err(ClientError::Refused(reason.clone())),
            (Value::Null, _) => Err(bad("neither a result nor an error".into())),
            (result, _) => Ok(result),
        }
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        let is_swap = matches!(request.command, Command::Swap { .. });
        let timeout = if is_swap { SWAP_TIMEOUT } else { self.answer_time_max };
        self.reader.get_ref().set_read_timeout(Some(timeout))?;
        let sent = self.reader.get_mut().write_all(format!("{}\n", request.to_line()).as_bytes());
        let mut line = Vec::new();
        let read = (&mut self.reader).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
        // A server that refuses the connection may hang up before it reads: its answer says why.
        if line.last() != Some(&b'\n') {
            sent?;
            read?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }
}
