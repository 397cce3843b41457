use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use revoada_core::{
    Classification, ColorSpec, Detection, Frame, ImageLayout, MemoryKind, PixelFormat, Point, Prediction, Rect,
    Segmentation, Size, Timestamp, TrackId,
};
use serde_json::Value;
use tempfile::TempDir;

use super::record::{EventRecord, FrameRecord, Record};
use super::*;
use crate::FrameTimings;
use crate::analyse::{Analyser, EventKind, Rules};
use crate::config::{
    AnalyticsConfig, CrossingMode, CrowdConfig, DirectionConfig, ImageFormat, LineConfig, Payload, RegionConfig, Scope,
};

pub(super) fn context(streams: &[&str]) -> SinkContext {
    SinkContext {
        streams: streams.iter().map(|id| StreamId::new(id)).collect(),
        model: "centerface".to_owned(),
        labels: ["face".to_owned(), "the \"plate\", of a car".to_owned()].into(),
        hub: None,
        deliveries: Deliveries::default(),
        deterministic: false,
        recordings: Recordings::default(),
        wall_clock: Arc::new(crate::run::WallClock),
    }
}

pub(super) fn result(stream: &str, sequence: u64) -> FrameResult {
    let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), Size::new(64, 48));
    let frame = Frame::new(
        StreamId::new(stream),
        sequence,
        Timestamp::from_nanos(sequence * 33_333_333),
        Timestamp::ZERO,
        layout,
        MemoryKind::Host,
        Box::new(vec![128; layout.bytes().unwrap()]),
    );
    let detection = |class, x| Detection {
        class,
        score: 0.987_654_3,
        bbox: Rect::new(x, 20.126, 30.0, 40.5),
        landmarks: vec![Point::new(1.239, 2.0)],
        track: (class == 1).then_some(TrackId(7)),
        ..Detection::default()
    };
    FrameResult {
        frame: Arc::new(frame.unwrap()),
        wall: None,
        drawn: None,
        prediction: Prediction {
            detections: vec![detection(0, 10.0), detection(1, -0.001)],
            classifications: vec![Classification { class: 7, score: 0.5 }],
            segmentation: Some(Segmentation {
                width: 3,
                height: 2,
                classes: vec![0, 0, 1, 1, 1, 255],
                area: Rect::new(0.0, 0.0, 64.0, 48.0),
            }),
        },
        analysis: None,
        labels: context(&[]).labels,
        timings: FrameTimings { inference: Duration::from_micros(12_345), ..Default::default() },
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn json_lines(path: PathBuf) -> SinkConfig {
    SinkConfig::JsonLines { path }
}

fn refusal(config: &SinkConfig, streams: &[&str]) -> String {
    let error = open(config, &context(streams)).err().expect("this cannot be opened");
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

#[test]
fn json_lines_begin_with_a_header_and_hold_a_frame_each() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("results.jsonl");
    let mut sink = open(&json_lines(path.clone()), &context(&["a", "b"])).unwrap();
    sink.write(&result("a", 0)).unwrap();
    sink.write(&result("b", 3)).unwrap();
    assert_eq!(names(folder.path()), [".results.jsonl.partial"], "nothing stands under the name before the end");
    assert_eq!(sink.finish().unwrap().files, std::slice::from_ref(&path));
    assert_eq!(names(folder.path()), ["results.jsonl"]);

    let text = fs::read_to_string(path).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [Record::Header(header), Record::Frame(first), Record::Frame(second)] = &records[..] else {
        panic!("a header and two frames, not {records:?}")
    };
    assert_eq!((header.version, &header.streams[..]), (1, &["a".to_owned(), "b".to_owned()][..]));
    assert_eq!((first.stream.as_str(), first.frame, first.pts_ms), ("a", 0, 0.0));
    assert_eq!((second.stream.as_str(), second.frame, second.pts_ms), ("b", 3, 100.0));
    assert_eq!(first.detections[0].bbox, [10.0, 20.13, 30.0, 40.5]);
    assert_eq!(first.detections[0].label.as_deref(), Some("face"));
    assert_eq!((first.detections[0].score, first.detections[0].landmarks[0]), (0.9877, [1.24, 2.0]));
    assert_eq!((first.classifications[0].class, &first.classifications[0].label), (7, &None));
    assert_eq!(first.timings_ms.as_ref().unwrap().inference, 12.345);
    let segmentation = first.segmentation.as_ref().unwrap();
    assert_eq!(segmentation.runs, [0, 2, 1, 3, 255, 1]);
    assert_eq!(segmentation.shares[0].share, 0.5);
    assert_eq!(second, &FrameRecord::from(&result("b", 3)));
}

/// The form in which version 1 was released: what was written then must stay readable.
#[test]
fn a_line_of_version_1_reads_as_it_was_written() {
    let line = concat!(
        r#"{"kind":"frame","version":1,"stream":"b","frame":3,"pts_ms":100.0,"width":64,"height":48,"#,
        r#""detections":[{"class":0,"label":"face","score":0.9877,"box":[10.0,20.13,30.0,40.5],"landmarks":[[1.24,2.0]]},"#,
        r#"{"class":1,"label":"the \"plate\", of a car","score":0.9877,"box":[0.0,20.13,30.0,40.5],"landmarks":[[1.24,2.0]]}],"#,
        r#""classifications":[{"class":7,"score":0.5}],"#,
        r#""segmentation":{"width":3,"height":2,"area":[0.0,0.0,64.0,48.0],"#,
        r#""shares":[{"class":1,"label":"the \"plate\", of a car","share":0.5},{"class":0,"label":"face","share":0.3333},"#,
        r#"{"class":255,"share":0.1667}],"runs":[0,2,1,3,255,1]},"#,
        r#""timings_ms":{"queued":0.0,"staging":0.0,"inference":12.345,"decoding":0.0,"drawing":0.0,"total":0.0}}"#,
    );
    let mut untracked = result("b", 3);
    untracked.prediction.detections.iter_mut().for_each(|detection| detection.track = None);
    let record = Record::Frame(FrameRecord::from(&untracked));
    assert_eq!(serde_json::from_str::<Record>(line).unwrap(), record);
    // Nothing came to it since but times.
    let now = line.replace(r#""drawing""#, r#""secondary":0.0,"tracking":0.0,"drawing""#);
    assert_eq!(serde_json::to_string(&record).unwrap(), now);
}

#[test]
fn a_tracked_detection_has_the_number_of_its_track() {
    let line = serde_json::to_string(&FrameRecord::from(&result("b", 3))).unwrap();
    assert!(line.contains(r#""landmarks":[[1.24,2.0]],"track":7}],"classifications""#), "{line}");
}

#[test]
fn numbers_that_json_cannot_write_are_replaced() {
    let mut result = result("a", 0);
    result.prediction.detections[0].bbox = Rect::new(f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0);
    let line = serde_json::to_string(&FrameRecord::from(&result)).unwrap();
    assert!(!line.contains("null"), "{line}");
}

/// Compares a value with the part of JSON Schema that our schema uses.
fn check(schema: &Value, root: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(root.pointer(reference.trim_start_matches('#')).expect(reference), root, value, at);
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let kind = &value["kind"];
        let chosen: Vec<_> = alternatives
            .iter()
            .map(|alternative| root.pointer(alternative["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap())
            .filter(|alternative| alternative["properties"]["kind"]["const"] == *kind)
            .collect();
        assert_eq!(chosen.len(), 1, "{at}: one alternative is of kind {kind}");
        return check(chosen[0], root, value, at);
    }
    if !schema["const"].is_null() {
        assert_eq!(*value, schema["const"], "{at}");
        return;
    }
    let right_type = match schema["type"].as_str().unwrap_or_else(|| panic!("{at}: the schema names a type")) {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        other => panic!("{at}: the check does not know type {other}"),
    };
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    assert!(right_type, "{at}: {value} is no {}", schema["type"]);
    for (bound, holds) in [("minimum", f64::ge as fn(&f64, &f64) -> bool), ("maximum", f64::le)] {
        if let Some(limit) = schema[bound].as_f64() {
            assert!(holds(&value.as_f64().unwrap(), &limit), "{at}: {value} against {bound} {limit}");
        }
    }
    if let Some(items) = value.as_array() {
        assert!(schema["minItems"].as_u64().is_none_or(|least| items.len() as u64 >= least), "{at}: too few");
        assert!(schema["maxItems"].as_u64().is_none_or(|most| items.len() as u64 <= most), "{at}: too many");
        for (index, item) in items.iter().enumerate() {
            check(&schema["items"], root, item, &format!("{at}[{index}]"));
        }
    }
    if let Some(fields) = value.as_object() {
        let known = schema["properties"].as_object().unwrap_or_else(|| panic!("{at}: the schema lists properties"));
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(fields.contains_key(required.as_str().unwrap()), "{at}: {required} is missing");
        }
        for (name, field) in fields {
            let property = known.get(name).unwrap_or_else(|| panic!("{at}.{name} is not in the schema"));
            check(property, root, field, &format!("{at}.{name}"));
        }
    }
}

#[test]
fn every_line_holds_to_the_published_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/results-v1.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("results.jsonl");
    let mut sink = open(&json_lines(path.clone()), &context(&["a"])).unwrap();
    let bare = FrameResult { prediction: Prediction::default(), ..result("a", 1) };
    let unlabelled = FrameResult { labels: [].into(), ..result("a", 2) };
    let events_path = folder.path().join("events.jsonl");
    let mut events =
        open(&SinkConfig::Events { path: events_path.clone(), snapshots: None }, &context(&["a"])).unwrap();
    let results = analysed("a");
    for result in [result("a", 0), bare, unlabelled].iter().chain(&results) {
        sink.write(result).unwrap();
        events.write(result).unwrap();
    }
    sink.finish().unwrap();
    events.finish().unwrap();
    let mut kinds = BTreeSet::new();
    for path in [path, events_path] {
        for (number, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            let value: Value = serde_json::from_str(line).unwrap();
            kinds.insert(value["kind"].as_str().unwrap().to_owned());
            kinds.extend(value["event"].as_str().map(str::to_owned));
            check(&schema, &schema, &value, &format!("line {}", number + 1));
        }
    }
    assert_eq!(kinds.len(), 3 + EventKind::NAMES.len(), "every kind of line and of event: {kinds:?}");
    let named: Vec<&str> = schema["$defs"]["event"]["properties"]["event"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(named, EventKind::NAMES);
}

/// Two objects that go through a region and over a line: every kind of event.
fn analysed(stream: &str) -> Vec<FrameResult> {
    let scope = |name: &str| Scope { name: name.to_owned(), ..Scope::default() };
    let points = [Point::new(0.0, 0.0), Point::new(64.0, 0.0)];
    let config = AnalyticsConfig {
        margin: 0.0,
        lines: vec![LineConfig {
            scope: scope("line"),
            points: points.map(|point| Point::new(point.x, 24.0)),
            direction: None,
            mode: CrossingMode::Loose,
            extended: false,
        }],
        regions: vec![RegionConfig {
            scope: scope("region"),
            corners: vec![Point::new(0.0, 10.0), Point::new(64.0, 10.0), Point::new(64.0, 40.0), Point::new(0.0, 40.0)],
            inverse: false,
            dwell: Some(Duration::from_millis(500)),
            crowd: Some(CrowdConfig { objects_max: 1, after: Duration::ZERO }),
        }],
        directions: vec![DirectionConfig {
            scope: scope("down"),
            points: [points[0], Point::new(0.0, 1.0)],
            angle_deg: 45.0,
        }],
        ..AnalyticsConfig::default()
    };
    let rules = Rules::of(&config, &StreamId::new(stream), &context(&[]).labels).unwrap().unwrap();
    let mut analyser = Analyser::new(rules);
    let frames = (10..70u64).step_by(8).map(|sequence| {
        let mut result = result(stream, sequence);
        let detections = &mut result.prediction.detections;
        for (detection, track) in detections.iter_mut().zip(1..) {
            detection.track = Some(TrackId(track));
            detection.bbox = Rect::new(10.0 * track as f32, sequence as f32 - 14.0, 4.0, 8.0);
        }
        let at = Timestamp::from_nanos(sequence * 60_000_000);
        let analysis = analyser.update(at, result.frame.size(), detections);
        FrameResult { analysis: Some(Arc::new(analysis)), wall: Some(at), ..result }
    });
    frames.collect()
}

#[test]
fn events_are_on_disk_when_they_have_happened() {
    let folder = TempDir::new().unwrap();
    let config = SinkConfig::Events { path: folder.path().join("events.jsonl"), snapshots: None };
    let mut sink = open(&config, &context(&["a"])).unwrap();
    let mut events = 0;
    for result in analysed("a") {
        sink.write(&result).unwrap();
        events += EventRecord::of(&result).count();
        let text = fs::read_to_string(folder.path().join(".events.jsonl.partial")).unwrap();
        assert_eq!(text.lines().count(), 1 + events);
    }
    assert!(events > 0);
}

/// The released form of an event.
#[test]
fn an_event_of_version_1_reads_as_it_was_written() {
    let line = concat!(
        r#"{"kind":"event","version":1,"id":"b-34-0-2040","stream":"b","frame":34,"pts_ms":1133.333,"#,
        r#""time":"1970-01-01T00:00:02.040Z","event":"line-crossed","rule":"line","track":1,"class":0,"label":"face","#,
        r#""box":[10.0,20.0,4.0,8.0],"way":"in","in":1,"out":0}"#,
    );
    let results = analysed("b");
    let mut events = results.iter().flat_map(EventRecord::of);
    let record = Record::Event(events.find(|event| event.event == "line-crossed").unwrap());
    assert_eq!(serde_json::to_string(&record).unwrap(), line);
    assert_eq!(serde_json::from_str::<Record>(line).unwrap(), record);
}

#[test]
fn each_stream_gets_its_file_where_the_path_says_so() {
    let folder = TempDir::new().unwrap();
    let config = json_lines(folder.path().join("{stream}.jsonl"));
    let mut sink = open(&config, &context(&["door", "yard/north"])).unwrap();
    sink.write(&result("yard/north", 0)).unwrap();
    assert_eq!(sink.finish().unwrap().files.len(), 2);
    assert_eq!(names(folder.path()), ["door.jsonl", "yard_north.jsonl"]);
    assert_eq!(fs::read_to_string(folder.path().join("door.jsonl")).unwrap().lines().count(), 1);
    assert_eq!(fs::read_to_string(folder.path().join("yard_north.jsonl")).unwrap().lines().count(), 2);
    let text = refusal(&config, &["a/b", "a_b"]);
    assert!(text.ends_with("two streams would write this file; put `{stream}` into its path"), "{text}");
}

#[test]
fn a_stream_that_joins_later_gets_its_file_too() {
    let folder = TempDir::new().unwrap();
    let pictures = folder.path().join("{stream}");
    for config in [
        json_lines(folder.path().join("{stream}.jsonl")),
        SinkConfig::Csv { path: folder.path().join("{stream}.csv") },
        SinkConfig::Images { folder: pictures, format: ImageFormat::Jpeg, every: 1 },
    ] {
        let mut sink = open(&config, &context(&["a"])).unwrap();
        sink.write(&result("b", 0)).unwrap();
        assert_eq!(sink.finish().unwrap().files.len(), 2);
    }
    assert_eq!(names(folder.path()), ["a", "a.csv", "a.jsonl", "b", "b.csv", "b.jsonl"]);
}

#[test]
fn a_sink_dropped_unfinished_leaves_what_was_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("results.jsonl");
    fs::write(&path, "of yesterday").unwrap();
    let mut sink = open(&json_lines(path.clone()), &context(&["a"])).unwrap();
    sink.write(&result("a", 0)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "of yesterday");
    drop(sink);
    assert_eq!(names(folder.path()), ["results.jsonl"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "of yesterday");
    open(&json_lines(path.clone()), &context(&["a"])).unwrap().finish().unwrap();
    assert!(fs::read_to_string(&path).unwrap().starts_with("{\"kind\":\"header\""));
}

#[test]
fn a_symbolic_link_stays_and_its_file_is_replaced() {
    let folder = TempDir::new().unwrap();
    let (file, link) = (folder.path().join("file.jsonl"), folder.path().join("link.jsonl"));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    open(&json_lines(link.clone()), &context(&["a"])).unwrap().finish().unwrap();
    assert!(link.is_symlink());
    assert!(fs::read_to_string(&file).unwrap().starts_with('{'));
}

#[test]
fn what_cannot_be_written_is_refused_before_the_first_frame() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("no/results.jsonl");
    let text = refusal(&json_lines(missing.clone()), &["a"]);
    let expected = folder.path().join("no").display().to_string();
    assert_eq!(text, format!("cannot write `{}`: there is no folder `{expected}`", missing.display()));
    let text = refusal(&json_lines(folder.path().to_path_buf()), &["a"]);
    assert!(text.ends_with("this is a folder, not a file"), "{text}");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for config in [
        SinkConfig::Csv { path: file.join("results.csv") },
        SinkConfig::Images { folder: file.clone(), format: ImageFormat::Png, every: 1 },
        // Nobody, root included, makes files in /proc.
        json_lines("/proc/results.jsonl".into()),
        SinkConfig::Images { folder: "/proc".into(), format: ImageFormat::Png, every: 1 },
    ] {
        assert!(refusal(&config, &["a"]).starts_with("cannot write `"), "{config:?}");
    }
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn a_full_disk_is_named_with_its_file() {
    // The header already does not fit on this device.
    let text = refusal(&json_lines("/dev/full".into()), &["a"]);
    assert_eq!(text, "cannot write `/dev/full`: No space left on device (os error 28)");
}

#[test]
fn a_device_is_written_in_place() {
    let mut sink = open(&json_lines("/dev/null".into()), &context(&["a"])).unwrap();
    sink.write(&result("a", 0)).unwrap();
    assert_eq!(sink.finish().unwrap().files, [PathBuf::from("/dev/null")]);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn csv_has_a_row_for_each_thing_found() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("results.csv");
    let mut sink = open(&SinkConfig::Csv { path: path.clone() }, &context(&["a"])).unwrap();
    sink.write(&result("a", 3)).unwrap();
    sink.write(&FrameResult { prediction: Prediction::default(), ..result("a", 4) }).unwrap();
    sink.finish().unwrap();
    let expected = "stream,frame,pts_ms,kind,class,label,score,x,y,width,height,track\n\
        a,3,100,detection,0,face,0.9877,10,20.13,30,40.5,\n\
        a,3,100,detection,1,\"the \"\"plate\"\", of a car\",0.9877,0,20.13,30,40.5,7\n\
        a,3,100,classification,7,,0.5,,,,,\n\
        a,3,100,segment,1,\"the \"\"plate\"\", of a car\",0.5,,,,,\n\
        a,3,100,segment,0,face,0.3333,,,,,\n\
        a,3,100,segment,255,,0.1667,,,,,\n";
    assert_eq!(fs::read_to_string(path).unwrap(), expected);
}

#[test]
fn every_nth_picture_of_each_stream_becomes_a_file() {
    let folder = TempDir::new().unwrap();
    let pictures = folder.path().join("pictures");
    for (format, extension) in [(ImageFormat::Jpeg, "jpg"), (ImageFormat::Png, "png")] {
        let config = SinkConfig::Images { folder: pictures.clone(), format, every: 2 };
        let mut sink = open(&config, &context(&["a", "b"])).unwrap();
        for sequence in 0..4 {
            sink.write(&result("a", sequence)).unwrap();
        }
        sink.write(&result("b", 9)).unwrap();
        assert_eq!(sink.finish().unwrap().files, std::slice::from_ref(&pictures));
        for name in ["a-000000", "a-000002", "b-000009"] {
            let picture = image::open(pictures.join(format!("{name}.{extension}"))).unwrap();
            assert_eq!((picture.width(), picture.height()), (64, 48));
        }
    }
    assert_eq!(names(&pictures).len(), 6);
}

#[test]
fn nothing_is_kept_of_a_stream_that_ended() {
    let folder = TempDir::new().unwrap();
    let (pictures, messages) = (folder.path().join("pictures"), folder.path().join("messages.jsonl"));
    let images = SinkConfig::Images { folder: pictures.clone(), format: ImageFormat::Jpeg, every: 2 };
    let lines = SinkConfig::Messages { path: messages.clone(), payload: Payload::DeepStreamMinimal, every: 2 };
    for config in [images, lines] {
        let mut sink = open(&config, &context(&["a"])).unwrap();
        sink.write(&result("a", 0)).unwrap();
        sink.end_stream(&StreamId::new("a")).unwrap();
        // It is the first again.
        sink.write(&result("a", 1)).unwrap();
        sink.finish().unwrap();
    }
    assert_eq!(names(&pictures), ["a-000000.jpg", "a-000001.jpg"]);
    assert_eq!(fs::read_to_string(messages).unwrap().lines().count(), 2);
}

#[test]
fn a_folder_for_pictures_stays_only_if_it_was_there_or_got_one() {
    let folder = TempDir::new().unwrap();
    let images =
        |name: &str| SinkConfig::Images { folder: folder.path().join(name), format: ImageFormat::Jpeg, every: 1 };
    fs::create_dir(folder.path().join("there")).unwrap();
    drop(open(&images("there"), &context(&["a"])).unwrap());
    drop(open(&images("empty"), &context(&["a"])).unwrap());
    let mut sink = open(&images("one"), &context(&["a"])).unwrap();
    sink.write(&result("a", 0)).unwrap();
    drop(sink);
    open(&images("finished"), &context(&["a"])).unwrap().finish().unwrap();
    assert_eq!(names(folder.path()), ["finished", "one", "there"]);
}

fn video(path: PathBuf) -> SinkConfig {
    SinkConfig::Video { path, bitrate_kbps: None }
}

/// A stretch of a stream in one picture size.
fn film(sink: &mut Box<dyn Sink>, stream: &str, frames: std::ops::Range<u64>, size: Size) {
    for sequence in frames {
        let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), size);
        let bytes = vec![(sequence * 5) as u8; layout.bytes().unwrap()];
        let frame = Frame::new(
            StreamId::new(stream),
            sequence,
            Timestamp::from_nanos(sequence * 40_000_000),
            Timestamp::ZERO,
            layout,
            MemoryKind::Host,
            Box::new(bytes),
        );
        sink.write(&FrameResult { frame: Arc::new(frame.unwrap()), ..result(stream, sequence) }).unwrap();
    }
}

/// The sizes and frames of a video, as this crate's own source plays it.
fn played(path: &Path) -> (BTreeSet<(usize, usize)>, usize) {
    use crate::config::{ReconnectConfig, SourceConfig, StreamConfig};
    let config = StreamConfig {
        id: StreamId::new("played"),
        source: SourceConfig::File(path.to_path_buf()),
        queue_frames_max: 4,
        interval: 1,
        frames_max: None,
        repeat: Some(1),
        reconnect: ReconnectConfig::default(),
        lens: None,
    };
    struct Stopped;
    impl revoada_core::Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::ZERO
        }
    }
    let mut source = crate::media::open(&config, Arc::new(Stopped)).unwrap();
    let (mut sizes, mut frames) = (BTreeSet::new(), 0);
    loop {
        match source.pull(Duration::from_secs(10)).unwrap() {
            crate::Pull::Frame(frame) => {
                sizes.insert((frame.size().width, frame.size().height));
                frames += 1;
            }
            crate::Pull::Idle => panic!("the film stands still"),
            crate::Pull::End => return (sizes, frames),
        }
    }
}

#[test]
fn a_stream_that_changes_its_size_goes_on_in_a_new_file() {
    let folder = TempDir::new().unwrap();
    // The second part of `a` must not take the name of stream `a-2`.
    let mut sink = open(&video(folder.path().join("{stream}.mp4")), &context(&["a", "a-2", "silent"])).unwrap();
    film(&mut sink, "a", 0..12, Size::new(64, 48));
    film(&mut sink, "a-2", 0..5, Size::new(96, 80));
    film(&mut sink, "a", 12..20, Size::new(128, 96));
    let files = sink.finish().unwrap().files;
    let expected: Vec<_> = ["a.mp4", "a-3.mp4", "a-2.mp4"].iter().map(|name| folder.path().join(name)).collect();
    assert_eq!(files, expected);
    assert_eq!(names(folder.path()), ["a-2.mp4", "a-3.mp4", "a.mp4"], "nothing is left of the silent stream");
    let parts: Vec<_> = expected.iter().map(|path| played(path)).collect();
    let one = |width, height, frames| (BTreeSet::from([(width, height)]), frames);
    assert_eq!(parts, [one(64, 48, 12), one(128, 96, 8), one(96, 80, 5)]);
}

#[test]
fn the_files_of_a_stream_are_whole_when_it_ends_and_go_on_in_others_when_it_comes_again() {
    let folder = TempDir::new().unwrap();
    let configs = [
        video(folder.path().join("{stream}.mkv")),
        json_lines(folder.path().join("{stream}.jsonl")),
        SinkConfig::Csv { path: folder.path().join("{stream}.csv") },
    ];
    for config in configs {
        let mut sink = open(&config, &context(&["a", "b", "silent"])).unwrap();
        film(&mut sink, "a", 0..5, Size::new(64, 48));
        film(&mut sink, "b", 0..5, Size::new(64, 48));
        sink.end_stream(&StreamId::new("a")).unwrap();
        sink.end_stream(&StreamId::new("unknown")).unwrap();
        film(&mut sink, "a", 5..8, Size::new(64, 48));
        drop(sink);
    }
    assert_eq!(names(folder.path()), ["a.csv", "a.jsonl", "a.mkv"], "only what had ended is there");
    assert_eq!(played(&folder.path().join("a.mkv")).1, 5);
    assert_eq!(fs::read_to_string(folder.path().join("a.jsonl")).unwrap().lines().count(), 1 + 5);

    let mut sink = open(&json_lines(folder.path().join("{stream}.jsonl")), &context(&["a"])).unwrap();
    for sequence in [0, 1] {
        sink.write(&result("a", sequence)).unwrap();
        sink.end_stream(&StreamId::new("a")).unwrap();
    }
    let expected: Vec<_> = ["a.jsonl", "a-2.jsonl"].iter().map(|name| folder.path().join(name)).collect();
    assert_eq!(sink.finish().unwrap().files, expected);
}

#[test]
fn a_file_shared_by_streams_goes_on_when_one_ends() {
    let folder = TempDir::new().unwrap();
    let mut sink = open(&json_lines(folder.path().join("all.jsonl")), &context(&["a", "b"])).unwrap();
    sink.write(&result("a", 0)).unwrap();
    sink.end_stream(&StreamId::new("a")).unwrap();
    sink.write(&result("b", 0)).unwrap();
    let files = sink.finish().unwrap().files;
    assert_eq!(files, [folder.path().join("all.jsonl")]);
    assert_eq!(fs::read_to_string(&files[0]).unwrap().lines().count(), 3);
}

#[test]
fn a_video_sink_dropped_unfinished_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let mut sink = open(&video(folder.path().join("film.mkv")), &context(&["a"])).unwrap();
    film(&mut sink, "a", 0..5, Size::new(64, 48));
    drop(sink);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_video_that_cannot_be_written_is_refused_before_the_first_frame() {
    let folder = TempDir::new().unwrap();
    let text = refusal(&video(folder.path().join("no/film.mp4")), &["a"]);
    assert!(text.ends_with(&format!("there is no folder `{}`", folder.path().join("no").display())), "{text}");
    let text = refusal(&video(folder.path().join("film.mp4")), &["a", "b"]);
    assert!(text.ends_with("two streams would write this file; put `{stream}` into its path"), "{text}");
    assert!(refusal(&video(folder.path().join("film.avi")), &["a"]).contains("`.mkv`"));
    assert_eq!(names(folder.path()), [""; 0]);
}

#[cfg(feature = "rtsp-server")]
#[test]
fn an_rtsp_port_in_use_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = refusal(&SinkConfig::Rtsp { address, bitrate_kbps: None }, &["a"]);
    assert!(text.starts_with(&format!("cannot serve on `{address}`")), "{text}");
}

#[test]
fn a_preview_without_a_server_is_refused() {
    let text = refusal(&SinkConfig::Preview { quality: 80, fps_max: 10 }, &["a"]);
    assert!(text.ends_with("a preview needs the pipeline's HTTP address"), "{text}");
}
