//! Tracks in a running pipeline.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use fakes::{CAMERA, FILE, Script, Step};
use revoada_pipeline::run::RunSummary;

/// Every frame shows the same box, of another class each time.
fn tracked(streams: &[(&str, &str, &[&[Step]])], algorithm: &str) -> Script {
    Script::new(streams).set("tracker.algorithm", algorithm).set("tracker.across_classes", true)
}

fn tracks_of(summary: &RunSummary, id: &str) -> u64 {
    summary.streams.iter().find(|stream| stream.id == id).unwrap().tracks
}

#[test]
fn every_stream_has_tracks_of_its_own() {
    let frames: &[&[Step]] = &[&[Step::Frames(50)]];
    for algorithm in ["sort", "bytetrack", "ocsort"] {
        let script = tracked(&[("a", FILE, frames), ("b", FILE, frames)], algorithm).set("batch.frames_max", 4);
        let (summary, collected) = script.run();
        let summary = summary.unwrap();
        for id in ["a", "b"] {
            assert_eq!(collected[0].tracks(id), [Some(1); 50], "{algorithm}");
            assert_eq!(tracks_of(&summary, id), 1);
        }
        assert_eq!(summary.tracks, 2);
    }
}

#[test]
fn without_a_tracker_nothing_has_a_track() {
    let (summary, collected) = Script::new(&[("a", FILE, &[&[Step::Frames(5)]])]).run();
    assert_eq!(collected[0].tracks("a"), [None; 5]);
    assert_eq!(summary.unwrap().tracks, 0);
}

#[test]
fn a_camera_that_was_lost_comes_back_with_new_tracks() {
    let camera: &[&[Step]] = &[&[Step::Frames(5), Step::Lost], &[Step::Frames(4), Step::Lost], &[Step::Frames(3)]];
    let script = tracked(&[("camera", CAMERA, camera)], "bytetrack")
        .set_every_stream("frames_max", 12)
        .set_every_stream("queue_frames_max", 64);
    let (summary, collected) = script.run();
    let expected: Vec<_> = [[Some(1); 5].as_slice(), &[Some(2); 4], &[Some(3); 3]].concat();
    assert_eq!(collected[0].tracks("camera"), expected);
    assert_eq!(tracks_of(&summary.unwrap(), "camera"), 3);
}

#[test]
fn a_stream_of_which_few_frames_are_inferred_is_tracked() {
    let script = tracked(&[("a", FILE, &[&[Step::Frames(100)]])], "sort").set_every_stream("interval", 7);
    let (_, collected) = script.run();
    assert_eq!(collected[0].tracks("a"), [Some(1); 15]);
}
