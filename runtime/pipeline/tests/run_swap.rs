//! Another model in the place of the running one, over the control socket.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::path::Path;

use fakes::{DEADLINE, FILE, Gate, Script, Step};
use revoada_pipeline::control::{Client, ClientError, Command};
use revoada_pipeline::run::RunSummary;

/// A pipeline of two streams, and a client of its socket.
fn start(folder: &Path, script: Script) -> (fakes::Started, Client) {
    let socket = folder.join("control.sock");
    let started = script.set("control.socket", socket.display().to_string()).start();
    let deadline = std::time::Instant::now() + DEADLINE;
    let client = loop {
        match Client::connect(&socket) {
            Ok(client) => break client,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
        }
        std::thread::yield_now();
    };
    (started, client)
}

fn endless() -> Script {
    let steps: &[&[Step]] = &[&[Step::FramesWithoutEnd]];
    Script::new(&[("a", FILE, steps), ("b", FILE, steps)]).set("batch.frames_max", 3)
}

fn swap(client: &mut Client, model: &str) -> Result<serde_json::Value, String> {
    match client.request(Command::Swap { model: Path::new("/models").join(model) }) {
        Ok(answer) => Ok(answer),
        Err(ClientError::Refused(reason)) => Err(reason),
        Err(other) => panic!("{other}"),
    }
}

/// Ends the run; every frame was written once and in order.
fn end(run: fakes::Started) -> RunSummary {
    let collected = run.collected.clone();
    run.stop.request();
    let summary = run.finish().unwrap();
    for stream in ["a", "b"] {
        let frames = collected[0].of(stream);
        assert_eq!(frames, (0..frames.len() as u64).collect::<Vec<_>>(), "no frame is lost, and none comes twice");
    }
    assert_eq!(summary.frames_in, summary.frames_out + summary.frames_dropped);
    summary
}

#[test]
fn models_take_over_between_batches_and_no_frame_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (run, mut client) = start(folder.path(), endless());
    run.collected[0].wait_for("a", 5);
    for percent in [25, 75, 50] {
        let answer = swap(&mut client, &format!("fake-{percent}.onnx")).unwrap();
        let expected = serde_json::json!({ "model": format!("fake-{percent}"), "backend": "fake", "gap_s": null });
        assert_eq!(answer, expected);
        run.collected[0].wait_for_score(percent as f32 / 100.0);
    }
    let collected = run.collected[0].clone();
    let summary = end(run);
    assert_eq!(collected.scores(), [1.0, 0.25, 0.75, 0.5], "no batch goes back to a model that was replaced");
    assert_eq!((summary.swaps, summary.swap_gap_s), (3, 0.0));
}

#[test]
fn a_model_that_cannot_take_over_is_refused_and_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (run, mut client) = start(folder.path(), endless());
    for (model, expected) in [
        ("missing.onnx", "fake cannot load missing: it is not there"),
        ("wide.onnx", "model `wide` cannot take the place of `fake`: it reads pictures of 16×16, not of 8×8"),
    ] {
        assert_eq!(swap(&mut client, model).unwrap_err(), expected);
        let seen = run.collected[0].of("a").len();
        run.collected[0].wait_for("a", seen + 10);
    }
    assert_eq!(run.collected[0].scores(), [1.0]);
    assert_eq!(end(run).swaps, 0);
}

#[test]
fn where_two_do_not_fit_the_old_one_is_unloaded_first_and_the_gap_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (run, mut client) = start(folder.path(), endless());
    run.collected[0].wait_for("a", 5);
    let refused = swap(&mut client, "heavy-broken.onnx").unwrap_err();
    assert_eq!(refused, "fake cannot load heavy-broken: it is not there");
    let seen = run.collected[0].of("a").len();
    run.collected[0].wait_for("a", seen + 10);
    assert_eq!(run.collected[0].scores(), [1.0], "the old model is back");
    let answer = swap(&mut client, "heavy-25.onnx").unwrap();
    assert!(answer["gap_s"].as_f64().is_some_and(|gap| gap > 0.0), "{answer}");
    run.collected[0].wait_for_score(0.25);
    let summary = end(run);
    assert_eq!(summary.swaps, 1);
    assert!(summary.swap_gap_s > answer["gap_s"].as_f64().unwrap(), "the way back was a gap, too");
}

#[test]
fn a_panic_while_nothing_is_loaded_ends_the_run_instead_of_holding_it_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (run, mut client) = start(folder.path(), endless());
    run.collected[0].wait_for("a", 5);
    let gone = client.request(Command::Swap { model: "/models/heavy-panic.onnx".into() });
    assert!(matches!(gone, Err(ClientError::Lost { .. })), "{gone:?}");
    let collected = run.collected[0].clone();
    let error = run.finish().unwrap_err();
    assert_eq!(error.to_string(), "the model was unloaded for another one, and whatever loaded that panicked");
    assert!(collected.is_finished(), "what was written until then is completed");
}

/// The stream waits at a gate: no batch comes that could notice anything.
#[test]
fn a_silent_pipeline_is_swapped_and_unloaded_too() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let steps: Vec<Step> = vec![Step::Frames(5), Step::Pass(gate.clone()), Step::FramesWithoutEnd];
    let script = Script::new(&[("a", FILE, &[&steps]), ("b", FILE, &[&steps])]);
    let (run, mut client) = start(folder.path(), script);
    for stream in ["a", "b"] {
        run.collected[0].wait_for(stream, 5);
    }
    swap(&mut client, "fake-75.onnx").unwrap();
    swap(&mut client, "heavy-25.onnx").unwrap();
    gate.open();
    run.collected[0].wait_for_score(0.25);
    assert_eq!(run.collected[0].scores(), [1.0, 0.25]);
    assert_eq!(end(run).swaps, 2);
}
