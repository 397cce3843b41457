//! Plans of the fleet, on devices that `tests/emulator` stands for: it proves who builds, who takes, and whose signature is on
//! it, nothing of a GPU.

use std::fs;

use revoada_bundle::plan::Plan;
use revoada_emulator::{Log, Profile};
use revoada_tests::names_in;

use crate::models;
use crate::stage::Stage;

/// What compiles, in the emulator's log.
const COMPILED: &str = "buildSerializedNetwork";

#[test]
fn a_builder_builds_for_all_of_its_class_and_the_others_take_its_plan_once_it_has_passed_here() {
    if revoada_emulator::tensorrt().is_none() {
        println!("skipped: there were no headers of TensorRT 10.16 to build the emulator's TensorRT from");
        return;
    }
    let stage = Stage::set_emulated(2, Profile::Orin);
    stage.wait_for_devices(2);
    stage.fleet(&["devices", "builder", "door-1", "on"]).expect_code(0);
    let model = stage.register_converted(&models::channel_means("first"), "1");
    let compiled = |device: &str| Log::read(&stage.path(&format!("{device}/emulator.log"))).calls(COMPILED);
    let pipeline_log = |device: &str| fs::read_to_string(stage.path(&format!("{device}/state/pipeline.log"))).unwrap();

    let roll_out = |device: &str| {
        let filter = format!("id = {device}");
        let arguments = ["brightest", "1", "--filter", &filter, "--wave", "100%", "--soak", "1s"];
        stage.roll_out(&arguments).expect_code(0);
        stage.expect_running_on(device, &model);
        assert!(pipeline_log(device).contains("took a plan of the bundle"), "{}", pipeline_log(device));
        let left = stage.path(&format!("{device}/state/plans"));
        assert!(!left.exists(), "what was tried is gone");
    };
    let kept = |device: &str| {
        let cache = stage.path(&format!("{device}/.cache/revoada/plans"));
        let mut names = names_in(&cache);
        names.retain(|name| name.ends_with(".plan"));
        assert_eq!(names.len(), 1, "{device}: {names:?}");
        Plan::read(&cache.join(&names[0])).unwrap()
    };

    roll_out("door-1");
    assert_eq!(compiled("door-1"), 1);
    let version = stage.json(&["models", "show", &model]);
    let [plan] = version["plans"].as_array().unwrap().as_slice() else { panic!("one plan: {version:#}") };
    assert_eq!(plan["builder"], "door-1");
    assert!(plan["class"].as_str().is_some_and(|class| class.starts_with("sm_87, 16 multiprocessors")), "{plan}");
    assert!(plan["latency_ms"].as_f64().is_some_and(|latency| latency > 0.0), "{plan}");
    let built = kept("door-1");
    assert_eq!(built.key().profile["x"].max, [2, 3, 32, 32], "for the batches of its pipeline");

    roll_out("door-2");
    assert_eq!(compiled("door-2"), 0, "it has compiled nothing");
    let taken = kept("door-2");
    assert_eq!((taken.key(), taken.payload()), (built.key(), built.payload()));
    assert_ne!(taken.signer(), built.signer(), "each device runs what it has signed itself");
    assert!(taken.facts().accuracy.is_some() && taken.facts().speed.is_some(), "it was tried there");
    assert_eq!(stage.json(&["models", "show", &model])["plans"].as_array().map(Vec::len), Some(1));
    stage.end();
}
