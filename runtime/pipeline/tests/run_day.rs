//! A day in which streams come and go, in the stream's own time. Alone in its process, whose memory it measures.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::thread;
use std::time::{Duration, Instant};

use fakes::{CAMERA, FILE, Script, Step, Usage};
use revoada_pipeline::control::{Client, Command};
use revoada_pipeline::run::{RunSummary, StopFlag, StreamState, run};
use revoada_pipeline::sink;
use serde_json::json;

/// How long a stream stays: five minutes of 25 frames a second.
const FRAMES: u64 = 5 * 60 * 25;
/// Beside one that flaps all day.
const STREAMS: usize = 4;

#[test]
fn a_day_of_streams_that_come_and_go_leaves_nothing_behind() {
    // `cargo xtask test --full` asks for the whole day.
    let full = std::env::var_os("REVOADA_FULL").is_some();
    let hours: usize = if full { 24 } else { 1 };
    let visits = hours * 12;
    let ids: Vec<String> = (0..visits * STREAMS).map(|number| format!("visitor{number}")).collect();
    let flapping: &[&[Step]] = &[&[Step::Frames(50), Step::Lost]];
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let mut script = Script::described(
        &[("flapping", CAMERA, flapping)],
        "[[sink]]\ntype = \"none\"\n[tracker]\nalgorithm = \"bytetrack\"\n[[analytics.region]]\nname = \"all\"\n\
         points = [[-1, -1], [17, -1], [17, 17], [-1, 17]]\ndwell_s = 1.0\n",
    )
    .set("control.socket", socket.display().to_string())
    .set("batch.frames_max", 4);
    script.visit = Some(vec![Step::Frames(FRAMES)]);
    let config = script.config();
    let (mut parts, _) = script.parts();
    parts.open_sink = Box::new(sink::open);
    let stop = StopFlag::new();
    let stopping = stop.clone();
    let running = thread::spawn(move || run(config, parts, &stopping));
    let started = Instant::now();
    let mut client = loop {
        match Client::connect(&socket) {
            Ok(client) => break client,
            Err(error) => assert!(started.elapsed() < fakes::DEADLINE, "{error:?}"),
        }
        thread::yield_now();
    };

    let (mut before, mut frames) = (None, 0);
    for (visit, ids) in ids.chunks(STREAMS).enumerate() {
        for id in ids {
            let stream = json!({ "uri": FILE, "id": id }).as_object().unwrap().clone();
            client.request(Command::AddStream { stream }).unwrap();
        }
        let begun = Instant::now();
        loop {
            let stats: RunSummary = serde_json::from_value(client.request(Command::Stats).unwrap()).unwrap();
            let here: Vec<_> = stats.streams.iter().filter(|stream| ids.contains(&stream.id)).collect();
            if here.iter().all(|stream| stream.state == StreamState::Ended && stream.frames_out == FRAMES) {
                assert_eq!(here.len(), STREAMS);
                frames += here.iter().map(|stream| stream.frames_out).sum::<u64>();
                break;
            }
            assert!(begun.elapsed() < fakes::DEADLINE, "{here:#?}");
            thread::sleep(Duration::from_millis(5));
        }
        for id in ids {
            client.request(Command::RemoveStream { stream: id.clone() }).unwrap();
        }
        // The first visits fill what is kept: allocator arenas, histograms, the statistics of streams that have ended.
        if visit == visits / 3 {
            before = Some(Usage::now());
        }
    }
    let before = before.unwrap();
    let after = Usage::settled(&before);
    println!(
        "{hours} h of {STREAMS} streams in {:.1} s, {frames} frames: {before:?} → {after:?}",
        started.elapsed().as_secs_f64()
    );
    stop.request();
    let summary = running.join().unwrap().unwrap();
    assert_eq!(frames, (visits * STREAMS) as u64 * FRAMES);
    let flapping = summary.streams.iter().find(|stream| stream.id == "flapping").unwrap();
    assert!(flapping.reconnects > 10, "{flapping:?}");
    assert!(after.rss_kib <= before.rss_kib + 4096, "{before:?} → {after:?}");
    assert!(after.threads <= before.threads && after.descriptors <= before.descriptors, "{before:?} → {after:?}");
}
