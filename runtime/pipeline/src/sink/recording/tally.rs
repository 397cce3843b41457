//! What became of recordings, and who asks for one: shared between the sinks of a run, its statistics and its commands.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use revoada_core::StreamId;
use serde::{Deserialize, Serialize};

use crate::lock::lock;

/// Requests that wait for a picture of their stream. The control socket has fewer clients; beyond it, the oldest is
/// forgotten.
const REQUESTS_MAX: usize = 16;

/// The recordings of one run, of all its sinks of that type.
#[derive(Clone, Debug, Default)]
pub struct Recordings(Arc<Mutex<Vec<Arc<Tally>>>>);

/// What one sink has recorded so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingSummary {
    /// `recording`; the second is `recording-2`.
    pub sink: String,
    /// Whole and in place.
    pub recordings: u64,
    /// Of those.
    pub bytes: u64,
    /// Being written.
    pub open: u64,
    /// Begun or wanted, and not there: the disk was full, too slow, or not to be written.
    pub failed: u64,
    /// Groups of pictures that were dropped before their time, since memory was full.
    pub groups_dropped: u64,
    /// Old recordings that were deleted.
    pub deleted: u64,
    /// Why the latest failed; `None` once one has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answers with the file into which it goes.
pub(crate) type Answer = Result<PathBuf, String>;

/// Somebody wants a stream to be recorded now.
#[derive(Debug)]
pub(crate) struct Request {
    stream: StreamId,
    /// Behind the next picture; `None` as the sink does behind an event.
    pub(super) after: Option<Duration>,
    pub(super) answer: SyncSender<Answer>,
}

/// One sink's counters and requests.
#[derive(Debug)]
pub(crate) struct Tally {
    summary: Mutex<RecordingSummary>,
    /// Empty: all.
    streams: Vec<StreamId>,
    requests: Mutex<Vec<Request>>,
    any: AtomicBool,
}

impl Recordings {
    /// For one more sink, which records these streams; none are all.
    pub(super) fn open(&self, streams: &[StreamId]) -> Arc<Tally> {
        let mut all = lock(&self.0);
        let sink = if all.is_empty() { "recording".to_owned() } else { format!("recording-{}", all.len() + 1) };
        let summary = Mutex::new(RecordingSummary { sink, ..RecordingSummary::default() });
        let tally = Arc::new(Tally {
            summary,
            streams: streams.to_vec(),
            requests: Mutex::default(),
            any: AtomicBool::new(false),
        });
        all.push(Arc::clone(&tally));
        tally
    }

    #[cfg(test)]
    pub(crate) fn counting(&self, change: impl FnOnce(&mut RecordingSummary)) {
        self.open(&[]).count(change);
    }

    /// Of each sink, in the order of the configuration.
    pub fn summaries(&self) -> Vec<RecordingSummary> {
        lock(&self.0).iter().map(|tally| tally.summary()).collect()
    }

    /// Has every sink that records `stream` do so from its next picture on, and what comes before it; a sink each answers.
    pub(crate) fn request(&self, stream: &StreamId, after: Option<Duration>) -> Vec<Receiver<Answer>> {
        let all = lock(&self.0);
        let recording = all.iter().filter(|tally| tally.records(stream));
        recording.map(|tally| tally.request(stream, after)).collect()
    }
}

impl Tally {
    pub(super) fn records(&self, stream: &StreamId) -> bool {
        self.streams.is_empty() || self.streams.contains(stream)
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut RecordingSummary)) {
        change(&mut lock(&self.summary));
    }

    pub(crate) fn summary(&self) -> RecordingSummary {
        lock(&self.summary).clone()
    }

    fn request(&self, stream: &StreamId, after: Option<Duration>) -> Receiver<Answer> {
        let (answer, answered) = sync_channel(1);
        let mut requests = lock(&self.requests);
        if requests.len() >= REQUESTS_MAX {
            requests.remove(0);
        }
        requests.push(Request { stream: stream.clone(), after, answer });
        self.any.store(true, Ordering::SeqCst);
        answered
    }

    /// What is asked of a stream.
    pub(super) fn take_requests(&self, stream: &StreamId) -> Vec<Request> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut requests = lock(&self.requests);
        let taken = requests.extract_if(.., |request| request.stream == *stream).collect();
        self.any.store(!requests.is_empty(), Ordering::SeqCst);
        taken
    }
}
