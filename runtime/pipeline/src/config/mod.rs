//! What a pipeline is to do, checked: the program runs on these types, never on what was typed.
//!
//! A [`Draft`] is what was typed: a TOML file, flags laid over it, or flags alone. Checking it
//! yields a [`PipelineConfig`] or every [`Problems`] at once. Pure: nothing is opened here.
//!
//! ```
//! use revoada_pipeline::config::Draft;
//!
//! let mut draft = Draft::empty();
//! draft.add_stream("clip.mp4");
//! draft.set("model.path", "centerface.onnx");
//! draft.add_sink("video", [("path", "faces.mp4")]);
//! let config = draft.check()?;
//! assert_eq!(config.streams[0].id.as_str(), "clip");
//! # Ok::<(), revoada_bundle::strict::Problems>(())
//! ```
//!
//! A file with every key; what is not said has the value that stands here, or none where it is
//! marked *none*. Only `uri`, `model.path`, and what a sink writes to must be there.
//!
//! ```
//! # let text = r#"
//! ## deterministic = true  # false; files of JSON Lines and CSV come out the same each time, byte for byte: see below
//!
//! [[stream]]
//! uri = "rtsp://user:password@camera/1"  # or a path, file://, images:FOLDER, http(s)://,
//!                        ## v4l2:///dev/video0, csi://0, test://smpte?width=640&height=480&fps=30
//! id = "front"           # the file's name, else `stream0`
//! queue_frames_max = 3   # decoded ahead; a live stream drops its oldest at the bound, a file waits
//! interval = 1           # infer on every n-th frame
//! frames_max = 1000      # none
//! ## repeat = 1          # files and folders: how often to play, or "forever"
//! [stream.rtsp]          # rtsp:// only
//! transport = "tcp"      # udp, auto
//! latency_ms = 200
//! [stream.reconnect]     # rtsp, http, v4l2 and csi only
//! delay_ms_min = 500     # doubles at every attempt
//! delay_ms_max = 30000
//! attempts_max = 10      # none: for ever
//! stall_ms = 5000        # without a frame for so long, the source is lost
//! ## [stream.lens]       # none, and refused without feature `opencv`; frames are made straight before all else
//! ## camera_matrix = [1400, 1400, 960, 540]  # fx, fy, cx, cy, as OpenCV's `calibrateCamera` gives them
//! ## distortion = [-0.3, 0.1, 0, 0]  # k1, k2, p1, p2; or k3 too; or k3, k4, k5, k6 too
//! ## size = "1920x1080"  # of the pictures of the calibration; the stream's may be larger or smaller
//! ## alpha = 0.5         # 0: cut off what was not seen, 1: show all that was; none: the middle keeps its size
//!
//! [[stream]]
//! uri = "v4l2:///dev/video0"
//! [stream.camera]        # v4l2:// and csi:// only; 0 is the camera's own choice
//! width = 0
//! height = 0
//! fps = 0
//!
//! [model]
//! path = "model.onnx"
//! manifest = "model.toml"  # the one beside the model; a table in its place holds the keys of a manifest
//! labels = "labels.txt"  # those of the manifest
//! backend = "auto"       # onnxruntime, rten
//! threads = 2            # of an inference; none: the cores shared among those that run at once
//! concurrent_max = 1     # inferences at once, of a batch each; more pay where one does not keep the processor busy
//! score_min = 0.4        # the manifest's, like `size` (where the model leaves it open) and `decoder`
//! size = "640x640"
//! decoder = "yolo-v8"
//! trust = ["trusted.keys"]  # public keys (`ed25519:…`) or files of them; none: whoever made it
//! tiles = { columns = 2, rows = 2, overlap = 0.2, whole = true }  # none: frames are read whole
//! rebuild = true         # build a plan that a bundle lacks, while its ONNX model runs
//! [[model.class]]        # none; what becomes of a class once it is decoded
//! class = "car"          # or its index; all classes that have no table of their own
//! drop = false
//! score_min = 0.5        # these two and the next four: none
//! results_max = 20       # of one picture, the best
//! width_min = 8          # pixels of the picture, like height_min, width_max, height_max
//!
//! [[secondary]]          # a further model, none; its other keys are those of [model]
//! path = "color.onnx"
//! name = "color"         # of its answers; the model's
//! reads = "objects"      # frames: whole ones, as the first model does
//! on = ["car", "truck"]  # of which classes; all
//! size_min = "16x16"     # of objects, in pixels of the frame
//! size_max = "1000x1000" # none
//! margin = 0.0           # of a box, on each side
//! every = 30             # frames after which a track is asked about again; none: once. Of frames, every n-th; 1
//! objects_max = 32       # of a frame, the largest first
//! batch_max = 8          # pictures of one inference
//!
//! [batch]
//! frames_max = 1         # of one inference, over all streams
//! wait_ms = 10           # for an incomplete batch to fill
//!
//! [tracker]              # none: nothing is tracked
//! algorithm = "bytetrack"  # sort, ocsort; these are the keys of bytetrack, below are those of the others
//! across_classes = false # match boxes of whatever class
//! camera_motion = false  # let objects move as the camera does; true is refused without feature `opencv`
//! smooth = true          # bytetrack, sort: boxes as the filter sees them; false where pictures are anonymised
//! lost_frames_max = 30   # a track ends when it was not seen for more frames; 1 for sort
//! score_high = 0.6       # better detections are matched first; for worse ones see below
//! score_low = 0.1        # weaker ones down to this go on with a track that found none better
//! score_new = 0.7        # a track begins with at least this; score_high + 0.1
//! distance_max = 0.9     # most 1 − overlap · score of a good detection
//! weigh_scores = true    # false: most 1 − overlap
//! ## hits_min = 3        # sort, ocsort: a track is sure after so many detections in a row behind its first
//! ## iou_min = 0.3       # sort, ocsort: least overlap
//! ## score_high = 0.6    # ocsort: worse detections are not tracked
//! ## score_low = 0.1     # ocsort: none; else as with bytetrack
//! ## delta_frames = 3    # ocsort: directions are measured over so many frames
//! ## inertia = 0.2       # ocsort: weight of the direction
//!
//! [analytics]            # none; what to tell of tracked objects; lines, directions and dwell_s need [tracker]
//! anchor = "bottom-center"  # the point of a box that stands for the object; center
//! margin = 0.05          # so far past a line or outline an anchor has crossed it; of the box's height
//! forget_s = 8.0         # a track that is unseen for longer has left
//! reference = "1920x1080"  # the picture that points are of; the stream's own
//! [[analytics.line]]
//! name = "door"          # like `points` in each of the three; the rest need not be there
//! points = [[600, 800], [1400, 800]]
//! direction = [[0, 0], [0, 1]]  # which way is in; from the left to the right of who walks along the line
//! mode = "loose"         # within 60° of the direction or its opposite: balanced; within 30°: strict
//! extended = false       # past both ends
//! streams = ["front"]    # all
//! classes = ["person"]   # all
//! reference = "1280x720"  # that of `[analytics]`; streams, classes and reference are keys of each of the three
//! [[analytics.region]]
//! name = "queue"
//! points = [[100, 500], [500, 500], [500, 900], [100, 900]]  # of a polygon, in their order
//! inverse = false        # all but the polygon
//! dwell_s = 30.0         # none; whoever stays so long is told
//! overcrowding = { objects_max = 10, after_s = 5.0 }  # none; more for so long are told
//! [[analytics.direction]]
//! name = "wrong way"
//! points = [[0, 0], [0, -1]]
//! angle_deg = 45.0       # to either side
//!
//! [draw]
//! boxes = true
//! labels = true
//! scores = true
//! landmarks = true
//! masks = true
//! tracks = true          # their numbers, and a colour for each
//! clock = false
//! rules = true           # what `[analytics]` looks at, and its counts
//! [draw.anonymize]       # none
//! method = "blur"        # mosaic
//! classes = ["face"]     # all
//! margin = 0.1           # of a box, on each side
//!
//! [[sink]]
//! type = "video"
//! path = "out/{stream}.mp4"  # or .mkv; `{stream}` is the stream's id
//! bitrate_kbps = 4000    # by the size of the picture
//! [[sink]]
//! type = "jsonl"
//! path = "out/results.jsonl"
//! [[sink]]
//! type = "events"        # needs [analytics], as do mqtt and webhook
//! path = "out/events.jsonl"
//! snapshots = "out/events"  # none; a folder for a picture of each event, `ID.event.jpg`; of mqtt and webhook too
//! snapshots_mb_max = 500 # of the folder; the oldest of its pictures are deleted
//! [[sink]]
//! type = "mqtt"
//! url = "mqtts://user@broker:8883"  # or mqtt://
//! password_file = "mqtt.password"  # none
//! ca_file = "ca.pem"     # the system's; what signs the broker's certificate
//! payload = "events"     # or, of every frame, what a sink of type messages has: deepstream-full, deepstream-minimal
//! ## every = 1            # n-th frame, of messages
//! topic = "revoada/{stream}/events"  # `{stream}` is the stream's id, `{kind}` the event's kind; of messages
//!                        ## "revoada/{stream}/messages", and `{kind}` is object or frame
//! qos = 1                # 0: sent and forgotten
//! retain = false
//! client_id = "gate-7"   # another one in each run
//! queue_events_max = 1000  # that wait; then the oldest is dropped. These five and payload are webhook's too
//! timeout_ms = 10000     # of an attempt
//! delay_ms_min = 500     # to the next; doubles at every attempt
//! delay_ms_max = 30000
//! flush_ms = 5000        # to deliver what waits at the end
//! [[sink]]
//! type = "webhook"
//! url = "https://host/events"  # or http://; one POST an event
//! token_file = "webhook.token"  # none; sent as bearer token
//! ca_file = "ca.pem"     # the system's
//! [[sink]]
//! type = "recording"     # needs [analytics], unless `on = []`
//! folder = "out/recordings"  # which must be there, and is this sink's alone
//! before_s = 10          # in front of an event, and up to a second more
//! after_s = 10           # behind it; an event within that makes the recording longer
//! length_s_max = 300     # then it goes on in another
//! on = ["line-crossed", "region-dwelt"]  # all kinds of events; []: only what `revoada ctl record` asks for
//! rules = ["door"]       # of lines, regions and directions; all
//! streams = ["front"]    # all
//! mb_max = 10000         # of the folder, beside what is being written; the oldest recordings are deleted
//! keep_days = 30         # none; older ones are deleted
//! buffer_mb_max = 32     # of a stream's encoded video in memory, three times that on a slow disk; the oldest is dropped
//! bitrate_kbps = 4000    # by the picture, for constant quality
//! container = "mp4"      # mkv
//! [[sink]]
//! type = "csv"
//! path = "out/results.csv"
//! [[sink]]
//! type = "kitti"         # a file per frame, as DeepStream names and writes them
//! folder = "out/kitti"
//! tracks = false         # rows of tracks in place of detections
//! [[sink]]
//! type = "messages"
//! path = "out/messages.jsonl"
//! payload = "deepstream-full"  # an object each; deepstream-minimal: a frame each
//! every = 1              # n-th frame
//! [[sink]]
//! type = "images"
//! folder = "out/pictures"
//! format = "jpeg"        # png
//! every = 1              # n-th frame
//! [[sink]]
//! type = "rtsp"
//! address = "0.0.0.0:8554"
//! [[sink]]
//! type = "preview"       # needs [http]
//! quality = 80
//! fps_max = 15
//!
//! [http]                 # none
//! address = "127.0.0.1:8080"
//! control = false        # let whoever reaches it add, remove and record streams
//! [control]              # none
//! socket = "/run/revoada/control.sock"
//! [perf]                 # none
//! interval_s = 5.0
//! # "#;
//! # use revoada_pipeline::config::Draft;
//! # Draft::from_file("pipeline.toml".as_ref(), text, "/".as_ref()).check().unwrap();
//! ```
//!
//! What is shown with a tracker: detections from `model.score_min` on, with or without a track, and the weaker ones down
//! to the tracker's `score_low` that have one. A frame is one that is inferred: with `interval = 5`, every fifth.
//!
//! A deterministic run reads files, folders of pictures and test patterns that are not live. Batches are formed of the
//! streams in turn, however long that takes; an inference has 2 threads where nothing is said, whatever the machine has;
//! a plan is not built meanwhile; and JSON Lines leave the times of processing out. The same program, model, backend and
//! kind of processor then give the same results. What is encoded, and the ids of messages, may differ.

