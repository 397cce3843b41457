//! From tables to types, key by key. What is wrong is recorded in the document and a default takes
//! its place, so that reading always comes to its end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use revoada_bundle::manifest::Manifest;
use revoada_bundle::sign::TrustedKeys;
use revoada_bundle::strict::Table;
use revoada_core::{Size, StreamId};
use revoada_engine::BackendChoice;

use super::{
    AnalyticsConfig, AnonymizeConfig, AnonymizeMethod, BATCH_FRAMES_MAX, BatchConfig, ByteTrackConfig, CONCURRENT_MAX,
    CameraMode, DELTA_FRAMES_MAX, DrawConfig, FPS_MAX, HttpConfig, ID_CHARS_MAX, ImageFormat, LOST_FRAMES_MAX,
    ManifestConfig, ModelConfig, OcSortConfig, Payload, PipelineConfig, QUEUE_FRAMES_MAX, ReconnectConfig,
    RtspTransport, SIDE_PIXELS_MAX, SecondaryConfig, SinkConfig, SortConfig, SourceConfig, StreamConfig,
    THREADS_DETERMINISTIC, TrackerAlgorithm, TrackerConfig, delivery, is_stream_id, lens, recording, secondary, tiles,
};
use crate::vision;

/// Frames decoded ahead where nothing is said: enough to bridge one inference, and 9 MB of 1080p.
const QUEUE_FRAMES_DEFAULT: usize = 3;

/// A day: what waits longer does not wait but hangs.
const WAIT_MS_MAX: u64 = 24 * 3600 * 1000;

/// Words of the file and what they mean; printing goes the other way.
pub(super) const TRANSPORTS: [(&str, RtspTransport); 3] =
    [("tcp", RtspTransport::Tcp), ("udp", RtspTransport::Udp), ("auto", RtspTransport::Auto)];
pub(super) const METHODS: [(&str, AnonymizeMethod); 2] =
    [("blur", AnonymizeMethod::Blur), ("mosaic", AnonymizeMethod::Mosaic)];
pub(super) const PAYLOADS: [(&str, Payload); 2] =
    [("deepstream-full", Payload::DeepStreamFull), ("deepstream-minimal", Payload::DeepStreamMinimal)];
pub(super) const TRACKERS: [(&str, TrackerConfig); 3] =
    [("sort", TrackerConfig::SORT), ("bytetrack", TrackerConfig::BYTE_TRACK), ("ocsort", TrackerConfig::OC_SORT)];
pub(super) const FORMATS: [(&str, ImageFormat); 2] = [("jpeg", ImageFormat::Jpeg), ("png", ImageFormat::Png)];

