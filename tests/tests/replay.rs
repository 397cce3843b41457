//! Deterministic runs: the same files give the same results. Goldens of the demo's clips are held to within what kinds of
//! processor differ by; `UPDATE_GOLDEN=1 cargo test -p revoada-tests --test replay` writes them anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use revoada_tests::{asset, finish, revoada, root};
use serde_json::Value;

/// Two files of different length in batches of both, tracked and analysed.
fn pipeline() -> String {
    let [model, first, second] =
        ["models/centerface.onnx", "clips/carphone_pristine.mp4", "clips/bikes.mp4"].map(asset);
    let (model, first, second) = (model.display(), first.display(), second.display());
    format!(
        r#"
        deterministic = true
        stream = [{{ uri = "{first}", frames_max = 30 }}, {{ uri = "{second}", frames_max = 17, interval = 2 }}]
        model = {{ path = "{model}", size = "160x160" }}
        batch = {{ frames_max = 4 }}
        tracker = {{ algorithm = "bytetrack" }}
        sink = [{{ type = "jsonl", path = "results.jsonl" }}, {{ type = "csv", path = "results.csv" }}]
        [[analytics.region]]
        name = "picture"
        points = [[0, 0], [5000, 0], [5000, 5000], [0, 5000]]
        dwell_s = 0.5
        "#
    )
}

/// The results of a run beside which `busy` threads keep the processor from it.
fn results(backend: &str, queue: usize, busy: usize) -> [String; 2] {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pipeline.toml");
    std::fs::write(&config, pipeline()).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..busy {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let finished =
            finish(revoada().arg("run").arg(&config).args(["--backend", backend, "--queue", &queue.to_string()]));
        is_over.store(true, Ordering::Relaxed);
        finished.expect_code(0);
    });
    ["results.jsonl", "results.csv"].map(|name| std::fs::read_to_string(folder.path().join(name)).unwrap())
}

#[test]
fn the_same_files_give_the_same_lines_whatever_the_threads_do() {
    for backend in ["onnxruntime", "rten"] {
        let first = results(backend, 3, 0);
        assert_eq!(first[0].lines().count(), 1 + 30 + 9, "a header and every frame that is inferred");
        assert!(first[0].contains(r#""event":"region-dwelt""#) && !first[0].contains("timings_ms"), "{}", first[0]);
        assert!(first[1].lines().count() > 30, "{}", first[1]);
        for (queue, busy) in [(1, 0), (8, 4)] {
            assert!(
                results(backend, queue, busy) == first,
                "{backend} with a queue of {queue} and {busy} busy threads"
            );
        }
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `run` finds in a clip of the demo, as JSON Lines.
fn found(folder: &Path, model: &str, clip: &str, backend: &str, options: &[&str]) -> String {
    let results = folder.join("results.jsonl");
    finish(
        revoada()
            .args(["run", "--deterministic", "--backend", backend, "--frames", "40"])
            .args(options)
            .arg("--model")
            .arg(asset(&format!("models/{model}.onnx")))
            .arg("--source")
            .arg(asset(&format!("clips/{clip}.mp4")))
            .arg("--results")
            .arg(&results),
    )
    .expect_code(0);
    std::fs::read_to_string(results).unwrap()
}

/// Guesses of which a golden is sure; the order of others is chance.
const SURE: f64 = 0.1;

/// What is not the same for every processor and version of the program is left out.
fn comparable(record: &mut Value) {
    record.as_object_mut().unwrap().remove("producer");
    let Some(guesses) = record.get_mut("classifications").and_then(Value::as_array_mut) else { return };
    guesses.retain(|guess| guess["score"].as_f64().unwrap() > SURE);
    guesses.sort_by_key(|guess| guess["class"].as_u64());
}

/// Numbers may differ by what another processor's arithmetic makes of them, all else is the same.
fn assert_alike(is: &Value, golden: &Value, key: &str, place: &str) {
    match (is, golden) {
        (Value::Object(is), Value::Object(golden)) => {
            assert!(is.keys().eq(golden.keys()), "{place}: {is:?} is not {golden:?}");
            is.iter().zip(golden.values()).for_each(|((key, is), golden)| assert_alike(is, golden, key, place));
        }
        (Value::Array(is), Value::Array(golden)) => {
            assert_eq!(is.len(), golden.len(), "{place}: `{key}` is {is:?}, not {golden:?}");
            is.iter().zip(golden).for_each(|(is, golden)| assert_alike(is, golden, key, place));
        }
        (Value::Number(is), Value::Number(golden)) => {
            let tolerance = match key {
                "score" => 0.01,
                "box" | "landmarks" => 0.5,
                _ => 0.0,
            };
            let (is, golden) = (is.as_f64().unwrap(), golden.as_f64().unwrap());
            assert!((is - golden).abs() <= tolerance, "{place}: `{key}` is {is}, not {golden}");
        }
        _ => assert_eq!(is, golden, "{place}: `{key}`"),
    }
}

#[test]
fn the_demo_clips_show_what_they_always_showed() {
    let clips = [
        ("faces", "centerface", "carphone_pristine", &["--size", "320x320", "--tracker", "bytetrack"][..]),
        ("bikes", "efficientnet-lite0", "bikes", &["--interval", "4"][..]),
    ];
    for (name, model, clip, options) in clips {
        let golden = root().join("tests/data/replay").join(format!("{name}.jsonl"));
        for backend in ["onnxruntime", "rten"] {
            let folder = tempfile::tempdir().unwrap();
            let text = found(folder.path(), model, clip, backend, options);
            if std::env::var_os("UPDATE_GOLDEN").is_some() && backend == "onnxruntime" {
                std::fs::write(&golden, &text).unwrap();
            }
            let (mut is, mut golden) = (lines(&text), lines(&std::fs::read_to_string(&golden).unwrap()));
            assert_eq!(is.len(), golden.len(), "{name}");
            for (number, (is, golden)) in is.iter_mut().zip(&mut golden).enumerate() {
                comparable(is);
                comparable(golden);
                assert_alike(is, golden, "", &format!("{backend}, line {} of {name}", number + 1));
            }
        }
    }
}
