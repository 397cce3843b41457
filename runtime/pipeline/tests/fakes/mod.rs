//! Sources, a backend, a decoder and sinks that do as they are told, so that a test of the threads
//! between them needs neither media nor a model.

// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use revoada_core::{
    Classification, Clock, ColorSpec, DType, Detection, Dim, Frame, ImageLayout, ImageTransform, MemoryKind,
    PixelFormat, Placement, Prediction, Rect, Size, StreamId, TensorRef, TensorSpec, Timestamp, TrackId,
};
use revoada_engine::{
    Backend, BackendOptions, Engine, EngineError, LoadOptions, ModelSource, Outputs, PlanSearch, Session, Shapes,
    Surface, Timings,
};
use revoada_pipeline::config::{Draft, PipelineConfig, StreamConfig};
use revoada_pipeline::decode::{DecodeError, Decoder, Decoders};
use revoada_pipeline::run::{Loader, Parts, RunError, RunSummary, StopFlag, run};
use revoada_pipeline::{FrameResult, Pull, Sink, SinkError, SinkReport, Source, SourceError};

/// No condition in these tests takes a healthy machine a second.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A door that threads wait at until the test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let (closed, timeout) = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), DEADLINE, |open| !*open).unwrap();
        drop(closed);
        assert!(!timeout.timed_out(), "nobody opened the gate");
    }
}

/// What a source does next.
#[derive(Clone)]
pub enum Step {
    Frames(u64),
    /// Frames until the stream is halted, one a pull, at most one a millisecond.
    FramesWithoutEnd,
    Lost,
    Broken,
    Unopenable,
    Panic,
    /// Nothing comes, for ever.
    Silence,
    Pass(Gate),
    Open(Gate),
}

/// What a stream shows in its n-th frame, captured then.
pub type Picture = dyn Fn(&StreamId, u64, Timestamp) -> Frame + Send + Sync;

struct ScriptedSource {
    id: StreamId,
    picture: Arc<Picture>,
    steps: VecDeque<Step>,
    frames: u64,
    clock: Arc<dyn Clock>,
}

pub fn frame(id: &StreamId, sequence: u64, captured: Timestamp) -> Frame {
    let layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), Size::new(16, 16));
    let pixels = vec![sequence as u8; layout.bytes().unwrap()];
    let pts = Timestamp::from_nanos(sequence * 40_000_000);
    Frame::new(id.clone(), sequence, pts, captured, layout, MemoryKind::Host, Box::new(pixels)).unwrap()
}

impl Source for ScriptedSource {
    fn pull(&mut self, timeout: Duration) -> Result<Pull, SourceError> {
        let uri = || self.id.to_string();
        loop {
            match self.steps.front_mut() {
                None => return Ok(Pull::End),
                Some(Step::Frames(0)) => drop(self.steps.pop_front()),
                Some(Step::Frames(left)) => {
                    *left -= 1;
                    break;
                }
                Some(Step::FramesWithoutEnd) => {
                    thread::sleep(Duration::from_millis(1));
                    break;
                }
                Some(Step::Lost) => return Err(SourceError::Lost { uri: uri(), reason: "cable out".into() }),
                Some(Step::Broken) => {
                    return Err(SourceError::Broken { uri: uri(), frames: self.frames, reason: "cut short".into() });
                }
                Some(Step::Unopenable) => {
                    return Err(SourceError::Open { uri: uri(), reason: "no such file".into() });
                }
                Some(Step::Panic) => panic!("told to"),
                Some(Step::Silence) => {
                    thread::sleep(timeout);
                    return Ok(Pull::Idle);
                }
                Some(Step::Pass(gate)) => {
                    gate.pass();
                    self.steps.pop_front();
                }
                Some(Step::Open(gate)) => {
                    gate.open();
                    self.steps.pop_front();
                }
            }
        }
        self.frames += 1;
        Ok(Pull::Frame((self.picture)(&self.id, self.frames - 1, self.clock.now())))
    }
}

