//! Where the pipeline leaves its pictures and the server finds them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use revoada_core::{Frame, StreamId};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::control::Command;
use crate::run::FramesDropped;
use crate::sink::jpeg;
use crate::sink::record::{CountsRecord, EventRecord};

/// Events that a page can look back on; where more come, the oldest are forgotten.
pub(super) const EVENTS_MAX: usize = 100;

/// Prints metrics in the OpenMetrics text format.
type MetricsCallback = Arc<dyn Fn() -> String + Send + Sync>;
/// Tells what every stream does, in the order in which they are to be shown.
type StreamsCallback = Arc<dyn Fn() -> Vec<StreamStatus> + Send + Sync>;
/// Tells what all streams did together.
type RunCallback = Arc<dyn Fn() -> RunStatus + Send + Sync>;
/// Does what a client asks, on a thread that may wait; an error is a sentence.
type ControlCallback = Arc<dyn Fn(Command) -> Result<Value, String> + Send + Sync>;

/// The meeting point of one pipeline and its [`Server`](super::Server). Callbacks run on the
/// server's thread and should only read counters.
#[derive(Default)]
pub struct Hub {
    /// In the order in which they were opened; there are few.
    channels: RwLock<Vec<Arc<Channel>>>,
    metrics: RwLock<Option<MetricsCallback>>,
    streams: RwLock<Option<StreamsCallback>>,
    run: RwLock<Option<RunCallback>>,
    events: Mutex<Told>,
    /// `None` where nothing can be changed over HTTP.
    control: RwLock<Option<ControlCallback>>,
}

/// How a stream is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Of its JPEG pictures, 1..=100.
    pub quality: u8,
    /// Pictures a second; 0 for every one.
    pub fps_max: u32,
}

/// What one stream does, for `/api/streams` and the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StreamStatus {
    pub id: String,
    /// One word: `running`, `reconnecting`, `ended` …
    pub state: String,
    /// Frames a second, lately.
    pub fps: f64,
    /// From the decoder to the sinks, lately; 0, as the two below, where nothing came out lately.
    pub latency_ms: f64,
    /// The median of the latest frames.
    pub latency_p50_ms: f64,
    /// What one of a hundred of the latest frames exceeds.
    pub latency_p99_ms: f64,
    /// Since the latest frame came out; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_frame_ms: Option<u64>,
    /// Frames that came out so far.
    pub frames: u64,
    /// Frames that were dropped so far.
    pub dropped: u64,
    /// The same by where they were dropped.
    pub drops: FramesDropped,
    /// Frames that wait to be inferred.
    pub queue_frames: u64,
    /// Attempts to come back after the source was lost.
    pub reconnects: u64,
    /// How often the source was lost because it sent nothing for too long.
    pub stalls: u64,
    pub detections: u64,
    /// Objects that were followed.
    pub tracks: u64,
    /// Of `[analytics]`; absent where no rule holds for the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<CountsRecord>,
    /// Why it failed, or what it waits for to come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What all streams did together, for `/api/streams` and the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunStatus {
    /// Its name; absent while one model is unloaded to make room for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Since the first frame was decoded.
    pub elapsed_s: f64,
    /// Frames that left the decoders.
    pub frames_in: u64,
    /// Frames that came out.
    pub frames: u64,
    pub dropped: u64,
    pub detections: u64,
    /// Objects that were followed.
    pub tracks: u64,
    /// How often another model took over.
    pub swaps: u64,
    /// Scores and boxes that were NaN or infinite: a network that broke.
    pub non_finite: u64,
}

/// The latest events, and how many there were.
#[derive(Default)]
struct Told {
    total: u64,
    latest: VecDeque<EventRecord>,
}