/// All that was read, with the tables where problems of meaning are to be reported.
pub(super) struct Drafted<'d> {
    pub(super) streams: Vec<(Table<'d>, Option<StreamConfig>)>,
    pub(super) sinks: Vec<(Table<'d>, Option<SinkConfig>)>,
    pub(super) model: Option<ModelConfig>,
    pub(super) secondaries: Vec<(Table<'d>, Option<SecondaryConfig>)>,
    pub(super) batch: BatchConfig,
    pub(super) tracker: Option<TrackerConfig>,
    pub(super) analytics: Option<AnalyticsConfig>,
    pub(super) draw: DrawConfig,
    pub(super) http: Option<HttpConfig>,
    pub(super) control: Option<PathBuf>,
    pub(super) perf_interval: Option<Duration>,
    pub(super) deterministic: bool,
}

impl Drafted<'_> {
    /// `None` where something that is needed is missing.
    pub(super) fn config(self) -> Option<PipelineConfig> {
        let mut model = self.model?;
        model.score_low = self.tracker.and_then(|tracker| tracker.score_low()).map(|score| score as f32);
        let secondaries = self.secondaries.into_iter().map(|(_, secondary)| secondary);
        let mut secondaries: Vec<_> = secondaries.collect::<Option<_>>()?;
        if self.deterministic {
            let further = secondaries.iter_mut().map(|secondary| &mut secondary.model);
            for model in std::iter::once(&mut model).chain(further) {
                model.threads.get_or_insert(THREADS_DETERMINISTIC);
                model.rebuild = false;
            }
        }
        Some(PipelineConfig {
            streams: self.streams.into_iter().map(|(_, stream)| stream).collect::<Option<_>>()?,
            model,
            secondaries,
            batch: self.batch,
            tracker: self.tracker,
            analytics: self.analytics,
            draw: self.draw,
            sinks: self.sinks.into_iter().map(|(_, sink)| sink).collect::<Option<_>>()?,
            http: self.http,
            control: self.control,
            perf_interval: self.perf_interval,
            deterministic: self.deterministic,
        })
    }
}

pub(super) fn pipeline<'d>(root: &Table<'d>, folder: &Path) -> Drafted<'d> {
    let mut ids = BTreeSet::new();
    let streams = root.tables("stream").into_iter().enumerate();
    let streams = streams.map(|(index, table)| {
        let stream = stream(&table, index, folder, &mut ids);
        (table, stream)
    });
    let streams = streams.collect();
    let sinks = root.tables("sink").into_iter();
    let sinks = sinks.map(|table| {
        let sink = sink(&table, folder);
        (table, sink)
    });
    let secondaries = root.tables("secondary").into_iter();
    let secondaries = secondaries.map(|table| {
        let secondary = secondary::secondary(&table, folder);
        (table, secondary)
    });
    let draw = root.table("draw").map(|table| draw(&table)).unwrap_or_default();
    // What is hidden has to be hidden where it is.
    let hides = draw.anonymize.is_some();
    Drafted {
        streams,
        sinks: sinks.collect(),
        secondaries: secondaries.collect(),
        model: root.required().table("model").and_then(|table| model(&table, folder)),
        batch: root.table("batch").map(|table| batch(&table)).unwrap_or_default(),
        tracker: root.table("tracker").and_then(|table| tracker(&table, hides)),
        analytics: root.table("analytics").map(|table| super::analytics::read(&table, &ids)),
        draw,
        http: root.table("http").and_then(|table| http(&table)),
        control: root.table("control").and_then(|table| path(&table.required(), "socket", folder)),
        perf_interval: root
            .table("perf")
            .and_then(|table| table.required().float("interval_s", 0.1..=86_400.0))
            .map(Duration::from_secs_f64),
        deterministic: root.boolean("deterministic").unwrap_or(false),
    }
}

fn http(table: &Table<'_>) -> Option<HttpConfig> {
    let control = table.boolean("control").unwrap_or(false);
    Some(HttpConfig { address: address(table, "address")?, control })
}

fn stream(table: &Table<'_>, index: usize, folder: &Path, ids: &mut BTreeSet<String>) -> Option<StreamConfig> {
    let uri = table.required().string("uri");
    let source = uri.and_then(|uri| match SourceConfig::parse(&uri) {
        Ok(source) => Some(source.relative_to(folder)),
        Err(message) => {
            table.problem("uri", message);
            None
        }
    });
    let id = table.string("id").and_then(|id| checked_id(table, id));
    let id = id.or_else(|| Some(unused_id(source.as_ref()?.default_id(index), ids)));
    if let Some(id) = &id
        && !ids.insert(id.clone())
    {
        table.problem("id", format!("there is another stream `{id}`"));
    }
    let rtsp = table.table("rtsp").map(|table| rtsp(&table));
    let camera = table.table("camera").map(|table| camera(&table));
    let reconnect = table.table("reconnect").map(|table| reconnect(&table));
    let lens = table.table("lens").and_then(|table| lens::lens(&table));
    lens::check(table, lens.as_ref());
    let repeat = match table.is_string("repeat") {
        true => table.choice("repeat", &[("forever", None)]),
        false => table.integer("repeat", 1u32..).map(Some),
    };
    let queue_frames_max = table.integer("queue_frames_max", 1..=QUEUE_FRAMES_MAX).unwrap_or(QUEUE_FRAMES_DEFAULT);
    let interval = table.integer("interval", 1u32..=10_000).unwrap_or(1);
    let frames_max = table.integer("frames_max", 1u64..);
    let source = with_options(table, source?, rtsp, camera);
    if source.ends() && !matches!(source, SourceConfig::Http(_)) && reconnect.is_some() {
        table.problem("reconnect", "has no effect on a source that cannot be lost");
    }
    let is_file = matches!(source, SourceConfig::File(_) | SourceConfig::Images(_));
    if !is_file && repeat.is_some() {
        table.problem("repeat", "has an effect on files and folders of pictures only");
    }
    Some(StreamConfig {
        id: StreamId::new(&id?),
        source,
        queue_frames_max,
        interval,
        frames_max,
        repeat: repeat.unwrap_or(Some(1)),
        reconnect: reconnect.unwrap_or_default(),
        lens,
    })
}

