//! A fleet service and three agents with real pipelines on a clip: models are rolled out through a canary, and what is worse
//! is rolled back by itself, while the video goes on; two devices that share a plan; and two that learn together.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod learning;
mod models;
mod pictures;
mod plans;
mod stage;

use stage::Stage;

/// The whole story in one test, since each part needs what the part before left: a fleet that runs a model.
#[test]
fn a_better_model_reaches_every_device_and_worse_ones_are_rolled_back_while_the_video_goes_on() {
    let stage = Stage::set(3);
    stage.wait_for_devices(3);

    // A pipeline and the first model take the place of what the devices came with.
    let pipeline = stage.register_pipeline();
    stage.roll_out(&["cameras", "1", "--kind", "pipeline", "--wave", "100%", "--soak", "1s"]).expect_code(0);
    let first = stage.register(models::good("first"), "1");
    stage.roll_out(&["faces", "1", "--wave", "1", "--wave", "100%", "--soak", "1s"]).expect_code(0);
    stage.expect_running(&first);
    stage.expect_running(&pipeline);

    // The second is as good. It comes to a canary first, and to everybody: no frame is lost, and no pipeline starts anew.
    let starts = stage.pipeline_starts();
    let second = stage.register(models::good("second"), "2");
    stage
        .roll_out(&[
            "faces",
            "2",
            "--wave",
            "1",
            "--wave",
            "100%",
            "--soak",
            "2s",
            "--gate",
            "outcome",
            "--gate",
            "agreement=0.9",
            "--gate",
            "accuracy=0.9",
            "--over",
            "5s",
        ])
        .expect_code(0);
    stage.expect_running(&second);
    stage.expect_accuracy(1.0);
    assert_eq!(stage.pipeline_starts(), starts, "a model is swapped in the pipeline that runs");
    stage.expect_no_frame_lost();

    // The third sees other things than the second did in the same pictures, and than the labelled pictures show: its canary
    // fails either gate, and goes back.
    for (version, gate) in [("3", "agreement=0.9"), ("3.1", "accuracy=0.9")] {
        stage.register(models::blind(version), version);
        let waves = ["faces", version, "--wave", "1", "--wave", "100%", "--soak", "2s"];
        let gates = ["--gate", "outcome", "--gate", gate, "--over", "5s"];
        let ended = stage.roll_out(&[&waves[..], &gates[..]].concat());
        assert!(ended.expect_code(1).stdout.contains("halted"), "{gate} fails");
        stage.expect_running(&second);
    }

    // The fourth cannot be loaded.
    stage.register(models::unloadable("fourth"), "4");
    let ended = stage.roll_out(&["faces", "4", "--wave", "1", "--wave", "100%", "--soak", "1s", "--attempts", "1"]);
    assert!(ended.expect_code(1).stdout.contains("halted"));
    stage.expect_running(&second);

    // The fifth takes its pipeline down once the picture is bright, a hundred frames on.
    stage.register(models::crashing("fifth"), "5");
    let ended = stage.roll_out(&["faces", "5", "--wave", "1", "--wave", "100%", "--soak", "1s", "--attempts", "1"]);
    assert!(ended.expect_code(1).stdout.contains("halted"));
    stage.expect_running(&second);

    // Everything that happened is in the audit log, whose chain is whole.
    stage.fleet(&["audit", "check"]).expect_code(0);
    stage.end();
}