impl Hub {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Makes a stream's pictures available. Where the stream is open already nothing changes,
    /// unless it is to be shown otherwise: then those who watch are sent away to come again.
    pub fn open_stream(&self, id: &StreamId, options: StreamOptions) {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        match channels.iter_mut().find(|channel| channel.id == *id) {
            Some(open) if open.options == options => {}
            Some(open) => {
                open.close();
                *open = Arc::new(Channel::new(id.clone(), options));
            }
            None => channels.push(Arc::new(Channel::new(id.clone(), options))),
        }
    }

    /// Forgets a stream and its last picture, and sends away who watches it.
    pub fn close_stream(&self, id: &StreamId) {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        channels.extract_if(.., |channel| channel.id == *id).for_each(|channel| channel.close());
    }

    /// Leaves a stream's latest picture. Never waits; without a watcher it costs a pointer. A
    /// stream that was not opened is ignored.
    pub fn publish(&self, frame: &Arc<Frame>) {
        if let Some(channel) = self.channel(frame.stream.as_str()) {
            channel.frames.send_replace(Some(frame.clone()));
        }
    }

    /// Lets clients add, remove and record streams.
    pub fn set_control(&self, control: ControlCallback) {
        *self.control.write().unwrap_or_else(PoisonError::into_inner) = Some(control);
    }

    pub(super) fn control(&self) -> Option<ControlCallback> {
        self.control.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_metrics(&self, callback: MetricsCallback) {
        *self.metrics.write().unwrap_or_else(PoisonError::into_inner) = Some(callback);
    }

    pub fn set_run(&self, callback: RunCallback) {
        *self.run.write().unwrap_or_else(PoisonError::into_inner) = Some(callback);
    }

    /// Remembers what happened; of more than so many events the oldest are forgotten.
    pub fn tell(&self, events: impl IntoIterator<Item = EventRecord>) {
        let mut told = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            told.total += 1;
            if told.latest.len() == EVENTS_MAX {
                told.latest.pop_front();
            }
            told.latest.push_back(event);
        }
    }

    pub(super) fn events(&self) -> EventListing {
        let told = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        EventListing { version: 1, total: told.total, events: told.latest.iter().cloned().collect() }
    }

    pub fn set_streams(&self, callback: StreamsCallback) {
        *self.streams.write().unwrap_or_else(PoisonError::into_inner) = Some(callback);
    }

    pub(super) fn metrics(&self) -> Option<String> {
        let callback = self.metrics.read().unwrap_or_else(PoisonError::into_inner).clone();
        callback.map(|metrics| metrics())
    }

    pub(super) fn channel(&self, id: &str) -> Option<Arc<Channel>> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        channels.iter().find(|channel| channel.id.as_str() == id).cloned()
    }

    /// What the pipeline says of its streams, with what the hub knows of their pictures. Without a
    /// callback: the streams that have pictures.
    pub(super) fn listing(&self) -> Listing {
        let callback = self.streams.read().unwrap_or_else(PoisonError::into_inner).clone();
        let told = match callback {
            Some(streams) => streams(),
            None => {
                let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
                let status = |channel: &Arc<Channel>| StreamStatus { id: channel.id.to_string(), ..Default::default() };
                channels.iter().map(status).collect()
            }
        };
        let listed = told.into_iter().map(|status| {
            let channel = self.channel(&status.id);
            let size = channel.as_ref().and_then(|channel| channel.latest()).map(|frame| frame.size());
            ListedStream {
                preview: channel.is_some(),
                width: size.map_or(0, |size| size.width),
                height: size.map_or(0, |size| size.height),
                status,
            }
        });
        let run = self.run.read().unwrap_or_else(PoisonError::into_inner).clone();
        Listing {
            version: 1,
            control: self.control().is_some(),
            events: self.events.lock().unwrap_or_else(PoisonError::into_inner).total,
            run: run.map(|run| run()),
            streams: listed.collect(),
        }
    }
}

/// The body of `/api/streams`.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    version: u32,
    /// Whether streams can be added and removed here.
    control: bool,
    /// How many events there were so far: when it rises, `/api/events` has news.
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunStatus>,
    streams: Vec<ListedStream>,
}

