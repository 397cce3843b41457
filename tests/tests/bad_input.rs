//! Whatever is wrong with what a person gives, they get one clear sentence that names it, exit
//! status 1 or 2, and no partial output.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::process::Command;

use revoada_tests::{Finished, asset, finish, free_port, names_in, revoada};

/// `revoada run` with CenterFace on `source`, writing video and results into `folder`.
fn run_on(source: &str, folder: &Path) -> Command {
    let mut command = revoada();
    command.arg("run").arg("--model").arg(asset("models/centerface.onnx")).args(["--source", source]);
    command.arg("--output").arg(folder.join("out.mp4")).arg("--results").arg(folder.join("out.jsonl"));
    command
}

fn clip() -> String {
    asset("clips/carphone_pristine.mp4").display().to_string()
}

/// Runs, expects `code`, an error that contains every word, and an empty folder.
#[track_caller]
fn refused(command: &mut Command, folder: &Path, code: i32, words: &[&str]) -> Finished {
    let finished = finish(command).expect_code(code);
    for word in words {
        assert!(finished.error().contains(word), "no `{word}` in: {}", finished.stderr);
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    assert_eq!(names_in(folder), Vec::<String>::new(), "something was left behind");
    finished
}

#[test]
fn a_missing_video_is_named() {
    let folder = tempfile::tempdir().unwrap();
    refused(&mut run_on("nowhere.mp4", folder.path()), folder.path(), 1, &["nowhere.mp4", "no such file"]);
}

#[test]
fn a_text_file_is_not_a_video() {
    let (folder, input) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = input.path().join("letter.mp4");
    std::fs::write(&path, "Dear reader, this is not a video.\n".repeat(100)).unwrap();
    refused(&mut run_on(&path.display().to_string(), folder.path()), folder.path(), 1, &["letter.mp4"]);
}

#[test]
fn a_video_without_its_index_is_refused() {
    let (folder, input) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = input.path().join("cut.mp4");
    let whole = std::fs::read(clip()).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let finished = finish(&mut run_on(&path.display().to_string(), folder.path())).expect_code(1);
    assert!(finished.error().contains("cut.mp4"), "{}", finished.stderr);
    // Frames before the cut are real results and are kept whole; with none, nothing is left.
    for name in names_in(folder.path()) {
        assert!(!name.contains("partial"), "{name} is half written");
    }
}

#[test]
fn a_corrupt_model_is_refused() {
    let (folder, input) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = input.path().join("broken.onnx");
    let whole = std::fs::read(asset("models/centerface.onnx")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for backend in ["onnxruntime", "rten"] {
        let mut command = revoada();
        command.arg("run").arg("--model").arg(&path).args(["--backend", backend, "--source", &clip()]);
        command.arg("--results").arg(folder.path().join("out.jsonl"));
        refused(&mut command, folder.path(), 1, &["broken.onnx"]);
    }
}

#[test]
fn an_unknown_backend_is_refused_with_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = run_on(&clip(), folder.path());
    refused(command.args(["--backend", "tensorflow"]), folder.path(), 2, &["tensorflow", "onnxruntime", "rten"]);
}

#[test]
fn labels_that_do_not_match_are_refused() {
    let (folder, input) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let labels = input.path().join("labels.txt");
    std::fs::write(&labels, "cat\ndog\n").unwrap();
    let mut command = revoada();
    command.arg("run").arg("--model").arg(asset("models/efficientnet-lite0.onnx")).args(["--source", &clip()]);
    command.arg("--labels").arg(&labels).arg("--results").arg(folder.path().join("out.jsonl"));
    refused(&mut command, folder.path(), 1, &["1000 classes", "2 labels"]);
}

#[test]
fn outputs_that_the_decoder_cannot_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = run_on(&clip(), folder.path());
    refused(command.args(["--decoder", "yolo-v8"]), folder.path(), 1, &["yolo-v8"]);
    let mut command = run_on(&clip(), folder.path());
    refused(command.args(["--decoder", "yolo-v99"]), folder.path(), 2, &["yolo-v99", "yolo-v8", "centerface"]);
}