/// Answers every picture with the value of its first byte, as sure as its model's name says: `fake` is 1, `fake-25`
/// a quarter. A `wide` model reads other pictures, a `missing` one is not there, and a `heavy` one needs all memory,
/// of which a `heavy-broken` one makes nothing and a `heavy-panic` one a panic. A `pairs` model answers every first batch
/// after the second one, a `breaks` one fails at the sixth frame of a stream, and a `breaks-late` one too, once two more
/// have passed.
#[derive(Default)]
struct FakeBackend {
    /// Held by every engine and session.
    memory: Arc<()>,
}

struct FakeEngine {
    behaviour: Behaviour,
    pairs: Arc<Pairs>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    score: f32,
    memory: Arc<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Plain,
    Pairs,
    Breaks,
    BreaksLate,
}

/// Batches that were begun, and the second ones that are done.
#[derive(Default)]
struct Pairs(Mutex<(u64, Vec<u64>)>, Condvar);

impl Pairs {
    /// Waits in every first batch until the one behind it has passed.
    fn pass(&self) {
        let mut state = self.0.lock().unwrap();
        let number = state.0;
        state.0 += 1;
        if number % 2 == 1 {
            state.1.push(number);
            self.1.notify_all();
            return;
        }
        let alone = |state: &mut (u64, Vec<u64>)| !state.1.contains(&(number + 1));
        assert!(!self.1.wait_timeout_while(state, DEADLINE, alone).unwrap().1.timed_out(), "batch {number} is alone");
    }

    /// Fails in the sixth batch when two more have passed.
    fn break_late(&self, number: u64) -> Result<(), EngineError> {
        let mut state = self.0.lock().unwrap();
        if number > 5 {
            state.1.push(number);
            self.1.notify_all();
        }
        if number != 5 {
            return Ok(());
        }
        let early = |state: &mut (u64, Vec<u64>)| state.1.len() < 2;
        assert!(!self.1.wait_timeout_while(state, DEADLINE, early).unwrap().1.timed_out(), "none passed");
        Err(told_to())
    }
}

fn told_to() -> EngineError {
    EngineError::Run { backend: "fake", reason: "told to".into() }
}

struct FakeSession {
    behaviour: Behaviour,
    pairs: Arc<Pairs>,
    score: f32,
    _memory: Arc<()>,
    rows_max: usize,
    staged: BTreeMap<usize, u8>,
    shape: [usize; 2],
    answers: Vec<f32>,
}

impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn version(&self) -> Result<String, EngineError> {
        Ok("fake 1".into())
    }

    fn check(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn load(&self, source: ModelSource<'_>, _: &LoadOptions) -> Result<Arc<dyn Engine>, EngineError> {
        let ModelSource::File(path) = source else { panic!("fakes are files") };
        let stem = path.file_stem().unwrap().to_string_lossy();
        let refuse =
            |reason: &str| EngineError::Load { backend: "fake", model: stem.to_string(), reason: reason.into() };
        if stem.starts_with("heavy") && Arc::strong_count(&self.memory) > 1 {
            return Err(EngineError::OutOfMemory { needed: stem.into_owned(), free: 1, total: 2 });
        }
        assert!(stem != "heavy-panic", "told to");
        if stem == "missing" || stem == "heavy-broken" {
            return Err(refuse("it is not there"));
        }
        let side = if stem == "wide" { 16 } else { 8 };
        let score = stem.rsplit_once('-').and_then(|(_, percent)| percent.parse::<f32>().ok());
        let score = score.map_or(1.0, |percent| percent / 100.0);
        let spec = |name: &str, sides: &[usize]| TensorSpec {
            name: name.into(),
            dtype: DType::F32,
            dims: std::iter::once(Dim::Dynamic("N".into())).chain(sides.iter().map(|side| Dim::Fixed(*side))).collect(),
        };
        let behaviour = match &*stem {
            "pairs" => Behaviour::Pairs,
            "breaks" => Behaviour::Breaks,
            "breaks-late" => Behaviour::BreaksLate,
            _ => Behaviour::Plain,
        };
        Ok(Arc::new(FakeEngine {
            behaviour,
            pairs: Arc::default(),
            inputs: vec![spec("picture", &[3, side, side])],
            outputs: vec![spec("brightness", &[2])],
            score,
            memory: Arc::clone(&self.memory),
        }))
    }

    fn import(&self, frame: &Arc<Frame>) -> Result<Surface, EngineError> {
        Ok(Surface::Host(Arc::clone(frame)))
    }
}

