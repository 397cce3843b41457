//! What many films of one stream leave behind: themselves. Alone in its process, so that it can count.
#![allow(clippy::unwrap_used)] // Helpers of tests fail as tests do.

mod media_clips;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use media_clips::{DEADLINE, count, resident_kib, skipped, step};
use revoada_core::{ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp};
use revoada_pipeline::media::{Backlog, UnitEncoder, UnitWriter};

#[test]
fn many_films_leave_no_file_no_thread_and_no_memory_open() {
    if skipped("many_films_leave_no_file_no_thread_and_no_memory_open", &["x264enc", "mp4mux"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), Size::new(320, 180));
    let backlog = Backlog::new(10_000_000);
    // Each of another encoder, whole or given up.
    let film = |index: u64| {
        let mut encoder = UnitEncoder::new(None, Path::new("nowhere")).unwrap();
        let mut units = Vec::new();
        for number in 0..10 {
            let pts = Timestamp::from_nanos(number * 40_000_000);
            let memory = vec![step(number); layout.bytes().unwrap()];
            let frame = Frame::new(StreamId::new("a"), number, pts, pts, layout, MemoryKind::Host, Box::new(memory));
            units.extend(encoder.push(&Arc::new(frame.unwrap())).unwrap());
        }
        units.extend(encoder.finish().unwrap());
        let path = folder.path().join("film.mp4");
        let mut writer = UnitWriter::create(&path, &encoder.format().unwrap(), units[0].pts, &backlog).unwrap();
        units.iter().for_each(|unit| writer.push(unit).unwrap());
        if index.is_multiple_of(2) {
            writer.finish().unwrap();
        }
    };
    // GStreamer keeps some idle threads of its own; what it keeps, it keeps from the start.
    (0..30).for_each(film);
    let (files, threads) = (count("fd"), count("task"));
    // An allocator takes more now and then; what is lost is lost in every round, a picture of 86 KiB or a unit of each film.
    let grown: Vec<u64> = (0..6)
        .map(|_| {
            let before = resident_kib();
            (0..40).for_each(film);
            resident_kib().saturating_sub(before)
        })
        .collect();
    assert!(grown.iter().any(|grown| *grown < 200), "each 40 films left so many KiB: {grown:?}");
    assert_eq!(count("fd"), files);
    let begun = Instant::now();
    while count("task") > threads && begun.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
    assert!(count("task") <= threads, "{threads} threads became {}", count("task"));
    println!("{files} files, {threads} threads; KiB more after each 40 films: {grown:?}");
}
