//! The effective configuration as TOML that reads back to the same pipeline.

use std::path::Path;
use std::time::Duration;

use revoada_core::Size;
use revoada_engine::BackendChoice;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value};

use super::read::{FORMATS, METHODS, PAYLOADS, TRANSPORTS};
use super::{
    BatchConfig, CameraMode, DrawConfig, HttpConfig, ManifestConfig, ModelConfig, PipelineConfig, ReconnectConfig,
    SinkConfig, SourceConfig, StreamConfig, TrackerAlgorithm, TrackerConfig, delivery, lens, recording, secondary,
    tiles,
};

impl PipelineConfig {
    /// Every key with its value, defaults included. URLs are printed in full, passwords included.
    pub fn to_toml(&self) -> String {
        let mut root = DocumentMut::new();
        if self.deterministic {
            root.insert("deterministic", Item::Value(true.into()));
        }
        let streams: ArrayOfTables = self.streams.iter().map(stream).collect();
        root.insert("stream", Item::ArrayOfTables(streams));
        root.insert("model", Item::Table(model(&self.model)));
        if !self.secondaries.is_empty() {
            let secondaries = self.secondaries.iter().map(secondary::to_table).collect();
            root.insert("secondary", Item::ArrayOfTables(secondaries));
        }
        root.insert("batch", Item::Table(batch(&self.batch, self.deterministic)));
        if let Some(tracker) = &self.tracker {
            root.insert("tracker", Item::Table(tracked(tracker)));
        }
        if let Some(analytics) = &self.analytics {
            root.insert("analytics", Item::Table(super::analytics::print(analytics)));
        }
        root.insert("draw", Item::Table(draw(&self.draw)));
        if !self.sinks.is_empty() {
            root.insert("sink", Item::ArrayOfTables(self.sinks.iter().map(sink).collect()));
        }
        if let Some(HttpConfig { address, control }) = self.http {
            let keys = [("address", address.to_string().into()), ("control", control.into())];
            root.insert("http", Item::Table(table(keys)));
        }
        if let Some(socket) = &self.control {
            root.insert("control", Item::Table(table([("socket", path(socket))])));
        }
        if let Some(interval) = self.perf_interval {
            root.insert("perf", Item::Table(table([("interval_s", interval.as_secs_f64().into())])));
        }
        root.to_string()
    }
}

fn stream(stream: &StreamConfig) -> Table {
    let source = &stream.source;
    let mut out = table([
        ("id", stream.id.as_str().into()),
        ("uri", source.uri().into()),
        ("queue_frames_max", integer(stream.queue_frames_max as u64)),
        ("interval", integer(stream.interval.into())),
    ]);
    if let Some(frames_max) = stream.frames_max {
        out.insert("frames_max", Item::Value(integer(frames_max)));
    }
    if matches!(source, SourceConfig::File(_) | SourceConfig::Images(_)) {
        let repeat = stream.repeat.map_or_else(|| "forever".into(), |times| integer(times.into()));
        out.insert("repeat", Item::Value(repeat));
    }
    match source {
        SourceConfig::Rtsp { transport, latency, .. } => {
            let options = [("transport", word(&TRANSPORTS, transport)), ("latency_ms", milliseconds(*latency))];
            out.insert("rtsp", Item::Table(table(options)));
        }
        SourceConfig::V4l2 { mode, .. } | SourceConfig::Csi { mode, .. } => {
            let CameraMode { width, height, fps } = *mode;
            let sides = [("width", width), ("height", height), ("fps", fps)];
            out.insert("camera", Item::Table(table(sides.map(|(key, value)| (key, integer(value.into()))))));
        }
        _ => {}
    }
    if !source.ends() || matches!(source, SourceConfig::Http(_)) {
        out.insert("reconnect", Item::Table(reconnect(&stream.reconnect)));
    }
    if let Some(stream_lens) = &stream.lens {
        out.insert("lens", Item::Table(lens::to_table(stream_lens)));
    }
    out
}

