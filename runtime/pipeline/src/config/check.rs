//! Problems of meaning: keys that are each right and together wrong.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use revoada_bundle::strict::Table;

use super::read::Drafted;
use super::secondary::SECONDARIES_MAX;
use super::{
    ManifestConfig, MqttConfig, RecordingConfig, SINKS_MAX, STREAMS_MAX, Sends, SinkConfig, SourceConfig, WebhookConfig,
};

/// Where a sink's path names the stream.
const STREAM_PLACE: &str = "{stream}";

pub(super) fn pipeline(root: &Table<'_>, drafted: &Drafted<'_>) {
    if drafted.streams.is_empty() {
        root.problem("stream", "a pipeline has at least one `[[stream]]`");
    }
    if drafted.streams.len() > STREAMS_MAX {
        root.problem("stream", format!("{} streams, at most {STREAMS_MAX} run", drafted.streams.len()));
    }
    if drafted.sinks.len() > SINKS_MAX {
        root.problem("sink", format!("{} sinks, at most {SINKS_MAX} are written", drafted.sinks.len()));
    }
    if drafted.secondaries.len() > SECONDARIES_MAX {
        let count = drafted.secondaries.len();
        root.problem("secondary", format!("{count} further models, at most {SECONDARIES_MAX} run"));
    }
    check_analytics(root, drafted);
    check_sinks(drafted);
    check_outputs(drafted);
    check_addresses(drafted);
    if drafted.deterministic {
        check_deterministic(root, drafted);
    }
}

/// Whoever asks for the same results each time is told what can never give them.
fn check_deterministic(root: &Table<'_>, drafted: &Drafted<'_>) {
    for (table, stream) in &drafted.streams {
        let source = stream.as_ref().map(|stream| &stream.source);
        if source.is_some_and(SourceConfig::is_awaited) {
            table.problem(
                "uri",
                "`deterministic` runs read files and folders of pictures, which come the same each time",
            );
        }
    }
    if let Some(batch) = root.table("batch").filter(|batch| batch.has("wait_ms")) {
        batch.problem("wait_ms", "has no effect: batches of a `deterministic` run wait until they are full");
    }
    if let Some(model) = root.table("model").filter(|model| model.boolean("rebuild") == Some(true)) {
        model.problem("rebuild", "a `deterministic` run cannot go over to a plan that is built meanwhile");
    }
}

/// What is in a region can be counted without tracks; all else is told of tracks.
fn check_analytics(root: &Table<'_>, drafted: &Drafted<'_>) {
    let Some(analytics) = drafted.analytics.as_ref().filter(|_| drafted.tracker.is_none()) else { return };
    let of_tracks = !analytics.lines.is_empty()
        || !analytics.directions.is_empty()
        || analytics.regions.iter().any(|region| region.dwell.is_some());
    if of_tracks && !root.has("tracker") {
        root.problem("analytics", "lines, directions and `dwell_s` look at tracked objects: add a `[tracker]`");
    }
}

fn check_sinks(drafted: &Drafted<'_>) {
    let several = drafted.streams.len() > 1;
    for (table, sink) in &drafted.sinks {
        match sink {
            Some(SinkConfig::Video { path, .. }) => {
                if !matches!(path.extension().and_then(|extension| extension.to_str()), Some("mp4" | "mkv")) {
                    table.problem("path", "expected a file that ends in `.mp4` or `.mkv`");
                }
                if several && !path.to_string_lossy().contains(STREAM_PLACE) {
                    table.problem("path", "several streams need a file each: put `{stream}` into the path");
                }
            }
            Some(
                SinkConfig::Events { .. }
                | SinkConfig::Mqtt(MqttConfig { sends: Sends::Events { .. }, .. })
                | SinkConfig::Webhook(WebhookConfig { sends: Sends::Events { .. }, .. }),
            ) if drafted.analytics.is_none() => {
                table.problem("type", "nothing makes events: add `[analytics]` with what is to be told");
            }
            Some(SinkConfig::Recording(recording)) => check_recording(table, recording, drafted),
            Some(SinkConfig::Preview { .. }) if drafted.http.is_none() => {
                table.problem("type", "a preview is shown on the pipeline's `[http] address`, which is missing");
            }
            _ => {}
        }
    }
}

