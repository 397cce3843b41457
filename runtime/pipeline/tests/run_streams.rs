//! What streams may do to each other (nothing), and how runs end.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::time::Duration;

use fakes::{CAMERA, FILE, Gate, LIVE, Script, Step};
use revoada_pipeline::SinkError;
use revoada_pipeline::run::{RunError, RunSummary, StreamState, StreamSummary};

fn stream<'s>(summary: &'s RunSummary, id: &str) -> &'s StreamSummary {
    summary.streams.iter().find(|stream| stream.id == id).unwrap()
}

/// Every frame that left a decoder is accounted for.
fn assert_balanced(summary: &RunSummary) {
    for stream in &summary.streams {
        assert_eq!(stream.frames_in, stream.frames_out + stream.frames_dropped.total(), "{stream:?}");
        assert_eq!(stream.queue_frames, 0, "{stream:?}");
    }
}

#[test]
fn every_frame_of_every_file_arrives_once_and_in_order() {
    let frames: &[&[Step]] = &[&[Step::Frames(300)]];
    let script = Script::new(&[("a", FILE, frames), ("b", FILE, frames), ("c", FILE, &[&[Step::Frames(7)]])]);
    for frames_max in [1, 4, 64] {
        let (summary, collected) = script.clone().set("batch.frames_max", frames_max).run();
        let summary = summary.unwrap();
        for (id, frames) in [("a", 300), ("b", 300), ("c", 7)] {
            for sink in &collected {
                assert_eq!(sink.of(id), (0..frames).collect::<Vec<_>>(), "batches of {frames_max}");
            }
            assert_eq!(stream(&summary, id).state, StreamState::Ended);
        }
        assert_eq!((summary.frames_out, summary.frames_dropped, summary.detections), (607, 0, 607));
        assert!(collected.iter().all(|sink| sink.is_finished()));
        assert_eq!(summary.files.len(), 2);
        assert_balanced(&summary);
    }
}

#[test]
fn inferences_at_once_leave_frames_in_their_order() {
    let streams = [("a", FILE, &[&[Step::Frames(30)][..]][..]), ("b", FILE, &[&[Step::Frames(10)]])];
    for deterministic in [false, true] {
        let script = Script::new(&streams).set("model.path", "pairs.onnx").set("model.concurrent_max", 2);
        let (summary, collected) = script.set("deterministic", deterministic).run();
        let summary = summary.unwrap();
        assert_balanced(&summary);
        for (id, frames) in [("a", 30), ("b", 10)] {
            assert_eq!(collected[0].of(id), (0..frames).collect::<Vec<_>>());
        }
    }
}

#[test]
fn one_of_several_inferences_that_fails_ends_the_run() {
    let steps: &[&[Step]] = &[&[Step::FramesWithoutEnd]];
    let silent: &[&[Step]] = &[&[Step::Silence]];
    let script = Script::new(&[("a", FILE, steps), ("b", CAMERA, silent)]).set("model.path", "breaks.onnx");
    let (summary, collected) = script.set("model.concurrent_max", 4).run();
    assert!(matches!(&summary, Err(RunError::Model(error)) if error.to_string().contains("told to")), "{summary:?}");
    let written = collected[0].of("a");
    assert_eq!(written, (0..written.len() as u64).collect::<Vec<_>>());
    assert!(written.len() <= 5, "what follows the failed one is not written: {written:?}");
}

