//! What watches over the threads of a run: starts and ends streams, and goes through shutdown.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use revoada_core::{StreamId, Timestamp};
use serde_json::{Map, Value};
use tracing::{error, info, warn};

use super::analysis::Analysers;
use super::cascade::Cascade;
use super::commands::Commands;
use super::infer::{InOrder, Infer};
use super::output::{Output, OutputControls, OutputError, Returning, Shown};
use super::perf::PerfLines;
use super::queue::{Lanes, Turns, WhenFull};
use super::rebuild::Rebuilding;
use super::sessions::{self, Sessions};
use super::stats::{Dropped, RunStats};
use super::stop::{Halt, StopFlag, StopLevel};
use super::stream::{Stream, Ticket};
use super::swap::Swapper;
use super::trackers::Trackers;
use super::{ModelError, Parts, RunError, RunSummary, StreamError, reload};
use crate::config::{HttpConfig, PipelineConfig, SinkConfig, StreamConfig, TilesConfig};
use crate::control;
use crate::draw::Painter;
use crate::http::{self, Hub, RunStatus, StreamOptions};
use crate::sink::{Deliveries, Recordings, SinkContext};

/// How long frames that were already taken may need after a stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long threads may need to notice that they are abandoned.
const ABANDON_MAX: Duration = Duration::from_secs(2);
/// How long a source may need to end: one that is just being opened notices when that is over.
const SOURCE_END_MAX: Duration = Duration::from_secs(5);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Every thread reports its end once and every control client waits for its answer, so that this
/// is never reached; a report beyond it would wait.
const EVENTS_MAX: usize = crate::config::STREAMS_MAX + 64;

/// What becomes another configuration.
pub(super) enum Change {
    /// The file is read again; streams that joined otherwise are not in it.
    Reload,
    AddStream(Map<String, Value>),
    RemoveStream(String),
}

/// What threads tell the supervisor.
pub(super) enum Event {
    StreamEnded {
        id: StreamId,
        result: Result<(), StreamError>,
    },
    InferEnded(Result<(), RunError>),
    OutputEnded(Result<Vec<PathBuf>, RunError>),
    /// The stop flag was raised.
    Stop,
    /// From the control socket.
    Drain,
    Change {
        change: Change,
        reply: SyncSender<Result<Value, String>>,
    },
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Streams are halted; what is queued at the deadline is given up.
    Draining {
        deadline: Timestamp,
    },
    /// No frame will come any more; the sinks are being completed.
    Finishing,
    Abandoned {
        deadline: Timestamp,
    },
}

/// A stream's thread and what ends it.
struct Running {
    halt: Arc<Halt>,
    close: Box<dyn Fn() + Send>,
    /// The key of its lane.
    lane: u64,
    thread: JoinHandle<()>,
    /// Starts when this one has ended: the same stream, configured anew.
    successor: Option<StreamConfig>,
}

pub(super) struct Supervisor {
    config: PipelineConfig,
    parts: Parts,
    stop: StopFlag,
    labels: Arc<[String]>,
    swapper: Arc<Swapper>,
    rebuilding: Option<Rebuilding>,
    stats: Arc<RunStats>,
    lanes: Arc<Lanes<Ticket>>,
    controls: Arc<OutputControls>,
    recordings: Recordings,
    hub: Option<Arc<Hub>>,
    events: Receiver<Event>,
    sender: SyncSender<Event>,
    streams: BTreeMap<StreamId, Running>,
    phase: Phase,
    infer: Option<JoinHandle<()>>,
    output: Option<JoinHandle<()>>,
    /// The first error of inference or output.
    error: Option<RunError>,
    /// The first stream that failed.
    failed: Option<(StreamId, StreamError)>,
    files: Vec<PathBuf>,
    /// Held for their `Drop`, which ends their threads.
    http: Option<http::Server>,
    control: Option<control::Server>,
}

