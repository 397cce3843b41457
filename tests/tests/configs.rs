//! Every file in `configs/` is loaded, and run as its first lines say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use revoada_tests::{Running, asset, finish, free_port, names_in, revoada, root, wait_for};

/// The examples with a test below; the last test holds this list against the folder.
const EXAMPLES: [&str; 6] =
    ["cameras.toml", "classify.toml", "counting.toml", "faces.toml", "pictures.toml", "webcam.toml"];

/// Applications of DeepStream, and the files that they name.
const DEEPSTREAM: [(&str, &[&str]); 3] = [
    ("ds_faces.txt", &["ds_faces_infer.txt", "ds_faces_tracker.yml"]),
    ("ds_faces.yml", &["ds_faces_infer.yml", "ds_faces_tracker.yml"]),
    ("ds_resnet.txt", &["ds_resnet_infer.txt"]),
];

/// Of the agent and of the fleet service, whose crates have tests of them.
const FLEET: [&str; 4] = ["agent.toml", "fleet.toml", "grafana-fleet.json", "revoada-agent.service"];

/// The profiles of boards in `configs/jetson/`, and how many cameras each reads.
const PROFILES: [(&str, usize); 6] = [
    ("nano.toml", 1),
    ("orin-agx.toml", 16),
    ("orin-nano.toml", 4),
    ("orin-nx.toml", 8),
    ("thor.toml", 24),
    ("xavier-nx.toml", 4),
];