mod analytics;
mod check;
mod classes;
mod delivery;
mod draft;
mod lens;
mod live;
mod print;
mod read;
mod recording;
mod secondary;
mod tiles;
mod uri;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use revoada_bundle::manifest::Manifest;
use revoada_bundle::sign::TrustedKeys;
use revoada_core::StreamId;
use revoada_engine::BackendChoice;

pub use analytics::{
    AnalyticsConfig, Anchor, CrossingMode, CrowdConfig, DirectionConfig, LineConfig, RegionConfig, Scope,
};
pub use classes::{ClassName, ClassRule};
pub use delivery::{BrokerAddress, CourierConfig, MqttConfig, Sends, SnapshotsConfig, WebhookConfig};
pub use draft::{Draft, Value};
pub use lens::LensConfig;
pub use recording::{Container, RecordingConfig};
pub use revoada_bundle::strict::{Problem, Problems};
pub use secondary::{ObjectsConfig, Reads, SecondaryConfig};
pub use tiles::TilesConfig;

/// Streams of one pipeline. Each has a thread and decoder buffers; ten times what an Orin decodes.
pub const STREAMS_MAX: usize = 256;
/// Frames that one stream may have decoded ahead: a second's worth of 1080p is already 190 MB.
pub const QUEUE_FRAMES_MAX: usize = 64;
/// Frames of one inference.
pub const BATCH_FRAMES_MAX: usize = 64;
/// Frames that OC-SORT looks back for a direction: each track remembers as many boxes.
pub const DELTA_FRAMES_MAX: u32 = 8;
/// Frames that a track may be lost for: objects that are gone cost memory and time for so long, and no guess of where they
/// are is worth anything by then.
pub(crate) const LOST_FRAMES_MAX: u32 = 1000;
/// Threads of an inference whose results must not depend on how many cores there are.
const THREADS_DETERMINISTIC: usize = 2;
/// Inferences at once: each holds buffers, and may hold the weights, once more.
const CONCURRENT_MAX: usize = 16;
const SINKS_MAX: usize = 32;
const ID_CHARS_MAX: usize = 64;
/// The largest side of a picture that a frame can have.
const SIDE_PIXELS_MAX: u32 = 1 << 15;
const FPS_MAX: u32 = 1000;