#[test]
fn an_inference_that_fails_last_leaves_nobody_waiting_for_its_session() {
    // Whether the other thread waits by then is chance.
    for _ in 0..20 {
        let script = Script::new(&[("a", FILE, &[&[Step::Frames(1000)]])]).set("model.path", "breaks-late.onnx");
        let (summary, collected) = script.set("model.concurrent_max", 2).run();
        assert!(
            matches!(&summary, Err(RunError::Model(error)) if error.to_string().contains("told to")),
            "{summary:?}"
        );
        assert_eq!(collected[0].of("a"), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_live_stream_that_floods_drops_its_oldest_and_holds_up_nobody() {
    let flooded = Gate::default();
    let mut script = Script::new(&[
        ("flood", LIVE, &[&[Step::Frames(1000), Step::Open(flooded.clone())]]),
        ("file", FILE, &[&[Step::Frames(100)]]),
    ]);
    // Nothing is written before the flood is over.
    script.gate = Some(flooded);
    let (summary, collected) = script.run();
    let summary = summary.unwrap();
    assert_eq!(collected[0].of("file"), (0..100).collect::<Vec<_>>());
    let flood = stream(&summary, "flood");
    assert_eq!(flood.frames_in, 1000);
    assert!(flood.frames_dropped.queue >= 900, "{flood:?}");
    let seen = collected[0].of("flood");
    assert_eq!(seen.last(), Some(&999), "the newest frame is kept");
    assert!(seen.is_sorted_by(|a, b| a < b));
    assert_balanced(&summary);
}

#[test]
fn a_lost_camera_comes_back_and_counts_on() {
    let camera: &[&[Step]] = &[
        &[Step::Frames(5), Step::Lost],
        &[Step::Lost],
        &[Step::Frames(5), Step::Silence],
        &[Step::Frames(5), Step::Lost],
    ];
    let script = Script::new(&[("camera", CAMERA, camera), ("file", FILE, &[&[Step::Frames(50)]])])
        .set_every_stream("frames_max", 15)
        .set_every_stream("queue_frames_max", 64);
    let (summary, collected) = script.run();
    let summary = summary.unwrap();
    assert_eq!(collected[0].of("camera"), (0..15).collect::<Vec<_>>());
    assert_eq!(stream(&summary, "camera").reconnects, 3);
    assert_eq!(summary.failures().count(), 0);
    assert_balanced(&summary);
}

#[test]
fn a_stream_that_fails_is_named_and_the_others_go_on() {
    for (step, reason) in
        [(Step::Broken, "`bad` broke off after 3 frames: cut short"), (Step::Panic, "its thread panicked")]
    {
        let script =
            Script::new(&[("bad", FILE, &[&[Step::Frames(3), step]]), ("good", FILE, &[&[Step::Frames(200)]])]);
        let (summary, collected) = script.run();
        let summary = summary.unwrap();
        assert_eq!(summary.failures().collect::<Vec<_>>(), [("bad", reason)]);
        assert_eq!(stream(&summary, "bad").state, StreamState::Failed);
        assert_eq!(collected[0].of("bad"), [0, 1, 2]);
        assert_eq!(collected[0].of("good").len(), 200);
        assert!(collected[0].is_finished());
        assert_balanced(&summary);
    }
}

#[test]
fn a_camera_that_stays_away_is_given_up() {
    let script = Script::new(&[("camera", CAMERA, &[&[Step::Frames(2), Step::Lost], &[Step::Lost]])]);
    let (summary, _) = script.run();
    let summary = summary.unwrap();
    assert_eq!(summary.failures().collect::<Vec<_>>(), [("camera", "lost `camera`: cable out")]);
    assert_eq!(stream(&summary, "camera").reconnects, 3);
}

#[test]
fn a_run_without_a_single_frame_fails_and_completes_no_output() {
    for (steps, reason) in [
        (vec![Step::Unopenable], "cannot open `only`: no such file"),
        (vec![Step::Broken], "`only` broke off after 0 frames: cut short"),
        (vec![], "broke off after 0 frames: it holds no frames"),
    ] {
        let (result, collected) = Script::new(&[("only", FILE, &[&steps])]).run();
        let error = result.unwrap_err();
        assert!(matches!(&error, RunError::Stream { id, .. } if id.as_str() == "only"), "{error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(reason), "{cause}");
        assert!(collected.iter().all(|sink| sink.is_dropped() && !sink.is_finished()));
    }
}

#[test]
fn a_stop_drains_what_was_taken_and_completes_the_outputs() {
    let script = Script::new(&[
        ("file", FILE, &[&[Step::FramesWithoutEnd]]),
        ("live", LIVE, &[&[Step::FramesWithoutEnd]]),
        ("silent", CAMERA, &[&[Step::Silence]]),
    ])
    .set("batch.frames_max", 4);
    let run = script.start();
    run.collected[0].wait_for("file", 20);
    run.collected[0].wait_for("live", 20);
    run.stop.request();
    let collected = run.collected.clone();
    let summary = run.finish().unwrap();
    assert!(collected.iter().all(|sink| sink.is_finished()));
    let file = collected[0].of("file");
    assert_eq!(file, (0..file.len() as u64).collect::<Vec<_>>());
    assert_eq!(stream(&summary, "file").frames_out, file.len() as u64);
    assert_balanced(&summary);
}

#[test]
fn a_second_stop_abandons_a_sink_that_hangs() {
    let stuck = Gate::default();
    let mut script = Script::new(&[("file", FILE, &[&[Step::FramesWithoutEnd]])]);
    script.gate = Some(stuck.clone());
    let run = script.start();
    run.stop.request();
    run.stop.request();
    let collected = run.collected.clone();
    assert!(matches!(run.finish(), Err(RunError::Abandoned)));
    assert!(collected.iter().all(|sink| !sink.is_finished()));
    stuck.open();
}

#[test]
fn a_sink_that_fails_ends_the_run_and_the_others_are_completed() {
    let mut script = Script::new(&[("file", FILE, &[&[Step::FramesWithoutEnd]])]);
    script.sink_fails_after = Some(10);
    let (result, [failing, other]) = script.run();
    assert!(matches!(result, Err(RunError::Sink(SinkError::Write { .. }))), "{result:?}");
    assert!(failing.is_dropped() && !failing.is_finished());
    assert!(other.is_finished());
    assert_eq!(other.of("file").len(), 10);
}

#[test]
fn an_interval_skips_frames_and_counts_them() {
    let script = Script::new(&[("file", FILE, &[&[Step::Frames(10)]])]).set_every_stream("interval", 3);
    let (summary, collected) = script.run();
    let summary = summary.unwrap();
    assert_eq!(collected[0].of("file"), [0, 3, 6, 9]);
    assert_eq!(stream(&summary, "file").frames_dropped.interval, 6);
    assert_balanced(&summary);
}

#[test]
fn perf_lines_and_progress_come_while_the_run_goes_on() {
    let (lines, progress) = (Shared::default(), Shared::default());
    let script = Script::new(&[("a", FILE, &[&[Step::FramesWithoutEnd]])]).set("perf.interval_s", 0.1);
    let (mut parts, collected) = script.parts();
    let told = progress.clone();
    parts.perf = Box::new(lines.clone());
    parts.progress = Some(Box::new(move |summary| told.add(&format!("{}\n", summary.frames_out))));
    let stop = revoada_pipeline::run::StopFlag::new();
    let (config, stopping) = (script.config(), stop.clone());
    let thread = std::thread::spawn(move || revoada_pipeline::run::run(config, parts, &stopping));
    collected[0].wait_for("a", 1);
    lines.wait_for(2);
    progress.wait_for(1);
    stop.request();
    thread.join().unwrap().unwrap();
    let text = lines.text();
    assert!(text.starts_with("\n**PERF:  FPS 0 (Avg)\t\n**PERF:  "), "{text}");
}

/// Text that one thread writes and another waits for.
#[derive(Clone, Default)]
struct Shared(std::sync::Arc<(std::sync::Mutex<String>, std::sync::Condvar)>);

impl Shared {
    fn add(&self, text: &str) {
        self.0.0.lock().unwrap().push_str(text);
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap().clone()
    }

    fn wait_for(&self, lines: usize) {
        let short = |text: &mut String| text.lines().count() < lines;
        let waited = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), fakes::DEADLINE, short).unwrap();
        assert!(!waited.1.timed_out(), "fewer than {lines} lines: {}", *waited.0);
    }
}

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_clock_of_a_stall_is_the_streams_own() {
    let silent: &[&[Step]] = &[&[Step::Silence], &[Step::Frames(3), Step::Silence]];
    let script = Script::new(&[("camera", CAMERA, silent), ("file", FILE, &[&[Step::Frames(20)]])])
        .set_every_stream("frames_max", 3);
    let started = std::time::Instant::now();
    let summary = script.run().0.unwrap();
    assert_eq!((stream(&summary, "camera").reconnects, stream(&summary, "camera").frames_out), (1, 3));
    assert!(started.elapsed() < Duration::from_secs(10));
}