fn checked_id(table: &Table<'_>, id: String) -> Option<String> {
    if is_stream_id(&id) {
        return Some(id);
    }
    let message = format!(
        "expected 1 to {ID_CHARS_MAX} letters, digits, `-`, `_` and `.` (not first), got `{}`",
        id.chars().take(ID_CHARS_MAX).collect::<String>().escape_debug()
    );
    table.problem("id", message);
    None
}

/// `clip`, then `clip-2`, `clip-3`: several streams of one file are no mistake.
fn unused_id(name: String, ids: &BTreeSet<String>) -> String {
    let mut numbered = (2..).map(|number| format!("{name}-{number}"));
    if ids.contains(&name) { numbered.find(|id| !ids.contains(id)).unwrap_or(name) } else { name }
}

/// What `[stream.rtsp]` and `[stream.camera]` say, where the source has a use for it.
fn with_options(
    table: &Table<'_>,
    source: SourceConfig,
    rtsp: Option<(RtspTransport, Duration)>,
    camera: Option<CameraMode>,
) -> SourceConfig {
    if rtsp.is_some() && !matches!(source, SourceConfig::Rtsp { .. }) {
        table.problem("rtsp", "has no effect: the source is not `rtsp://`");
    }
    if camera.is_some() && !matches!(source, SourceConfig::V4l2 { .. } | SourceConfig::Csi { .. }) {
        table.problem("camera", "has no effect: the source is neither `v4l2://` nor `csi://`");
    }
    match (source, rtsp, camera) {
        (SourceConfig::Rtsp { url, .. }, Some((transport, latency)), _) => {
            SourceConfig::Rtsp { url, transport, latency }
        }
        (SourceConfig::V4l2 { device, .. }, _, Some(mode)) => SourceConfig::V4l2 { device, mode },
        (SourceConfig::Csi { sensor, .. }, _, Some(mode)) => SourceConfig::Csi { sensor, mode },
        (source, ..) => source,
    }
}

fn rtsp(table: &Table<'_>) -> (RtspTransport, Duration) {
    let latency = milliseconds(table, "latency_ms", 0, 60_000).unwrap_or(super::uri::RTSP_LATENCY);
    (table.choice("transport", &TRANSPORTS).unwrap_or_default(), latency)
}

fn camera(table: &Table<'_>) -> CameraMode {
    CameraMode {
        width: table.integer("width", 0..=SIDE_PIXELS_MAX).unwrap_or(0),
        height: table.integer("height", 0..=SIDE_PIXELS_MAX).unwrap_or(0),
        fps: table.integer("fps", 0..=FPS_MAX).unwrap_or(0),
    }
}

fn reconnect(table: &Table<'_>) -> ReconnectConfig {
    let default = ReconnectConfig::default();
    let delay_min = milliseconds(table, "delay_ms_min", 10, WAIT_MS_MAX).unwrap_or(default.delay_min);
    let delay_max = milliseconds(table, "delay_ms_max", 10, WAIT_MS_MAX).unwrap_or(default.delay_max.max(delay_min));
    if delay_max < delay_min {
        table.problem("delay_ms_max", format!("is less than `delay_ms_min`, {}", delay_min.as_millis()));
    }
    ReconnectConfig {
        delay_min,
        delay_max,
        attempts_max: table.integer("attempts_max", 0u32..),
        stall: milliseconds(table, "stall_ms", 100, WAIT_MS_MAX).unwrap_or(default.stall),
    }
}

