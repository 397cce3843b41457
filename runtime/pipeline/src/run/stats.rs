//! The counters of a run: written by its threads, read by summaries, metrics and the control socket.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use revoada_core::{StreamId, Timestamp};

use super::cascade::{SecondaryStats, SecondarySummary};
use super::shadow::{Shadow, ShadowSummary};
use super::summary::{FramesDropped, Latencies, Latency, RunSummary, StreamState, StreamSummary};
use super::timeline::Timeline;
use crate::FrameTimings;
use crate::analyse::{Analysis, EventKind};
use crate::decode::Decoder;
use crate::http::{RunStatus, StreamStatus};
use crate::lock::lock;
use crate::sink::record::CountsRecord;
use crate::sink::{Deliveries, DeliverySummary, RecordingSummary, Recordings};

/// A configuration that is reloaded again and again with other streams must not grow the process:
/// of the streams that ended, so many are remembered.
const STREAMS_ENDED_MAX: usize = 64;

/// Of the latest frame in what is told as "lately": the last dozen frames make nearly all of it.
const RECENT_WEIGHT: f64 = 0.15;

/// So many of the latest frames make up the median and the tail of what is told as "lately".
const RECENT_FRAMES_MAX: usize = 256;

/// A stream that has written nothing for so long has no frame rate.
const RECENT_MAX: Duration = Duration::from_secs(2);

/// Where a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Interval,
    Queue,
    Shutdown,
}

/// The steps that are timed, in the order of a frame's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Queue,
    Staging,
    Inference,
    Decoding,
    Secondary,
    Tracking,
    Drawing,
    Writing,
    Total,
}

impl Step {
    pub(crate) const ALL: [Self; 9] = [
        Self::Queue,
        Self::Staging,
        Self::Inference,
        Self::Decoding,
        Self::Secondary,
        Self::Tracking,
        Self::Drawing,
        Self::Writing,
        Self::Total,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Staging => "staging",
            Self::Inference => "inference",
            Self::Decoding => "decoding",
            Self::Secondary => "secondary",
            Self::Tracking => "tracking",
            Self::Drawing => "drawing",
            Self::Writing => "writing",
            Self::Total => "total",
        }
    }
}

/// One run.
#[derive(Default)]
pub(crate) struct RunStats {
    rows_max: usize,
    decoders: Mutex<DecodersOfRun>,
    swaps: AtomicU64,
    swap_gap_ns: AtomicU64,
    streams: Mutex<VecDeque<Arc<StreamStats>>>,
    batches: AtomicU64,
    batch_frames: AtomicU64,
    /// One for each further model.
    secondaries: Vec<Arc<SecondaryStats>>,
    deliveries: Deliveries,
    recordings: Recordings,
    shadow: Arc<Shadow>,
}

/// The decoders of the models that ran; each counts what it could not use.
#[derive(Default)]
struct DecodersOfRun {
    /// Those that may still read answers.
    live: Vec<Arc<dyn Decoder>>,
    /// Counted by those that are gone.
    non_finite: u64,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct StreamStats {
    pub(crate) id: StreamId,
    /// Counts on where a stream is started anew by a reload.
    pub(crate) timeline: Mutex<Timeline>,
    frames_in: AtomicU64,
    frames_out: AtomicU64,
    dropped: [AtomicU64; 3],
    queue_frames: AtomicU64,
    openings: AtomicU64,
    reconnects: AtomicU64,
    stalls: AtomicU64,
    detections: AtomicU64,
    tracks: AtomicU64,
    copies: AtomicU64,
    events: [AtomicU64; EventKind::NAMES.len()],
    /// Of the latest frame.
    analysis: Mutex<Option<Arc<Analysis>>>,
    state: AtomicU8,
    error: Mutex<Option<String>>,
    timed: Mutex<Timed>,
}

#[derive(Debug)]
struct Timed {
    /// First frame decoded, last frame written.
    span: Option<(Timestamp, Timestamp)>,
    /// Seconds between written frames and milliseconds from decoder to sinks, of the latest frames.
    recent: Option<(f64, f64)>,
    /// Milliseconds from decoder to sinks of the latest frames, as many as `RECENT_FRAMES_MAX`.
    recent_totals_ms: VecDeque<f32>,
    steps: [StepTimes; Step::ALL.len()],
}

/// The distribution of one step's durations.
#[derive(Clone, Debug)]
pub(crate) struct StepTimes {
    micros: Histogram<u32>,
    sum: Duration,
}

impl StepTimes {
    fn new() -> Self {
        // Two digits keep a histogram at some 10 KiB. What takes longer than the bound counts as the bound.
        let micros = Histogram::new_with_bounds(1, 600_000_000, 2).expect("the bounds are in order");
        Self { micros, sum: Duration::ZERO }
    }