#[test]
fn a_folder_that_does_not_exist_is_named_before_any_frame() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = revoada();
    command.arg("run").arg("--model").arg(asset("models/centerface.onnx")).args(["--source", &clip()]);
    command.arg("--output").arg(folder.path().join("no/such/folder/out.mp4"));
    refused(&mut command, folder.path(), 1, &["no/such/folder"]);
}

/// Runs on a file system of 64 KiB until it is full; what is left on it. `None` where none can be mounted.
fn on_a_full_disk(command: impl FnOnce(&Path) -> Command) -> Option<(Finished, Vec<String>)> {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a full disk: mounting a small file system needs root");
        return None;
    }
    let finished = finish(&mut command(folder.path()));
    let mut left = names_in(folder.path());
    left.extend(
        folder
            .path()
            .join("pictures")
            .exists()
            .then(|| names_in(&folder.path().join("pictures")))
            .into_iter()
            .flatten(),
    );
    let _ = Command::new("umount").arg(folder.path()).status();
    Some((finished.expect_code(1), left))
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_nothing_half_written() {
    let Some((finished, left)) = on_a_full_disk(|folder| run_on(&clip(), folder)) else { return };
    assert!(finished.error().contains("no storage space"), "{}", finished.stderr);
    assert!(!left.iter().any(|name| name.contains("partial")), "{left:?}");
    assert!(!left.contains(&"out.mp4".to_owned()), "{left:?}");
}

#[test]
fn a_disk_full_of_pictures_ends_the_run_and_keeps_those_that_are_whole() {
    let elsewhere = tempfile::tempdir().unwrap();
    let config = elsewhere.path().join("pipeline.toml");
    let run = |folder: &Path| {
        let text = format!(
            "[model]\npath = \"{}\"\n[[stream]]\nuri = \"{}\"\n[[sink]]\ntype = \"images\"\nfolder = \"{}\"\n",
            asset("models/centerface.onnx").display(),
            clip(),
            folder.join("pictures").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = revoada();
        command.arg("run").arg(&config);
        command
    };
    let Some((finished, left)) = on_a_full_disk(run) else { return };
    assert!(finished.error().contains("No space left on device"), "{}", finished.stderr);
    assert!(!left.iter().any(|name| name.contains("partial")), "{left:?}");
    assert!(left.iter().any(|name| name.ends_with("-000000.jpg")), "{left:?}");
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = run_on(&clip(), folder.path());
    refused(command.args(["--http", &address]), folder.path(), 1, &[&address, "uses this port"]);
}

#[test]
fn an_absent_camera_is_named_and_given_up_after_the_attempts_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = run_on("v4l2:///dev/video97", folder.path());
    refused(command.args(["--reconnect-attempts", "0"]), folder.path(), 1, &["/dev/video97"]);
}

#[test]
fn an_absent_rtsp_server_is_named_and_given_up_after_the_attempts_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("rtsp://127.0.0.1:{}/camera", free_port());
    let mut command = run_on(&url, folder.path());
    refused(command.args(["--reconnect-attempts", "1"]), folder.path(), 1, &[&url]);
}

#[test]
fn every_problem_of_a_configuration_is_reported_at_once_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipeline.toml");
    std::fs::write(&path, "[[stream]]\nurl = \"clip.mp4\"\n\n[model]\npath = 3\n\n[batch]\nframes_max = 0\n").unwrap();
    let finished = finish(revoada().arg("run").arg(&path)).expect_code(2);
    for word in ["pipeline.toml:2", "`uri`", "pipeline.toml:5", "pipeline.toml:8"] {
        assert!(finished.stderr.contains(word), "no `{word}` in: {}", finished.stderr);
    }
}

#[test]
fn an_option_without_effect_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = run_on(&clip(), folder.path());
    refused(command.args(["--anonymize-class", "face"]), folder.path(), 2, &["--anonymize"]);
}

#[test]
fn no_arguments_teach_instead_of_failing_obscurely() {
    let finished = finish(revoada().env_remove("REVOADA_ONNXRUNTIME")).expect_code(2);
    assert!(finished.stderr.contains("revoada doctor"), "{}", finished.stderr);
    let finished = finish(revoada().arg("run")).expect_code(2);
    assert!(finished.stderr.contains("--source"), "{}", finished.stderr);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut command = revoada();
    command.arg("inspect").arg(asset("models/efficientnet-lite0.onnx")).arg("--json");
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
