//! The output thread: answers → decoded, tracked, analysed, drawn, written, counted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use revoada_core::{Clock, Detection, Frame, Prediction, StreamId, TrackId};
use revoada_engine::{Backend, Surface};
use thiserror::Error;

use super::analysis::Analysers;
use super::cascade::{self, Cascade};
use super::infer::{Batch, InOrder};
use super::labelling::{Labelling, Seen};
use super::model::{Answer, ModelError, ModelSession};
use super::sessions::Sessions;
use super::shadow::Shadow;
use super::stats::{Dropped, StreamStats};
use super::stream::Ticket;
use super::trackers::Trackers;
use crate::analyse::Analysis;
use crate::config::TrackerConfig;
use crate::draw::Painter;
use crate::http::Hub;
use crate::lock::lock;
use crate::sink::record::EventRecord;
use crate::{FrameResult, FrameTimings, Sink, SinkError, SinkReport};

/// A stream's end, and time that passes, is noticed with the next batch or, where none comes, after so long.
const ENDS_NOTICED: Duration = Duration::from_millis(500);

/// Why the output thread ended early.
#[derive(Debug, Error)]
pub(crate) enum OutputError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

pub(crate) struct Output {
    pub(crate) batches: InOrder,
    /// Where sessions go back to.
    pub(crate) sessions: Returning,
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) labels: Arc<[String]>,
    pub(crate) cascade: Cascade,
    pub(crate) trackers: Trackers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) controls: Arc<OutputControls>,
    /// Hears of events.
    pub(crate) hub: Option<Arc<Hub>>,
}

/// What is needed of the first model behind its answers. The model itself may be unloaded meanwhile: its memory is its
/// sessions' alone.
struct First {
    surfaces: Vec<Surface>,
    backend: Arc<dyn Backend>,
    score_min: f32,
    /// Of its labels; classes behind them are other models'.
    classes: usize,
}

impl First {
    fn of(session: &mut ModelSession) -> Self {
        let surfaces = session.take_surfaces();
        let model = session.model();
        let classes = model.labels().len().max(1);
        Self { surfaces, backend: Arc::clone(model.backend()), score_min: model.score_min(), classes }
    }
}

/// The way back of sessions. Where it ends, nobody reads answers any more.
pub(crate) struct Returning(pub(crate) Arc<Sessions>);