    fn record(&mut self, duration: Duration) {
        self.micros.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self.sum = self.sum.saturating_add(duration);
    }

    fn add(&mut self, other: &Self) {
        self.micros.add(&other.micros).expect("all histograms have the same bounds");
        self.sum = self.sum.saturating_add(other.sum);
    }

    fn latency(&self) -> Latency {
        let ms = |micros: u64| micros as f64 / 1000.0;
        let count = self.micros.len();
        if count == 0 {
            return Latency::default();
        }
        Latency {
            mean_ms: self.sum.as_secs_f64() * 1000.0 / count as f64,
            p50_ms: ms(self.micros.value_at_quantile(0.5)),
            p90_ms: ms(self.micros.value_at_quantile(0.9)),
            p99_ms: ms(self.micros.value_at_quantile(0.99)),
            max_ms: ms(self.micros.max()),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.micros.len()
    }

    pub(crate) fn sum_s(&self) -> f64 {
        self.sum.as_secs_f64()
    }

    /// How many took at most `bound`.
    pub(crate) fn count_within(&self, bound: Duration) -> u64 {
        self.micros.count_between(0, u64::try_from(bound.as_micros()).unwrap_or(u64::MAX))
    }
}

impl StreamStats {
    pub(crate) fn new(id: StreamId) -> Self {
        Self {
            id,
            timeline: Mutex::default(),
            frames_in: AtomicU64::new(0),
            frames_out: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; 3],
            queue_frames: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            openings: AtomicU64::new(0),
            detections: AtomicU64::new(0),
            tracks: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            events: [const { AtomicU64::new(0) }; EventKind::NAMES.len()],
            analysis: Mutex::default(),
            state: AtomicU8::new(StreamState::Connecting as u8),
            error: Mutex::new(None),
            timed: Mutex::new(Timed {
                span: None,
                recent: None,
                recent_totals_ms: VecDeque::new(),
                steps: [(); Step::ALL.len()].map(|()| StepTimes::new()),
            }),
        }
    }

    pub(crate) fn frame_decoded(&self, now: Timestamp) {
        if self.frames_in.fetch_add(1, Relaxed) == 0 {
            lock(&self.timed).span.get_or_insert((now, now));
        }
    }

    pub(crate) fn frame_dropped(&self, at: Dropped) {
        self.dropped[at as usize].fetch_add(1, Relaxed);
    }

    /// The source is opened; returns for the how manieth time.
    pub(crate) fn opened(&self) -> u64 {
        self.openings.fetch_add(1, Relaxed) + 1
    }

    /// So many tracks were told so far, which is also the number of the latest.
    pub(crate) fn tracked(&self, tracks: u64) {
        self.tracks.store(tracks, Relaxed);
    }

    pub(crate) fn queue_entered(&self) {
        self.queue_frames.fetch_add(1, Relaxed);
    }

    pub(crate) fn queue_left(&self) {
        self.queue_frames.fetch_sub(1, Relaxed);
    }

    /// Whole pictures were copied, in decoding, made straight or for drawing.
    pub(crate) fn copied(&self, copies: u64) {
        self.copies.fetch_add(copies, Relaxed);
    }

    /// What the stream's rules made of a frame.
    pub(crate) fn analysed(&self, analysis: Option<&Arc<Analysis>>) {
        for event in analysis.iter().flat_map(|analysis| &analysis.events) {
            self.events[event.kind.index()].fetch_add(1, Relaxed);
        }
        *lock(&self.analysis) = analysis.cloned();
    }

    /// By kind, in the order of their names.
    pub(crate) fn events(&self) -> [u64; EventKind::NAMES.len()] {
        std::array::from_fn(|kind| self.events[kind].load(Relaxed))
    }