/// Whether a stream may be called so: its id stands in file names, URLs and metrics.
pub(crate) fn is_stream_id(id: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&id.len()) && id.chars().all(is_id_char) && !id.starts_with('.')
}

/// What an id is made of.
fn is_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// A whole pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineConfig {
    pub streams: Vec<StreamConfig>,
    pub model: ModelConfig,
    /// Further models, in the order in which they are asked.
    pub secondaries: Vec<SecondaryConfig>,
    pub batch: BatchConfig,
    /// Nothing is tracked where there is none.
    pub tracker: Option<TrackerConfig>,
    /// Nothing is told of tracked objects where there is none.
    pub analytics: Option<AnalyticsConfig>,
    pub draw: DrawConfig,
    pub sinks: Vec<SinkConfig>,
    /// Serves `/metrics`, the preview page and MJPEG.
    pub http: Option<HttpConfig>,
    /// Unix socket that `revoada ctl` speaks to.
    pub control: Option<PathBuf>,
    /// Print `**PERF:` lines this often.
    pub perf_interval: Option<Duration>,
    /// The same input gives the same results, whatever the threads do.
    pub deterministic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    pub address: SocketAddr,
    /// Whether streams can be added, removed and recorded there, by whoever reaches the address.
    pub control: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StreamConfig {
    pub id: StreamId,
    pub source: SourceConfig,
    /// Frames decoded ahead; live sources drop the oldest at the bound, files wait.
    pub queue_frames_max: usize,
    /// Infer on every n-th frame only (1: all); the others are skipped before staging.
    pub interval: u32,
    /// Stop after so many frames.
    pub frames_max: Option<u64>,
    /// Play a file or image folder so many times; `None`: for ever.
    pub repeat: Option<u32>,
    pub reconnect: ReconnectConfig,
    /// Frames are made straight; `None`: they stay as they are. Needs feature `opencv`.
    pub lens: Option<LensConfig>,
}