pub(super) fn model(table: &Table<'_>, folder: &Path) -> Option<ModelConfig> {
    let model_path = path(&table.required(), "path", folder);
    let backend = table.string("backend").map(|name| match name.as_str() {
        "auto" => BackendChoice::Auto,
        _ => BackendChoice::Named(name),
    });
    let config = ModelConfig {
        path: model_path.clone().unwrap_or_default(),
        manifest: match table.is_string("manifest") {
            true => path(table, "manifest", folder).map(ManifestConfig::File),
            false => {
                table.table("manifest").map(|table| ManifestConfig::Inline(Box::new(Manifest::from_table(&table))))
            }
        },
        labels: path(table, "labels", folder),
        backend: backend.unwrap_or_default(),
        threads: table.integer("threads", 1..=1024),
        concurrent_max: table.integer("concurrent_max", 1..=CONCURRENT_MAX),
        score_min: table.float("score_min", 0.0..=1.0).map(|score| score as f32),
        size: size(table, "size"),
        decoder: table.string("decoder"),
        score_low: None,
        trust: trust(table, folder),
        tiles: table.table("tiles").and_then(|table| tiles::tiles(&table)),
        rebuild: table.boolean("rebuild").unwrap_or(true),
        classes: super::classes::read(table),
    };
    model_path.map(|_| config)
}

/// Keys, or files of them.
fn trust(table: &Table<'_>, folder: &Path) -> Vec<TrustedKeys> {
    let mut trusted = Vec::new();
    let named = table.strings("trust");
    if named.as_ref().is_some_and(Vec::is_empty) {
        table.problem("trust", "names nobody; leave it out to run whoever's model it is");
    }
    for text in named.unwrap_or_default() {
        match text.parse() {
            Ok(TrustedKeys::File(path)) => trusted.push(TrustedKeys::File(folder.join(path))),
            Ok(key) => trusted.push(key),
            Err(error) => table.problem("trust", error.to_string()),
        }
    }
    trusted
}

/// Width and height, as `"640x480"` or `[640, 480]`.
pub(super) fn size(table: &Table<'_>, key: &str) -> Option<Size> {
    let size = match table.is_array(key) {
        true => table.integers(key, 1..=SIDE_PIXELS_MAX as usize).map(|sides| match sides[..] {
            [width, height] => Some(Size::new(width, height)),
            _ => None,
        }),
        false => table.string(key).map(|text| parse_size(&text)),
    };
    if size == Some(None) {
        table.problem(key, format!("expected width and height such as `640x640`, at most {SIDE_PIXELS_MAX}"));
    }
    size.flatten()
}

pub(super) fn parse_size(text: &str) -> Option<Size> {
    let (width, height) = text.split_once(['x', '×'])?;
    let side = |text: &str| text.trim().parse().ok().filter(|side| (1..=SIDE_PIXELS_MAX as usize).contains(side));
    Some(Size::new(side(width)?, side(height)?))
}

fn batch(table: &Table<'_>) -> BatchConfig {
    let default = BatchConfig::default();
    BatchConfig {
        frames_max: table.integer("frames_max", 1..=BATCH_FRAMES_MAX).unwrap_or(default.frames_max),
        wait: milliseconds(table, "wait_ms", 0, 60_000).unwrap_or(default.wait),
    }
}

fn tracker(table: &Table<'_>, hides: bool) -> Option<TrackerConfig> {
    let Some(standard) = table.required().choice("algorithm", &TRACKERS) else {
        table.ignore_rest();
        return None;
    };
    let algorithm = match standard.algorithm {
        TrackerAlgorithm::Sort(standard) => TrackerAlgorithm::Sort(sort(table, standard)),
        TrackerAlgorithm::ByteTrack(standard) => TrackerAlgorithm::ByteTrack(byte_track(table, standard)),
        TrackerAlgorithm::OcSort(standard) => TrackerAlgorithm::OcSort(oc_sort(table, standard)),
    };
    let camera_motion = table.boolean("camera_motion").unwrap_or(standard.camera_motion);
    if camera_motion && !vision::IS_THERE {
        table.problem("camera_motion", vision::WITHOUT);
    }
    Some(TrackerConfig {
        algorithm,
        across_classes: table.boolean("across_classes").unwrap_or(standard.across_classes),
        smooth: table.boolean("smooth").unwrap_or(standard.smooth && !hides),
        camera_motion,
    })
}