    /// What the stream's rules made of the latest frame.
    pub(crate) fn analysis(&self) -> Option<Arc<Analysis>> {
        lock(&self.analysis).clone()
    }

    /// A frame reached the sinks, and so many things were found in it.
    pub(crate) fn frame_written(&self, timings: &FrameTimings, writing: Duration, detections: usize, now: Timestamp) {
        self.frames_out.fetch_add(1, Relaxed);
        self.detections.fetch_add(detections as u64, Relaxed);
        let mut timed = lock(&self.timed);
        let total_ms = timings.total.as_secs_f64() * 1000.0;
        if timed.recent_totals_ms.len() == RECENT_FRAMES_MAX {
            timed.recent_totals_ms.pop_front();
        }
        timed.recent_totals_ms.push_back(total_ms as f32);
        if let Some((_, last)) = &mut timed.span {
            let gap_s = now.since(*last).as_secs_f64();
            *last = now;
            let (recent_gap_s, recent_ms) = timed.recent.unwrap_or((gap_s, total_ms));
            let blend = |old: f64, new: f64| old + (new - old) * RECENT_WEIGHT;
            timed.recent = Some((blend(recent_gap_s, gap_s), blend(recent_ms, total_ms)));
        }
        let durations = [
            timings.queued,
            timings.staging,
            timings.inference,
            timings.decoding,
            timings.secondary,
            timings.tracking,
            timings.drawing,
            writing,
            timings.total,
        ];
        for (step, duration) in timed.steps.iter_mut().zip(durations) {
            step.record(duration);
        }
    }

    pub(crate) fn running(&self) {
        self.set_state(StreamState::Running);
        *lock(&self.error) = None;
    }

    pub(crate) fn reconnecting(&self, reason: String) {
        self.set_state(StreamState::Reconnecting);
        self.reconnects.fetch_add(1, Relaxed);
        *lock(&self.error) = Some(reason);
    }

    /// The source was lost because it sent nothing.
    pub(crate) fn stalled(&self) {
        self.stalls.fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.set_state(StreamState::Ended);
        *lock(&self.error) = None;
    }

    pub(crate) fn failed(&self, reason: String) {
        self.set_state(StreamState::Failed);
        *lock(&self.error) = Some(reason);
    }

    fn set_state(&self, state: StreamState) {
        self.state.store(state as u8, Relaxed);
    }

    pub(crate) fn state(&self) -> StreamState {
        const STATES: [StreamState; 5] = [
            StreamState::Connecting,
            StreamState::Running,
            StreamState::Reconnecting,
            StreamState::Ended,
            StreamState::Failed,
        ];
        STATES[usize::from(self.state.load(Relaxed))]
    }

    pub(crate) fn frames_in(&self) -> u64 {
        self.frames_in.load(Relaxed)
    }

    pub(crate) fn frames_out(&self) -> u64 {
        self.frames_out.load(Relaxed)
    }

    /// Frames that were decoded and are neither written nor dropped yet.
    pub(crate) fn frames_under_way(&self) -> u64 {
        self.frames_in().saturating_sub(self.frames_out() + self.frames_dropped().total())
    }

    pub(crate) fn frames_dropped(&self) -> FramesDropped {
        let [interval, queue, shutdown] = [0, 1, 2].map(|at: usize| self.dropped[at].load(Relaxed));
        FramesDropped { interval, queue, shutdown }
    }

    pub(crate) fn queue_frames(&self) -> u64 {
        self.queue_frames.load(Relaxed)
    }

    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects.load(Relaxed)
    }

    pub(crate) fn detections(&self) -> u64 {
        self.detections.load(Relaxed)
    }

    pub(crate) fn tracks(&self) -> u64 {
        self.tracks.load(Relaxed)
    }

    pub(crate) fn copies(&self) -> u64 {
        self.copies.load(Relaxed)
    }

    pub(crate) fn step_times(&self) -> [StepTimes; Step::ALL.len()] {
        lock(&self.timed).steps.clone()
    }