/// Where frames come from.
#[derive(Clone, PartialEq, Eq)]
pub enum SourceConfig {
    /// A video file, any container and codec the machine decodes.
    File(PathBuf),
    /// `rtsp://` or `rtsps://`
    Rtsp { url: String, transport: RtspTransport, latency: Duration },
    /// `http://` or `https://`
    Http(String),
    /// `v4l2:///dev/video0`, with the mode to ask for where one is wanted.
    V4l2 { device: PathBuf, mode: CameraMode },
    /// `csi://0`, a camera on a Jetson's CSI connector.
    Csi { sensor: u32, mode: CameraMode },
    /// A folder (or one file) of pictures, in the order of their names, one frame each.
    Images(PathBuf),
    /// `test://smpte`, GStreamer's `videotestsrc` with that pattern; live where a rate is kept.
    Test { pattern: String, mode: CameraMode, live: bool },
}

impl SourceConfig {
    /// Whether frames come whether or not somebody reads them.
    pub fn is_live(&self) -> bool {
        match self {
            Self::File(_) | Self::Images(_) | Self::Http(_) => false,
            Self::Rtsp { .. } | Self::V4l2 { .. } | Self::Csi { .. } => true,
            Self::Test { live, .. } => *live,
        }
    }

    /// Whether frames come when something else than this machine's own files lets them.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_live() || matches!(self, Self::Http(_))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtspTransport {
    #[default]
    Tcp,
    Udp,
    /// UDP, then TCP.
    Auto,
}

