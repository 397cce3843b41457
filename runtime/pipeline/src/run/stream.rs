//! One stream's decode thread: opens its source, pulls frames into its lane, and comes back by
//! itself when the source is lost.

use std::sync::Arc;
use std::time::Duration;

use revoada_core::{Clock, Frame, Timestamp};
use tracing::{info, warn};

use super::queue::{Lane, Pushed};
use super::reconnect::{Next, Reconnect};
use super::stats::{Dropped, StreamStats};
use super::stop::Halt;
use crate::config::StreamConfig;
use crate::lock::lock;
use crate::vision::Straightener;
use crate::{Pull, Source, SourceError};

/// How long a pull may keep a thread from noticing that it is to end.
const PULL_MAX: Duration = Duration::from_millis(100);

/// Opens the source of a stream; frames carry times of the clock.
pub type OpenSource = dyn Fn(&StreamConfig, &Arc<dyn Clock>) -> Result<Box<dyn Source>, SourceError> + Send + Sync;

/// A frame on its way, and where it is counted.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) frame: Arc<Frame>,
    pub(crate) stream: Arc<StreamStats>,
    /// Between frames of different openings of the source anything may have happened.
    pub(crate) opening: u64,
    /// Frames of the stream from one that is inferred to the next.
    pub(crate) interval: u32,
    /// The time of day when a live frame was captured, since Unix time began.
    pub(crate) wall: Option<Timestamp>,
}

/// All that a decode thread owns.
pub(crate) struct Stream {
    pub(crate) config: StreamConfig,
    pub(crate) open: Arc<OpenSource>,
    pub(crate) lane: Lane<Ticket>,
    pub(crate) stats: Arc<StreamStats>,
    pub(crate) halt: Arc<Halt>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wall_clock: Arc<dyn Clock>,
}

/// Why one opening of a source came to its end without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Played {
    /// The source has no more.
    Ended,
    /// Nobody wants more: halted, or `frames_max` is reached.
    Enough,
}

/// What outlives one opening of the source.
struct Progress {
    reconnect: Reconnect,
    frames: u64,
    /// Of the source, over all that the stream ran so far.
    opening: u64,
    /// Of the stream's lens, where it is to be made straight.
    straightener: Option<Straightener>,
}

impl Stream {
    /// Plays the stream to its end; an error is one that retrying does not mend.
    pub(crate) fn run(&self) -> Result<(), SourceError> {
        let reconnect = Reconnect::new(self.config.reconnect);
        let straightener = self.config.lens.clone().map(Straightener::new);
        let mut progress = Progress { reconnect, frames: 0, opening: 0, straightener };
        loop {
            let lost = match self.play(&mut progress) {
                Ok(Played::Enough) => return Ok(()),
                Ok(Played::Ended) if !self.config.source.ends() => {
                    SourceError::Lost { uri: self.config.source.to_string(), reason: "it ended".into() }
                }
                // Repeating a file is its source's own business, which can do so without a gap.
                Ok(Played::Ended) => return Ok(()),
                Err(lost @ SourceError::Lost { .. }) => lost,
                Err(error) => return Err(error),
            };
            let Next::Retry { after } = progress.reconnect.lost() else { return Err(lost) };
            warn!(stream = %self.config.id, error = %lost, retry_ms = after.as_millis() as u64, "source lost");
            self.stats.reconnecting(lost.to_string());
            if self.halt.sleep(after) {
                return Ok(());
            }
        }
    }

    /// Opens the source and pulls until it has no more.
    fn play(&self, progress: &mut Progress) -> Result<Played, SourceError> {
        lock(&self.stats.timeline).reopened();
        progress.opening = self.stats.opened();
        let mut source = (self.open)(&self.config, &self.clock)?;
        let (mut frames, mut copies) = (0u64, 0u64);
        let mut heard = self.clock.now();
        loop {
            if self.halt.is_set() || self.config.frames_max.is_some_and(|max| progress.frames >= max) {
                return Ok(Played::Enough);
            }
            match source.pull(PULL_MAX)? {
                Pull::Frame(frame) => {
                    heard = self.clock.now();
                    if frames == 0 {
                        info!(stream = %self.config.id, size = %frame.size(), "stream runs");
                        self.stats.running();
                        progress.reconnect.frame_arrived();
                    }
                    frames += 1;
                    progress.frames += 1;
                    let copied = source.copies();
                    self.stats.copied(copied.saturating_sub(copies));
                    copies = copied;
                    if !self.pass_on(frame, progress)? {
                        return Ok(Played::Enough);
                    }
                }
                Pull::Idle => self.check_stall(self.clock.now().since(heard))?,
                Pull::End if frames == 0 && self.config.source.ends() => {
                    let uri = self.config.source.to_string();
                    return Err(SourceError::Broken { uri, frames: 0, reason: "it holds no frames".into() });
                }
                Pull::End => return Ok(Played::Ended),
            }
        }
    }

    /// Counts the frame, makes it straight and queues it; returns whether more are wanted.
    fn pass_on(&self, mut frame: Frame, progress: &mut Progress) -> Result<bool, SourceError> {
        let (sequence, pts) = lock(&self.stats.timeline).place(frame.pts, frame.captured, self.config.source.is_live());
        (frame.sequence, frame.pts) = (sequence, pts);
        self.stats.frame_decoded(frame.captured);
        let interval = self.config.interval.max(1);
        if !sequence.is_multiple_of(interval.into()) {
            self.stats.frame_dropped(Dropped::Interval);
            return Ok(true);
        }
        if let Some(straightener) = &mut progress.straightener {
            frame = straightener.straighten(&frame).map_err(|reason| {
                self.stats.frame_dropped(Dropped::Shutdown);
                SourceError::Open { uri: self.config.source.to_string(), reason }
            })?;
            self.stats.copied(1);
        }
        let wall = self.config.source.is_live().then(|| self.wall_clock.now());
        self.stats.queue_entered();
        let (frame, stream) = (Arc::new(frame), Arc::clone(&self.stats));
        Ok(match self.lane.push(Ticket { frame, stream, opening: progress.opening, interval, wall }) {
            Pushed::Queued => true,
            Pushed::Displaced(oldest) => {
                if self.stats.frames_dropped().queue == 0 {
                    // Said once: later drops are in the statistics.
                    warn!(stream = %self.config.id, "queue full, dropping the oldest frames");
                }
                oldest.lost_at(Dropped::Queue);
                true
            }
            Pushed::Refused(ticket) => {
                ticket.lost_at(Dropped::Shutdown);
                false
            }
        })
    }

    fn check_stall(&self, silent: Duration) -> Result<(), SourceError> {
        // A file that is slow to decode is not stalled; what comes over a wire may be.
        if !self.config.source.is_awaited() || silent < self.config.reconnect.stall {
            return Ok(());
        }
        self.stats.stalled();
        let reason = format!("no frame for {:.1} s", silent.as_secs_f64());
        Err(SourceError::Lost { uri: self.config.source.to_string(), reason })
    }
}

impl Ticket {
    /// The frame left its queue and will not be written.
    pub(crate) fn lost(&self) {
        self.stream.frame_dropped(Dropped::Shutdown);
    }

    /// The frame leaves its queue without having been inferred.
    pub(crate) fn lost_at(&self, at: Dropped) {
        self.stream.queue_left();
        self.stream.frame_dropped(at);
    }
}