impl Engine for FakeEngine {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn session(&self, shapes: &Shapes) -> Result<Box<dyn Session>, EngineError> {
        let rows_max = shapes.rows_max;
        Ok(Box::new(FakeSession {
            behaviour: self.behaviour,
            pairs: Arc::clone(&self.pairs),
            score: self.score,
            _memory: Arc::clone(&self.memory),
            rows_max,
            staged: BTreeMap::new(),
            shape: [0, 2],
            answers: Vec::new(),
        }))
    }
}

impl Session for FakeSession {
    fn stage(
        &mut self,
        input: usize,
        row: usize,
        surface: &Surface,
        region: Rect,
        transform: &ImageTransform,
    ) -> Result<Placement, EngineError> {
        assert!(input == 0 && row < self.rows_max);
        let Surface::Host(frame) = surface else { panic!("the fake imports to the host") };
        self.staged.insert(row, frame.view().bytes()[0]);
        Ok(Placement::new(region, transform))
    }

    fn set_input(&mut self, _: usize, _: TensorRef<'_>) -> Result<(), EngineError> {
        unreachable!("the pipeline stages pictures")
    }

    fn submit(&mut self, rows: usize) -> Result<(), EngineError> {
        match self.behaviour {
            Behaviour::Plain => {}
            Behaviour::Pairs => self.pairs.pass(),
            Behaviour::Breaks if !self.staged.values().any(|value| *value == 5) => {}
            Behaviour::Breaks => return Err(told_to()),
            Behaviour::BreaksLate => self.pairs.break_late(u64::from(self.staged[&0]))?,
        }
        self.answers = (0..rows).flat_map(|row| [f32::from(self.staged[&row]), self.score]).collect();
        self.shape = [rows, 2];
        self.staged.clear();
        Ok(())
    }

    fn wait(&mut self) -> Result<Outputs<'_>, EngineError> {
        let tensor = TensorRef::of(&self.shape, &self.answers)?;
        Ok(Outputs { tensors: vec![tensor], candidates: BTreeMap::new(), timings: Timings::default() })
    }
}

/// One detection whose class is the answer, so that a sink can tell whether it belongs to the frame.
struct BrightnessDecoder;

impl Decoder for BrightnessDecoder {
    fn name(&self) -> &str {
        "brightness"
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let [answer, score] = outputs[0].as_slice::<f32>().unwrap()[row * 2..][..2] else { panic!("two numbers") };
        let detection = Detection { class: answer as u32, score, bbox: placement.source, ..Detection::default() };
        Ok(Prediction { detections: vec![detection], ..Prediction::default() })
    }
}

/// One object after another that walks down through a picture of 16 × 16, a pixel a frame: in frame 16·n + y, object
/// n + 1 stands at (8, y).
struct WalkerDecoder;

impl Decoder for WalkerDecoder {
    fn name(&self) -> &str {
        "walker"
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, _: &Placement) -> Result<Prediction, DecodeError> {
        let answers = outputs[0].as_slice::<f32>().unwrap();
        let (frame, score) = (answers[row * 2], answers[row * 2 + 1]);
        let (object, y) = ((frame / 16.0) as u64, frame % 16.0);
        let bbox = Rect::new(6.0, y - 4.0, 4.0, 4.0);
        let track = Some(TrackId(object + 1));
        let detection = Detection { score, bbox, track, ..Detection::default() };
        Ok(Prediction { detections: vec![detection], ..Prediction::default() })
    }
}

/// A classifier: class 0 in the first four frames, class 1 in the next four, and so on.
struct ShadeDecoder;

