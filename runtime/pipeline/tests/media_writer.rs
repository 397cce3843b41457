//! Videos that we write, read back by our own source and by ffprobe.
#![allow(clippy::unwrap_used)] // Helpers of tests fail as tests do.

mod media_clips;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use media_clips::{assert_step, drain, luma, open_file, skipped, step};
use revoada_core::{
    ColorMatrix, ColorRange, ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp,
};
use revoada_pipeline::SinkError;
use revoada_pipeline::media::VideoWriter;

/// A plain frame of brightness [`step`]`(index)`, `interval` after the one before.
fn frame(index: u64, layout: ImageLayout, interval: Duration) -> Arc<Frame> {
    let mut memory = vec![128u8; layout.bytes().unwrap()];
    let (row, rows) = (layout.size.width, layout.size.height);
    if layout.format.is_yuv() || layout.format == PixelFormat::Gray {
        for y in 0..rows {
            memory[layout.planes[0].offset + y * layout.planes[0].stride..][..row].fill(step(index));
        }
    } else {
        memory.fill(step(index));
    }
    let pts = Timestamp::from_nanos(interval.as_nanos() as u64 * index);
    let stream = StreamId::new("test");
    Arc::new(Frame::new(stream, index, pts, pts, layout, MemoryKind::Host, Box::new(memory)).unwrap())
}

fn layout(format: PixelFormat, width: usize, height: usize) -> ImageLayout {
    ImageLayout::packed(format, ColorSpec::default(), Size::new(width, height))
}

fn write(path: &Path, frames: u64, layout: ImageLayout, interval: Duration) {
    let mut writer = VideoWriter::create(path, None).unwrap();
    for index in 0..frames {
        writer.push(&frame(index, layout, interval)).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), path);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const INTERVAL: Duration = Duration::from_millis(40);
const NEEDED: [&str; 4] = ["x264enc", "mp4mux", "matroskamux", "avdec_h264"];

#[test]
fn what_was_written_reads_back_frame_by_frame() {
    if skipped("what_was_written_reads_back_frame_by_frame", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("a.mp4", PixelFormat::I420), ("b.mp4", PixelFormat::Nv12), ("c.mkv", PixelFormat::I420)] {
        let path = folder.path().join(name);
        write(&path, 60, layout(format, 320, 180), INTERVAL);
        let (frames, error) = drain(&mut *open_file(&path).unwrap());
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(frames.len(), 60, "{name}");
        for (index, frame) in (0u64..).zip(&frames) {
            assert_step(frame, index);
            let expected = index as f64 * 0.04;
            assert!((frame.pts.as_secs_f64() - expected).abs() < 0.002, "{name}: frame {index} at {}", frame.pts);
        }
    }
    assert_eq!(names(folder.path()), ["a.mp4", "b.mp4", "c.mkv"]);
}