    /// First frame decoded, last frame written.
    pub(crate) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        lock(&self.timed).span
    }

    /// For the web page: what the stream does now.
    pub(crate) fn status(&self, now: Timestamp) -> StreamStatus {
        let (frames, drops) = (self.frames_out(), self.frames_dropped());
        let timed = lock(&self.timed);
        let since_last = timed.span.filter(|_| frames > 0).map(|(_, last)| now.since(last));
        let is_recent = since_last.is_some_and(|since| since < RECENT_MAX);
        let (gap_s, latency_ms) = timed.recent.filter(|_| is_recent).unwrap_or_default();
        let mut totals_ms: Vec<f32> = timed.recent_totals_ms.iter().copied().filter(|_| is_recent).collect();
        drop(timed);
        totals_ms.sort_unstable_by(f32::total_cmp);
        StreamStatus {
            id: self.id.as_str().to_owned(),
            state: self.state().name().to_owned(),
            fps: ratio(1.0, gap_s),
            latency_ms,
            latency_p50_ms: quantile(&totals_ms, 0.5),
            latency_p99_ms: quantile(&totals_ms, 0.99),
            last_frame_ms: since_last.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            frames,
            dropped: drops.total(),
            drops,
            queue_frames: self.queue_frames(),
            reconnects: self.reconnects(),
            stalls: self.stalls.load(Relaxed),
            detections: self.detections(),
            tracks: self.tracks(),
            counts: self.counts(),
            error: lock(&self.error).clone(),
        }
    }

    fn counts(&self) -> Option<CountsRecord> {
        self.analysis().map(|analysis| CountsRecord::from(&*analysis))
    }

    fn summary(&self) -> StreamSummary {
        let frames_out = self.frames_out();
        let elapsed = self.span().map_or(Duration::ZERO, |(first, last)| last.since(first));
        StreamSummary {
            id: self.id.as_str().to_owned(),
            state: self.state(),
            error: lock(&self.error).clone(),
            frames_in: self.frames_in(),
            frames_out,
            frames_dropped: self.frames_dropped(),
            queue_frames: self.queue_frames(),
            reconnects: self.reconnects(),
            detections: self.detections(),
            tracks: self.tracks(),
            counts: self.counts(),
            copies_per_frame: ratio(self.copies() as f64, frames_out as f64),
            fps: ratio(frames_out as f64, elapsed.as_secs_f64()),
            latency: latencies(&self.step_times()),
        }
    }
}

impl RunStats {
    /// `rows_max` is the largest batch that a plan is to run.
    pub(crate) fn new(
        rows_max: usize,
        decoder: Arc<dyn Decoder>,
        secondaries: Vec<Arc<SecondaryStats>>,
        shadow: Arc<Shadow>,
        deliveries: Deliveries,
        recordings: Recordings,
    ) -> Self {
        let stats = Self { rows_max, secondaries, shadow, deliveries, recordings, ..Self::default() };
        stats.decoded_by(decoder);
        stats
    }

    pub(crate) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Scores and boxes that were NaN or infinite: how a network that broke in FP16 shows itself.
    pub(crate) fn non_finite(&self) -> u64 {
        let decoders = lock(&self.decoders);
        decoders.non_finite + decoders.live.iter().map(|decoder| decoder.non_finite()).sum::<u64>()
    }

    fn decoded_by(&self, decoder: Arc<dyn Decoder>) {
        let mut decoders = lock(&self.decoders);
        let gone: Vec<_> = decoders.live.extract_if(.., |decoder| Arc::strong_count(decoder) == 1).collect();
        decoders.non_finite += gone.iter().map(|decoder| decoder.non_finite()).sum::<u64>();
        decoders.live.push(decoder);
    }

    /// Another model takes over, after `gap` without any.
    pub(crate) fn swapped(&self, decoder: Arc<dyn Decoder>, gap: Duration) {
        self.swaps.fetch_add(1, Relaxed);
        self.restored(decoder, gap);
    }