impl Decoder for ShadeDecoder {
    fn name(&self) -> &str {
        "shade"
    }

    fn finds_boxes(&self) -> bool {
        false
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, _: &Placement) -> Result<Prediction, DecodeError> {
        let [answer, score] = outputs[0].as_slice::<f32>().unwrap()[row * 2..][..2] else { panic!("two numbers") };
        let classifications = vec![Classification { class: answer as u32 / 4, score }];
        Ok(Prediction { classifications, ..Prediction::default() })
    }
}

/// What a sink was given, and what became of it.
#[derive(Clone, Default)]
pub struct Collected(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    frames: BTreeMap<String, Vec<u64>>,
    /// Of each frame's detection.
    tracks: BTreeMap<String, Vec<Option<u64>>>,
    /// Of the models that answered, in the order of the frames of all streams.
    scores: Vec<f32>,
    /// With how many frames each had then.
    ended: Vec<(String, usize)>,
    finished: bool,
    dropped: bool,
}

impl Collected {
    /// The sequence numbers of a stream, in the order in which they came.
    pub fn of(&self, stream: &str) -> Vec<u64> {
        self.0.0.lock().unwrap().frames.get(stream).cloned().unwrap_or_default()
    }

    /// The tracks of a stream's detections, in the order in which they came.
    pub fn tracks(&self, stream: &str) -> Vec<Option<u64>> {
        self.0.0.lock().unwrap().tracks.get(stream).cloned().unwrap_or_default()
    }

    /// Waits for a frame that was answered as sure as this.
    pub fn wait_for_score(&self, score: f32) {
        let none = |state: &mut State| state.scores.last() != Some(&score);
        let (state, timeout) = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), DEADLINE, none).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "no frame was answered with {score}");
    }

    /// The scores in the order of the frames, each run of the same one once.
    pub fn scores(&self) -> Vec<f32> {
        let mut scores = self.0.0.lock().unwrap().scores.clone();
        scores.dedup();
        scores
    }

    pub fn is_finished(&self) -> bool {
        self.0.0.lock().unwrap().finished
    }

    pub fn is_dropped(&self) -> bool {
        self.0.0.lock().unwrap().dropped
    }

    /// Waits until a stream has ended so many times; how many frames it had each time.
    pub fn wait_for_ends(&self, stream: &str, ends: usize) -> Vec<usize> {
        let of = |state: &State| -> Vec<usize> {
            state.ended.iter().filter(|(id, _)| id == stream).map(|(_, frames)| *frames).collect()
        };
        let short = |state: &mut State| of(state).len() < ends;
        let (state, timeout) = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), DEADLINE, short).unwrap();
        assert!(!timeout.timed_out(), "{stream} did not end {ends} times");
        of(&state)
    }

    /// Waits until a stream has so many frames.
    pub fn wait_for(&self, stream: &str, frames: usize) {
        let short = |state: &mut State| state.frames.get(stream).map_or(0, Vec::len) < frames;
        let (state, timeout) = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), DEADLINE, short).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "{stream} did not reach {frames} frames");
    }
}

pub struct CollectingSink {
    pub collected: Collected,
    /// Waited at before every frame.
    pub gate: Option<Gate>,
    /// Fails at the frame after so many.
    pub frames_max: Option<usize>,
}

impl Sink for CollectingSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        // The answer belongs to this frame and no other.
        let pixel = result.frame.view().bytes()[0];
        assert_eq!(result.prediction.detections[0].class, u32::from(pixel));
        let mut state = self.collected.0.0.lock().unwrap();
        if self.frames_max == Some(state.frames.values().map(Vec::len).sum()) {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(SinkError::Write { path: "full.jsonl".into(), source });
        }
        state.scores.push(result.prediction.detections[0].score);
        let track = result.prediction.detections[0].track.map(|track| track.0);
        state.tracks.entry(result.frame.stream.to_string()).or_default().push(track);
        state.frames.entry(result.frame.stream.to_string()).or_default().push(result.frame.sequence);
        self.collected.0.1.notify_all();
        Ok(())
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        let mut state = self.collected.0.0.lock().unwrap();
        let frames = state.frames.get(stream.as_str()).map_or(0, Vec::len);
        state.ended.push((stream.to_string(), frames));
        self.collected.0.1.notify_all();
        Ok(())
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.collected.0.0.lock().unwrap().finished = true;
        Ok(SinkReport { files: vec!["collected".into()] })
    }
}