#[test]
fn browsers_play_it() {
    if skipped("browsers_play_it", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    write(&path, 50, layout(PixelFormat::Nv12, 640, 360), INTERVAL);
    let bytes = std::fs::read(&path).unwrap();
    let at = |kind: &[u8]| bytes.windows(4).position(|four| four == kind).expect("an MP4 has this box");
    assert!(at(b"moov") < at(b"mdat"), "the index is behind the pictures");
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-of", "default=noprint_wrappers=1", "-show_entries"])
        .arg("stream=codec_name,profile,pix_fmt,width,height,avg_frame_rate,nb_read_frames,duration,has_b_frames")
        .arg(&path)
        .output();
    let Ok(probe) = probe else {
        println!("skipped: browsers_play_it: there is no `ffprobe`");
        return;
    };
    let text = String::from_utf8(probe.stdout).unwrap();
    assert!(probe.stderr.is_empty(), "{}", String::from_utf8_lossy(&probe.stderr));
    for line in
        ["codec_name=h264", "pix_fmt=yuv420p", "width=640", "height=360", "nb_read_frames=50", "avg_frame_rate=25/1"]
    {
        assert!(text.lines().any(|got| got == line), "no `{line}` in\n{text}");
    }
    let duration = text.lines().find_map(|line| line.strip_prefix("duration=")?.parse::<f64>().ok()).unwrap();
    assert!((duration - 2.0).abs() < 0.05, "it lasts {duration} s");
}

#[test]
fn pictures_of_any_format_and_size_are_taken() {
    if skipped("pictures_of_any_format_and_size_are_taken", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for format in [PixelFormat::Rgb, PixelFormat::Bgr, PixelFormat::Gray, PixelFormat::I420, PixelFormat::Nv12] {
        let path = folder.path().join("odd.mp4");
        let mut odd = layout(format, 321, 181);
        // Rows may be further apart than they are long.
        if format.is_yuv() {
            let mut offset = 0;
            for (plane, &(row, rows)) in odd.planes.iter_mut().zip(format.planes(odd.size).as_slice()) {
                (plane.offset, plane.stride) = (offset, row + 31);
                offset += (row + 31) * rows;
            }
        }
        write(&path, 5, odd, INTERVAL);
        let (frames, error) = drain(&mut *open_file(&path).unwrap());
        assert!(error.is_none(), "{format:?}: {error:?}");
        assert_eq!((frames.len(), frames[0].size()), (5, Size::new(320, 180)), "{format:?}");
        for pair in frames.windows(2) {
            assert!((luma(&pair[0]) - luma(&pair[1])).abs() > 20.0, "{format:?}: neighbours look the same");
        }
    }
}

#[test]
fn colours_survive() {
    if skipped("colours_survive", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "a.mkv"] {
        let path = folder.path().join(name);
        for matrix in [ColorMatrix::Bt601, ColorMatrix::Bt709] {
            for range in [ColorRange::Limited, ColorRange::Full] {
                let color = ColorSpec { matrix, range };
                write(&path, 3, ImageLayout::packed(PixelFormat::I420, color, Size::new(320, 180)), INTERVAL);
                let (frames, _) = drain(&mut *open_file(&path).unwrap());
                assert_eq!(frames[0].layout().color, color, "{name}");
                assert_step(&frames[0], 0);
            }
        }
    }
}

#[test]
fn frames_of_another_size_are_scaled_to_the_first() {
    if skipped("frames_of_another_size_are_scaled_to_the_first", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let mut writer = VideoWriter::create(&path, Some(800)).unwrap();
    for index in 0..30 {
        let size = if index < 15 { (320, 180) } else { (640, 480) };
        writer.push(&frame(index, layout(PixelFormat::I420, size.0, size.1), INTERVAL)).unwrap();
    }
    writer.finish().unwrap();
    let (frames, error) = drain(&mut *open_file(&path).unwrap());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames.len(), 30);
    assert!(frames.iter().all(|frame| frame.size() == Size::new(320, 180)));
}

#[test]
fn a_varying_frame_rate_is_kept() {
    if skipped("a_varying_frame_rate_is_kept", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let mut writer = VideoWriter::create(&path, None).unwrap();
    let times = [0u64, 40, 80, 500, 520, 1500, 1501, 3000];
    for (index, &at) in (0u64..).zip(&times) {
        let plain = frame(index, layout(PixelFormat::I420, 320, 180), Duration::ZERO);
        let (pts, memory) = (Timestamp::from_nanos((at + 7000) * 1_000_000), plain.view().bytes().to_vec());
        let stream = plain.stream.clone();
        let moved = Frame::new(stream, index, pts, pts, *plain.layout(), MemoryKind::Host, Box::new(memory)).unwrap();
        writer.push(&Arc::new(moved)).unwrap();
    }
    writer.finish().unwrap();
    let (frames, _) = drain(&mut *open_file(&path).unwrap());
    let got: Vec<i64> = frames.iter().map(|frame| (frame.pts.as_secs_f64() * 1000.0).round() as i64).collect();
    assert!(times.len() == got.len() && times.iter().zip(&got).all(|(&a, &b)| (a as i64 - b).abs() <= 1), "{got:?}");
}

#[test]
fn one_frame_makes_a_video() {
    if skipped("one_frame_makes_a_video", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    write(&path, 1, layout(PixelFormat::I420, 64, 64), INTERVAL);
    assert_eq!(drain(&mut *open_file(&path).unwrap()).0.len(), 1);
}

#[test]
fn an_unfinished_video_leaves_nothing_behind() {
    if skipped("an_unfinished_video_leaves_nothing_behind", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "b.mkv"] {
        let mut writer = VideoWriter::create(&folder.path().join(name), None).unwrap();
        for index in 0..30 {
            writer.push(&frame(index, layout(PixelFormat::I420, 320, 180), INTERVAL)).unwrap();
        }
        assert!(names(folder.path()).iter().all(|name| name.starts_with('.')), "{:?}", names(folder.path()));
        drop(writer);
        assert_eq!(names(folder.path()), [""; 0]);
    }
    let error = VideoWriter::create(&folder.path().join("a.mp4"), None).unwrap().finish().unwrap_err();
    assert!(error.to_string().contains("there were no frames"), "{error}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_place_that_cannot_be_written_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent/a.mp4");
    let error = VideoWriter::create(&absent, None).err().expect("the folder is not there");
    assert!(matches!(&error, SinkError::Write { path, .. } if *path == absent), "{error:?}");
    let error = VideoWriter::create(Path::new("/proc/a.mp4"), None).err().expect("nobody writes there");
    assert!(matches!(error, SinkError::Write { .. }), "{error:?}");
    let error = VideoWriter::create(&folder.path().join("a.gif"), None).err().expect("it is no video").to_string();
    assert!(error.contains("neither in `.mp4` nor in `.mkv`"), "{error}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_behind() {
    let test = "a_full_disk_is_an_error_and_leaves_nothing_behind";
    if skipped(test, &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(folder.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: {test}: a small file system cannot be mounted here");
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
        }
    }
    let _unmount = Unmount(folder.path());
    for name in ["a.mp4", "b.mkv"] {
        let mut writer = VideoWriter::create(&folder.path().join(name), Some(20_000)).unwrap();
        let size = layout(PixelFormat::I420, 640, 480);
        let mut noise = 1u64;
        let mut outcome = Ok(());
        for index in 0..200 {
            let mut memory = frame(index, size, INTERVAL).view().bytes().to_vec();
            for byte in &mut memory {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (noise >> 56) as u8;
            }
            let pts = Timestamp::from_nanos(index * 40_000_000);
            let stream = StreamId::new("test");
            let noisy = Frame::new(stream, index, pts, pts, size, MemoryKind::Host, Box::new(memory)).unwrap();
            outcome = writer.push(&Arc::new(noisy));
            if outcome.is_err() {
                break;
            }
        }
        let error = match outcome {
            Err(error) => {
                drop(writer);
                error
            }
            Ok(()) => writer.finish().expect_err("the disk is full"),
        };
        match error {
            SinkError::Write { source, .. } => assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(names(folder.path()), [""; 0], "{name}");
    }
}