/// What it names is there to happen.
fn check_recording(table: &Table<'_>, recording: &RecordingConfig, drafted: &Drafted<'_>) {
    let ids: Vec<_> = drafted.streams.iter().filter_map(|(_, stream)| Some(&stream.as_ref()?.id)).collect();
    for id in recording.streams.iter().filter(|id| !ids.contains(id)) {
        table.problem("streams", format!("there is no stream `{id}`"));
    }
    match &drafted.analytics {
        Some(analytics) => {
            let lines = analytics.lines.iter().map(|rule| &rule.scope.name);
            let regions = analytics.regions.iter().map(|rule| &rule.scope.name);
            let directions = analytics.directions.iter().map(|rule| &rule.scope.name);
            let names: Vec<_> = lines.chain(regions).chain(directions).collect();
            for rule in recording.rules.iter().filter(|rule| !names.contains(rule)) {
                table.problem("rules", format!("there is no line, region or direction `{rule}`"));
            }
        }
        None if !recording.on.is_empty() => {
            let message = "nothing makes events: add `[analytics]`, or record by `revoada ctl record` alone: `on = []`";
            table.problem("type", message);
        }
        None => {}
    }
}

/// No output overwrites another, nor what is read.
fn check_outputs(drafted: &Drafted<'_>) {
    let mut taken: BTreeMap<PathBuf, String> = BTreeMap::new();
    let secondaries = drafted.secondaries.iter().filter_map(|(_, secondary)| Some(&secondary.as_ref()?.model));
    for model in drafted.model.iter().chain(secondaries) {
        let manifest = match &model.manifest {
            Some(ManifestConfig::File(path)) => Some(path),
            Some(ManifestConfig::Inline(_)) | None => None,
        };
        let files = [Some(&model.path), manifest, model.labels.as_ref()];
        taken.extend(files.into_iter().flatten().map(|path| (normalized(path), "a model".to_owned())));
    }
    for (_, stream) in &drafted.streams {
        if let Some(stream) = stream
            && let SourceConfig::File(path) | SourceConfig::Images(path) = &stream.source
        {
            taken.insert(normalized(path), format!("stream `{}`", stream.id));
        }
    }
    for (index, (table, sink)) in drafted.sinks.iter().enumerate() {
        for (key, path) in sink.iter().flat_map(outputs) {
            let ids = drafted.streams.iter().filter_map(|(_, stream)| Some(stream.as_ref()?.id.as_str()));
            let text = path.to_string_lossy();
            let files: Vec<PathBuf> = match text.contains(STREAM_PLACE) {
                true => ids.map(|id| normalized(Path::new(&text.replace(STREAM_PLACE, id)))).collect(),
                false => vec![normalized(path)],
            };
            if let Some((file, owner)) = files.iter().find_map(|file| Some((file, taken.get(file)?))) {
                table.problem(key, format!("`{}` is already used by {owner}", file.display()));
            }
            taken.extend(files.into_iter().map(|file| (file, format!("sink[{index}]"))));
        }
    }
}

/// The files and folders that a sink writes, by key.
fn outputs(sink: &SinkConfig) -> Vec<(&'static str, &Path)> {
    let (path, snapshots) = match sink {
        SinkConfig::Video { path, .. }
        | SinkConfig::JsonLines { path }
        | SinkConfig::Csv { path }
        | SinkConfig::Messages { path, .. } => (Some(("path", path)), None),
        SinkConfig::Images { folder, .. }
        | SinkConfig::Kitti { folder, .. }
        | SinkConfig::Recording(RecordingConfig { folder, .. }) => (Some(("folder", folder)), None),
        SinkConfig::Events { path, snapshots } => (Some(("path", path)), snapshots.as_ref()),
        SinkConfig::Mqtt(config) => (None, config.sends.snapshots()),
        SinkConfig::Webhook(config) => (None, config.sends.snapshots()),
        SinkConfig::Rtsp { .. } | SinkConfig::Preview { .. } | SinkConfig::None => (None, None),
    };
    let snapshots = snapshots.map(|snapshots| ("snapshots", &snapshots.folder));
    path.into_iter().chain(snapshots).map(|(key, path)| (key, path.as_path())).collect()
}

fn check_addresses(drafted: &Drafted<'_>) {
    let mut taken: Vec<_> = drafted.http.into_iter().map(|http| (http.address, "`[http]`".to_owned())).collect();
    for (index, (table, sink)) in drafted.sinks.iter().enumerate() {
        let Some(SinkConfig::Rtsp { address, .. }) = sink else { continue };
        // Port 0 is whichever is free.
        let owner = taken.iter().find(|(other, _)| other == address && address.port() != 0);
        if let Some((_, owner)) = owner {
            table.problem("address", format!("`{address}` is already used by {owner}"));
        }
        taken.push((*address, format!("sink[{index}]")));
    }
}

/// `a/./b/../c` as `a/c`, so that one file is not written under two names. Links are not followed:
/// that would read the disk.
fn normalized(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