impl Drop for CollectingSink {
    fn drop(&mut self) {
        self.collected.0.0.lock().unwrap().dropped = true;
    }
}

/// A pipeline of fakes: for each stream, what its source does each time that it is opened. The last
/// opening is repeated.
#[derive(Clone, Default)]
pub struct Script {
    openings: BTreeMap<String, Vec<Vec<Step>>>,
    draft: Option<Draft>,
    /// What streams do that come later.
    pub visit: Option<Vec<Step>>,
    pub gate: Option<Gate>,
    pub sink_fails_after: Option<usize>,
    picture: Option<Arc<Picture>>,
    decoder: Option<Arc<dyn Decoder>>,
}

/// `test://` sources that are live drop frames; others wait.
pub const LIVE: &str = "test://smpte?live=true";
pub const FILE: &str = "test://smpte";
/// Comes back when it is lost.
pub const CAMERA: &str = "csi://0";

impl Script {
    /// Streams by id and URI.
    pub fn new(streams: &[(&str, &str, &[&[Step]])]) -> Self {
        Self::described(streams, "[[sink]]\ntype = \"none\"\n[[sink]]\ntype = \"none\"\n")
    }

    /// With tables of the configuration, its sinks among them.
    pub fn described(streams: &[(&str, &str, &[&[Step]])], tables: &str) -> Self {
        let mut text = String::from("[model]\npath = \"fake.onnx\"\ndecoder = \"brightness\"\n");
        let mut openings = BTreeMap::new();
        for (id, uri, steps) in streams {
            text += &format!("[[stream]]\nid = \"{id}\"\nuri = \"{uri}\"\n");
            if *uri == CAMERA {
                text += "reconnect = { delay_ms_min = 10, delay_ms_max = 20, stall_ms = 100, attempts_max = 3 }\n";
            }
            openings.insert((*id).to_owned(), steps.iter().map(|steps| steps.to_vec()).collect());
        }
        text += tables;
        Self { openings, draft: Some(draft(&text)), ..Self::default() }
    }

    pub fn set(mut self, key: &str, value: impl Into<revoada_pipeline::config::Value>) -> Self {
        self.draft.as_mut().unwrap().set(key, value);
        self
    }

    pub fn set_every_stream(mut self, key: &str, value: impl Into<revoada_pipeline::config::Value>) -> Self {
        self.draft.as_mut().unwrap().set_every_stream(key, value);
        self
    }

    /// Streams show these in the place of small pictures of one shade.
    pub fn showing(self, picture: impl Fn(&StreamId, u64, Timestamp) -> Frame + Send + Sync + 'static) -> Self {
        Self { picture: Some(Arc::new(picture)), ..self }
    }

    /// Decodes the answers so.
    pub fn decoding(self, decoder: impl Decoder + 'static) -> Self {
        Self { decoder: Some(Arc::new(decoder)), ..self.set("model.decoder", "own") }
    }

    pub fn config(&self) -> PipelineConfig {
        self.draft.as_ref().unwrap().check().unwrap()
    }