impl Supervisor {
    /// Loads the model, opens every output, and starts all threads; nothing is left behind where
    /// one of these fails.
    pub(super) fn start(config: PipelineConfig, parts: Parts, stop: &StopFlag) -> Result<Self, RunError> {
        let model = parts.loader.load(&config.model, config.batch.frames_max)?;
        let frames_max = model.frames_max(config.batch.frames_max);
        if frames_max < config.batch.frames_max {
            warn!(
                asked = config.batch.frames_max,
                frames_max, "the model's batch is fixed; batches are smaller than asked"
            );
        }
        let cascade = Cascade::load(&parts.loader, &config.secondaries, &model)?;
        let labels = Arc::clone(cascade.labels());
        let painter = Painter::new(&config.draw, &labels)?;
        let analysers = config.analytics.clone().map(|rules| Analysers::new(rules, Arc::clone(&labels)));
        let analysers = analysers.transpose()?;
        let hub = config.http.map(|_| Hub::new());
        let context = SinkContext {
            streams: config.streams.iter().map(|stream| stream.id.clone()).collect(),
            model: model.name().to_owned(),
            labels: Arc::clone(&labels),
            hub: hub.clone(),
            deliveries: Deliveries::default(),
            deterministic: config.deterministic,
            recordings: Recordings::default(),
            wall_clock: Arc::clone(&parts.wall_clock),
        };
        let sinks = config.sinks.iter().map(|sink| (parts.open_sink)(sink, &context)).collect::<Result<Vec<_>, _>>()?;

        let (sender, events) = sync_channel(EVENTS_MAX);
        let sessions = Sessions::open(&model, frames_max)?;
        let (batches_in, batches) = sync_channel(sessions::count(&model));
        let lanes = Lanes::new(if config.deterministic { Turns::Strict } else { Turns::Ready });
        let shown = config.sinks.iter().map(shows).max().unwrap_or_default();
        if config.tracker.is_some() && !model.decoder().finds_boxes() {
            warn!(model = model.name(), "the model finds no boxes, so nothing will be tracked");
        }
        let controls = Arc::new(OutputControls::new(painter, config.tracker, analysers, shown));
        let shadow = Arc::clone(&controls.shadow);
        let SinkContext { deliveries, recordings, .. } = context;
        let (decoder, secondaries) = (Arc::clone(model.decoder()), cascade.stats().to_vec());
        let rows_max = config.batch.frames_max * config.model.tiles.as_ref().map_or(1, TilesConfig::count);
        let stats = Arc::new(RunStats::new(rows_max, decoder, secondaries, shadow, deliveries, recordings.clone()));
        let infer = Infer {
            lanes: Arc::clone(&lanes),
            batch: config.batch,
            clock: Arc::clone(&parts.clock),
            stats: Arc::clone(&stats),
            controls: Arc::clone(&controls),
            sessions: Arc::clone(&sessions),
            concurrent_max: model.concurrent_max(),
            turn: Mutex::default(),
            batches: batches_in,
        };
        let output = Output {
            batches: InOrder::new(batches),
            sessions: Returning(Arc::clone(&sessions)),
            sinks,
            labels: Arc::clone(&labels),
            cascade,
            trackers: Trackers::default(),
            clock: Arc::clone(&parts.clock),
            controls: Arc::clone(&controls),
            hub: hub.clone(),
        };
        let swapper = Arc::new(Swapper {
            loader: Arc::clone(&parts.loader),
            sessions,
            stats: Arc::clone(&stats),
            clock: Arc::clone(&parts.clock),
            frames: config.batch.frames_max,
            config: Mutex::new(config.model.clone()),
        });
        let mut supervisor = Self {
            stop: stop.clone(),
            labels,
            swapper,
            rebuilding: None,
            stats,
            lanes,
            controls,
            hub,
            events,
            sender,
            streams: BTreeMap::new(),
            phase: Phase::Running,
            infer: None,
            output: None,
            recordings,
            error: None,
            failed: None,
            files: Vec::new(),
            http: None,
            control: None,
            config,
            parts,
        };
        supervisor.serve()?;
        let (rebuild, swapper) = (supervisor.parts.rebuild.take(), Arc::clone(&supervisor.swapper));
        supervisor.rebuilding = Rebuilding::start(rebuild, &supervisor.config.model, &model, swapper)?;
        // It is the sessions' from here on, so that it is gone with them.
        drop(model);
        if let Err(error) = supervisor.spawn_all(infer, output) {
            // What was started must not run on without a supervisor.
            supervisor.controls.fail();
            supervisor.halt_streams();
            supervisor.give_up_queued();
            return Err(error);
        }
        let waker = supervisor.sender.clone();
        // A full channel wakes the supervisor as well.
        stop.watch(move |_| drop(waker.try_send(Event::Stop)));
        Ok(supervisor)
    }

