//! Devices that learn together (`tests/python/learning_demo.py`), in a smaller version than `cargo xtask demo learning` shows.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::Path;
use std::process::Command;

use revoada_tests::{asset, finish, revoada, root};
use serde_json::Value;

#[test]
fn devices_learn_from_uneven_pictures_withstand_attackers_and_learn_a_new_class() {
    let name = "devices_learn_from_uneven_pictures_withstand_attackers_and_learn_a_new_class";
    if std::env::var_os("REVOADA_FULL").is_none() {
        eprintln!("skipped: {name}: it takes minutes; `cargo xtask test --full` runs it");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (fleet, report) = (home.path().join("fleet"), home.path().join("report.json"));
    let mut script = Command::new(asset("venv/bin/python"));
    script.arg("-B").arg(root().join("tests/python/learning_demo.py")).current_dir(root());
    let program = revoada();
    script.env("REVOADA_PROGRAMS", Path::new(program.get_program()).parent().unwrap());
    script.args(["--seeds", "1", "--rounds", "12", "--folder"]).arg(&fleet).arg("--json").arg(&report);
    finish(&mut script).expect_code(0);
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let number = |place: &str| report.pointer(place).unwrap().as_f64().unwrap();

    // A head that knows nothing is right about one in ten.
    assert!(number("/mean/federated") > 0.9 && number("/mean/pooled") > 0.9, "{report:#}");

    // Each device has tried what it runs now on pictures that nobody has learned from.
    assert_eq!(number("/rolled_out/devices"), 10.0, "{report:#}");
    assert!(number("/rolled_out/accuracy_min") > 0.9 && number("/rolled_out/right") >= 8.0, "{report:#}");

    let attacked = "/attack/accuracy";
    assert!(number(&format!("{attacked}/FedAvg")) < 0.5, "{report:#}");
    for strategy in ["FedMedian", "FedTrimmedAvg", "FedAvg, bounded"] {
        assert!(number(&format!("{attacked}/{strategy}")) > 0.8, "{strategy}: {report:#}");
    }
    assert_eq!(report["attack"]["refused"], serde_json::json!(["digit-1", "digit-2"]));

    let classes = report["new_class"].as_array().unwrap();
    let new: Vec<&Value> =
        classes.iter().filter(|class| class["is_new"] == true).map(|class| &class["label"]).collect();
    assert_eq!(new, ["coin", "face"], "{report:#}");
    for class in classes {
        assert!(class["recognised"].as_f64().unwrap() >= 0.9, "{class}");
    }
}
