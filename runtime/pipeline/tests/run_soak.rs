//! Nothing adds up over many short streams. Alone in its process, whose memory it measures.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use fakes::{CAMERA, FILE, Script, Step, Usage};

/// Many short streams, one run after the other: nothing adds up.
#[test]
fn many_short_streams_leave_nothing_behind() {
    // `cargo xtask test --full` asks for the long one.
    let full = std::env::var_os("REVOADA_FULL").is_some();
    let (frames_all, frames_run) = (if full { 100_000u64 } else { 5_000 }, 100u64);
    let short: &[&[Step]] = &[&[Step::Frames(25)]];
    let flapping: &[&[Step]] = &[&[Step::Frames(5), Step::Lost]];
    let script = Script::new(&[("a", FILE, short), ("b", FILE, short), ("c", FILE, short), ("d", CAMERA, flapping)])
        .set_every_stream("frames_max", 25)
        .set("batch.frames_max", 3);
    let mut before = None;
    for round in 0..frames_all / frames_run {
        let (summary, _) = script.run();
        let summary = summary.unwrap();
        assert_eq!(summary.frames_in, frames_run);
        // The first rounds fill what is kept: allocator arenas, histograms' pages, GStreamer.
        if round == frames_all / frames_run / 5 {
            before = Some(Usage::now());
        }
    }
    let before = before.unwrap();
    let after = Usage::settled(&before);
    assert!(after.rss_kib <= before.rss_kib + 4096, "{before:?} → {after:?}");
    assert!(after.threads <= before.threads && after.descriptors <= before.descriptors, "{before:?} → {after:?}");
}
