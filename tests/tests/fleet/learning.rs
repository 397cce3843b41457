//! Devices learn together from pictures that none of them shows, and what they have learned is deployed as any other model.
//! Such pictures come about where somebody says what a device sees.

use std::fs;

use revoada_tests::wait_for;
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

#[test]
fn a_track_that_an_operator_names_becomes_pictures_on_its_device_alone_until_they_are_forgotten() {
    let stage = Stage::set_watching();
    stage.wait_for_devices(1);
    let shot = stage.path("door.jpg");
    let command = |words: &[&str]| stage.fleet(&[&["command", "door-1"], words].concat());
    // Its pipeline may not run yet. What the picture shows is told beside it.
    let track = wait_for("a picture with a track", || {
        let said = command(&["snapshot", "door", "--output", shot.to_str().unwrap()]).stdout;
        let number = said.split("track ").nth(1)?.split(' ').next()?;
        Some(number.to_owned())
    });
    let refused = command(&["label", "door", "9999", "ball"]).expect_code(1);
    assert!(refused.error().contains("has no track 9999"), "{}", refused.stderr);
    let said = command(&["label", "door", &track, "ball"]).expect_code(0).stdout;
    assert!(said.contains(&format!("pictures of track {track} of `door` are kept as `ball`")), "{said}");

    let folder = stage.path("door-1/pictures/ball");
    let kept = wait_for("twenty pictures", || {
        let paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == "jpg")).collect();
        (kept.len() >= 20).then_some(kept)
    });
    for path in &kept {
        let picture = image::open(path).unwrap().to_luma8();
        assert!(picture.width() < 80 && picture.height() < 80, "{path:?} is cut out");
        assert!(picture.get_pixel(picture.width() / 2, picture.height() / 2)[0] > 200, "{path:?} shows the ball");
        assert!(picture.get_pixel(0, 0)[0] < 60, "{path:?} shows nothing that was drawn");
    }
    let blobs = stage.json(&["command", "door-1", "list"]);
    let label = blobs.as_array().unwrap().iter().find(|it| it["ask"]["ask"] == "label" && it["state"] == "done");
    assert_eq!(label.unwrap()["answer"], Value::Null, "no picture has left the device");

    let said = command(&["forget", "--label", "ball"]).expect_code(0).stdout;
    assert!(said.contains("20 pictures"), "{said}");
    assert!(!folder.exists());
    stage.end();
}