    /// The parts, and what the two sinks collect. The first sink is the one that fails or waits.
    pub fn parts(&self) -> (Parts, [Collected; 2]) {
        let collected = [Collected::default(), Collected::default()];
        let (openings, visit) = (Mutex::new(self.openings.clone()), self.visit.clone());
        let picture = self.picture.clone().unwrap_or_else(|| Arc::new(frame));
        let open = move |stream: &StreamConfig, clock: &Arc<dyn Clock>| -> Result<Box<dyn Source>, SourceError> {
            let mut openings = openings.lock().unwrap();
            let steps = match openings.get_mut(stream.id.as_str()) {
                Some(openings) if openings.len() > 1 => openings.remove(0),
                Some(openings) => openings[0].clone(),
                None => visit.clone().expect("the script knows the stream"),
            };
            let uri = stream.id.to_string();
            if matches!(steps.first(), Some(Step::Unopenable)) {
                return Err(SourceError::Open { uri, reason: "no such file".into() });
            }
            let (id, clock, picture) = (stream.id.clone(), Arc::clone(clock), Arc::clone(&picture));
            Ok(Box::new(ScriptedSource { id, picture, steps: steps.into(), frames: 0, clock }))
        };
        let sinks = Mutex::new(vec![
            CollectingSink { collected: collected[1].clone(), gate: None, frames_max: None },
            CollectingSink {
                collected: collected[0].clone(),
                gate: self.gate.clone(),
                frames_max: self.sink_fails_after,
            },
        ]);
        let mut decoders = Decoders::standard();
        decoders.register("brightness", |_| Ok(Arc::new(BrightnessDecoder) as Arc<dyn Decoder>));
        decoders.register("shade", |_| Ok(Arc::new(ShadeDecoder) as Arc<dyn Decoder>));
        decoders.register("walker", |_| Ok(Arc::new(WalkerDecoder) as Arc<dyn Decoder>));
        if let Some(own) = self.decoder.clone() {
            decoders.register("own", move |_| Ok(Arc::clone(&own)));
        }
        let parts = Parts {
            loader: Arc::new(Loader {
                backends: vec![Arc::new(FakeBackend::default())],
                decoders,
                plans: PlanSearch::default(),
            }),
            open_source: Arc::new(open),
            open_sink: Box::new(move |_, _| {
                let sink = sinks.lock().unwrap().pop().expect("the script has two sinks");
                Ok(Box::new(sink) as Box<dyn Sink>)
            }),
            ..Parts::new(&BackendOptions::default())
        };
        (parts, collected)
    }

    /// Runs to the end.
    pub fn run(&self) -> (Result<RunSummary, RunError>, [Collected; 2]) {
        let (parts, collected) = self.parts();
        (run(self.config(), parts, &StopFlag::new()), collected)
    }

    /// Runs on a thread of its own.
    pub fn start(&self) -> Started {
        let (parts, collected) = self.parts();
        let (config, stop) = (self.config(), StopFlag::new());
        let stopping = stop.clone();
        Started { collected, stop, thread: thread::spawn(move || run(config, parts, &stopping)) }
    }
}

pub fn draft(text: &str) -> Draft {
    Draft::from_file("fake.toml".as_ref(), text, "".as_ref())
}

pub struct Started {
    pub collected: [Collected; 2],
    pub stop: StopFlag,
    thread: JoinHandle<Result<RunSummary, RunError>>,
}

impl Started {
    pub fn finish(self) -> Result<RunSummary, RunError> {
        let started = Instant::now();
        while !self.thread.is_finished() {
            assert!(started.elapsed() < DEADLINE, "the run does not end");
            thread::sleep(Duration::from_millis(5));
        }
        self.thread.join().unwrap()
    }
}

/// What this process holds.
#[derive(Debug)]
pub struct Usage {
    pub rss_kib: u64,
    pub threads: usize,
    pub descriptors: usize,
}

impl Usage {
    /// The usage once no more threads and files are there than `before`, or after a while. A joined thread and
    /// those that GStreamer keeps for the next task are still listed for a moment.
    pub fn settled(before: &Self) -> Self {
        let begun = std::time::Instant::now();
        loop {
            let now = Self::now();
            let settled = now.threads <= before.threads && now.descriptors <= before.descriptors;
            if settled || begun.elapsed() > DEADLINE {
                return now;
            }
            std::thread::yield_now();
        }
    }

    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let entries = |folder: &str| std::fs::read_dir(folder).unwrap().count();
        Self {
            rss_kib: rss.trim().trim_end_matches(" kB").parse().unwrap(),
            threads: entries("/proc/self/task"),
            descriptors: entries("/proc/self/fd"),
        }
    }
}
