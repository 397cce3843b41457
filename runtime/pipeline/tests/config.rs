//! Configuration through its public door: what is read, what is refused and with which words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use revoada_bundle::manifest::{Manifest, OutputManifest};
use revoada_bundle::sign::TrustedKeys;
use revoada_core::{Point, Size, StreamId};
use revoada_engine::BackendChoice;
use revoada_pipeline::analyse::EventKind;
use revoada_pipeline::config::{
    AnalyticsConfig, Anchor, AnonymizeConfig, AnonymizeMethod, BatchConfig, BrokerAddress, ByteTrackConfig, CameraMode,
    ClassName, ClassRule, Container, CourierConfig, CrossingMode, CrowdConfig, DELTA_FRAMES_MAX, DirectionConfig,
    Draft, DrawConfig, HttpConfig, ImageFormat, LensConfig, LineConfig, ManifestConfig, ModelConfig, MqttConfig,
    ObjectsConfig, OcSortConfig, Payload, PipelineConfig, Reads, ReconnectConfig, RecordingConfig, RegionConfig,
    RtspTransport, Scope, SecondaryConfig, Sends, SinkConfig, SnapshotsConfig, SortConfig, SourceConfig, StreamConfig,
    TilesConfig, TrackerAlgorithm, TrackerConfig, WebhookConfig,
};

fn check(text: &str) -> Result<PipelineConfig, String> {
    Draft::from_file(Path::new("dir/pipeline.toml"), text, Path::new("/here")).check().map_err(|e| e.to_string())
}

/// The problems of a text, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let error = check(text).expect_err("the text is wrong");
    error.lines().map(|line| line.replace("dir/pipeline.toml", "")).collect()
}

const WHOLE: &str = r#"
[[stream]]
id = "front"
uri = "rtsp://camera/1"
queue_frames_max = 5
interval = 2
rtsp = { transport = "udp", latency_ms = 50 }
reconnect = { delay_ms_min = 100, delay_ms_max = 2000, attempts_max = 3, stall_ms = 1500 }

[[stream]]
uri = "clips/talk.mp4"
repeat = "forever"
frames_max = 100

[[stream]]
uri = "v4l2:///dev/video0"
camera = { width = 1280, height = 720, fps = 30 }