/// Width, height and frame rate to ask a camera for; 0 leaves it to the camera.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameraMode {
    pub width: u32,
    pub height: u32,
    pub fps: u32,
}

/// Exponential back-off between attempts, for sources that may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectConfig {
    pub delay_min: Duration,
    pub delay_max: Duration,
    /// `None`: for ever.
    pub attempts_max: Option<u32>,
    /// A live source that yields nothing for so long is taken for lost.
    pub stall: Duration,
}

impl Default for ReconnectConfig {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(500),
            delay_max: Duration::from_secs(30),
            attempts_max: None,
            stall: Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelConfig {
    /// The ONNX file; its manifest is looked for beside it.
    pub path: PathBuf,
    /// `None`: the ONNX file's name with `.toml`, where there is one.
    pub manifest: Option<ManifestConfig>,
    /// Replaces the manifest's labels.
    pub labels: Option<PathBuf>,
    pub backend: BackendChoice,
    /// Threads inside one inference; `None` shares the cores among those that run at once.
    pub threads: Option<usize>,
    /// Inferences that run at once, each of a batch of its own; `None`: one.
    pub concurrent_max: Option<usize>,
    /// Replaces the manifest's least score.
    pub score_min: Option<f32>,
    /// Decode down to this score, below the least of a result, for a tracker that goes on with weak detections.
    pub score_low: Option<f32>,
    /// Replaces the manifest's input width and height where the model leaves them open.
    pub size: Option<revoada_core::Size>,
    /// Replaces the manifest's decoder.
    pub decoder: Option<String>,
    /// Who must have signed a bundle or a plan; empty: anybody or nobody.
    pub trust: Vec<TrustedKeys>,
    /// Read frames in parts.
    pub tiles: Option<TilesConfig>,
    /// Build a plan of a bundle that has none for this device, while something else runs.
    pub rebuild: bool,
    /// What is done with classes once they are decoded; at most one rule for each.
    pub classes: Vec<ClassRule>,
}

/// Where a manifest is that is not beside its model.
#[derive(Clone, Debug, PartialEq)]
pub enum ManifestConfig {
    File(PathBuf),
    /// In the pipeline's own file.
    Inline(Box<Manifest>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Most frames of one inference, over all streams.
    pub frames_max: usize,
    /// How long an incomplete batch waits for more.
    pub wait: Duration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { frames_max: 1, wait: Duration::from_millis(10) }
    }
}

/// How objects are followed through the frames of each stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackerConfig {
    pub algorithm: TrackerAlgorithm,
    /// Match boxes whatever their classes are, for models that take one thing now for this and now for that.
    pub across_classes: bool,
    /// Tracks have the boxes that the filters of SORT and ByteTrack see, not the detector's.
    pub smooth: bool,
    /// Look in the pictures for how the camera moved, and let objects move with it. Needs feature `opencv`.
    pub camera_motion: bool,
}

