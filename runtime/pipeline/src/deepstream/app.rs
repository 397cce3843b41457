//! The application's file as a pipeline of ours.

use std::path::Path;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value, value};

use super::analytics::{self, Analytics};
use super::infer::{self, Infer};
use super::keys::Kind;
use super::record::{self, Recordings};
use super::section::{Report, Section, Source};
use super::sink::{PREVIEW_ADDRESS, Sinks};
use super::source::{self, Stream};
use super::{Files, tracker};
use crate::config::BATCH_FRAMES_MAX;

/// How long DeepStream's performance is measured where nothing is said.
const PERF_SECONDS: u32 = 5;

/// Reads the groups in DeepStream's order: the application, its list of sources, then as the file has them. What one
/// needs of another comes last.
pub(super) fn pipeline(source: &Source, files: &Files<'_>, report: &Report) -> DocumentMut {
    let sections = source.sections(report);
    let named = |name: &str| sections.iter().find(|section| section.name() == name);
    let mut recordings = Recordings::default();
    let mut streams = streams(&sections, &mut recordings, files);
    let primary = named("primary-gie").and_then(|section| {
        section.switch("enable");
        Some((section, model(section, files, report)?))
    });
    if named("primary-gie").is_none() {
        let message = "there is no group `primary-gie` with `enable=1`: without a model nothing is found";
        report.problem(&source.origin, message);
    }
    if streams.is_empty()
        && sections.iter().all(|section| section.rule_name() != "source#")
        && named("source-list").is_none()
    {
        report.problem(&source.origin, "there is no group `source0` with `enable=1`");
    }
    let loops = named("tests").and_then(|section| section.switch("file-loop")) == Some(true);
    let interval = primary.as_ref().map_or(0, |(_, infer)| infer.interval);
    if let Some((section, infer)) = &primary
        && infer.interval > 0
    {
        section.note(
            "",
            format!("of every {} frames one is inferred, and the others are in no output", infer.interval + 1),
        );
    }
    streams.iter_mut().for_each(|stream| finish_stream(stream, interval, loops));
    let mut root = DocumentMut::new();
    let ids: Vec<String> = streams.iter().map(|stream| stream.id.clone()).collect();
    let tables: ArrayOfTables = streams.into_iter().map(|stream| stream.table).collect();
    root.insert("stream", Item::ArrayOfTables(tables));
    let batch = batch(&sections, primary.as_ref().map(|(_, infer)| infer));
    if let Some((_, infer)) = &primary {
        root.insert("model", Item::Table(infer.model.clone()));
    }
    let secondaries = secondaries(&sections, primary.as_ref().map(|(_, infer)| infer), files, report);
    if !secondaries.is_empty() {
        root.insert("secondary", Item::ArrayOfTables(secondaries));
    }
    insert_table(&mut root, "batch", batch);
    let tracked = named("tracker").map(|section| tracker::tracker(section, files, report));
    let labels = primary.as_ref().map_or(&[][..], |(_, infer)| &infer.labels);
    let analysed = named("nvds-analytics").and_then(|section| {
        section.switch("enable");
        let Some(named) = section.text("config-file") else {
            section.problem("config-file", "this key is missing: it names the nvdsanalytics file");
            return None;
        };
        let loaded = files.load(Kind::Analytics, &files.resolve(Path::new(""), named), report);
        let source = loaded.map_err(|message| section.problem("config-file", message)).ok()?;
        let Analytics { table, drawn } = analytics::analytics(&source, &ids, labels, report);
        if table.is_some() && tracked.is_none() {
            section.problem("enable", "analytics need tracks: enable the group `tracker`");
        }
        Some((table?, drawn))
    });
    let draw = draw(named("osd"), named("tracker"), analysed.as_ref().is_some_and(|(_, drawn)| *drawn));
    if let Some(tracked) = tracked {
        root.insert("tracker", Item::Table(tracked));
    }
    if let Some((table, _)) = analysed {
        root.insert("analytics", Item::Table(table));
    }
    root.insert("draw", Item::Table(draw));
    let mut sinks = sinks(&sections, ids.len(), files);
    let analysed = root.contains_key("analytics");
    if !analysed {
        let sources = sections.iter().filter(|section| ["source#", "source-attr-all"].contains(&section.rule_name()));
        sources.for_each(record::without_events);
    }
    sinks.extend(recordings.tables(&ids, analysed));
    let preview = sinks.iter().any(|sink| sink.get("type").and_then(Item::as_str) == Some("preview"));
    if !sinks.is_empty() {
        root.insert("sink", Item::ArrayOfTables(sinks.into_iter().collect()));
    }
    if preview {
        root.insert("http", Item::Table(table([("address", PREVIEW_ADDRESS.into())])));
    }
    if let Some(application) = named("application") {
        let measured = application.switch("enable-perf-measurement") == Some(true);
        let seconds = application.count("perf-measurement-interval-sec").unwrap_or(PERF_SECONDS).clamp(1, 86_400);
        if measured {
            root.insert("perf", Item::Table(table([("interval_s", i64::from(seconds).into())])));
        }
    }
    sections.into_iter().for_each(Section::finish);
    root
}