/// The body of `/api/events`.
#[derive(Debug, Serialize)]
pub(super) struct EventListing {
    version: u32,
    /// So far, with those that are forgotten.
    total: u64,
    /// The latest, the newest last.
    events: Vec<EventRecord>,
}

#[derive(Debug, Serialize)]
struct ListedStream {
    #[serde(flatten)]
    status: StreamStatus,
    /// Whether `/streams/<id>.mjpeg` exists.
    preview: bool,
    /// Of the latest picture, 0 before the first.
    width: usize,
    height: usize,
}

/// One stream's pictures: the latest frame, and while somebody watches the latest JPEG.
pub(super) struct Channel {
    id: StreamId,
    options: StreamOptions,
    frames: watch::Sender<Option<Arc<Frame>>>,
    /// Empty where nothing has been encoded for those who watch now.
    jpegs: watch::Sender<Bytes>,
    encoding: AtomicBool,
    closed: AtomicBool,
}

impl Channel {
    fn new(id: StreamId, options: StreamOptions) -> Self {
        Self {
            id,
            options,
            frames: watch::Sender::new(None),
            jpegs: watch::Sender::new(Bytes::new()),
            encoding: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Ends the encoder, and with it and the hub's own handle the channel that watchers wait on.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.frames.send_replace(None);
    }

    pub(super) fn latest(&self) -> Option<Arc<Frame>> {
        self.frames.borrow().clone()
    }

    /// The latest frame as JPEG, made for this caller alone; `None` before the first frame.
    pub(super) async fn snapshot(&self) -> Option<Bytes> {
        encode(self.latest()?, self.options.quality).await
    }

    /// JPEGs as they come, at most `fps_max` a second; a receiver that is slow sees only the
    /// latest. Called on the server's thread.
    pub(super) fn watch(self: &Arc<Self>) -> watch::Receiver<Bytes> {
        let receiver = self.jpegs.subscribe();
        if !self.encoding.swap(true, Ordering::Relaxed) {
            tokio::spawn(self.clone().encode_while_watched());
        }
        receiver
    }

    #[cfg(test)]
    pub(super) fn is_encoding(&self) -> bool {
        self.encoding.load(Ordering::Relaxed)
    }

    async fn encode_while_watched(self: Arc<Self>) {
        let mut frames = self.frames.subscribe();
        frames.mark_changed();
        loop {
            tokio::select! {
                // The sender lives in `self`, so that this cannot fail.
                _ = frames.changed() => {}
                () = self.jpegs.closed() => {}
            }
            if self.jpegs.receiver_count() == 0 || self.closed.load(Ordering::Relaxed) {
                break;
            }
            let Some(frame) = frames.borrow_and_update().clone() else { continue };
            let started = Instant::now();
            if let Some(bytes) = encode(frame, self.options.quality).await {
                self.jpegs.send_replace(bytes);
            }
            if self.options.fps_max > 0 {
                tokio::time::sleep_until(started + Duration::from_secs(1) / self.options.fps_max).await;
            }
        }
        // All watchers arrive on this one thread, and nothing is awaited since the last was seen to
        // have left, so that none can have come in between.
        self.jpegs.send_replace(Bytes::new());
        self.encoding.store(false, Ordering::Relaxed);
    }
}

/// Off the server's thread, which others wait for.
async fn encode(frame: Arc<Frame>, quality: u8) -> Option<Bytes> {
    let stream = frame.stream.clone();
    match tokio::task::spawn_blocking(move || jpeg(&frame.view(), quality)).await {
        Ok(Ok(bytes)) => Some(bytes.into()),
        Ok(Err(error)) => {
            tracing::warn!(%stream, %error, "cannot encode a preview picture");
            None
        }
        Err(error) => {
            tracing::error!(%stream, %error, "encoding a preview picture did not end");
            None
        }
    }
}