fn sort(table: &Table<'_>, standard: SortConfig) -> SortConfig {
    SortConfig {
        lost_frames_max: lost_frames_max(table, standard.lost_frames_max),
        hits_min: table.integer("hits_min", 0..=LOST_FRAMES_MAX).unwrap_or(standard.hits_min),
        iou_min: fraction(table, "iou_min").unwrap_or(standard.iou_min),
    }
}

fn byte_track(table: &Table<'_>, standard: ByteTrackConfig) -> ByteTrackConfig {
    /// What the authors add to the score from which on detections are good.
    const NEW_ABOVE: f64 = 0.1;
    let score_high = fraction(table, "score_high");
    let score_new = score_high.map_or(standard.score_new, |score_high| (score_high + NEW_ABOVE).min(1.0));
    let config = ByteTrackConfig {
        score_high: score_high.unwrap_or(standard.score_high),
        score_low: fraction(table, "score_low").unwrap_or(standard.score_low),
        score_new: fraction(table, "score_new").unwrap_or(score_new),
        lost_frames_max: lost_frames_max(table, standard.lost_frames_max),
        distance_max: fraction(table, "distance_max").unwrap_or(standard.distance_max),
        weigh_scores: table.boolean("weigh_scores").unwrap_or(standard.weigh_scores),
    };
    check_scores(table, config.score_low, config.score_high);
    config
}

fn oc_sort(table: &Table<'_>, standard: OcSortConfig) -> OcSortConfig {
    let config = OcSortConfig {
        score_high: fraction(table, "score_high").unwrap_or(standard.score_high),
        score_low: fraction(table, "score_low").or(standard.score_low),
        lost_frames_max: lost_frames_max(table, standard.lost_frames_max),
        hits_min: table.integer("hits_min", 0..=LOST_FRAMES_MAX).unwrap_or(standard.hits_min),
        iou_min: fraction(table, "iou_min").unwrap_or(standard.iou_min),
        delta_frames: table.integer("delta_frames", 1..=DELTA_FRAMES_MAX).unwrap_or(standard.delta_frames),
        inertia: table.float("inertia", 0.0..=10.0).unwrap_or(standard.inertia),
    };
    if let Some(score_low) = config.score_low {
        check_scores(table, score_low, config.score_high);
    }
    config
}

fn check_scores(table: &Table<'_>, low: f64, high: f64) {
    if low > high {
        table.problem("score_low", format!("is more than `score_high`, {high}"));
    }
}

fn lost_frames_max(table: &Table<'_>, standard: u32) -> u32 {
    table.integer("lost_frames_max", 1..=LOST_FRAMES_MAX).unwrap_or(standard)
}

fn fraction(table: &Table<'_>, key: &str) -> Option<f64> {
    table.float(key, 0.0..=1.0)
}

fn draw(table: &Table<'_>) -> DrawConfig {
    let default = DrawConfig::default();
    DrawConfig {
        boxes: table.boolean("boxes").unwrap_or(default.boxes),
        labels: table.boolean("labels").unwrap_or(default.labels),
        scores: table.boolean("scores").unwrap_or(default.scores),
        landmarks: table.boolean("landmarks").unwrap_or(default.landmarks),
        masks: table.boolean("masks").unwrap_or(default.masks),
        tracks: table.boolean("tracks").unwrap_or(default.tracks),
        clock: table.boolean("clock").unwrap_or(default.clock),
        rules: table.boolean("rules").unwrap_or(default.rules),
        anonymize: table.table("anonymize").map(|table| AnonymizeConfig {
            method: table.choice("method", &METHODS).unwrap_or_default(),
            classes: table.strings("classes").unwrap_or_default(),
            margin: table.float("margin", 0.0..=2.0).unwrap_or(0.1) as f32,
        }),
    }
}