fn streams(sections: &[Section<'_>], recordings: &mut Recordings, files: &Files<'_>) -> Vec<Stream> {
    let named = |name: &str| sections.iter().find(|section| section.name() == name);
    let ids = |streams: &[Stream]| streams.iter().map(|stream| stream.id.clone()).collect();
    let mut streams = Vec::new();
    if let Some(list) = named("source-list") {
        streams = source::listed(list, named("source-attr-all"), files);
        if let Some(all) = named("source-attr-all") {
            recordings.add(all, ids(&streams), files);
        }
    } else if let Some(all) = named("source-attr-all") {
        all.note("", "has no effect: there is no group `source-list`");
        all.ask_all();
    }
    for section in sections.iter().filter(|section| section.rule_name() == "source") {
        // Its lines are groups of their own by now.
        section.text("csv-file-path");
    }
    for section in sections.iter().filter(|section| section.rule_name() == "source#") {
        let known = streams.len();
        streams.extend(source::streams(section, known, files));
        recordings.add(section, ids(&streams[known..]), files);
    }
    streams
}

fn finish_stream(stream: &mut Stream, skipped: u32, loops: bool) {
    let interval = stream.interval.saturating_mul(skipped.saturating_add(1)).min(INTERVAL_MAX);
    if interval > 1 {
        stream.table.insert("interval", value(i64::from(interval)));
    }
    if loops && stream.is_file {
        stream.table.insert("repeat", value("forever"));
    }
}

/// The most of `stream.interval`.
const INTERVAL_MAX: u32 = 10_000;

/// The model of a group; what is refused about it is told where it is read.
fn model(section: &Section<'_>, files: &Files<'_>, report: &Report) -> Option<Infer> {
    // The file of an nvinferserver has another form.
    let server = section.group.entry("plugin-type").is_some_and(|entry| entry.value.trim_start().starts_with('1'));
    if server {
        section.ask_all();
        return None;
    }
    let Some(infer) = infer::read(section, files, report) else {
        section.ask_all();
        return None;
    };
    let (on_frames, key) = (section.rule_name() == "primary-gie", "config-file");
    match infer.process_mode {
        1 if !on_frames => section.note(key, "`process-mode` is 1 in this file; a secondary model reads objects"),
        2 if on_frames => section.note(key, "`process-mode` is 2 in this file; the primary model reads frames"),
        _ => {}
    }
    let bounded = infer.object_min != [0, 0] || infer.object_max != [0, 0];
    if on_frames && (bounded || infer.on_id.is_some() || !infer.on_classes.is_empty() || infer.again_after.is_some()) {
        section.note("", "keys that choose objects have no effect on the primary model, which reads frames");
    }
    Some(infer)
}

fn batch(sections: &[Section<'_>], primary: Option<&Infer>) -> Table {
    let named = |name: &str| sections.iter().find(|section| section.name() == name);
    let mux = named("streammux");
    let of_mux = mux.and_then(|section| section.count("batch-size"));
    let of_list = named("source-list").and_then(|section| section.count("max-batch-size"));
    let wanted = primary.and_then(|primary| primary.batch_size).or(of_mux).or(of_list);
    let mut batch = Table::new();
    if let Some(wanted) = wanted {
        let frames_max = wanted.clamp(1, BATCH_FRAMES_MAX as u32);
        if let (true, Some(section)) = (frames_max != wanted, named("primary-gie").or(mux)) {
            section.note("batch-size", format!("becomes {frames_max}"));
        }
        batch.insert("frames_max", value(i64::from(frames_max)));
    }
    if let Some(section) = mux {
        match section.integer("batched-push-timeout") {
            Some(micros @ 0..=60_000_000) => drop(batch.insert("wait_ms", value((micros + 999) / 1000))),
            Some(-1) => section.note("batched-push-timeout", "becomes 10 ms: no batch waits for ever"),
            Some(other) => section.problem(
                "batched-push-timeout",
                format!("expected microseconds from 0 to 60000000, or -1, got {other}"),
            ),
            None => {}
        }
    }
    batch
}

fn secondaries(sections: &[Section<'_>], primary: Option<&Infer>, files: &Files<'_>, report: &Report) -> ArrayOfTables {
    let mut tables = ArrayOfTables::new();
    let list = sections.iter().find(|section| section.name() == "source-list");
    let of_list = list.and_then(|section| section.count("sgie-batch-size"));
    let mut taken: Vec<i64> = primary.and_then(|primary| primary.unique_id).into_iter().collect();
    for section in sections.iter().filter(|section| section.rule_name() == "secondary-gie#") {
        section.switch("enable");
        let Some(infer) = model(section, files, report) else { continue };
        if let Some(id) = infer.unique_id {
            if taken.contains(&id) {
                section.problem("gie-unique-id", format!("another model has the number {id}"));
            }
            taken.push(id);
        }
        if let (Some(on), Some(primary)) = (infer.on_id, primary)
            && on != primary.unique_id.unwrap_or(1)
        {
            let message =
                format!("a secondary model reads the objects of the primary one, and not those of model {on}");
            section.note("operate-on-gie-id", message);
        }
        if infer.interval > 0 {
            section.note("interval", "has no effect on a secondary model, which reads what the primary one finds");
        }
        let mut table = infer.model.clone();
        if let Some(name) = &infer.name {
            table.insert("name", value(name.as_str()));
        }
        let labels = primary.map_or(&[][..], |primary| &primary.labels);
        let on = infer.on_classes.iter().filter(|class| **class >= 0).filter_map(|class| {
            let label = labels.get(*class as usize);
            if label.is_none() {
                section.problem("operate-on-class-ids", format!("the primary model has no label for class {class}"));
            }
            label.map(String::as_str)
        });
        let on: Array = on.collect();
        if !on.is_empty() {
            table.insert("on", value(on));
        }
        let [width, height] = infer.object_min.map(|side| side.max(1));
        if infer.object_min != [0, 0] {
            table.insert("size_min", value(format!("{width}x{height}")));
        }
        if infer.object_max != [0, 0] {
            let [width, height] = infer.object_max.map(|side| if side == 0 { SIDE_MAX } else { side });
            table.insert("size_max", value(format!("{width}x{height}")));
        }
        if let Some(every) = infer.again_after.filter(|every| *every > 0) {
            table.insert("every", value(i64::from(every)));
        }
        if let Some(batch) = infer.batch_size.or(of_list) {
            table.insert("batch_max", value(i64::from(batch.clamp(1, BATCH_FRAMES_MAX as u32))));
        }
        tables.push(table);
    }
    tables
}

/// The largest side of a picture.
const SIDE_MAX: u32 = 1 << 15;

fn draw(osd: Option<&Section<'_>>, tracker: Option<&Section<'_>>, rules: bool) -> Table {
    let tracks = tracker.is_some_and(|section| section.switch("display-tracking-id").unwrap_or(true));
    let Some(osd) = osd else {
        // `enable=0`, or no group at all.
        let all = ["boxes", "labels", "scores", "landmarks", "masks", "tracks", "rules"];
        return table(all.map(|key| (key, false.into())));
    };
    osd.switch("enable");
    let switch = |key: &'static str, default: bool| osd.switch(key).unwrap_or(default);
    table([
        ("boxes", switch("display-bbox", true).into()),
        ("labels", switch("display-text", true).into()),
        // DeepStream writes a label and a number, and no confidence.
        ("scores", false.into()),
        ("masks", switch("display-mask", false).into()),
        ("tracks", tracks.into()),
        ("clock", switch("show-clock", false).into()),
        ("rules", rules.into()),
    ])
}

fn sinks(sections: &[Section<'_>], streams: usize, files: &Files<'_>) -> Vec<Table> {
    let mut sinks = Sinks::default();
    for section in sections.iter().filter(|section| section.rule_name() == "sink#") {
        sinks.add(section, streams, files);
    }
    let application = sections.iter().find(|section| section.name() == "application");
    for (key, tracks) in [("gie-kitti-output-dir", false), ("kitti-track-output-dir", true)] {
        if let Some(folder) = application.and_then(|section| section.text(key)) {
            let folder = files.shown(&files.resolve(Path::new(""), folder));
            sinks.tables.push(table([("type", "kitti".into()), ("folder", folder.into()), ("tracks", tracks.into())]));
        }
    }
    sinks.tables
}

fn insert_table(root: &mut DocumentMut, key: &str, table: Table) {
    if !table.is_empty() {
        root.insert(key, Item::Table(table));
    }
}

fn table<const N: usize>(pairs: [(&str, Value); N]) -> Table {
    pairs.into_iter().map(|(key, value)| (key, Item::Value(value))).collect()
}
