//! Devices learn together from pictures that none of them shows, and what they have learned is deployed as any other model.

use serde_json::Value;

use crate::models;
use crate::pictures;
use crate::stage::Stage;

#[test]
fn devices_learn_from_different_pictures_and_run_what_they_have_learned() {
    let stage = Stage::set(2);
    // No device has pictures of all classes.
    pictures::shades(&stage.path("door-1/pictures"), &["red", "green"]);
    pictures::shades(&stage.path("door-2/pictures"), &["green", "blue"]);
    stage.wait_for_devices(2);
    let first = stage.register(models::ignorant("first"), "1");
    stage.roll_out(&["faces", "1", "--wave", "100%", "--soak", "1s"]).expect_code(0);
    stage.expect_running(&first);

    let learn = ["runs", "start", "--model", "faces", "--model-version", "1", "--rounds", "6", "--timeout", "2m"];
    let how = ["--config", "epochs=8", "--config", "rate=0.2", "--watch"];
    let watched = stage.fleet(&[&learn[..], &how[..]].concat()).expect_code(0);
    assert!(watched.stdout.contains("round 6 finished: 2 updates"), "{}", watched.stdout);
    let rounds = stage.json(&["runs", "rounds", "1"]);
    for round in rounds.as_array().unwrap() {
        assert_eq!((&round["updates"], &round["refused"]), (&2.into(), &0.into()), "{round}");
    }
    let accuracy = |round: &Value| {
        let figures = round["fit"].as_array().unwrap().iter();
        figures.clone().find(|figure| figure["name"] == "accuracy").unwrap()["value"].as_f64().unwrap()
    };
    assert!(accuracy(&rounds[5]) > 0.9, "{rounds}");

    let released = stage.json(&["runs", "release", "1", "--version", "2"]);
    let digest = released["digest"].as_str().unwrap().to_owned();
    let version = stage.json(&["models", "show", &digest]);
    assert!(version.to_string().contains("6 rounds of FedAvg"), "{version}");
    // The three bright ones of the labelled pictures are named as they are: by a model that has seen nothing, no more than
    // those of one class.
    let gates = ["--gate", "outcome", "--gate", "accuracy=0.6", "--over", "1s"];
    stage.roll_out(&[&["faces", "2", "--wave", "100%", "--soak", "1s"][..], &gates[..]].concat()).expect_code(0);
    stage.expect_running(&digest);
    stage.end();
}
