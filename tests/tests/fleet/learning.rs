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
    // The three bright ones of the labelled pictures are named as they are: by a model that has seen nothing, no more than
    // those of one class.
    let then =
        ["--pictures", "labelled", "--release", "2", "--gain", "0.2", "--roll-out", "--wave", "100%", "--soak", "1s"];
    let gates = ["--gate", "outcome", "--gate", "accuracy=0.6", "--over", "1s"];
    let watched = stage.fleet(&[&learn[..], &how[..], &then[..], &gates[..]].concat()).expect_code(0);
    assert!(watched.stdout.contains("round 6 finished: 2 updates"), "{}", watched.stdout);
    let rounds = stage.json(&["runs", "rounds", "1"]);
    for round in rounds.as_array().unwrap() {
        assert_eq!((&round["updates"], &round["refused"]), (&2.into(), &0.into()), "{round}");
    }
    assert!(figure(&rounds[5], "fit", "accuracy") > 0.9, "{rounds}");

    let judged = figure(&rounds[5], "judged", "accuracy");
    let outcome = &stage.json(&["runs", "show", "1"])["outcome"];
    assert_eq!((&outcome["accuracy"], &outcome["why"]), (&judged.into(), &Value::Null), "{outcome}");
    let digest = outcome["digest"].as_str().expect("it was better").to_owned();
    let version = stage.json(&["models", "show", &digest]);
    assert!(version.to_string().contains("6 rounds of FedAvg"), "{version}");
    // Which is what somebody would get who asks for it.
    let released = stage.json(&["runs", "release", "1", "--version", "2"]);
    assert_eq!(released["digest"], digest, "{released}");
    stage.fleet(&["rollouts", "watch", &outcome["rollout"].to_string()]).expect_code(0);
    stage.expect_running(&digest);

    // What is learned of nothing new is no better, and stays where it is.
    let again = ["runs", "start", "--model", "faces", "--model-version", "2", "--rounds", "1", "--timeout", "2m"];
    let then = ["--pictures", "labelled", "--release", "3", "--roll-out", "--config", "rate=0.000001", "--watch"];
    let watched = stage.fleet(&[&again[..], &then[..]].concat()).expect_code(0);
    assert!(watched.stdout.contains("no better than the model was"), "{}", watched.stdout);
    stage.expect_running(&digest);
    stage.end();
}

fn figure(round: &Value, kind: &str, name: &str) -> f64 {
    let figures = round[kind].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {round}"))["value"].as_f64().unwrap()
}