    /// Opens the HTTP address and the control socket, where they are asked for.
    fn serve(&mut self) -> Result<(), RunError> {
        if let (Some(HttpConfig { address, control }), Some(hub)) = (self.config.http, &self.hub) {
            let metrics = crate::metrics::Metrics::new(Arc::clone(&self.stats));
            hub.set_metrics(Arc::new(move || metrics.text()));
            let (stats, clock) = (Arc::clone(&self.stats), Arc::clone(&self.parts.clock));
            hub.set_streams(Arc::new(move || {
                stats.streams().iter().map(|stream| stream.status(clock.now())).collect()
            }));
            let (stats, clock) = (Arc::clone(&self.stats), Arc::clone(&self.parts.clock));
            // Who looks on does not keep the model in memory.
            let sessions = Arc::downgrade(&self.swapper.sessions);
            hub.set_run(Arc::new(move || {
                let names = sessions.upgrade().and_then(|sessions| sessions.names());
                let (model, backend) = names.map(|(model, backend)| (model, backend.to_owned())).unzip();
                RunStatus { model, backend, ..stats.status(clock.now()) }
            }));
            if control {
                let commands = self.commands();
                hub.set_control(Arc::new(move |command| commands.answer(command)));
            }
            let server = http::Server::bind(address, Arc::clone(hub))?;
            self.http = Some(server);
        }
        if let Some(path) = &self.config.control {
            let handler = self.commands();
            self.control = Some(control::Server::bind(path, Box::new(move |command| handler.answer(command)))?);
            info!(socket = %path.display(), "listening for control");
        }
        Ok(())
    }

    fn commands(&self) -> Commands {
        Commands {
            stats: Arc::clone(&self.stats),
            controls: Arc::clone(&self.controls),
            recordings: self.recordings.clone(),
            swapper: Arc::clone(&self.swapper),
            events: self.sender.clone(),
        }
    }

    fn spawn_all(&mut self, infer: Infer, output: Output) -> Result<(), RunError> {
        // Every lane is there before the first batch is formed.
        self.config.streams.clone().into_iter().try_for_each(|stream| self.spawn_stream(stream, None))?;
        self.spawn_workers(infer, output)
    }

    fn spawn_workers(&mut self, infer: Infer, output: Output) -> Result<(), RunError> {
        let report = |result: Option<Result<(), ModelError>>| {
            Event::InferEnded(match result {
                Some(result) => result.map_err(RunError::from),
                None => Err(RunError::Panicked { name: "infer".into() }),
            })
        };
        self.infer = Some(spawn("infer", &self.sender, move || infer.run(), report)?);
        let report = |result: Option<Result<Vec<PathBuf>, OutputError>>| {
            Event::OutputEnded(match result {
                Some(Ok(files)) => Ok(files),
                Some(Err(OutputError::Model(error))) => Err(error.into()),
                Some(Err(OutputError::Sink(error))) => Err(error.into()),
                None => Err(RunError::Panicked { name: "output".into() }),
            })
        };
        self.output = Some(spawn("output", &self.sender, move || output.run(), report)?);
        Ok(())
    }

    /// Starts a stream, its frames behind those that the lane `after` still holds.
    fn spawn_stream(&mut self, config: StreamConfig, after: Option<u64>) -> Result<(), RunError> {
        let id = config.id.clone();
        self.controls.stream_begins(&id);
        let when_full = if config.source.is_live() { WhenFull::DropOldest } else { WhenFull::Wait };
        let lane = self.lanes.open(config.queue_frames_max, when_full, after);
        let (close, lane_key) = (Box::new(lane.closer()), lane.key());
        let halt = Arc::new(Halt::default());
        let stream = Stream {
            open: Arc::clone(&self.parts.open_source),
            lane,
            stats: self.stats.stream(&id),
            halt: Arc::clone(&halt),
            clock: Arc::clone(&self.parts.clock),
            wall_clock: Arc::clone(&self.parts.wall_clock),
            config,
        };
        let reported = id.clone();
        let report = move |result: Option<_>| {
            let result = match result {
                Some(result) => Result::map_err(result, StreamError::from),
                None => Err(StreamError::Panicked),
            };
            Event::StreamEnded { id: reported, result }
        };
        let thread = spawn(id.as_str(), &self.sender, move || stream.run(), report)?;
        self.streams.insert(id, Running { halt, close, lane: lane_key, thread, successor: None });
        Ok(())
    }