impl Drop for Returning {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Of which frames a sink shows the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shown {
    #[default]
    None,
    WithEvents,
    All,
}

/// What other threads ask of the output thread.
pub(crate) struct OutputControls {
    painter: Mutex<Painter>,
    tracker: Mutex<Option<TrackerConfig>>,
    /// `None` where nothing is analysed.
    analysers: Mutex<Option<Analysers>>,
    /// Drawing for nobody is left out.
    shown: Shown,
    snapshots: Snapshots,
    pub(crate) labelling: Labelling,
    pub(crate) shadow: Arc<Shadow>,
    /// Streams of which no frame will come any more, but for those under way.
    ended: Mutex<Vec<Arc<StreamStats>>>,
    /// Leave outputs as they are.
    abandoned: AtomicBool,
    /// Something failed: outputs into which nothing was written are not wanted.
    failed: AtomicBool,
}

impl OutputControls {
    pub(crate) fn new(
        painter: Painter,
        tracker: Option<TrackerConfig>,
        analysers: Option<Analysers>,
        shown: Shown,
    ) -> Self {
        Self {
            painter: Mutex::new(painter),
            tracker: Mutex::new(tracker),
            analysers: Mutex::new(analysers),
            shown,
            snapshots: Snapshots::default(),
            labelling: Labelling::default(),
            shadow: Arc::default(),
            ended: Mutex::default(),
            abandoned: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Draws otherwise from the next frame on.
    pub(crate) fn repaint(&self, painter: Painter) {
        *lock(&self.painter) = painter;
    }

    /// Tracks otherwise from the next frame on; all tracks begin anew.
    pub(crate) fn track(&self, tracker: Option<TrackerConfig>) {
        *lock(&self.tracker) = tracker;
    }

    /// Analyses by other rules from the next frame on.
    pub(crate) fn analyse(&self, analysers: Option<Analysers>) {
        let mut held = lock(&self.analysers);
        let before = std::mem::replace(&mut *held, analysers);
        if let (Some(analysers), Some(before)) = (&mut *held, before) {
            analysers.follow(before);
        }
    }

    /// Whether objects are followed from frame to frame.
    pub(crate) fn tracks(&self) -> bool {
        lock(&self.tracker).is_some()
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Completes what is the stream's own once its last frame is written.
    pub(crate) fn stream_ended(&self, stream: Arc<StreamStats>) {
        lock(&self.ended).push(stream);
    }

    /// A stream that comes again goes on where it was, unless its end was noticed meanwhile.
    pub(crate) fn stream_begins(&self, id: &StreamId) {
        lock(&self.ended).retain(|ended| ended.id != *id);
    }

    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }
}

impl Output {
    /// Runs until there are no more batches, then completes every sink. After an error in one sink
    /// the others are completed all the same.
    pub(crate) fn run(mut self) -> Result<Vec<PathBuf>, OutputError> {
        let mut frames = 0u64;
        let written = self.write_all(&mut frames);
        if self.controls.abandoned.load(Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        // The sink that failed is gone; what is left can be completed.
        let unwanted = frames == 0 && (written.is_err() || self.controls.failed.load(Ordering::SeqCst));
        let sinks = if unwanted { Vec::new() } else { std::mem::take(&mut self.sinks) };
        let mut files = Vec::new();
        let mut error = written.err();
        for mut sink in sinks {
            match sink.finish() {
                Ok(SinkReport { files: finished }) => files.extend(finished),
                Err(failed) => {
                    // The first error is what everything else followed from.
                    if let Some(first) = &error {
                        let failed = &failed as &dyn std::error::Error;
                        tracing::error!(error = failed, after = %first, "another output failed");
                    }
                    error.get_or_insert(failed.into());
                }
            }
        }
        error.map_or(Ok(files), Err)
    }

    fn write_all(&mut self, frames: &mut u64) -> Result<(), OutputError> {
        loop {
            self.end_streams()?;
            let now = self.clock.now();
            self.each_sink(|sink| sink.idle(now))?;
            let Batch { mut session, tickets, taken, .. } = match self.batches.next(ENDS_NOTICED) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let answers = session.answers(&*self.clock);
            let first = First::of(&mut session);
            self.sessions.0.give_back(session);
            let mut tickets = tickets.into_iter();
            let read = answers.and_then(|answers| self.read_on(tickets.as_slice(), answers, &first));
            drop(first);
            let mut write = |frames_read: Vec<(Prediction, FrameTimings)>| -> Result<(), OutputError> {
                for ((prediction, timings), ticket) in frames_read.into_iter().zip(&mut tickets) {
                    if self.controls.abandoned.load(Ordering::SeqCst) {
                        ticket.lost();
                        break;
                    }
                    let queued = taken.since(ticket.frame.captured);
                    self.write(ticket, prediction, FrameTimings { queued, ..timings })?;
                    *frames += 1;
                }
                Ok(())
            };
            let written = read.map_err(OutputError::from).and_then(&mut write);
            tickets.for_each(|ticket| ticket.lost());
            written?;
        }
    }

    /// What the further models say of a batch, with the objects followed into each of its frames.
    fn read_on(
        &mut self,
        tickets: &[Ticket],
        answers: Vec<Answer>,
        first: &First,
    ) -> Result<Vec<(Prediction, FrameTimings)>, ModelError> {
        let Self { cascade, trackers, clock, controls, .. } = self;
        for (ticket, answer) in tickets.iter().zip(&answers) {
            controls.shadow.offer(&ticket.frame, &answer.prediction);
        }
        let (mut predictions, mut timings) = (Vec::with_capacity(answers.len()), Vec::with_capacity(answers.len()));
        for Answer { prediction, staging, inference, decoding } in answers {
            predictions.push(prediction);
            timings.push(FrameTimings { staging, inference, decoding, ..FrameTimings::default() });
        }
        let (First { surfaces, backend, .. }, begun) = (first, clock.now());
        cascade.read_frames(&mut shown(tickets, surfaces, &mut predictions), backend, &**clock)?;
        let tracking = clock.now();
        trackers.configure(*lock(&controls.tracker));
        let weak = |found: &Detection| found.score < first.score_min && (found.class as usize) < first.classes;
        for ((ticket, prediction), timings) in tickets.iter().zip(&mut predictions).zip(&mut timings) {
            let started = clock.now();
            trackers.update(ticket, &mut prediction.detections, weak);
            timings.tracking = clock.now().since(started);
        }
        let tracked = clock.now();
        cascade.read_objects(&mut shown(tickets, surfaces, &mut predictions), backend, &**clock)?;
        let secondary = tracking.since(begun) + clock.now().since(tracked);
        timings.iter_mut().for_each(|timings| timings.secondary = secondary);
        Ok(predictions.into_iter().zip(timings).collect())
    }

    fn end_streams(&mut self) -> Result<(), OutputError> {
        let ended: Vec<_> =
            lock(&self.controls.ended).extract_if(.., |stream| stream.frames_under_way() == 0).collect();
        for stream in &ended {
            self.trackers.end_stream(&stream.id);
            self.cascade.end_stream(&stream.id);
            self.controls.labelling.end_stream(&stream.id);
        }
        if let Some(analysers) = &mut *lock(&self.controls.analysers) {
            ended.iter().for_each(|stream| analysers.end_stream(&stream.id));
        }
        ended.iter().try_for_each(|stream| self.each_sink(|sink| sink.end_stream(&stream.id)))
    }

    /// A sink that fails is dropped, and leaves nothing behind.
    fn each_sink(&mut self, mut act: impl FnMut(&mut dyn Sink) -> Result<(), SinkError>) -> Result<(), OutputError> {
        for index in 0..self.sinks.len() {
            if let Err(error) = act(&mut *self.sinks[index]) {
                drop(self.sinks.remove(index));
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn write(&mut self, ticket: Ticket, prediction: Prediction, timings: FrameTimings) -> Result<(), OutputError> {
        let Ticket { frame, stream, wall, opening, .. } = ticket;
        let analysis = self.controls.analysis(&frame, &prediction);
        let seen = Seen { frame: &frame, prediction: &prediction, opening, wall };
        self.controls.labelling.offer(seen, &self.controls.painter);
        stream.analysed(analysis.as_ref());
        let started = self.clock.now();
        // Decided once: a snapshot that is asked for meanwhile gets the next frame, so that no
        // picture leaves without what is to be hidden in it.
        let is_shown = match self.controls.shown {
            Shown::None => false,
            Shown::WithEvents => analysis.as_ref().is_some_and(|analysis| !analysis.events.is_empty()),
            Shown::All => true,
        };
        let shown = is_shown || self.controls.snapshots.wants(&frame.stream);
        let drawn = if shown { self.controls.draw(&frame, &prediction, analysis.as_deref()) } else { None };
        stream.copied(u64::from(drawn.is_some()));
        let now = self.clock.now();
        let timings = FrameTimings { drawing: now.since(started), total: now.since(frame.captured), ..timings };
        let found = prediction.detections.len();
        let labels = Arc::clone(&self.labels);
        let result = FrameResult { frame, wall, drawn, prediction, analysis, labels, timings };
        if shown {
            self.controls.snapshots.offer(&result);
        }
        self.each_sink(|sink| sink.write(&result)).inspect_err(|_| stream.frame_dropped(Dropped::Shutdown))?;
        if let Some(hub) = &self.hub {
            hub.tell(EventRecord::of(&result));
        }
        let finished = self.clock.now();
        stream.frame_written(&timings, finished.since(now), found, finished);
        Ok(())
    }
}

/// The frames of a batch as the further models take them.
fn shown<'a>(
    tickets: &'a [Ticket],
    surfaces: &'a [Surface],
    predictions: &'a mut [Prediction],
) -> Vec<cascade::Shown<'a>> {
    let pictures = tickets.iter().zip(surfaces);
    let shown = pictures.zip(predictions);
    shown.map(|((ticket, surface), prediction)| cascade::Shown { frame: &ticket.frame, surface, prediction }).collect()
}

impl OutputControls {
    fn analysis(&self, frame: &Frame, prediction: &Prediction) -> Option<Arc<Analysis>> {
        let mut analysers = lock(&self.analysers);
        analysers.as_mut()?.update(frame, &prediction.detections).map(Arc::new)
    }

    fn draw(&self, frame: &Frame, prediction: &Prediction, analysis: Option<&Analysis>) -> Option<Arc<Frame>> {
        let mut painter = lock(&self.painter);
        let draws = painter.draws_on(prediction) || analysis.is_some_and(|_| painter.draws_rules());
        draws.then(|| Arc::new(painter.paint_analysed(frame, prediction, analysis)))
    }
}

/// A picture of a stream, and what is followed in it.
pub(crate) struct Snapshot {
    pub(crate) frame: Arc<Frame>,
    /// Each track, and what its object is called.
    pub(crate) tracks: Vec<(TrackId, Option<String>)>,
}

/// Requests for the next picture of a stream.
#[derive(Default)]
pub(crate) struct Snapshots {
    waiting: Mutex<Vec<(StreamId, SyncSender<Snapshot>)>>,
    any: AtomicBool,
}

impl Snapshot {
    fn of(result: &FrameResult) -> Self {
        let label = |found: &Detection| result.labels.get(found.class as usize).cloned();
        let tracks = result.prediction.detections.iter().filter_map(|found| Some((found.track?, label(found))));
        Self { frame: Arc::clone(result.picture()), tracks: tracks.collect() }
    }
}

/// The control socket has fewer clients; beyond it, the oldest request is forgotten.
const SNAPSHOTS_MAX: usize = 16;

impl Snapshots {
    /// The next picture of `stream` goes to `reply`.
    pub(crate) fn request(&self, stream: StreamId, reply: SyncSender<Snapshot>) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= SNAPSHOTS_MAX {
            waiting.remove(0);
        }
        waiting.push((stream, reply));
        self.any.store(true, Ordering::SeqCst);
    }

    fn wants(&self, stream: &StreamId) -> bool {
        self.any.load(Ordering::Relaxed) && lock(&self.waiting).iter().any(|(wanted, _)| wanted == stream)
    }

    fn offer(&self, result: &FrameResult) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = lock(&self.waiting);
        waiting.retain(|(stream, reply)| {
            let wanted = *stream == result.frame.stream;
            // Whoever asked may have stopped waiting.
            if wanted {
                drop(reply.try_send(Snapshot::of(result)));
            }
            !wanted
        });
        self.any.store(!waiting.is_empty(), Ordering::SeqCst);
    }
}