[model]
path = "model.onnx"
labels = "/labels.txt"
backend = "rten"
threads = 2
score_min = 0.4
size = "640x480"
decoder = "yolo-v8"
trust = ["ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "builders.keys"]
rebuild = false

[batch]
frames_max = 4
wait_ms = 25

[tracker]
algorithm = "bytetrack"
across_classes = true
score_high = 0.5

[draw]
scores = false
[draw.anonymize]
method = "mosaic"
classes = ["face"]
margin = 0.2

[[sink]]
type = "video"
path = "out/{stream}.mp4"
bitrate_kbps = 4000

[[sink]]
type = "jsonl"
path = "out/all.jsonl"

[[sink]]
type = "images"
folder = "out/pictures"
format = "png"
every = 10

[[sink]]
type = "preview"

[http]
address = "127.0.0.1:8080"
[control]
socket = "control.sock"
[perf]
interval_s = 5
"#;

#[test]
fn every_key_is_read_and_paths_are_relative_to_the_file() {
    let config = check(WHOLE).expect("the text is whole");
    let [front, talk, camera] = &config.streams[..] else { panic!("three streams: {:?}", config.streams) };
    assert_eq!((front.id.as_str(), front.queue_frames_max, front.interval), ("front", 5, 2));
    let latency = Duration::from_millis(50);
    let url = "rtsp://camera/1".into();
    assert_eq!(front.source, SourceConfig::Rtsp { url, transport: RtspTransport::Udp, latency });
    assert_eq!(front.reconnect.attempts_max, Some(3));
    assert_eq!((talk.id.as_str(), talk.repeat, talk.frames_max), ("talk", None, Some(100)));
    assert_eq!(talk.source, SourceConfig::File("dir/clips/talk.mp4".into()));
    let mode = CameraMode { width: 1280, height: 720, fps: 30 };
    assert_eq!(camera.source, SourceConfig::V4l2 { device: "/dev/video0".into(), mode });
    assert_eq!(config.model.path, PathBuf::from("dir/model.onnx"));
    assert_eq!(config.model.labels, Some("/labels.txt".into()));
    assert_eq!(config.model.size, Some(Size::new(640, 480)));
    let [TrustedKeys::Key(_), TrustedKeys::File(file)] = &config.model.trust[..] else { panic!("a key and a file") };
    assert_eq!(file, Path::new("dir/builders.keys"));
    assert!(!config.model.rebuild);
    assert_eq!(config.batch, BatchConfig { frames_max: 4, wait: Duration::from_millis(25) });
    let byte_track = ByteTrackConfig { score_high: 0.5, score_new: 0.6, ..ByteTrackConfig::STANDARD };
    // Pictures are anonymised, so boxes stay where they were found.
    let tracker = TrackerConfig {
        algorithm: TrackerAlgorithm::ByteTrack(byte_track),
        across_classes: true,
        smooth: false,
        camera_motion: false,
    };
    assert_eq!(config.tracker, Some(tracker));
    assert_eq!(config.model.score_low, Some(0.1));
    assert!(config.draw.boxes && !config.draw.scores);
    assert_eq!(config.sinks.len(), 4);
    assert_eq!(config.control, Some("dir/control.sock".into()));
    assert_eq!(config.perf_interval, Some(Duration::from_secs(5)));
}

#[test]
fn every_problem_is_reported_at_once_at_its_line() {
    let text = "\
[[stream]]
url = \"a.mp4\"
queue_frames_max = 0

[[stream]]
uri = \"rtps://x\"
[modle]
path = \"a.onnx\"
[[sink]]
type = \"vidoe\"
path = \"x.mp4\"
[[sink]]
type = \"csv\"
[batch]
frames_max = 65
";
    assert_eq!(
        problems(text),
        [
            ": model: this key is missing",
            ":1: stream[0].uri: this key is missing",
            ":2: stream[0].url: unknown key, did you mean `uri`?",
            ":3: stream[0].queue_frames_max: expected an integer from 1 to 64, got 0",
            ":6: stream[1].uri: unknown scheme `rtps://`, choose a path, `file://`, `images:`, `rtsp://`, `rtsps://`, \
             `http://`, `https://`, `v4l2://`, `csi://` or `test://`",
            ":7: modle: unknown key, did you mean `model`?",
            ":10: sink[0].type: expected one of `video`, `jsonl`, `events`, `mqtt`, `webhook`, `csv`, `kitti`, `messages`, \
             `images`, `recording`, `rtsp`, `preview`, `none`, got `vidoe`, did you mean `video`?",
            ":12: sink[1].path: this key is missing",
            ":15: batch.frames_max: expected an integer from 1 to 64, got 65",
        ]
    );
}

/// Each text is one mistake of meaning, on top of a pipeline that is right.
#[test]
fn keys_that_are_wrong_together_are_refused() {
    const MODEL: &str = "[model]\npath = \"m.onnx\"\n";
    const STREAM: &str = "[[stream]]\nuri = \"a.mp4\"\n";
    for (text, expected) in [
        (MODEL.to_owned(), "a pipeline has at least one `[[stream]]`"),
        (format!("{MODEL}{STREAM}id = \"x\"\n{STREAM}id = \"x\"\n"), "there is another stream `x`"),
        (format!("{MODEL}{STREAM}id = \"a/b\"\n"), "expected 1 to 64 letters"),
        (format!("deterministic = true\n{MODEL}[[stream]]\nuri = \"csi://0\"\n"), "`deterministic` runs read files"),
        (
            format!("deterministic = true\n{MODEL}{STREAM}[batch]\nwait_ms = 7\n"),
            "has no effect: batches of a `deterministic` run",
        ),
        (format!("deterministic = true\n{MODEL}rebuild = true\n{STREAM}"), "cannot go over to a plan"),
        (format!("{MODEL}{STREAM}rtsp = {{}}\n"), "has no effect: the source is not `rtsp://`"),
        (format!("{MODEL}{STREAM}camera = {{}}\n"), "has no effect: the source is neither"),
        (format!("{MODEL}{STREAM}reconnect = {{}}\n"), "has no effect on a source that cannot be lost"),
        (
            format!("{MODEL}[[stream]]\nuri = \"csi://0\"\nrepeat = 2\n"),
            "has an effect on files and folders of pictures only",
        ),
        (
            format!("{MODEL}[[stream]]\nuri = \"csi://0\"\nreconnect = {{ delay_ms_min = 90, delay_ms_max = 80 }}\n"),
            "is less than `delay_ms_min`, 90",
        ),
        (format!("{MODEL}{STREAM}[[sink]]\ntype = \"video\"\npath = \"a.avi\"\n"), "ends in `.mp4` or `.mkv`"),
        (
            format!("{MODEL}{STREAM}{STREAM}[[sink]]\ntype = \"video\"\npath = \"o.mp4\"\n"),
            "several streams need a file each: put `{stream}` into the path",
        ),
        (format!("{MODEL}{STREAM}[[sink]]\ntype = \"preview\"\n"), "`[http] address`, which is missing"),
        (
            format!("{MODEL}{STREAM}[[sink]]\ntype = \"video\"\npath = \"b/../a.mp4\"\n"),
            "`dir/a.mp4` is already used by stream `a`",
        ),
        (
            format!(
                "{MODEL}{STREAM}[[sink]]\ntype = \"csv\"\npath = \"o\"\n[[sink]]\ntype = \"jsonl\"\npath = \"o\"\n"
            ),
            "`dir/o` is already used by sink[0]",
        ),
        (format!("{MODEL}{STREAM}[[sink]]\ntype = \"csv\"\npath = \"m.onnx\"\n"), "is already used by a model"),
        (
            format!("{MODEL}{STREAM}[[sink]]\ntype = \"rtsp\"\naddress = \"[::]:1\"\n[http]\naddress = \"[::]:1\"\n"),
            "`[::]:1` is already used by `[http]`",
        ),
        (
            format!("{MODEL}{STREAM}[[secondary]]\npath = \"s.onnx\"\nreads = \"frames\"\non = [\"car\"]\n"),
            "has no effect on a model that reads whole frames",
        ),
        (
            format!("{MODEL}{STREAM}[[secondary]]\npath = \"s.onnx\"\nsize_max = \"8x99\"\n"),
            "is less than `size_min`, 16×16",
        ),
        (
            format!("{MODEL}{STREAM}[[secondary]]\npath = \"s.onnx\"\ntiles = {{ columns = 2, rows = 1 }}\n"),
            "has no effect on a model that reads objects",
        ),
        (format!("{MODEL}tiles = {{ columns = 1, rows = 1 }}\n{STREAM}"), "are the whole picture; leave `tiles` out"),
        (format!("{MODEL}tiles = {{ columns = 9, rows = 9 }}\n{STREAM}"), "more than 64 tiles"),
    ] {
        let got = problems(&text);
        assert!(got.len() == 1 && got[0].contains(expected), "{text}\n{got:#?}");
    }
}

const ANALYTICS: &str = r#"
[[stream]]
uri = "door.mp4"
[[stream]]
uri = "yard.mp4"
[model]
path = "model.onnx"
[[sink]]
type = "events"
path = "events.jsonl"
[tracker]
algorithm = "bytetrack"

[analytics]
anchor = "center"
margin = 0.1
forget_s = 2.5
reference = "1920x1080"

[[analytics.line]]
name = "gate"
streams = ["door"]
classes = ["person", "car"]
reference = "640x480"
points = [[0, 100.5], [640, 100]]
direction = [[0, 1], [0, 0]]
mode = "strict"
extended = true

[[analytics.line]]
name = "fence"
points = [[0, 0], [1, 1]]

[[analytics.region]]
name = "waiting room"
points = [[0, 0], [9, 0], [9, 9]]
inverse = true
dwell_s = 30
overcrowding = { objects_max = 3, after_s = 0 }

[[analytics.direction]]
name = "wrong way"
points = [[0, 0], [-1, 0]]
angle_deg = 30
"#;

#[test]
fn every_key_of_the_analytics_is_read() {
    let analytics = check(ANALYTICS).expect("the text is whole").analytics.expect("it is there");
    let reference = Some(Size::new(1920, 1080));
    let scope = |name: &str| Scope { name: name.into(), reference, ..Scope::default() };
    let point = Point::new;
    let gate = LineConfig {
        scope: Scope {
            name: "gate".into(),
            streams: vec![StreamId::new("door")],
            classes: vec!["person".into(), "car".into()],
            reference: Some(Size::new(640, 480)),
        },
        points: [point(0.0, 100.5), point(640.0, 100.0)],
        direction: Some([point(0.0, 1.0), point(0.0, 0.0)]),
        mode: CrossingMode::Strict,
        extended: true,
    };
    let fence = LineConfig {
        scope: scope("fence"),
        points: [point(0.0, 0.0), point(1.0, 1.0)],
        direction: None,
        mode: CrossingMode::Loose,
        extended: false,
    };
    let room = RegionConfig {
        scope: scope("waiting room"),
        corners: vec![point(0.0, 0.0), point(9.0, 0.0), point(9.0, 9.0)],
        inverse: true,
        dwell: Some(Duration::from_secs(30)),
        crowd: Some(CrowdConfig { objects_max: 3, after: Duration::ZERO }),
    };
    let points = [point(0.0, 0.0), point(-1.0, 0.0)];
    let wrong_way = DirectionConfig { scope: scope("wrong way"), points, angle_deg: 30.0 };
    let expected = AnalyticsConfig {
        anchor: Anchor::Center,
        margin: 0.1,
        forget: Duration::from_millis(2500),
        lines: vec![gate, fence],
        regions: vec![room],
        directions: vec![wrong_way],
    };
    assert_eq!(analytics, expected);
}

/// Each is one mistake in an analytics that is right.
#[test]
fn what_cannot_be_analysed_is_refused() {
    let region = |points: &str| format!("points = {points}\ninverse");
    let outline = "points = [[0, 0], [9, 0], [9, 9]]\ninverse";
    for (right, wrong, expected) in [
        (
            r#"streams = ["door"]"#,
            r#"streams = ["dor"]"#,
            "line[0].streams: there is no stream `dor`, did you mean `door`?",
        ),
        (r#"streams = ["door"]"#, "streams = []", "line[0].streams: names none; leave it out to look at all streams"),
        (r#""person", "car""#, "", "line[0].classes: names none; leave it out to look at all classes"),
        ("\"fence\"", "\"gate\"", "line[1].name: there is another line `gate`"),
        ("\"fence\"", "\"\"", "line[1].name: expected 1 to 64 characters, got ``"),
        ("[[0, 0], [1, 1]]", "[[0, 0], [1, 1], [2, 2]]", "line[1].points: expected two points, got 3"),
        ("[[0, 0], [1, 1]]", "[[1, 1], [1, 1]]", "line[1].points: both points are the same"),
        ("[[0, 0], [1, 1]]", "[[0, 0, 1], [1, 1]]", "line[1].points: expected points of two numbers each"),
        ("[[0, 0], [1, 1]]", "[[0, 0], [1, 1e9]]", "line[1].points[1][1]: expected a number from -32768 to 32768"),
        ("direction = [[0, 1], [0, 0]]", "direction = [[640, 100], [0, 100.5]]", "direction: runs along the line"),
        (outline, &region("[[0, 0], [9, 0]]"), "region[0].points: expected 3 to 64 points, got 2"),
        (
            outline,
            &region("[[0, 0], [9, 9], [9, 0], [0, 9]]"),
            "region[0].points: the outline crosses itself: its edges from point 1 and from point 3 meet",
        ),
        (
            outline,
            &region("[[0, 0], [9, 0], [9, 9], [0, 0]]"),
            "region[0].points: point 1 is the same as the one before",
        ),
        ("objects_max = 3, ", "", "region[0].overcrowding.objects_max: this key is missing"),
        ("1920x1080", "HD", "analytics.reference: expected a size such as `1920x1080`"),
        ("strict", "hard", "line[0].mode: expected one of `loose`, `balanced`, `strict`, got `hard`"),
        ("angle_deg = 30", "angle_deg = 120", "direction[0].angle_deg: expected a number from 1 to 90, got 120"),
    ] {
        assert!(ANALYTICS.contains(right), "{right}");
        let got = problems(&ANALYTICS.replacen(right, wrong, 1));
        assert!(got.len() == 1 && got[0].contains(expected), "{wrong}\n{got:#?}");
    }
    let untracked = problems(&ANALYTICS.replace("[tracker]\nalgorithm = \"bytetrack\"\n", ""));
    let expected = "analytics: lines, directions and `dwell_s` look at tracked objects: add a `[tracker]`";
    assert!(untracked.len() == 1 && untracked[0].ends_with(expected), "{untracked:?}");
    let (bare, _) = ANALYTICS.split_once("[analytics]").expect("it is there");
    assert!(
        problems(bare)[0].ends_with("sink[0].type: nothing makes events: add `[analytics]` with what is to be told")
    );
    let nothing = problems(&format!("{bare}[analytics]\n"));
    assert!(nothing[0].contains("there is nothing to tell: add a `[[analytics.line]]`"), "{nothing:?}");
}

const DELIVERIES: &str = r#"
[[stream]]
uri = "door.mp4"
[model]
path = "model.onnx"
[analytics]
[[analytics.region]]
name = "hall"
points = [[0, 0], [9, 0], [9, 9]]
[[sink]]
type = "events"
path = "events.jsonl"
snapshots = "pictures"
[[sink]]
type = "mqtt"
url = "mqtts://porter@[::1]"
password_file = "secret"
ca_file = "/ca.pem"
topic = "site/{stream}/{kind}"
qos = 0
retain = true
client_id = "gate-7"
queue_events_max = 7
timeout_ms = 200
delay_ms_min = 20
delay_ms_max = 30
flush_ms = 40
snapshots = "more"
snapshots_mb_max = 9
[[sink]]
type = "webhook"
url = "https://host:8443/events?x=1"
token_file = "token"
payload = "deepstream-minimal"
every = 30
[[sink]]
type = "mqtt"
url = "mqtt://broker"
"#;

#[test]
fn every_key_of_deliveries_is_read() {
    let config = check(DELIVERIES).expect("it is right");
    let ms = Duration::from_millis;
    let events = SinkConfig::Events {
        path: "dir/events.jsonl".into(),
        snapshots: Some(SnapshotsConfig { folder: "dir/pictures".into(), mb_max: 500 }),
    };
    let mqtt = MqttConfig {
        broker: BrokerAddress { tls: true, user: Some("porter".into()), host: "::1".into(), port: 8883 },
        password_file: Some("dir/secret".into()),
        ca_file: Some("/ca.pem".into()),
        topic: "site/{stream}/{kind}".into(),
        acknowledged: false,
        retain: true,
        client_id: Some("gate-7".into()),
        courier: CourierConfig {
            queue_events_max: 7,
            timeout: ms(200),
            delay_min: ms(20),
            delay_max: ms(30),
            flush: ms(40),
        },
        sends: Sends::Events { snapshots: Some(SnapshotsConfig { folder: "dir/more".into(), mb_max: 9 }) },
    };
    let webhook = WebhookConfig {
        url: "https://host:8443/events?x=1".into(),
        token_file: Some("dir/token".into()),
        ca_file: None,
        sends: Sends::Messages { payload: Payload::DeepStreamMinimal, every: 30 },
        courier: CourierConfig::default(),
    };
    let bare = MqttConfig {
        broker: BrokerAddress { tls: false, user: None, host: "broker".into(), port: 1883 },
        password_file: None,
        ca_file: None,
        topic: "revoada/{stream}/events".into(),
        acknowledged: true,
        retain: false,
        client_id: None,
        sends: Sends::Events { snapshots: None },
        courier: CourierConfig::default(),
    };
    let expected = [events, SinkConfig::Mqtt(mqtt), SinkConfig::Webhook(webhook), SinkConfig::Mqtt(bare)];
    assert_eq!(config.sinks, expected);
    let printed = Draft::from_file(Path::new("b.toml"), &config.to_toml(), Path::new("/here")).check();
    let relative = |text: &str| text.replace("dir/dir/", "dir/");
    assert_eq!(relative(&printed.expect("it was printed").to_toml()), relative(&config.to_toml()));
}

#[test]
fn deliveries_that_cannot_work_are_refused() {
    for (right, wrong, expected) in [
        ("mqtt://broker", "broker", "url: expected a broker such as `mqtt://user@host:1883`"),
        ("mqtt://broker", "tcp://broker", "url: unknown scheme, choose `mqtt://` or `mqtts://`"),
        ("mqtt://broker", "mqtt://broker/topic", "url: a broker has no path"),
        (
            "mqtt://broker",
            "mqtt://me:secret@broker",
            "a password stands in a file of its own: name it as `password_file`",
        ),
        ("mqtt://broker", "mqtt://broker:0", "url: expected a broker such as"),
        ("site/{stream}", "site/#", "topic: expected a topic to publish to, without `+` and `#`"),
        ("qos = 0", "qos = 2", "qos: expected an integer from 0 to 1, got 2"),
        ("gate-7", "", "client_id: expected a name, got nothing"),
        ("porter@", "", "password_file: has no effect without a user"),
        ("mqtts://porter", "mqtt://porter", "ca_file: has no effect without TLS"),
        ("https://host:8443", "ftp://host", "url: expected an address such as `https://host/events`"),
        (
            "https://host:8443",
            "https://me:secret@host",
            "a secret stands in a file of its own: name it as `token_file`",
        ),
        ("delay_ms_max = 30", "delay_ms_max = 10", "delay_ms_max: is less than `delay_ms_min`, 20"),
        ("snapshots = \"more\"\n", "", "snapshots_mb_max: has no effect without a folder"),
        ("payload = \"deepstream-minimal\"\n", "", "every: has no effect on events, which are all sent"),
        ("every = 30", "snapshots = \"p\"", "snapshots: has no effect on messages: pictures go with events"),
        ("\"more\"", "\"pictures\"", "snapshots: `dir/pictures` is already used by sink[0]"),
    ] {
        assert!(DELIVERIES.contains(right), "{right}");
        let got = problems(&DELIVERIES.replacen(right, wrong, 1));
        assert!(got.len() == 1 && got[0].contains(expected), "{wrong}\n{got:#?}");
        assert!(!got[0].contains("secret@"), "{got:#?}");
    }
    let (rest, _) = DELIVERIES.split_once("[analytics]").expect("it is there");
    for sink in ["type = \"mqtt\"\nurl = \"mqtt://a\"", "type = \"webhook\"\nurl = \"http://a\""] {
        let got = problems(&format!("{rest}[[sink]]\n{sink}\n"));
        assert!(got.len() == 1 && got[0].contains("nothing makes events: add `[analytics]`"), "{got:#?}");
    }
}

const RECORDINGS: &str = r#"
[[stream]]
uri = "door.mp4"
[[stream]]
uri = "yard.mp4"
[model]
path = "model.onnx"
[tracker]
algorithm = "sort"
[analytics]
[[analytics.line]]
name = "gate"
points = [[0, 0], [9, 9]]
[[analytics.region]]
name = "hall"
points = [[0, 0], [9, 0], [9, 9]]
[[sink]]
type = "recording"
folder = "out"
streams = ["yard"]
before_s = 5
after_s = 0
length_s_max = 60
on = ["line-crossed", "region-left"]
rules = ["gate", "hall"]
mb_max = 500
keep_days = 30
buffer_mb_max = 8
bitrate_kbps = 2000
container = "mkv"
[[sink]]
type = "recording"
folder = "/more"
"#;

#[test]
fn every_key_of_recordings_is_read() {
    let config = check(RECORDINGS).expect("it is right");
    let seconds = Duration::from_secs;
    let whole = RecordingConfig {
        folder: "dir/out".into(),
        streams: vec![StreamId::new("yard")],
        before: seconds(5),
        after: seconds(0),
        length_max: seconds(60),
        on: vec!["line-crossed", "region-left"],
        rules: vec!["gate".into(), "hall".into()],
        mb_max: 500,
        keep_days: Some(30),
        buffer_mb_max: 8,
        bitrate_kbps: Some(2000),
        container: Container::Matroska,
    };
    let bare = RecordingConfig {
        folder: "/more".into(),
        streams: Vec::new(),
        before: seconds(10),
        after: seconds(10),
        length_max: seconds(300),
        on: EventKind::NAMES.to_vec(),
        rules: Vec::new(),
        mb_max: 10_000,
        keep_days: None,
        buffer_mb_max: 32,
        bitrate_kbps: None,
        container: Container::Mp4,
    };
    assert_eq!(config.sinks, [SinkConfig::Recording(whole), SinkConfig::Recording(bare)]);
    // What is asked for by hand needs no events.
    let (rest, _) = RECORDINGS.split_once("[tracker]").expect("it is there");
    let sink = "[[sink]]\ntype = \"recording\"\nfolder = \"out\"\n";
    let by_hand = check(&format!("{rest}{sink}on = []\n")).expect("it is right");
    assert!(matches!(&by_hand.sinks[..], [SinkConfig::Recording(recording)] if recording.on.is_empty()));
    let got = problems(&format!("{rest}{sink}"));
    assert!(got.len() == 1 && got[0].contains("nothing makes events: add `[analytics]`"), "{got:#?}");
}

#[test]
fn recordings_that_cannot_work_are_refused() {
    for (right, wrong, expected) in [
        ("folder = \"out\"\n", "", "folder: this key is missing"),
        ("folder = \"/more\"", "folder = \"out\"", "folder: `dir/out` is already used by sink[0]"),
        ("\"line-crossed\"", "\"line-crosed\"", "on: there is no event `line-crosed`, did you mean `line-crossed`?"),
        ("\"line-crossed\"", "\"earthquake\"", "on: there is no event `earthquake`, choose from `line-crossed`"),
        ("rules = [\"gate\"", "rules = [\"fence\"", "rules: there is no line, region or direction `fence`"),
        ("streams = [\"yard\"]", "streams = [\"roof\"]", "streams: there is no stream `roof`"),
        ("streams = [\"yard\"]", "streams = []", "streams: names none; leave it out to record all streams"),
        ("length_s_max = 60", "length_s_max = 4", "length_s_max: is less than `before_s` and `after_s` together, 5"),
        ("before_s = 5", "before_s = 601", "before_s: expected an integer from 0 to 600, got 601"),
        ("mb_max = 500", "mb_max = 0", "mb_max: expected an integer from 1 to"),
        ("buffer_mb_max = 8", "buffer_mb_max = 501", "is more than the folder may hold, `mb_max`, 500"),
        ("keep_days = 30", "keep_days = 0", "keep_days: expected an integer from 1 to 36500, got 0"),
        ("\"mkv\"", "\"avi\"", "container: expected one of `mp4`, `mkv`, got `avi`"),
    ] {
        assert!(RECORDINGS.contains(right), "{right}");
        let got = problems(&RECORDINGS.replacen(right, wrong, 1));
        assert!(got.len() == 1 && got[0].contains(expected), "{wrong}\n{got:#?}");
    }
}

#[test]
fn two_streams_of_one_file_get_names_of_their_own() {
    let text = "[model]\npath=\"m\"\n[[stream]]\nuri=\"a.mp4\"\n[[stream]]\nuri=\"a.mp4\"\n";
    let ids: Vec<String> = check(text).expect("whole").streams.iter().map(|s| s.id.to_string()).collect();
    assert_eq!(ids, ["a", "a-2"]);
}

#[test]
fn flags_win_over_the_file_and_keep_their_own_folder() {
    let mut draft = Draft::from_file(Path::new("dir/pipeline.toml"), WHOLE, Path::new("/here"));
    draft.set("model.backend", "auto");
    draft.set("model.path", "mine.onnx");
    draft.set("draw.anonymize.margin", 0.5);
    draft.set_every_stream("frames_max", 7);
    draft.add_sink("csv", [("path", "x.csv")]);
    let config = draft.check().expect("the flags are right");
    assert_eq!(config.model.backend, BackendChoice::Auto);
    assert_eq!(config.model.path, PathBuf::from("/here/mine.onnx"));
    assert_eq!(config.model.threads, Some(2), "the file's");
    assert_eq!(config.draw.anonymize.map(|anonymize| anonymize.margin), Some(0.5));
    assert!(config.streams.iter().all(|stream| stream.frames_max == Some(7)));
    assert_eq!(config.sinks, [SinkConfig::Csv { path: "/here/x.csv".into() }]);
    draft.add_stream("b.mp4");
    let config = draft.check().expect("the flags are right");
    assert_eq!(config.streams[0].source, SourceConfig::File("/here/b.mp4".into()));
    assert_eq!((config.streams.len(), config.streams[0].frames_max), (1, Some(7)));
}

#[test]
fn a_wrong_flag_is_said_to_come_from_the_command_line() {
    let mut draft = Draft::empty();
    draft.add_stream("a.mp4");
    draft.set("model.path", "m.onnx");
    draft.set("model.thraeds", 3);
    draft.set("batch.frames_max", 1000);
    draft.set_every_stream("repeat", -1);
    let error = draft.check().expect_err("three flags are wrong").to_string();
    for expected in [
        "command line: model.thraeds: unknown key, did you mean `threads`?",
        "command line: batch.frames_max: expected an integer from 1 to 64, got 1000",
        "command line: stream[0].repeat: expected an integer",
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,8}"
}

/// Any text that can stand in a path, with what TOML has to escape.
fn path() -> impl Strategy<Value = PathBuf> {
    "[a-zA-Z0-9 \"\\\\'äλ_]{1,10}".prop_map(|name| Path::new("/p").join(name.replace('/', "")))
}

fn ms(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn source() -> impl Strategy<Value = SourceConfig> {
    let mode = (16..4000u32, 16..4000u32, 1..120u32);
    let mode = || mode.clone().prop_map(|(width, height, fps)| CameraMode { width, height, fps });
    let transport = prop_oneof![Just(RtspTransport::Tcp), Just(RtspTransport::Udp), Just(RtspTransport::Auto)];
    prop_oneof![
        word().prop_map(|name| SourceConfig::File(format!("/in/{name}.mp4").into())),
        word().prop_map(|name| SourceConfig::Images(format!("/in/{name}").into())),
        word().prop_map(|host| SourceConfig::Http(format!("http://{host}/a"))),
        (word(), transport, ms(0..60_000)).prop_map(|(host, transport, latency)| SourceConfig::Rtsp {
            url: format!("rtsp://me:pw@{host}/a"),
            transport,
            latency
        }),
        (word(), mode()).prop_map(|(name, mode)| SourceConfig::V4l2 { device: format!("/dev/{name}").into(), mode }),
        (0..9u32, mode()).prop_map(|(sensor, mode)| SourceConfig::Csi { sensor, mode }),
        (mode(), any::<bool>()).prop_map(|(mode, live)| SourceConfig::Test { pattern: "ball".into(), mode, live }),
    ]
}

fn stream() -> impl Strategy<Value = StreamConfig> {
    let delays = (ms(10..1000), ms(0..1000), prop::option::of(0u32..9), ms(100..9999));
    let reconnect = delays.prop_map(|(delay_min, more, attempts_max, stall)| ReconnectConfig {
        delay_min,
        delay_max: delay_min + more,
        attempts_max,
        stall,
    });
    let numbers = (1..=64usize, 1..100u32, prop::option::of(1..u64::MAX >> 1), prop::option::of(1..9u32));
    (word(), source(), numbers, reconnect, lens()).prop_map(|(id, source, numbers, reconnect, lens)| {
        let (queue_frames_max, interval, frames_max, repeat) = numbers;
        let over_network = !source.ends() || matches!(source, SourceConfig::Http(_));
        let is_file = matches!(source, SourceConfig::File(_) | SourceConfig::Images(_));
        StreamConfig {
            id: StreamId::new(&id),
            queue_frames_max,
            interval,
            frames_max,
            repeat: if is_file { repeat } else { Some(1) },
            reconnect: if over_network { reconnect } else { ReconnectConfig::default() },
            source,
            lens,
        }
    })
}

/// None in a program that would refuse it.
fn lens() -> impl Strategy<Value = Option<LensConfig>> {
    let number = || -1e6..=1e6;
    let camera_matrix = (0.1..=1e6, 0.1..=1e6, number(), number());
    let distortion = prop_oneof![Just(4usize), Just(5), Just(8)];
    let distortion = distortion.prop_flat_map(move |count| prop::collection::vec(number(), count));
    let size = (1..=9999usize, 1..=9999usize);
    let lens = (camera_matrix, distortion, size, prop::option::of(0f64..=1.0));
    let lens = lens.prop_map(|((fx, fy, cx, cy), distortion, (width, height), alpha)| LensConfig {
        camera_matrix: [fx, fy, cx, cy],
        distortion,
        size: Size::new(width, height),
        alpha,
    });
    prop::option::of(lens).prop_map(|lens| lens.filter(|_| cfg!(feature = "opencv")))
}

fn sink() -> impl Strategy<Value = SinkConfig> {
    let bitrate = || prop::option::of(50..500_000u32);
    let format = prop_oneof![Just(ImageFormat::Jpeg), Just(ImageFormat::Png)];
    prop_oneof![
        bitrate().prop_map(|bitrate_kbps| SinkConfig::Video { path: "/o/{stream}.mkv".into(), bitrate_kbps }),
        path().prop_map(|path| SinkConfig::JsonLines { path: path.with_extension("jsonl") }),
        (path(), any::<bool>()).prop_map(|(folder, tracks)| SinkConfig::Kitti { folder, tracks }),
        (path(), 1..9u32, any::<bool>()).prop_map(|(path, every, full)| SinkConfig::Messages {
            path: path.with_extension("msg"),
            payload: if full { Payload::DeepStreamFull } else { Payload::DeepStreamMinimal },
            every
        }),
        path().prop_map(|path| SinkConfig::Csv { path: path.with_extension("csv") }),
        (path(), format, 1..9u32).prop_map(|(folder, format, every)| SinkConfig::Images { folder, format, every }),
        bitrate().prop_map(|bitrate_kbps| {
            SinkConfig::Rtsp { address: "[::1]:0".parse().expect("an address"), bitrate_kbps }
        }),
        (1..=100u8, 1..60u32).prop_map(|(quality, fps_max)| SinkConfig::Preview { quality, fps_max }),
        Just(SinkConfig::None),
        (path(), prop::option::of(snapshots()))
            .prop_map(|(path, snapshots)| SinkConfig::Events { path: path.with_extension("events"), snapshots }),
        mqtt().prop_map(SinkConfig::Mqtt),
        webhook().prop_map(SinkConfig::Webhook),
        recording().prop_map(SinkConfig::Recording),
    ]
}

fn sends() -> impl Strategy<Value = Sends> {
    let payload = prop::sample::select(vec![Payload::DeepStreamFull, Payload::DeepStreamMinimal]);
    prop_oneof![
        prop::option::of(snapshots()).prop_map(|snapshots| Sends::Events { snapshots }),
        (payload, 1..99u32).prop_map(|(payload, every)| Sends::Messages { payload, every }),
    ]
}

fn recording() -> impl Strategy<Value = RecordingConfig> {
    let seconds = |seconds: u64| Duration::from_secs(seconds);
    let times = (0..=600u64, 0..=3600u64, 0..1000u64);
    let kinds = prop::sample::subsequence(EventKind::NAMES.to_vec(), 0..=EventKind::NAMES.len());
    let bounds = (1..1000u32, 1000..100_000u32, prop::option::of(1..1000u32), prop::option::of(50..500_000u32));
    (path(), times, kinds, bounds, any::<bool>()).prop_map(
        move |(folder, (before, after, more), on, (buffer_mb_max, mb_max, keep_days, bitrate_kbps), mp4)| {
            RecordingConfig {
                folder: folder.with_extension("recordings"),
                streams: Vec::new(),
                before: seconds(before),
                after: seconds(after),
                length_max: seconds(before + after + more + 1),
                on,
                rules: Vec::new(),
                mb_max,
                keep_days,
                buffer_mb_max,
                bitrate_kbps,
                container: if mp4 { Container::Mp4 } else { Container::Matroska },
            }
        },
    )
}

fn snapshots() -> impl Strategy<Value = SnapshotsConfig> {
    (path(), 1..1000u32).prop_map(|(path, mb_max)| SnapshotsConfig { folder: path.with_extension("pictures"), mb_max })
}

fn courier() -> impl Strategy<Value = CourierConfig> {
    let times = (ms(100..600_000), ms(10..1000), ms(1000..3_600_000), ms(0..600_000));
    (1..100_000usize, times).prop_map(|(queue_events_max, (timeout, delay_min, delay_max, flush))| CourierConfig {
        queue_events_max,
        timeout,
        delay_min,
        delay_max,
        flush,
    })
}

fn mqtt() -> impl Strategy<Value = MqttConfig> {
    let address = (any::<bool>(), prop::option::of(word()), prop_oneof![word(), Just("::1".to_owned())], 1..u16::MAX);
    let broker = address.prop_map(|(tls, user, host, port)| BrokerAddress { tls, user, host, port });
    let files = (prop::option::of(path()), prop::option::of(path()));
    let rest = (word(), any::<bool>(), any::<bool>(), prop::option::of(word()));
    (broker, files, rest, courier(), sends()).prop_map(
        |(broker, (password_file, ca_file), (topic, acknowledged, retain, client_id), courier, sends)| MqttConfig {
            password_file: password_file.filter(|_| broker.user.is_some()),
            ca_file: ca_file.filter(|_| broker.tls),
            broker,
            topic,
            acknowledged,
            retain,
            client_id,
            courier,
            sends,
        },
    )
}

fn webhook() -> impl Strategy<Value = WebhookConfig> {
    let files = (prop::option::of(path()), prop::option::of(path()));
    (word(), files, courier(), sends()).prop_map(|(host, (token_file, ca_file), courier, sends)| WebhookConfig {
        url: format!("https://{host}/events"),
        token_file,
        ca_file,
        courier,
        sends,
    })
}

fn inline_manifest(score_min: Option<f32>) -> Manifest {
    let labels = vec!["a \"b\"".to_owned(), String::new()];
    let output = OutputManifest { score_min, nms_iou_max: Some(0.45), ..OutputManifest::default() };
    Manifest { name: Some("inline".to_owned()), labels, output, ..Manifest::default() }
}

fn model() -> impl Strategy<Value = ModelConfig> {
    let files = (path(), prop::option::of(path()), prop::option::of(path()));
    let backend =
        prop_oneof![Just(BackendChoice::Auto), word().prop_map(|name| BackendChoice::Named(format!("x{name}")))];
    let size = prop::option::of((1..9999usize, 1..9999usize).prop_map(|(width, height)| Size::new(width, height)));
    let rest = (prop::option::of(1..64usize), prop::option::of(0f32..=1.0), size, prop::option::of(word()));
    let trust = prop::collection::vec(path().prop_map(TrustedKeys::File), 0..3);
    let tiles = (2..=8u32, 1..=8u32, 0f32..=0.9, any::<bool>())
        .prop_map(|(columns, rows, overlap, whole)| TilesConfig { columns, rows, overlap, whole });
    (files, backend, rest, trust, prop::option::of(tiles), any::<bool>()).prop_map(
        |(files, backend, rest, trust, tiles, rebuild)| {
            let ((path, manifest, labels), (threads, score_min, size, decoder)) = (files, rest);
            let manifest = manifest.map(|path| match path.to_string_lossy().len() % 2 {
                0 => ManifestConfig::File(path),
                _ => ManifestConfig::Inline(Box::new(inline_manifest(score_min))),
            });
            let rule = ClassRule { score_min, width_max: Some(9), ..ClassRule::default() };
            let classes = match (rebuild, decoder.clone()) {
                (true, Some(name)) => vec![
                    ClassRule { class: Some(ClassName::Label(name)), ..rule.clone() },
                    ClassRule { class: Some(ClassName::Index(3)), drop: true, ..rule.clone() },
                    ClassRule { results_max: Some(7), ..rule },
                ],
                _ => Vec::new(),
            };
            ModelConfig {
                path,
                manifest,
                labels,
                backend,
                threads,
                score_min,
                score_low: None,
                size,
                decoder,
                trust,
                tiles,
                rebuild,
                concurrent_max: None,
                classes,
            }
        },
    )
}

fn secondary() -> impl Strategy<Value = SecondaryConfig> {
    let size = |from: usize| (from..1000, from..1000usize).prop_map(|(width, height)| Size::new(width, height));
    let every = prop::option::of(1..99u32);
    let objects = (prop::collection::vec(word(), 0..3), size(1), prop::option::of(size(999)), 0f32..=2.0, every);
    let objects = (objects, 1..99usize).prop_map(|((on, size_min, size_max, margin, every), objects_max)| {
        Reads::Objects(ObjectsConfig { on, size_min, size_max, margin, every, objects_max })
    });
    let reads = prop_oneof![(1..99u32).prop_map(|every| Reads::Frames { every }), objects];
    (prop::option::of(word()), model(), reads, 1..=64usize).prop_map(|(name, mut model, reads, batch_max)| {
        if matches!(reads, Reads::Objects(_)) {
            model.tiles = None;
        }
        SecondaryConfig { name, model, reads, batch_max }
    })
}

fn draw() -> impl Strategy<Value = DrawConfig> {
    let method = prop_oneof![Just(AnonymizeMethod::Blur), Just(AnonymizeMethod::Mosaic)];
    let anonymize = (method, prop::collection::vec("[^\0]{0,6}", 0..3), 0f32..=2.0)
        .prop_map(|(method, classes, margin)| AnonymizeConfig { method, classes, margin });
    (any::<[bool; 8]>(), prop::option::of(anonymize)).prop_map(
        |([boxes, labels, scores, landmarks, masks, tracks, clock, rules], anonymize)| DrawConfig {
            boxes,
            labels,
            scores,
            landmarks,
            masks,
            tracks,
            clock,
            rules,
            anonymize,
        },
    )
}

fn tracker() -> impl Strategy<Value = TrackerConfig> {
    let sort = (1..=1000u32, 0..=1000u32, 0f64..=1.0).prop_map(|(lost_frames_max, hits_min, iou_min)| SortConfig {
        lost_frames_max,
        hits_min,
        iou_min,
    });
    let scores = || (0f64..=0.5, 0.5f64..=1.0);
    let byte_track = (scores(), 1..=1000u32, 0f64..=1.0, 0f64..=1.0, any::<bool>()).prop_map(
        |((score_low, score_high), lost_frames_max, score_new, distance_max, weigh_scores)| ByteTrackConfig {
            score_high,
            score_low,
            score_new,
            lost_frames_max,
            distance_max,
            weigh_scores,
        },
    );
    let oc_sort = (sort.clone(), scores(), any::<bool>(), 1..=DELTA_FRAMES_MAX, 0f64..=10.0).prop_map(
        |(SortConfig { lost_frames_max, hits_min, iou_min }, (low, score_high), looks_low, delta_frames, inertia)| {
            let score_low = looks_low.then_some(low);
            OcSortConfig { score_high, score_low, lost_frames_max, hits_min, iou_min, delta_frames, inertia }
        },
    );
    let algorithm = prop_oneof![
        sort.prop_map(TrackerAlgorithm::Sort),
        byte_track.prop_map(TrackerAlgorithm::ByteTrack),
        oc_sort.prop_map(TrackerAlgorithm::OcSort),
    ];
    let camera_motion = any::<bool>().prop_map(|on| on && cfg!(feature = "opencv"));
    (algorithm, any::<bool>(), any::<bool>(), camera_motion).prop_map(
        |(algorithm, across_classes, smooth, camera_motion)| TrackerConfig {
            algorithm,
            across_classes,
            smooth,
            camera_motion,
        },
    )
}

#[test]
fn a_tracker_has_the_keys_of_its_algorithm() {
    let tracker = |keys: &str| {
        let text = format!("[[stream]]\nuri = \"a.mp4\"\n[model]\npath = \"m.onnx\"\n[tracker]\n{keys}\n");
        check(&text).map(|config| config.tracker)
    };
    for (keys, expected) in [
        ("algorithm = \"sort\"", TrackerConfig::SORT),
        ("algorithm = \"bytetrack\"", TrackerConfig::BYTE_TRACK),
        ("algorithm = \"ocsort\"", TrackerConfig::OC_SORT),
    ] {
        assert_eq!(tracker(keys), Ok(Some(expected)));
    }
    for (keys, refusal) in [
        ("iou_min = 0.5", "tracker.algorithm"),
        ("algorithm = \"sort\"\nscore_high = 0.5", "score_high"),
        ("algorithm = \"byte\"", "bytetrack"),
        ("algorithm = \"bytetrack\"\nscore_low = 0.9", "is more than `score_high`, 0.6"),
        ("algorithm = \"ocsort\"\ndelta_frames = 9", "delta_frames"),
        ("algorithm = \"sort\"\nlost_frames_max = 0", "lost_frames_max"),
    ] {
        let error = tracker(keys).expect_err(keys);
        assert!(error.contains(refusal), "{keys}: {error}");
    }
}

#[test]
fn a_lens_is_read_or_refused() {
    let stream = |lens: &str| {
        check(&format!("[[stream]]\nuri = \"a.mp4\"\nlens = {{ {lens} }}\n[model]\npath = \"m.onnx\"\n"))
            .map(|mut config| config.streams.remove(0).lens)
    };
    const CAMERA: &str = "camera_matrix = [900, 901.5, 640, 359]";
    const BENT: &str = "distortion = [-0.3, 0.1, 0, 0.001]";
    const SIZE: &str = "size = \"1280x720\"";
    let lens = LensConfig {
        camera_matrix: [900.0, 901.5, 640.0, 359.0],
        distortion: vec![-0.3, 0.1, 0.0, 0.001],
        size: Size::new(1280, 720),
        alpha: None,
    };
    let whole = format!("{CAMERA}, {BENT}, {SIZE}");
    if cfg!(feature = "opencv") {
        assert_eq!(stream(&whole), Ok(Some(lens.clone())));
        let whole = format!("{CAMERA}, {BENT}, size = [1280, 720], alpha = 0.5");
        assert_eq!(stream(&whole), Ok(Some(LensConfig { alpha: Some(0.5), ..lens })));
    } else {
        let error = stream(&whole).expect_err("there is no OpenCV");
        assert!(error.contains("stream[0].lens: this program was built without feature `opencv`"), "{error}");
    }
    for (keys, refusal) in [
        (format!("{CAMERA}, {SIZE}"), "lens.distortion: this key is missing"),
        (format!("{BENT}, {SIZE}"), "lens.camera_matrix: this key is missing"),
        (format!("{CAMERA}, {BENT}"), "lens.size: this key is missing"),
        (format!("camera_matrix = [900, 901, 640], {BENT}, {SIZE}"), "expected `[fx, fy, cx, cy]`, the first two"),
        (format!("camera_matrix = [900, 0, 640, 360], {BENT}, {SIZE}"), "expected `[fx, fy, cx, cy]`, the first two"),
        (
            format!("{CAMERA}, distortion = [-0.3, 0.1], {SIZE}"),
            "expected 4, 5 or 8 coefficients as OpenCV gives them, got 2",
        ),
        (format!("{CAMERA}, distortion = [nan, 0, 0, 0], {SIZE}"), "lens.distortion"),
        (format!("{CAMERA}, {BENT}, size = \"0x720\""), "expected width and height"),
        (format!("{CAMERA}, {BENT}, {SIZE}, alpha = 1.5"), "lens.alpha"),
        (format!("{CAMERA}, {BENT}, {SIZE}, crop = true"), "lens.crop: unknown key"),
    ] {
        let error = stream(&keys).expect_err(&keys);
        assert!(error.contains(refusal), "{keys}: {error}");
    }
}

#[test]
fn the_motion_of_a_camera_is_followed_by_a_program_with_opencv_alone() {
    let tracker = |on: bool| {
        let text = format!(
            "[[stream]]\nuri = \"a.mp4\"\n[model]\npath = \"m.onnx\"\n[tracker]\nalgorithm = \"sort\"\ncamera_motion = {on}\n"
        );
        check(&text).map(|config| config.tracker)
    };
    assert_eq!(tracker(false), Ok(Some(TrackerConfig::SORT)));
    if cfg!(feature = "opencv") {
        assert_eq!(tracker(true), Ok(Some(TrackerConfig { camera_motion: true, ..TrackerConfig::SORT })));
    } else {
        let error = tracker(true).expect_err("there is no OpenCV");
        assert!(error.contains("tracker.camera_motion: this program was built without feature `opencv`"), "{error}");
    }
}

fn point() -> impl Strategy<Value = Point> {
    (-999.0..9999f32, 0.0..9999f32).prop_map(|(x, y)| Point::new(x, y))
}

/// No two points of one of these are the same.
fn analytics() -> impl Strategy<Value = AnalyticsConfig> {
    let anchor = prop_oneof![Just(Anchor::BottomCenter), Just(Anchor::Center)];
    let mode = prop_oneof![Just(CrossingMode::Loose), Just(CrossingMode::Balanced), Just(CrossingMode::Strict)];
    let arrow = || (point(), 1.0..99f32).prop_map(|(from, by)| [from, Point::new(from.x + by, from.y + 2.0 * by)]);
    let size = prop::option::of((1..9999usize, 1..9999usize).prop_map(|(width, height)| Size::new(width, height)));
    let classes = prop::collection::vec("[^\0]{0,6}", 0..3);
    let scope = (classes, size).prop_map(|(classes, reference)| Scope { classes, reference, ..Scope::default() });
    let across = prop::option::of(point().prop_map(|from| [from, Point::new(from.x + 1.0, from.y)]));
    let line = (scope.clone(), arrow(), across, mode, any::<bool>())
        .prop_map(|(scope, points, direction, mode, extended)| LineConfig { scope, points, direction, mode, extended });
    let seconds = |least: f64| (least..9999f64).prop_map(Duration::from_secs_f64);
    let crowd = (0..100_000u32, seconds(0.0)).prop_map(|(objects_max, after)| CrowdConfig { objects_max, after });
    let corners = (point(), 1.0..99f32).prop_map(|(at, by)| {
        [(0.0, 0.0), (3.0, 0.5), (1.0, 1.0), (0.5, 3.0)].map(|(x, y)| Point::new(at.x + x * by, at.y + y * by)).to_vec()
    });
    let region = (scope.clone(), corners, any::<bool>(), prop::option::of(seconds(0.1)), prop::option::of(crowd));
    let region = region.prop_map(|(scope, corners, inverse, dwell, crowd)| RegionConfig {
        scope,
        corners,
        inverse,
        dwell,
        crowd,
    });
    let direction = (scope, arrow(), 1.0..90f32);
    let direction = direction.prop_map(|(scope, points, angle_deg)| DirectionConfig { scope, points, angle_deg });
    let lists = (
        prop::collection::vec(line, 1..3),
        prop::collection::vec(region, 0..3),
        prop::collection::vec(direction, 0..3),
    );
    (anchor, 0f32..=1.0, 0.1..3600f64, lists).prop_map(|(anchor, margin, forget_s, (lines, regions, directions))| {
        let mut config =
            AnalyticsConfig { anchor, margin, forget: Duration::from_secs_f64(forget_s), lines, regions, directions };
        let scopes = config.lines.iter_mut().map(|rule| &mut rule.scope);
        let scopes = scopes.chain(config.regions.iter_mut().map(|rule| &mut rule.scope));
        let scopes = scopes.chain(config.directions.iter_mut().map(|rule| &mut rule.scope));
        scopes.enumerate().for_each(|(index, scope)| scope.name = format!("a \"rule\" {index}"));
        config
    })
}

fn pipeline() -> impl Strategy<Value = PipelineConfig> {
    let edges = (path(), prop::option::of(path()), prop::option::of(1..86_400u64));
    let batch = (1..=64usize, ms(0..60_000)).prop_map(|(frames_max, wait)| BatchConfig { frames_max, wait });
    let lists = (prop::collection::vec(stream(), 1..4), prop::collection::vec(sink(), 0..4));
    let results = (prop::option::of(tracker()), prop::option::of(analytics()), draw());
    let models = (model(), prop::collection::vec(secondary(), 0..3));
    (lists, models, batch, results, edges).prop_map(
        |((mut streams, mut sinks), (mut model, mut secondaries), mut batch, (tracker, analytics, draw), edges)| {
            model.score_low = tracker.and_then(|tracker| tracker.score_low()).map(|score| score as f32);
            let mut analytics = analytics.filter(|_| tracker.is_some());
            let of_events = |sink: &SinkConfig| match sink {
                SinkConfig::Mqtt(MqttConfig { sends, .. }) | SinkConfig::Webhook(WebhookConfig { sends, .. }) => {
                    matches!(sends, Sends::Events { .. })
                }
                SinkConfig::Recording(recording) => !recording.on.is_empty(),
                sink => matches!(sink, SinkConfig::Events { .. }),
            };
            sinks.retain(|sink| analytics.is_some() || !of_events(sink));
            let (_, control, perf_s) = edges;
            for (index, stream) in streams.iter_mut().enumerate() {
                stream.id = StreamId::new(&format!("{}{index}", stream.id));
            }
            let address = "127.0.0.1:8080".parse().expect("an address");
            let http = Some(HttpConfig { address, control: perf_s.is_some() });
            let perf_interval = perf_s.map(Duration::from_secs);
            if let Some(rule) = analytics.as_mut().and_then(|analytics| analytics.lines.first_mut()) {
                rule.scope.streams = streams.iter().map(|stream| stream.id.clone()).collect();
            }
            let comes_again =
                |stream: &StreamConfig| !stream.source.is_live() && !matches!(stream.source, SourceConfig::Http(_));
            let deterministic = streams.iter().all(comes_again) && perf_s.is_some_and(|perf_s| perf_s % 2 == 0);
            if deterministic {
                batch.wait = BatchConfig::default().wait;
                let further = secondaries.iter_mut().map(|secondary| &mut secondary.model);
                for model in std::iter::once(&mut model).chain(further) {
                    model.threads.get_or_insert(2);
                    model.rebuild = false;
                }
            }
            PipelineConfig {
                deterministic,
                streams,
                model,
                secondaries,
                batch,
                tracker,
                analytics,
                draw,
                sinks,
                http,
                control,
                perf_interval,
            }
        },
    )
}

proptest! {
    #[test]
    fn the_printed_configuration_reads_back_as_the_same(config in pipeline()) {
        let text = config.to_toml();
        let read = Draft::from_file(Path::new("printed.toml"), &text, Path::new("/here")).check();
        match read {
            Ok(read) => prop_assert_eq!(read, config),
            // Two sinks may have been given one path: that, and nothing else, is refused.
            Err(problems) => prop_assert!(
                problems.problems.iter().all(|problem| problem.message.contains("is already used by")),
                "{}\n{}", problems, text
            ),
        }
    }
}

/// A fuzz target: `cargo bolero test --test config any_text_is_read_or_refused`, and a short run of
/// it in every `cargo test`.
#[test]
fn any_text_is_read_or_refused() {
    bolero::check!().for_each(|text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        if let Ok(config) = Draft::from_file(Path::new("a.toml"), &text, Path::new("/here")).check() {
            let printed = Draft::from_file(Path::new("b.toml"), &config.to_toml(), Path::new("/here")).check();
            assert_eq!(printed.expect("what is printed can be read"), config);
        }
    });
}