fn sink(table: &Table<'_>, folder: &Path) -> Option<SinkConfig> {
    #[derive(Clone, Copy)]
    enum Kind {
        Video,
        JsonLines,
        Events,
        Mqtt,
        Webhook,
        Csv,
        Kitti,
        Messages,
        Images,
        Recording,
        Rtsp,
        Preview,
        None,
    }
    const KINDS: [(&str, Kind); 13] = [
        ("video", Kind::Video),
        ("jsonl", Kind::JsonLines),
        ("events", Kind::Events),
        ("mqtt", Kind::Mqtt),
        ("webhook", Kind::Webhook),
        ("csv", Kind::Csv),
        ("kitti", Kind::Kitti),
        ("messages", Kind::Messages),
        ("images", Kind::Images),
        ("recording", Kind::Recording),
        ("rtsp", Kind::Rtsp),
        ("preview", Kind::Preview),
        ("none", Kind::None),
    ];
    let required = table.required();
    let Some(kind) = required.choice("type", &KINDS) else {
        table.ignore_rest();
        return None;
    };
    let bitrate = || table.integer("bitrate_kbps", 50u32..=500_000);
    match kind {
        Kind::Video => {
            let (path, bitrate_kbps) = (path(&required, "path", folder), bitrate());
            Some(SinkConfig::Video { path: path?, bitrate_kbps })
        }
        Kind::JsonLines => Some(SinkConfig::JsonLines { path: path(&required, "path", folder)? }),
        Kind::Events => {
            let (path, snapshots) = (path(&required, "path", folder), delivery::snapshots(table, folder));
            Some(SinkConfig::Events { path: path?, snapshots })
        }
        Kind::Mqtt => delivery::mqtt(table, folder).map(SinkConfig::Mqtt),
        Kind::Webhook => delivery::webhook(table, folder).map(SinkConfig::Webhook),
        Kind::Csv => Some(SinkConfig::Csv { path: path(&required, "path", folder)? }),
        Kind::Kitti => {
            let tracks = table.boolean("tracks").unwrap_or(false);
            Some(SinkConfig::Kitti { folder: path(&required, "folder", folder)?, tracks })
        }
        Kind::Messages => {
            let payload = table.choice("payload", &PAYLOADS).unwrap_or_default();
            let every = table.integer("every", 1u32..).unwrap_or(1);
            Some(SinkConfig::Messages { path: path(&required, "path", folder)?, payload, every })
        }
        Kind::Images => {
            let every = table.integer("every", 1u32..).unwrap_or(1);
            let format = table.choice("format", &FORMATS).unwrap_or_default();
            Some(SinkConfig::Images { folder: path(&required, "folder", folder)?, format, every })
        }
        Kind::Recording => recording::recording(table, folder).map(SinkConfig::Recording),
        Kind::Rtsp => {
            let (address, bitrate_kbps) = (address(table, "address"), bitrate());
            Some(SinkConfig::Rtsp { address: address?, bitrate_kbps })
        }
        Kind::Preview => {
            let quality = table.integer("quality", 1u8..=100).unwrap_or(80);
            Some(SinkConfig::Preview { quality, fps_max: table.integer("fps_max", 1..=FPS_MAX).unwrap_or(15) })
        }
        Kind::None => Some(SinkConfig::None),
    }
}

pub(super) fn path(table: &Table<'_>, key: &str, folder: &Path) -> Option<PathBuf> {
    let text = table.string(key)?;
    if text.is_empty() || text.contains('\0') {
        table.problem(key, "expected a path, got nothing");
        return None;
    }
    Some(folder.join(text))
}

fn address(table: &Table<'_>, key: &str) -> Option<SocketAddr> {
    let text = table.required().string(key)?;
    let address = text.parse().ok();
    if address.is_none() {
        table.problem(key, format!("expected an address and port such as `127.0.0.1:8080`, got `{text}`"));
    }
    address
}

pub(super) fn milliseconds(table: &Table<'_>, key: &str, min: u64, max: u64) -> Option<Duration> {
    table.integer(key, min..=max).map(Duration::from_millis)
}