    /// Until everything has ended.
    pub(super) fn run(mut self) -> Result<RunSummary, RunError> {
        let mut ticks = Ticks::new(self.config.perf_interval, self.parts.progress.is_some(), self.parts.clock.now());
        while self.infer.is_some() || self.output.is_some() {
            let now = self.parts.clock.now();
            let deadline = match self.phase {
                Phase::Draining { deadline } | Phase::Abandoned { deadline } => Some(deadline),
                Phase::Running | Phase::Finishing => None,
            };
            // Without a deadline or a tick there is nothing to wake up for.
            let next = [deadline, ticks.next()].into_iter().flatten().min();
            let wait = next.map_or(Duration::from_secs(3600), |next| next.since(now));
            match self.events.recv_timeout(wait) {
                Ok(event) => self.handle(event, &mut ticks),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the supervisor holds a sender itself"),
            }
            self.follow_stop_flag();
            let now = self.parts.clock.now();
            match self.phase {
                Phase::Draining { deadline } if now >= deadline => {
                    warn!(deadline_s = DRAIN_MAX.as_secs(), "not drained in time, giving up queued frames");
                    self.give_up_queued();
                    self.phase = Phase::Finishing;
                }
                Phase::Abandoned { deadline } if now >= deadline => return Err(RunError::Abandoned),
                _ => {}
            }
            self.tick(&mut ticks, now);
        }
        self.conclude()
    }

    fn handle(&mut self, event: Event, ticks: &mut Ticks) {
        match event {
            Event::Stop => {}
            Event::Drain => self.drain("control socket"),
            Event::Change { change, reply } => {
                let result = self.change(&change, ticks);
                // A client that hung up meanwhile does not need to know.
                drop(reply.try_send(result));
            }
            Event::StreamEnded { id, result } => self.stream_ended(id, result),
            Event::InferEnded(result) => {
                self.infer = join(self.infer.take());
                self.worker_ended(result);
            }
            Event::OutputEnded(result) => {
                self.output = join(self.output.take());
                let result = result.map(|files| self.files = files);
                self.worker_ended(result);
            }
        }
    }

    /// Inference or output ended. After an error nothing more can be done with frames.
    fn worker_ended(&mut self, result: Result<(), RunError>) {
        if let Err(error) = result {
            if self.error.is_some() {
                error!(error = &error as &dyn std::error::Error, "failed as well");
            }
            self.controls.fail();
            self.error.get_or_insert(error);
        }
        if self.phase == Phase::Running || matches!(self.phase, Phase::Draining { .. }) {
            self.halt_streams();
            self.give_up_queued();
            self.phase = Phase::Finishing;
        }
    }

    fn stream_ended(&mut self, id: StreamId, result: Result<(), StreamError>) {
        let Some(ended) = self.streams.remove(&id) else { return };
        drop(ended.thread.join());
        let stats = self.stats.stream(&id);
        match result {
            Ok(()) => {
                info!(stream = %id, frames = stats.frames_in(), "stream ended");
                stats.ended();
            }
            Err(error) => {
                stats.failed(error.to_string());
                let frames_out = self.stats.streams().iter().map(|stream| stream.frames_out()).sum::<u64>();
                let first = self.failed.is_none();
                // The only one that nothing came of is what the run ends with, and told by whoever started it.
                if !(first && self.streams.is_empty() && frames_out == 0) {
                    error!(stream = %id, %error, "stream failed");
                }
                self.failed.get_or_insert((id, error));
            }
        }
        match ended.successor.filter(|_| self.phase == Phase::Running) {
            None => self.controls.stream_ended(stats),
            Some(successor) => {
                if let Err(error) = self.spawn_stream(successor, Some(ended.lane)) {
                    self.error.get_or_insert(error);
                }
            }
        }
        if self.streams.is_empty() {
            if self.failed.is_some() {
                self.controls.fail();
            }
            self.lanes.finish();
            if self.phase == Phase::Running {
                self.phase = Phase::Finishing;
            }
        }
    }

    fn follow_stop_flag(&mut self) {
        match self.stop.level() {
            StopLevel::Run => {}
            StopLevel::Drain => self.drain("signal"),
            StopLevel::Abandon => self.abandon(),
        }
    }

    fn drain(&mut self, asked_by: &str) {
        if self.phase == Phase::Running {
            info!(asked_by, "draining");
            self.halt_streams();
            self.lanes.close_all();
            self.lanes.finish();
            self.phase = Phase::Draining { deadline: self.parts.clock.now() + DRAIN_MAX };
        }
    }

