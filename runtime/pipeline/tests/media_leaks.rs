//! What many short streams leave behind: nothing. Alone in its process, so that it can count.
#![allow(clippy::unwrap_used)] // Helpers of tests fail as tests do.

mod media_clips;

use std::time::Instant;

use media_clips::{DEADLINE, count, drain, next, open_file, resident_kib, skipped, steps};

#[test]
fn many_short_streams_leave_no_file_no_thread_and_no_memory_behind() {
    let test = "many_short_streams_leave_no_file_no_thread_and_no_memory_behind";
    if skipped(test, &["x264enc", "mp4mux", "avdec_h264"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mp4");
    steps(&path, 10, (320, 180), 25, "x264enc speed-preset=ultrafast bframes=2 ! mp4mux");
    let play = |index: usize| {
        let mut source = open_file(&path).unwrap();
        match index % 3 {
            0 => assert_eq!(drain(&mut *source).0.len(), 10),
            1 => drop(next(&mut *source).unwrap()),
            _ => {}
        }
    };
    // GStreamer keeps some idle threads of its own; what it keeps, it keeps from the start.
    (0..30).for_each(play);
    let (files, threads, memory) = (count("fd"), count("task"), resident_kib());
    (0..150).for_each(play);
    assert_eq!(count("fd"), files);
    let begun = Instant::now();
    while count("task") > threads && begun.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
    assert!(count("task") <= threads, "{threads} threads became {}", count("task"));
    let grown = resident_kib().saturating_sub(memory);
    assert!(grown < 8 * 1024, "150 streams left {grown} KiB");
    println!("{files} files, {threads} threads, {memory} KiB; {grown} KiB more after 150 streams");
}