impl TrackerConfig {
    pub const SORT: Self = Self::of(TrackerAlgorithm::Sort(SortConfig::STANDARD));
    pub const BYTE_TRACK: Self = Self::of(TrackerAlgorithm::ByteTrack(ByteTrackConfig::STANDARD));
    pub const OC_SORT: Self = Self::of(TrackerAlgorithm::OcSort(OcSortConfig::STANDARD));

    const fn of(algorithm: TrackerAlgorithm) -> Self {
        Self { algorithm, across_classes: false, smooth: true, camera_motion: false }
    }

    /// The least score of a detection that the algorithm has a use for, where it needs weaker ones than are results.
    pub fn score_low(&self) -> Option<f64> {
        match self.algorithm {
            TrackerAlgorithm::Sort(_) => None,
            TrackerAlgorithm::ByteTrack(ByteTrackConfig { score_low, .. }) => Some(score_low),
            TrackerAlgorithm::OcSort(OcSortConfig { score_low, .. }) => score_low,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrackerAlgorithm {
    Sort(SortConfig),
    ByteTrack(ByteTrackConfig),
    OcSort(OcSortConfig),
}

/// Frames are those that are inferred: with `interval = 5` every fifth of the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SortConfig {
    /// A track that was not seen for more frames than this is over.
    pub lost_frames_max: u32,
    /// A track is sure after so many detections in a row behind its first.
    pub hits_min: u32,
    /// Least overlap of a track and its detection.
    pub iou_min: f64,
}

impl SortConfig {
    /// The authors'.
    pub const STANDARD: Self = Self { lost_frames_max: 1, hits_min: 3, iou_min: 0.3 };
}

/// Frames are those that are inferred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteTrackConfig {
    /// Better detections are matched first.
    pub score_high: f64,
    /// Worse detections are not looked at; those between go on with a track.
    pub score_low: f64,
    /// Least score of a detection that begins a track.
    pub score_new: f64,
    /// A track that was not seen for more frames than this is looked for once more, and then over.
    pub lost_frames_max: u32,
    /// Most distance, 1 − overlap (times score), between a track and a good detection.
    pub distance_max: f64,
    /// Overlaps with good detections count in proportion to their scores.
    pub weigh_scores: bool,
}

impl ByteTrackConfig {
    /// The authors', as they evaluate it on MOT17.
    pub const STANDARD: Self = Self {
        score_high: 0.6,
        score_low: 0.1,
        score_new: 0.7,
        lost_frames_max: 30,
        distance_max: 0.9,
        weigh_scores: true,
    };
}

/// Frames are those that are inferred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OcSortConfig {
    /// Worse detections are not tracked, unless by `score_low`.
    pub score_high: f64,
    /// Where there is one: detections between this and `score_high` go on with tracks that found none better.
    pub score_low: Option<f64>,
    /// A track that was not seen for more frames than this is over.
    pub lost_frames_max: u32,
    /// A track is sure after so many detections in a row behind its first.
    pub hits_min: u32,
    /// Least overlap of a track and its detection.
    pub iou_min: f64,
    /// Directions are measured over so many frames, at most [`DELTA_FRAMES_MAX`].
    pub delta_frames: u32,
    /// Weight of the direction against the overlap.
    pub inertia: f64,
}