fn reconnect(config: &ReconnectConfig) -> Table {
    let mut out = table([
        ("delay_ms_min", milliseconds(config.delay_min)),
        ("delay_ms_max", milliseconds(config.delay_max)),
        ("stall_ms", milliseconds(config.stall)),
    ]);
    if let Some(attempts_max) = config.attempts_max {
        out.insert("attempts_max", Item::Value(integer(attempts_max.into())));
    }
    out
}

pub(super) fn model(model: &ModelConfig) -> Table {
    let backend = match &model.backend {
        BackendChoice::Auto => "auto",
        BackendChoice::Named(name) => name,
    };
    let mut out = table([("path", path(&model.path)), ("backend", backend.into()), ("rebuild", model.rebuild.into())]);
    let options = [
        ("labels", model.labels.as_deref().map(path)),
        ("threads", model.threads.map(|threads| integer(threads as u64))),
        ("concurrent_max", model.concurrent_max.map(|concurrent_max| integer(concurrent_max as u64))),
        ("score_min", model.score_min.map(number)),
        ("size", model.size.map(size)),
        ("decoder", model.decoder.as_deref().map(Value::from)),
    ];
    for (key, value) in options {
        if let Some(value) = value {
            out.insert(key, Item::Value(value));
        }
    }
    if !model.trust.is_empty() {
        out.insert("trust", Item::Value(model.trust.iter().map(ToString::to_string).collect()));
    }
    if let Some(model_tiles) = &model.tiles {
        out.insert("tiles", Item::Table(tiles::to_table(model_tiles)));
    }
    match &model.manifest {
        Some(ManifestConfig::File(file)) => drop(out.insert("manifest", Item::Value(path(file)))),
        Some(ManifestConfig::Inline(manifest)) => drop(out.insert("manifest", Item::Table(manifest.to_table()))),
        None => {}
    }
    if !model.classes.is_empty() {
        out.insert("class", Item::ArrayOfTables(model.classes.iter().map(super::classes::print).collect()));
    }
    out
}

fn batch(batch: &BatchConfig, deterministic: bool) -> Table {
    let mut out = table([("frames_max", integer(batch.frames_max as u64))]);
    if !deterministic {
        out.insert("wait_ms", Item::Value(milliseconds(batch.wait)));
    }
    out
}