/// The examples in a folder of their own, so that what they write does not land in the repository.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root().join(".cache"), folder.path().join(".cache")).unwrap();
        std::fs::create_dir_all(folder.path().join("configs/jetson")).unwrap();
        let copy = Self { folder };
        let profiles = PROFILES.map(|(name, _)| format!("jetson/{name}"));
        let applications = DEEPSTREAM.iter().flat_map(|(name, named)| [*name].into_iter().chain(named.iter().copied()));
        for name in EXAMPLES.iter().copied().chain(profiles.iter().map(String::as_str)).chain(applications) {
            std::fs::copy(root().join("configs").join(name), copy.path(name)).unwrap();
        }
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("configs").join(name)
    }

    /// Puts ports that are free in place of the ones that are written.
    fn replace(&self, name: &str, words: &[(&str, String)]) {
        let mut text = std::fs::read_to_string(self.path(name)).unwrap();
        for (word, with) in words {
            assert!(text.contains(word), "`{word}` is not in {name}");
            text = text.replace(word, with);
        }
        std::fs::write(self.path(name), text).unwrap();
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn every_example_has_a_test_and_prints_a_configuration_that_is_read_again() {
    let present: BTreeSet<String> = names_in(&root().join("configs")).into_iter().collect();
    let applications = DEEPSTREAM.iter().flat_map(|(name, named)| [*name].into_iter().chain(named.iter().copied()));
    let tested = EXAMPLES.into_iter().chain(applications).chain(FLEET).chain(["jetson"]).map(str::to_owned);
    assert_eq!(present, tested.collect());
    let copy = Copy::new();
    for name in EXAMPLES {
        printed_and_read_again(&copy, name);
    }
}

#[test]
fn an_application_of_deepstream_runs_as_the_pipeline_that_it_is_converted_to() {
    let copy = Copy::new();
    for (name, _) in DEEPSTREAM {
        let pipeline = copy.path("converted.toml");
        let converted = finish(revoada().arg("convert").arg(copy.path(name)).arg("--output").arg(&pipeline));
        let notes = converted.expect_code(0).stderr;
        assert!(notes.contains(name), "{notes}");
        let from_pipeline = printed_and_read_again(&copy, "converted.toml");
        let mut direct = revoada();
        direct.args(["run", "--print-config", "--deepstream"]).arg(copy.path(name));
        assert_eq!(finish(&mut direct).expect_code(0).stdout, from_pipeline, "{name}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = revoada();
    command.current_dir(elsewhere.path()).arg("convert").arg(copy.path("ds_faces.txt"));
    let printed = finish(&mut command).expect_code(0).stdout;
    assert!(printed.contains(&format!("\"{}", copy.folder.path().canonicalize().unwrap().display())), "{printed}");
}

#[test]
fn faces_are_found_drawn_and_dumped_by_either_spelling_of_deepstream() {
    let [key_file, yaml] = ["ds_faces.txt", "ds_faces.yml"].map(|name| {
        let copy = Copy::new();
        let args = ["--frames", "6"];
        finish(revoada().args(["run", "--deepstream"]).arg(copy.path(name)).args(args)).expect_code(0);
        assert!(std::fs::metadata(copy.path("ds_faces.mp4")).unwrap().len() > 1000, "{name}");
        let rows = |frame: usize| {
            std::fs::read_to_string(copy.path(&format!("ds_faces_kitti/00_000_{frame:06}.txt"))).unwrap()
        };
        (0..6).map(rows).collect::<Vec<_>>()
    });
    assert_eq!(key_file, yaml);
    for rows in key_file {
        let fields: Vec<&str> = rows.trim_end().split(' ').collect();
        // One face, of a model without labels.
        assert_eq!((fields.len(), fields[0]), (16, "0"), "{rows}");
        let [left, top, right, bottom] = [4, 5, 6, 7].map(|field| fields[field].parse::<f32>().unwrap());
        assert!(left < right && right <= 176.0 && top < bottom && bottom <= 144.0, "{rows}");
    }
}

#[test]
fn messages_say_what_the_clip_shows() {
    let copy = Copy::new();
    let args = ["--frames", "20"];
    finish(revoada().args(["run", "--deepstream"]).arg(copy.path("ds_resnet.txt")).args(args)).expect_code(0);
    let text = std::fs::read_to_string(copy.path("messages.jsonl")).unwrap();
    let messages: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&str> = messages.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["0", "10"], "{text}");
    assert!(messages.iter().all(|message| message["version"] == "4.0" && message["sensorId"] == "source0"), "{text}");
    let object = messages[1]["objects"][0].as_str().unwrap();
    // The best class, of the whole picture.
    assert!(object.starts_with("-1|0|0|") && object.split('|').count() == 14, "{object}");
}

/// The effective configuration, which reads back as the same.
fn printed_and_read_again(copy: &Copy, name: &str) -> String {
    let printed = finish(revoada().arg("run").arg(copy.path(name)).arg("--print-config")).expect_code(0).stdout;
    std::fs::write(copy.path("printed.toml"), &printed).unwrap();
    let again = finish(revoada().arg("run").arg(copy.path("printed.toml")).arg("--print-config")).expect_code(0);
    assert_eq!(again.stdout, printed, "{name}");
    printed
}

#[test]
fn every_profile_of_a_board_is_read_and_has_room_for_a_frame_of_each_camera_in_a_batch() {
    let present = names_in(&root().join("configs/jetson"));
    assert_eq!(present, PROFILES.map(|(name, _)| name));
    let copy = Copy::new();
    for (name, cameras) in PROFILES {
        let printed = printed_and_read_again(&copy, &format!("jetson/{name}"));
        assert_eq!(printed.matches("[[stream]]").count(), cameras, "{name}");
        assert_eq!(printed.matches("queue_frames_max = 2\n").count(), cameras, "{name}");
        assert!(printed.contains(&format!("[batch]\nframes_max = {cameras}\n")), "{name}:\n{printed}");
        let text = std::fs::read_to_string(copy.path(&format!("jetson/{name}"))).unwrap();
        assert!(text.contains(&format!("--batch-max {cameras} ")), "{name} builds a plan for another batch");
        assert!(!printed.contains("type = \"rtsp\""), "{name}: the program for Jetsons has no RTSP output");
    }
}

/// With a model for the CPU in the place of the plan, small, and test patterns in the place of its cameras.
#[test]
fn every_profile_of_a_board_runs() {
    for (name, cameras) in PROFILES {
        let (copy, name) = (Copy::new(), format!("jetson/{name}"));
        copy.replace(&name, &[("127.0.0.1:8080", format!("127.0.0.1:{}", free_port()))]);
        let mut command = revoada();
        command.arg("run").arg(copy.path(&name)).arg("--model").arg(asset("models/centerface.onnx"));
        for _ in 0..cameras {
            command.args(["--source", "test://smpte?width=64&height=48&fps=30"]);
        }
        finish(command.args(["--size", "32x32", "--frames", "2"])).expect_code(0);
        let results = copy.path(&name).with_extension("jsonl");
        // A header, and two frames of each camera.
        assert_eq!(lines(&results), 1 + 2 * cameras, "{name}");
    }
}

#[test]
fn paths_in_flags_are_relative_to_where_they_are_typed() {
    let (copy, elsewhere) = (Copy::new(), tempfile::tempdir().unwrap());
    let mut command = revoada();
    command.current_dir(elsewhere.path()).arg("run").arg(copy.path("faces.toml"));
    let printed = finish(command.args(["--source", "clip.mp4", "--results", "out.jsonl", "--print-config"]));
    let printed = printed.expect_code(0).stdout;
    for name in ["clip.mp4", "out.jsonl"] {
        let path = elsewhere.path().join(name).display().to_string();
        assert!(printed.contains(&path), "`{path}` is not in:\n{printed}");
    }
}

#[test]
fn faces_are_written_as_video_and_json_lines() {
    let copy = Copy::new();
    let args = ["--frames", "12", "--size", "160x160"];
    finish(revoada().arg("run").arg(copy.path("faces.toml")).args(args)).expect_code(0);
    assert!(std::fs::metadata(copy.path("faces.mp4")).unwrap().len() > 1000);
    // A header and one line a frame.
    assert_eq!(lines(&copy.path("faces.jsonl")), 13);
}

#[test]
fn what_a_face_does_is_told_as_events() {
    let copy = Copy::new();
    finish(revoada().arg("run").arg(copy.path("counting.toml")).args(["--size", "160x160"])).expect_code(0);
    assert!(std::fs::metadata(copy.path("counting.mp4")).unwrap().len() > 1000);
    let text = std::fs::read_to_string(copy.path("counting.jsonl")).unwrap();
    for event in ["region-entered", "region-dwelt", "line-crossed"] {
        assert!(text.contains(&format!("\"event\":\"{event}\"")), "{event} is missing in\n{text}");
    }
}

#[test]
fn every_tenth_frame_of_the_clip_is_classified() {
    let copy = Copy::new();
    finish(revoada().arg("run").arg(copy.path("classify.toml")).args(["--frames", "50"])).expect_code(0);
    let text = std::fs::read_to_string(copy.path("classes.csv")).unwrap();
    let frames: BTreeSet<&str> = text.lines().skip(1).filter_map(|line| line.split(',').nth(1)).collect();
    assert_eq!(frames, BTreeSet::from(["0", "10", "20", "30", "40"]), "{text}");
}

#[test]
fn the_pictures_of_an_album_are_written_again_with_their_faces_hidden() {
    let copy = Copy::new();
    std::fs::create_dir(copy.path("hidden")).unwrap();
    finish(revoada().arg("run").arg(copy.path("pictures.toml"))).expect_code(0);
    assert_eq!(names_in(&copy.path("hidden")).len(), names_in(&root().join(".cache/pictures")).len());
}

#[test]
fn two_cameras_are_read_watched_and_served_again() {
    let copy = Copy::new();
    let (cameras, http, out) = (free_port(), free_port(), free_port());
    let words = [("127.0.0.1:8554", cameras), ("127.0.0.1:8080", http), ("127.0.0.1:8555", out)]
        .map(|(word, port)| (word, format!("127.0.0.1:{port}")));
    copy.replace("cameras.toml", &words);
    std::fs::write(copy.path("server.toml"), camera_server(cameras)).unwrap();
    let _server = Running::start(revoada().arg("run").arg(copy.path("server.toml")));
    let running = Running::start(revoada().arg("run").arg(copy.path("cameras.toml")).args(["--size", "96x96"]));
    let metrics = || get(http, "/metrics");
    for stream in ["door", "yard"] {
        let line = format!("revoada_frames_out_total{{stream=\"{stream}\"}}");
        wait_for(&format!("frames of `{stream}` come out"), || {
            metrics()?
                .lines()
                .find_map(|text| text.strip_prefix(&line)?.trim().parse::<f64>().ok())
                .filter(|n| *n >= 5.0)
        });
    }
    assert!(get(http, "/").is_some_and(|page| page.contains("<html")));
    let drained = finish(revoada().args(["ctl", "--socket"]).arg(copy.path("cameras.sock")).arg("drain"));
    drained.expect_code(0);
    running.finish().expect_code(0);
    assert!(!copy.path("cameras.sock").exists(), "the socket is removed");
}

/// Two test patterns as cameras, with the cheapest work that a pipeline can do.
fn camera_server(port: u16) -> String {
    let stream = |id: &str, pattern: &str| {
        format!(
            "[[stream]]\nid = \"{id}\"\nuri = \"test://{pattern}?width=320&height=240&fps=15&live=true\"\n\
             interval = 1\n\n"
        )
    };
    format!(
        "{}{}[model]\npath = \"../.cache/models/centerface.onnx\"\nsize = [32, 32]\n\n[[sink]]\ntype = \"rtsp\"\n\
         address = \"127.0.0.1:{port}\"\n",
        stream("door", "smpte"),
        stream("yard", "ball")
    )
}

/// The body of a page, `None` where nobody answers yet.
fn get(port: u16, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn the_webcam_is_read_where_there_is_one() {
    if !Path::new("/dev/video0").exists() {
        eprintln!("skipped: configs/webcam.toml: this machine has no camera at /dev/video0");
        return;
    }
    let copy = Copy::new();
    copy.replace("webcam.toml", &[("127.0.0.1:8080", format!("127.0.0.1:{}", free_port()))]);
    let args = ["--frames", "5", "--size", "160x160", "--reconnect-attempts", "0"];
    finish(revoada().arg("run").arg(copy.path("webcam.toml")).args(args)).expect_code(0);
}