    /// The old model is back, after `gap` without any.
    pub(crate) fn restored(&self, decoder: Arc<dyn Decoder>, gap: Duration) {
        self.swap_gap_ns.fetch_add(u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.decoded_by(decoder);
    }

    pub(crate) fn swaps(&self) -> u64 {
        self.swaps.load(Relaxed)
    }

    pub(crate) fn swap_gap(&self) -> Duration {
        Duration::from_nanos(self.swap_gap_ns.load(Relaxed))
    }

    /// The counters of stream `id`; those of before where it ran before.
    pub(crate) fn stream(&self, id: &StreamId) -> Arc<StreamStats> {
        let mut streams = lock(&self.streams);
        if let Some(known) = streams.iter().find(|stream| stream.id == *id) {
            return Arc::clone(known);
        }
        let is_over = |stream: &Arc<StreamStats>| matches!(stream.state(), StreamState::Ended | StreamState::Failed);
        if streams.iter().filter(|stream| is_over(stream)).count() >= STREAMS_ENDED_MAX
            && let Some(oldest) = streams.iter().position(is_over)
        {
            streams.remove(oldest);
        }
        let stream = Arc::new(StreamStats::new(id.clone()));
        streams.push_back(Arc::clone(&stream));
        stream
    }

    pub(crate) fn streams(&self) -> Vec<Arc<StreamStats>> {
        lock(&self.streams).iter().cloned().collect()
    }

    pub(crate) fn batch(&self, frames: usize) {
        self.batches.fetch_add(1, Relaxed);
        self.batch_frames.fetch_add(frames as u64, Relaxed);
    }

    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    pub(crate) fn shadow(&self) -> Option<ShadowSummary> {
        self.shadow.summary()
    }

    pub(crate) fn secondaries(&self) -> Vec<SecondarySummary> {
        self.secondaries.iter().map(|secondary| secondary.summary()).collect()
    }

    #[cfg(test)]
    pub(crate) fn of_sinks(deliveries: Deliveries, recordings: Recordings) -> Self {
        Self { deliveries, recordings, ..Self::default() }
    }

    /// Of each sink that delivers events.
    pub(crate) fn deliveries(&self) -> Vec<DeliverySummary> {
        self.deliveries.summaries()
    }

    /// Of each sink that records.
    pub(crate) fn recordings(&self) -> Vec<RecordingSummary> {
        self.recordings.summaries()
    }

    /// For the web page: what all streams did together, without the model's name. Unlike a summary it copies no
    /// distributions, so that it can be asked for every second.
    pub(crate) fn status(&self, now: Timestamp) -> RunStatus {
        let streams = self.streams();
        let sum = |count: fn(&StreamStats) -> u64| streams.iter().map(|stream| count(stream)).sum();
        let begun = streams.iter().filter_map(|stream| stream.span()).map(|(first, _)| first).min();
        RunStatus {
            model: None,
            backend: None,
            elapsed_s: begun.map_or(0.0, |begun| now.since(begun).as_secs_f64()),
            frames_in: sum(StreamStats::frames_in),
            frames: sum(StreamStats::frames_out),
            dropped: sum(|stream| stream.frames_dropped().total()),
            detections: sum(StreamStats::detections),
            tracks: sum(StreamStats::tracks),
            swaps: self.swaps(),
            non_finite: self.non_finite(),
        }
    }

    pub(crate) fn summary(&self, files: Vec<PathBuf>) -> RunSummary {
        let streams = self.streams();
        let mut steps = [(); Step::ALL.len()].map(|()| StepTimes::new());
        let mut span: Option<(Timestamp, Timestamp)> = None;
        for stream in &streams {
            for (sum, step) in steps.iter_mut().zip(&stream.step_times()) {
                sum.add(step);
            }
            if let Some((first, last)) = stream.span() {
                span = Some(span.map_or((first, last), |(f, l)| (f.min(first), l.max(last))));
            }
        }
        let elapsed_s = span.map_or(0.0, |(first, last)| last.since(first).as_secs_f64());
        let streams: Vec<StreamSummary> = streams.iter().map(|stream| stream.summary()).collect();
        let frames_out = streams.iter().map(|stream| stream.frames_out).sum();
        RunSummary {
            elapsed_s,
            frames_in: streams.iter().map(|stream| stream.frames_in).sum(),
            frames_out,
            frames_dropped: streams.iter().map(|stream| stream.frames_dropped.total()).sum(),
            non_finite: self.non_finite(),
            swaps: self.swaps(),
            swap_gap_s: self.swap_gap().as_secs_f64(),
            detections: streams.iter().map(|stream| stream.detections).sum(),
            tracks: streams.iter().map(|stream| stream.tracks).sum(),
            fps: ratio(frames_out as f64, elapsed_s),
            batch_frames_mean: ratio(self.batch_frames.load(Relaxed) as f64, self.batches() as f64),
            rows_max: self.rows_max,
            latency: latencies(&steps),
            secondaries: self.secondaries(),
            deliveries: self.deliveries(),
            recordings: self.recordings(),
            shadow: self.shadow(),
            streams,
            files,
        }
    }
}

fn latencies(steps: &[StepTimes; Step::ALL.len()]) -> Latencies {
    let [queue, staging, inference, decoding, secondary, tracking, drawing, writing, total] =
        steps.each_ref().map(StepTimes::latency);
    Latencies { queue, staging, inference, decoding, secondary, tracking, drawing, writing, total }
}

/// The nearest rank's of values in order; zero where there are none.
fn quantile(ordered: &[f32], share: f64) -> f64 {
    let rank = (ordered.len() as f64 * share).ceil() as usize;
    ordered.get(rank.saturating_sub(1)).map_or(0.0, |value| f64::from(*value))
}

/// Zero where there is nothing to divide by: a rate before its first second.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_quantiles_follow_the_frames() {
        let stats = RunStats::default();
        let stream = stats.stream(&StreamId::new("front"));
        let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
        for n in 1..=100u64 {
            stream.frame_decoded(at(n * 10));
            let timings = FrameTimings { total: Duration::from_millis(n), ..FrameTimings::default() };
            stream.copied(1);
            stream.frame_written(&timings, Duration::ZERO, 2, at(n * 10 + 10));
        }
        stats.batch(3);
        stats.batch(4);
        let summary = stats.summary(Vec::new());
        assert_eq!((summary.frames_in, summary.frames_out, summary.detections), (100, 100, 200));
        assert_eq!(summary.batch_frames_mean, 3.5);
        assert_eq!(summary.fps, 100.0);
        assert_eq!(summary.streams[0].copies_per_frame, 1.0);
        let total = summary.latency.total;
        let near = |a: f64, b: f64| (a - b).abs() <= b * 0.01;
        assert!(near(total.p50_ms, 50.0) && near(total.p99_ms, 99.0) && near(total.mean_ms, 50.5), "{total:?}");
    }

    #[test]
    fn a_status_tells_the_health_of_a_stream_and_of_the_run() {
        let stats = RunStats::default();
        let stream = stats.stream(&StreamId::new("front"));
        let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
        assert_eq!(stream.status(at(0)).last_frame_ms, None);
        // A slow beginning is not lately any more.
        for n in 1..=400u64 {
            stream.frame_decoded(at(n * 10));
            let total = Duration::from_millis(if n <= 144 { 500 } else { n - 144 });
            stream.frame_written(&FrameTimings { total, ..FrameTimings::default() }, Duration::ZERO, 2, at(n * 10));
        }
        stream.frame_dropped(Dropped::Interval);
        stream.frame_dropped(Dropped::Queue);
        stream.queue_entered();
        stream.stalled();
        stream.reconnecting("no frame for 5.0 s".to_owned());
        let status = stream.status(at(4500));
        assert_eq!((status.last_frame_ms, status.latency_p50_ms, status.latency_p99_ms), (Some(500), 128.0, 254.0));
        assert_eq!((status.dropped, status.drops.interval, status.drops.queue), (2, 1, 1));
        assert_eq!((status.queue_frames, status.stalls, status.reconnects, status.detections), (1, 1, 1, 800));
        assert_eq!(status.error.as_deref(), Some("no frame for 5.0 s"));
        let silent = stream.status(at(60_000));
        assert_eq!((silent.last_frame_ms, silent.fps, silent.latency_p99_ms), (Some(56_000), 0.0, 0.0));
        let run = stats.status(at(60_010));
        assert_eq!((run.elapsed_s, run.frames_in, run.frames, run.dropped), (60.0, 400, 400, 2));
    }

    #[test]
    fn ended_streams_are_forgotten_beyond_a_bound() {
        let stats = RunStats::default();
        let lasting = stats.stream(&StreamId::new("lasting"));
        lasting.running();
        for n in 0..1000 {
            stats.stream(&StreamId::new(&format!("short-{n}"))).ended();
        }
        let streams = stats.streams();
        assert!(streams.len() <= STREAMS_ENDED_MAX + 2);
        assert_eq!(streams[0].id, lasting.id);
    }
}