fn tracked(tracker: &TrackerConfig) -> Table {
    let whole = |number: u32| integer(number.into());
    let (name, options) = match tracker.algorithm {
        TrackerAlgorithm::Sort(sort) => (
            "sort",
            vec![
                ("lost_frames_max", whole(sort.lost_frames_max)),
                ("hits_min", whole(sort.hits_min)),
                ("iou_min", sort.iou_min.into()),
            ],
        ),
        TrackerAlgorithm::ByteTrack(byte) => (
            "bytetrack",
            vec![
                ("lost_frames_max", whole(byte.lost_frames_max)),
                ("score_high", byte.score_high.into()),
                ("score_low", byte.score_low.into()),
                ("score_new", byte.score_new.into()),
                ("distance_max", byte.distance_max.into()),
                ("weigh_scores", byte.weigh_scores.into()),
            ],
        ),
        TrackerAlgorithm::OcSort(oc_sort) => (
            "ocsort",
            [
                Some(("lost_frames_max", whole(oc_sort.lost_frames_max))),
                Some(("score_high", oc_sort.score_high.into())),
                oc_sort.score_low.map(|score| ("score_low", score.into())),
                Some(("hits_min", whole(oc_sort.hits_min))),
                Some(("iou_min", oc_sort.iou_min.into())),
                Some(("delta_frames", whole(oc_sort.delta_frames))),
                Some(("inertia", oc_sort.inertia.into())),
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
    };
    let mut out = table([
        ("algorithm", name.into()),
        ("across_classes", tracker.across_classes.into()),
        ("smooth", tracker.smooth.into()),
        ("camera_motion", tracker.camera_motion.into()),
    ]);
    out.extend(options.into_iter().map(|(key, value): (&str, Value)| (key, Item::Value(value))));
    out
}

fn draw(draw: &DrawConfig) -> Table {
    let switches = [
        ("boxes", draw.boxes),
        ("labels", draw.labels),
        ("scores", draw.scores),
        ("landmarks", draw.landmarks),
        ("masks", draw.masks),
        ("tracks", draw.tracks),
        ("clock", draw.clock),
        ("rules", draw.rules),
    ];
    let mut out = table(switches.map(|(key, on)| (key, on.into())));
    if let Some(anonymize) = &draw.anonymize {
        let classes: Array = anonymize.classes.iter().map(String::as_str).collect();
        let options = [
            ("method", word(&METHODS, &anonymize.method)),
            ("classes", classes.into()),
            ("margin", number(anonymize.margin)),
        ];
        out.insert("anonymize", Item::Table(table(options)));
    }
    out
}

fn sink(sink: &SinkConfig) -> Table {
    let (kind, options) = match sink {
        SinkConfig::Video { path: file, bitrate_kbps } => {
            ("video", vec![("path", Some(path(file))), ("bitrate_kbps", bitrate_kbps.map(|rate| integer(rate.into())))])
        }
        SinkConfig::JsonLines { path: file } => ("jsonl", vec![("path", Some(path(file)))]),
        SinkConfig::Events { path: file, snapshots } => {
            let mut options = vec![("path", Some(path(file)))];
            options.extend(delivery::print_snapshots(snapshots.as_ref()));
            ("events", options)
        }
        SinkConfig::Mqtt(config) => ("mqtt", delivery::print_mqtt(config)),
        SinkConfig::Webhook(config) => ("webhook", delivery::print_webhook(config)),
        SinkConfig::Csv { path: file } => ("csv", vec![("path", Some(path(file)))]),
        SinkConfig::Kitti { folder, tracks } => {
            ("kitti", vec![("folder", Some(path(folder))), ("tracks", Some((*tracks).into()))])
        }
        SinkConfig::Messages { path: file, payload, every } => (
            "messages",
            vec![
                ("path", Some(path(file))),
                ("payload", Some(word(&PAYLOADS, payload))),
                ("every", Some(integer((*every).into()))),
            ],
        ),
        SinkConfig::Images { folder, format, every } => (
            "images",
            vec![
                ("folder", Some(path(folder))),
                ("format", Some(word(&FORMATS, format))),
                ("every", Some(integer((*every).into()))),
            ],
        ),
        SinkConfig::Recording(config) => ("recording", recording::print(config)),
        SinkConfig::Rtsp { address, bitrate_kbps } => (
            "rtsp",
            vec![
                ("address", Some(address.to_string().into())),
                ("bitrate_kbps", bitrate_kbps.map(|rate| integer(rate.into()))),
            ],
        ),
        SinkConfig::Preview { quality, fps_max } => (
            "preview",
            vec![("quality", Some(integer((*quality).into()))), ("fps_max", Some(integer((*fps_max).into())))],
        ),
        SinkConfig::None => ("none", Vec::new()),
    };
    let mut out = table([("type", kind.into())]);
    for (key, value) in options {
        if let Some(value) = value {
            out.insert(key, Item::Value(value));
        }
    }
    out
}

pub(super) fn table<const N: usize>(pairs: [(&str, Value); N]) -> Table {
    pairs.into_iter().map(|(key, value)| (key, Item::Value(value))).collect()
}

pub(super) fn path(path: &Path) -> Value {
    path.display().to_string().into()
}

pub(super) fn integer(integer: u64) -> Value {
    i64::try_from(integer).unwrap_or(i64::MAX).into()
}

pub(super) fn size(size: Size) -> Value {
    format!("{}x{}", size.width, size.height).into()
}

/// The shortest decimal that reads back to the same `f32`.
pub(super) fn number(number: f32) -> Value {
    number.to_string().parse::<f64>().unwrap_or_else(|_| number.into()).into()
}

pub(super) fn milliseconds(duration: Duration) -> Value {
    integer(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> Value {
    let word = words.iter().find(|(_, meaning)| meaning == value);
    word.expect("every variant has its word").0.into()
}