    fn abandon(&mut self) {
        if !matches!(self.phase, Phase::Abandoned { .. }) {
            warn!("abandoning: outputs are not completed");
            self.controls.abandon();
            self.halt_streams();
            self.give_up_queued();
            self.phase = Phase::Abandoned { deadline: self.parts.clock.now() + ABANDON_MAX };
        }
    }

    fn halt_streams(&self) {
        for stream in self.streams.values() {
            stream.halt.set();
            (stream.close)();
        }
    }

    fn give_up_queued(&self) {
        for ticket in self.lanes.discard() {
            ticket.lost_at(Dropped::Shutdown);
        }
    }

    fn change(&mut self, change: &Change, ticks: &mut Ticks) -> Result<Value, String> {
        if self.phase != Phase::Running {
            return Err("the pipeline is ending".into());
        }
        let config = match change {
            Change::Reload => self.parts.reread.as_ref().ok_or("the pipeline was not started from a file")?()?,
            Change::AddStream(stream) => self.config.with_stream(stream).map_err(|problems| problems.to_string())?,
            Change::RemoveStream(id) => {
                if self.config.streams.iter().all(|stream| stream.id.as_str() != id) {
                    return Err(format!("there is no stream `{id}`"));
                }
                self.config.without_stream(id).map_err(|problems| format!("cannot remove stream `{id}`: {problems}"))?
            }
        };
        let changes = reload::changes(&self.config, &config)?;
        let painter = changes.draw.as_ref().map(|draw| Painter::new(draw, &self.labels));
        let painter = painter.transpose().map_err(|error| error.to_string())?;
        let analysers = changes
            .analytics
            .clone()
            .map(|rules| rules.map(|rules| Analysers::new(rules, Arc::clone(&self.labels))).transpose());
        let analysers = analysers.transpose().map_err(|error| error.to_string())?;
        if let Some(painter) = painter {
            self.controls.repaint(painter);
        }
        if let Some(tracker) = changes.tracker {
            self.controls.track(tracker);
        }
        if let Some(analysers) = analysers {
            self.controls.analyse(analysers);
        }
        if let Some(interval) = changes.perf_interval {
            ticks.set_perf(interval, self.parts.clock.now());
        }
        for id in &changes.removed {
            if let Some(running) = self.streams.get_mut(id) {
                running.successor = None;
                running.halt.set();
                (running.close)();
            }
            if let Some(hub) = &self.hub {
                hub.close_stream(id);
            }
        }
        for stream in changes.changed.iter().chain(&changes.added) {
            self.preview(&stream.id);
            match self.streams.get_mut(&stream.id) {
                Some(running) => {
                    running.successor = Some(stream.clone());
                    running.halt.set();
                    (running.close)();
                }
                // Added, or changed after it had ended.
                None => self.spawn_stream(stream.clone(), None).map_err(|error| error.to_string())?,
            }
        }
        self.config = config;
        let report = changes.report();
        info!(?report, "configuration changed");
        serde_json::to_value(report).map_err(|error| error.to_string())
    }

    /// Shows a stream that a preview sink did not know of when it was opened.
    fn preview(&self, id: &StreamId) {
        let preview = self.config.sinks.iter().find_map(|sink| match sink {
            SinkConfig::Preview { quality, fps_max } => Some(StreamOptions { quality: *quality, fps_max: *fps_max }),
            _ => None,
        });
        if let (Some(hub), Some(options)) = (&self.hub, preview) {
            hub.open_stream(id, options);
        }
    }

    fn tick(&mut self, ticks: &mut Ticks, now: Timestamp) {
        if ticks.progress_due(now)
            && let Some(progress) = &mut self.parts.progress
        {
            progress(&self.stats.summary(Vec::new()));
        }
        if let Some(text) = ticks.perf_due(&self.stats, now)
            && let Err(error) = self.parts.perf.write_all(text.as_bytes()).and_then(|()| self.parts.perf.flush())
        {
            // Whoever read the lines has gone; the pipeline goes on.
            warn!(%error, "cannot print PERF lines");
            ticks.set_perf(None, now);
        }
    }

