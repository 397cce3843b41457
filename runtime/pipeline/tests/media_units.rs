//! Access units that we encode, written to files from the middle and read back by our own source.
#![allow(clippy::unwrap_used)] // Helpers of tests fail as tests do.

mod media_clips;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use media_clips::{assert_step, drain, open_file, skipped, step};
use revoada_core::{ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp};
use revoada_pipeline::SinkError;
use revoada_pipeline::media::{AccessUnit, Backlog, KEY_INTERVAL_MAX, UnitEncoder, UnitFormat, UnitWriter};

const NEEDED: [&str; 4] = ["x264enc", "mp4mux", "matroskamux", "avdec_h264"];
const BACKLOG_BYTES_MAX: u64 = 10 << 20;

fn frame(index: u64, pts_ms: u64) -> Arc<Frame> {
    let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), Size::new(160, 90));
    let mut memory = vec![128u8; layout.bytes().unwrap()];
    memory[..160 * 90].fill(step(index));
    let pts = Timestamp::from_nanos(pts_ms * 1_000_000);
    let frame = Frame::new(StreamId::new("test"), index, pts, pts, layout, MemoryKind::Host, Box::new(memory));
    Arc::new(frame.unwrap())
}

fn encode(times_ms: &[u64]) -> (Vec<AccessUnit>, UnitFormat) {
    let mut encoder = UnitEncoder::new(None, Path::new("nowhere")).unwrap();
    let mut units = Vec::new();
    for (index, at) in (0u64..).zip(times_ms) {
        units.extend(encoder.push(&frame(index, *at)).unwrap());
    }
    units.extend(encoder.finish().unwrap());
    (units, encoder.format().expect("units have come"))
}

fn write(path: &Path, units: &[AccessUnit], format: &UnitFormat) {
    let mut writer = UnitWriter::create(path, format, units[0].pts, &Backlog::new(BACKLOG_BYTES_MAX)).unwrap();
    units.iter().for_each(|unit| writer.push(unit).unwrap());
    assert_eq!(writer.finish().unwrap(), path);
}

#[test]
fn each_frame_is_a_unit_with_its_time_and_one_a_second_is_a_key() {
    if skipped("each_frame_is_a_unit_with_its_time_and_one_a_second_is_a_key", &NEEDED) {
        return;
    }
    // Ten a second, which then come more slowly and stop for a while.
    let times: Vec<u64> = (0..40).map(|n| 5000 + n * 100).chain((0..20).map(|n| 20_000 + n * 370)).collect();
    let (units, _) = encode(&times);
    let found: Vec<u64> = units.iter().map(|unit| unit.pts.as_nanos() / 1_000_000).collect();
    assert_eq!(found, times);
    assert!(units[0].is_key && units.iter().filter(|unit| !unit.is_key).count() > 20);
    let mut key = units[0].pts;
    for pair in units.windows(2) {
        if pair[1].is_key {
            key = pair[1].pts;
        }
        let since = pair[1].pts.since(key);
        assert!(since <= KEY_INTERVAL_MAX + Duration::from_millis(370), "no key for {since:?} at {}", pair[1].pts);
    }
}

#[test]
fn what_is_written_from_a_key_on_reads_back_frame_by_frame() {
    if skipped("what_is_written_from_a_key_on_reads_back_frame_by_frame", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (units, format) = encode(&(0..100).map(|n| 3000 + n * 40).collect::<Vec<_>>());
    let begin = units.iter().skip(30).position(|unit| unit.is_key).unwrap() + 30;
    let part = &units[begin..begin + 40];
    for name in ["a.mp4", "a.mkv"] {
        let path = folder.path().join(name);
        write(&path, part, &format);
        let (frames, error) = drain(&mut *open_file(&path).unwrap());
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(frames.len(), part.len(), "{name}");
        for (index, frame) in (0u64..).zip(&frames) {
            assert_step(frame, begin as u64 + index);
            assert!((frame.pts.as_secs_f64() - index as f64 * 0.04).abs() < 0.002, "{name}: {index} at {}", frame.pts);
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn an_unfinished_file_of_units_leaves_nothing_and_a_slow_disk_is_an_error() {
    if skipped("an_unfinished_file_of_units_leaves_nothing_and_a_slow_disk_is_an_error", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (units, format) = encode(&[0, 40, 80]);
    let path = folder.path().join("a.mp4");
    let mut writer = UnitWriter::create(&path, &format, units[0].pts, &Backlog::new(BACKLOG_BYTES_MAX)).unwrap();
    writer.push(&units[0]).unwrap();
    drop(writer);
    let mut writer = UnitWriter::create(&path, &format, units[0].pts, &Backlog::new(10)).unwrap();
    let error = writer.push(&units[0]).unwrap_err();
    assert!(error.to_string().contains("the disk is slower than the video"), "{error}");
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let error = UnitWriter::create(&folder.path().join("absent/a.mp4"), &format, units[0].pts, &Backlog::new(10))
        .err()
        .unwrap();
    assert!(matches!(error, SinkError::Write { .. }), "{error:?}");
}

#[test]
fn one_frame_is_one_unit_and_none_is_none() {
    if skipped("one_frame_is_one_unit_and_none_is_none", &NEEDED) {
        return;
    }
    let mut encoder = UnitEncoder::new(Some(500), Path::new("nowhere")).unwrap();
    assert_eq!((encoder.finish().unwrap(), encoder.format()), (Vec::new(), None));
    let mut encoder = UnitEncoder::new(Some(500), Path::new("nowhere")).unwrap();
    assert!(encoder.push(&frame(0, 7000)).unwrap().is_empty());
    let units = encoder.finish().unwrap();
    assert_eq!((units.len(), units[0].is_key, units[0].pts), (1, true, Timestamp::from_nanos(7_000_000_000)));
}