impl OcSortConfig {
    /// The authors'.
    pub const STANDARD: Self = Self {
        score_high: 0.6,
        score_low: None,
        lost_frames_max: 30,
        hits_min: 3,
        iou_min: 0.3,
        delta_frames: 3,
        inertia: 0.2,
    };
}

/// What is drawn into the pictures that sinks show.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawConfig {
    pub boxes: bool,
    pub labels: bool,
    pub scores: bool,
    pub landmarks: bool,
    pub masks: bool,
    /// Numbers of tracks, and boxes in the colour of their track.
    pub tracks: bool,
    /// The frame's time in the upper left corner.
    pub clock: bool,
    /// Lines, regions and directions with their counts.
    pub rules: bool,
    pub anonymize: Option<AnonymizeConfig>,
}

impl Default for DrawConfig {
    fn default() -> Self {
        Self {
            boxes: true,
            labels: true,
            scores: true,
            landmarks: true,
            masks: true,
            tracks: true,
            clock: false,
            rules: true,
            anonymize: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct AnonymizeConfig {
    pub method: AnonymizeMethod,
    /// Labels of the classes to hide; empty: all.
    pub classes: Vec<String>,
    /// Grow each box by this fraction of its size on every side, so that hair and chin go too.
    pub margin: f32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnonymizeMethod {
    #[default]
    Blur,
    Mosaic,
}

/// One destination. `{stream}` in a path becomes the stream's id, and must stand there where there
/// are several streams and the sink writes a file for each.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkConfig {
    /// H.264 in MP4 or Matroska, by the file's extension (`.mp4`, `.mkv`).
    Video { path: PathBuf, bitrate_kbps: Option<u32> },
    /// One JSON object a line, a frame each.
    JsonLines { path: PathBuf },
    /// One JSON object a line, an event each.
    Events { path: PathBuf, snapshots: Option<SnapshotsConfig> },
    /// One message an event.
    Mqtt(MqttConfig),
    /// One request an event.
    Webhook(WebhookConfig),
    /// One row per detection or class.
    Csv { path: PathBuf },
    /// Rows of detections or tracks, a file per frame in a folder, as DeepStream dumps them.
    Kitti { folder: PathBuf, tracks: bool },
    /// One JSON object a line, as DeepStream's message converter makes them.
    Messages { path: PathBuf, payload: Payload, every: u32 },
    /// One picture per frame into a folder, JPEG or PNG.
    Images { folder: PathBuf, format: ImageFormat, every: u32 },
    /// The seconds around each event, a file each.
    Recording(RecordingConfig),
    /// `rtsp://HOST:port/<stream>`
    Rtsp { address: SocketAddr, bitrate_kbps: Option<u32> },
    /// MJPEG on the pipeline's HTTP address, `/streams/<stream>.mjpeg`.
    Preview { quality: u8, fps_max: u32 },
    /// Counts and forgets.
    None,
}

/// Whose messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// `msg-conv-payload-type=0`: an object each, with everything about it.
    #[default]
    DeepStreamFull,
    /// `msg-conv-payload-type=1`: a frame each, an object a string.
    DeepStreamMinimal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFormat {
    #[default]
    Jpeg,
    Png,
}