    fn conclude(mut self) -> Result<RunSummary, RunError> {
        self.wait_for_streams();
        // Questions that nobody will answer any more fail at once instead of waiting for it …
        self.events = sync_channel(0).1;
        // … so that these can end their threads, and with them the last questions about this run.
        self.control = None;
        self.http = None;
        if matches!(self.phase, Phase::Abandoned { .. }) {
            return Err(RunError::Abandoned);
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let summary = self.stats.summary(std::mem::take(&mut self.files));
        if summary.non_finite > 0 {
            warn!(
                non_finite = summary.non_finite,
                "the model answered NaN or infinity; those are not among the results"
            );
        }
        match self.failed.take() {
            Some((id, source)) if summary.frames_out == 0 => Err(RunError::Stream { id, source }),
            _ => Ok(summary),
        }
    }

    /// Joins the streams that were still ending; a source that hangs is left behind.
    fn wait_for_streams(&mut self) {
        let deadline = self.parts.clock.now() + SOURCE_END_MAX;
        while !self.streams.is_empty() {
            let now = self.parts.clock.now();
            match self.events.recv_timeout(deadline.since(now)) {
                Ok(Event::StreamEnded { id, result }) => self.stream_ended(id, result),
                Ok(_) if now < deadline => {}
                _ => break,
            }
        }
        for id in self.streams.keys() {
            warn!(stream = %id, "source does not end, leaving it behind");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(rebuilding) = self.rebuilding.take() {
            rebuilding.end();
        }
    }
}

/// Of which frames a sink shows the picture.
fn shows(sink: &SinkConfig) -> Shown {
    let snapshots = match sink {
        SinkConfig::Video { .. }
        | SinkConfig::Images { .. }
        | SinkConfig::Recording(_)
        | SinkConfig::Rtsp { .. }
        | SinkConfig::Preview { .. } => return Shown::All,
        SinkConfig::Events { snapshots, .. } => snapshots.as_ref(),
        SinkConfig::Mqtt(config) => config.sends.snapshots(),
        SinkConfig::Webhook(config) => config.sends.snapshots(),
        SinkConfig::JsonLines { .. }
        | SinkConfig::Csv { .. }
        | SinkConfig::Kitti { .. }
        | SinkConfig::Messages { .. }
        | SinkConfig::None => return Shown::None,
    };
    if snapshots.is_some() { Shown::WithEvents } else { Shown::None }
}

/// Starts a named thread that reports its end, be it a panic (`None`).
fn spawn<T: 'static>(
    name: &str,
    events: &SyncSender<Event>,
    work: impl FnOnce() -> T + Send + 'static,
    report: impl FnOnce(Option<T>) -> Event + Send + 'static,
) -> Result<JoinHandle<()>, RunError> {
    let events = events.clone();
    let body = move || {
        // What the thread owned is dropped with it, and nothing else sees it half changed.
        let result = catch_unwind(AssertUnwindSafe(work)).ok();
        // The supervisor is gone only where it was abandoned.
        drop(events.send(report(result)));
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|source| RunError::Thread { name: name.to_owned(), source })
}

/// Joins a thread that has reported its end.
fn join(thread: Option<JoinHandle<()>>) -> Option<JoinHandle<()>> {
    if let Some(thread) = thread {
        // Panics were caught and reported inside.
        drop(thread.join());
    }
    None
}

/// What the supervisor does by the clock.
struct Ticks {
    perf: Option<(Duration, Timestamp, PerfLines)>,
    progress: Option<Timestamp>,
}

impl Ticks {
    fn new(perf_interval: Option<Duration>, progress: bool, now: Timestamp) -> Self {
        let mut ticks = Self { perf: None, progress: progress.then(|| now + PROGRESS_INTERVAL) };
        ticks.set_perf(perf_interval, now);
        ticks
    }

    fn set_perf(&mut self, interval: Option<Duration>, now: Timestamp) {
        self.perf = interval.map(|interval| (interval, now + interval, PerfLines::new(now)));
    }

    fn next(&self) -> Option<Timestamp> {
        [self.perf.as_ref().map(|(_, due, _)| *due), self.progress].into_iter().flatten().min()
    }

    fn progress_due(&mut self, now: Timestamp) -> bool {
        let due = self.progress.is_some_and(|due| now >= due);
        if due {
            self.progress = Some(now + PROGRESS_INTERVAL);
        }
        due
    }

    /// The text to print now, where it is time.
    fn perf_due(&mut self, stats: &RunStats, now: Timestamp) -> Option<String> {
        let (interval, due, lines) = self.perf.as_mut().filter(|(_, due, _)| now >= *due)?;
        *due = now + *interval;
        Some(lines.next(&stats.streams(), now))
    }
}
