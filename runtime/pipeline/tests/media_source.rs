//! Files and test patterns, good and bad, through `media::open`.

mod media_clips;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use media_clips::{assert_step, clock, drain, launch, next, open_file, skipped, steps, stream};
use revoada_core::{ColorMatrix, ColorRange, PixelFormat, Size, Timestamp};
use revoada_pipeline::config::{CameraMode, SourceConfig};
use revoada_pipeline::{SourceError, media};

const H264_MP4: &str = "x264enc speed-preset=ultrafast bframes=2 b-adapt=false key-int-max=10 ! mp4mux faststart=true";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary folder is writable")
}

fn h264_clip(folder: &Path, frames: u64) -> PathBuf {
    let path = folder.join("clip.mp4");
    steps(&path, frames, (320, 180), 25, H264_MP4);
    path
}

#[test]
fn every_frame_of_a_file_arrives_in_order_with_its_time() {
    let folder = folder();
    let clips: [(&str, &[&str], &str); 7] = [
        ("h264.mp4", &["x264enc", "mp4mux", "avdec_h264"], H264_MP4),
        ("h264.mkv", &["x264enc", "matroskamux", "avdec_h264"], "x264enc speed-preset=ultrafast ! matroskamux"),
        ("h264.ts", &["x264enc", "mpegtsmux", "tsdemux", "avdec_h264"], "x264enc speed-preset=ultrafast ! mpegtsmux"),
        ("h265.mp4", &["x265enc", "mp4mux", "avdec_h265"], "x265enc speed-preset=ultrafast ! h265parse ! mp4mux"),
        ("vp8.webm", &["vp8enc", "webmmux", "vp8dec"], "vp8enc deadline=1 ! webmmux"),
        ("mjpeg.avi", &["jpegenc", "avimux", "avidemux"], "jpegenc ! avimux"),
        ("raw.mkv", &["matroskamux"], "matroskamux"),
    ];
    for (name, elements, rest) in clips {
        if skipped(name, elements) {
            continue;
        }
        let path = folder.path().join(name);
        steps(&path, 40, (320, 180), 25, rest);
        let mut source = open_file(&path).unwrap();
        let (frames, error) = drain(&mut *source);
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(frames.len(), 40, "{name}");
        for (index, frame) in (0u64..).zip(&frames) {
            assert_eq!(frame.sequence, index, "{name}");
            assert_eq!(frame.size(), Size::new(320, 180), "{name}");
            assert!(frame.layout().format.is_yuv(), "{name}: {:?}", frame.layout().format);
            assert_step(frame, index);
            let expected = index as f64 / 25.0;
            assert!((frame.pts.as_secs_f64() - expected).abs() < 0.002, "{name}: frame {index} at {}", frame.pts);
        }
        assert_eq!(source.copies(), 0, "{name}: a picture was copied");
    }
}

#[test]
fn sound_is_left_alone() {
    let test = "sound_is_left_alone";
    if skipped(test, &["x264enc", "mp4mux", "avenc_aac", "avdec_h264"]) {
        return;
    }
    let folder = folder();
    let path = folder.path().join("both.mp4");
    launch(&format!(
        "mp4mux name=mux ! filesink location={} videotestsrc num-buffers=50 ! video/x-raw,format=I420,framerate=25/1 ! \
         x264enc speed-preset=ultrafast ! mux. audiotestsrc num-buffers=300 ! avenc_aac ! aacparse ! mux.",
        path.display()
    ));
    let (frames, error) = drain(&mut *open_file(&path).unwrap());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames.len(), 50);
    let path = folder.path().join("sound.mp4");
    let location = path.display();
    launch(&format!("audiotestsrc num-buffers=100 ! avenc_aac ! aacparse ! mp4mux ! filesink location={location}"));
    let error = open_file(&path).err().expect("there is nothing to see").to_string();
    assert!(error.contains("has no video stream"), "{error}");
    let path = folder.path().join("sound.wav");
    launch(&format!("audiotestsrc num-buffers=10 ! wavenc ! filesink location={}", path.display()));
    let error = open_file(&path).err().expect("there is nothing to see").to_string();
    assert!(error.contains("has no video stream"), "{error}");
}

#[test]
fn what_is_no_video_is_refused_in_words() {
    let folder = folder();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let noise: Vec<u8> = (0..10_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let cases = [
        (folder.path().join("absent.mp4"), "there is no such file"),
        (folder.path().to_owned(), "it is a folder, not a video; for the pictures in it write `images:FOLDER`"),
        (write("empty.mp4", b""), "the file is empty"),
        (
            write("text.mp4", b"hello, this is a text\nand no video at all\n"),
            "it is not a video that this machine reads",
        ),
        (write("noise.mp4", &noise), "it is not a video that this machine reads"),
    ];
    for (path, expected) in cases {
        let error = open_file(&path).err().unwrap_or_else(|| panic!("`{}` was opened", path.display()));
        assert!(matches!(error, SourceError::Open { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(&*path.to_string_lossy()), "{text}");
    }
}

#[test]
fn a_truncated_video_yields_its_frames_and_then_says_that_it_is_cut_short() {
    let test = "a_truncated_video_yields_its_frames_and_then_says_that_it_is_cut_short";
    if skipped(test, &["x264enc", "mp4mux", "matroskamux", "avdec_h264"]) {
        return;
    }
    let folder = folder();
    let noisy = |name: &str, muxer: &str| {
        let path = folder.path().join(name);
        launch(&format!(
            "videotestsrc num-buffers=100 pattern=snow ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! \
             x264enc speed-preset=ultrafast ! {muxer} ! filesink location={}",
            path.display()
        ));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        path
    };
    for path in [noisy("front.mp4", "mp4mux faststart=true"), noisy("cut.mkv", "matroskamux")] {
        let mut source = open_file(&path).unwrap();
        let (frames, error) = drain(&mut *source);
        assert!((20..80).contains(&frames.len()), "{} frames of `{}`", frames.len(), path.display());
        match error {
            Some(SourceError::Broken { frames: count, reason, .. }) => {
                assert_eq!(count, frames.len() as u64);
                assert!(reason.contains("cut short"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    let error = open_file(&noisy("back.mp4", "mp4mux")).err().expect("its index was lost");
    assert!(matches!(&error, SourceError::Open { reason, .. } if reason.contains("cut short")), "{error:?}");
}

#[test]
fn a_damaged_video_ends_and_never_hangs() {
    if skipped("a_damaged_video_ends_and_never_hangs", &["x264enc", "mp4mux", "avdec_h264"]) {
        return;
    }
    let folder = folder();
    let whole = std::fs::read(h264_clip(folder.path(), 60)).unwrap();
    for seed in 1..=12u64 {
        let mut bytes = whole.clone();
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..40 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = (random % bytes.len() as u64) as usize;
            bytes[at] ^= (random >> 40) as u8 | 1;
        }
        let path = folder.path().join("damaged.mp4");
        std::fs::write(&path, bytes).unwrap();
        // Whatever it says, it says it before the deadline of `drain`, and the frames are numbered.
        if let Ok(mut source) = open_file(&path) {
            let (frames, _) = drain(&mut *source);
            assert!(frames.iter().zip(0..).all(|(frame, index)| frame.sequence == index), "seed {seed}");
            assert!(frames.windows(2).all(|pair| pair[0].pts < pair[1].pts), "seed {seed}");
        }
    }
}

#[test]
fn a_video_without_frames_is_refused() {
    if skipped("a_video_without_frames_is_refused", &["matroskamux"]) {
        return;
    }
    let folder = folder();
    let path = folder.path().join("none.mkv");
    steps(&path, 0, (320, 180), 25, "video/x-raw,format=I420,width=320,height=180,framerate=25/1 ! matroskamux");
    let error = open_file(&path).err().expect("it has no frames");
    assert!(matches!(error, SourceError::Open { .. }), "{error:?}");
}

#[test]
fn frames_follow_a_video_that_changes_its_size() {
    let test = "frames_follow_a_video_that_changes_its_size";
    if skipped(test, &["x264enc", "mpegtsmux", "tsdemux", "avdec_h264"]) {
        return;
    }
    let folder = folder();
    let mut bytes = Vec::new();
    for (name, size) in [("a.ts", (320, 180)), ("b.ts", (480, 270))] {
        let path = folder.path().join(name);
        steps(&path, 30, size, 25, "x264enc speed-preset=ultrafast ! mpegtsmux");
        bytes.extend(std::fs::read(path).unwrap());
    }
    let path = folder.path().join("both.ts");
    std::fs::write(&path, bytes).unwrap();
    let (frames, error) = drain(&mut *open_file(&path).unwrap());
    assert!(error.is_none(), "{error:?}");
    let sizes: Vec<Size> = frames.iter().map(|frame| frame.size()).collect();
    assert_eq!(sizes.iter().filter(|&&size| size == Size::new(320, 180)).count(), 30);
    assert_eq!(sizes.iter().filter(|&&size| size == Size::new(480, 270)).count(), 30);
    assert!(frames.windows(2).all(|pair| pair[0].pts < pair[1].pts));
}

#[test]
fn a_repeated_file_counts_on_and_its_time_goes_on() {
    if skipped("a_repeated_file_counts_on_and_its_time_goes_on", &["x264enc", "mp4mux", "avdec_h264"]) {
        return;
    }
    let folder = folder();
    let path = h264_clip(folder.path(), 10);
    let mut config = stream(SourceConfig::File(path));
    config.repeat = Some(3);
    let (frames, error) = drain(&mut *media::open(&config, clock()).unwrap());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames.len(), 30);
    for (index, frame) in (0u64..).zip(&frames) {
        assert_eq!(frame.sequence, index);
        assert_step(frame, index % 10);
        assert!((frame.pts.as_secs_f64() - index as f64 / 25.0).abs() < 0.002, "frame {index} at {}", frame.pts);
    }
}

#[test]
fn colours_are_read_as_the_stream_says_or_by_its_height() {
    let test = "colours_are_read_as_the_stream_says_or_by_its_height";
    if skipped(test, &["matroskamux", "jpegenc", "avimux", "x264enc", "mp4mux", "avdec_h264"]) {
        return;
    }
    let folder = folder();
    let first = |name: &str, caps: &str, rest: &str| {
        let path = folder.path().join(name);
        let text = format!("videotestsrc num-buffers=3 ! video/x-raw,format=I420,framerate=25/1,{caps} ! {rest}");
        launch(&format!("{text} ! filesink location={}", path.display()));
        next(&mut *open_file(&path).unwrap()).unwrap().expect("there are three frames").layout().color
    };
    let x264 = "x264enc speed-preset=ultrafast ! mp4mux";
    let told = first("bt709.mp4", "width=320,height=240,colorimetry=bt709", x264);
    assert_eq!((told.matrix, told.range), (ColorMatrix::Bt709, ColorRange::Limited));
    let told = first("bt601.mp4", "width=1280,height=720,colorimetry=bt601", x264);
    assert_eq!((told.matrix, told.range), (ColorMatrix::Bt601, ColorRange::Limited));
    let jpeg = first("jpeg.avi", "width=320,height=240", "jpegenc ! avimux");
    assert_eq!((jpeg.matrix, jpeg.range), (ColorMatrix::Bt601, ColorRange::Full));
}

#[test]
fn exotic_formats_are_converted_and_counted_as_copies() {
    let test = "exotic_formats_are_converted_and_counted_as_copies";
    if skipped(test, &["x264enc", "matroskamux", "avdec_h264"]) {
        return;
    }
    let folder = folder();
    for format in ["Y444", "Y42B", "I420_10LE"] {
        let path = folder.path().join(format!("{format}.mkv"));
        steps(
            &path,
            10,
            (320, 180),
            25,
            &format!("videoconvert ! video/x-raw,format={format} ! x264enc speed-preset=ultrafast ! matroskamux"),
        );
        let mut source = open_file(&path).unwrap();
        let (frames, error) = drain(&mut *source);
        assert!(error.is_none(), "{format}: {error:?}");
        assert_eq!(frames.len(), 10, "{format}");
        for (index, frame) in (0..).zip(&frames) {
            assert!(frame.layout().format.is_yuv(), "{format}");
            assert_step(frame, index);
        }
        assert_eq!(source.copies(), 10, "{format}");
    }
}

#[test]
fn a_video_recorded_sideways_stands_upright() {
    let test = "a_video_recorded_sideways_stands_upright";
    if skipped(test, &["x264enc", "mp4mux", "avdec_h264", "videoflip"]) {
        return;
    }
    let folder = folder();
    let plain = h264_clip(folder.path(), 5);
    let turned = folder.path().join("turned.mp4");
    let ffmpeg = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(&plain)
        .args(["-c", "copy", "-metadata:s:v:0", "rotate=90"])
        .arg(&turned)
        .status();
    if !ffmpeg.is_ok_and(|status| status.success()) {
        println!("skipped: {test}: there is no `ffmpeg`");
        return;
    }
    let frame = next(&mut *open_file(&turned).unwrap()).unwrap().expect("there are five frames");
    assert_eq!(frame.size(), Size::new(180, 320));
}

#[test]
fn a_test_pattern_has_the_mode_that_was_asked_for() {
    let mode = CameraMode { width: 640, height: 360, fps: 50 };
    let source = SourceConfig::Test { pattern: "smpte".to_owned(), mode, live: false };
    let mut source = media::open(&stream(source), clock()).unwrap();
    for index in 0..10u64 {
        let frame = next(&mut *source).unwrap().expect("a pattern has no end");
        assert_eq!((frame.sequence, frame.size()), (index, Size::new(640, 360)));
        assert_eq!(frame.pts, Timestamp::from_nanos(index * 20_000_000));
        assert!(matches!(frame.layout().format, PixelFormat::Nv12 | PixelFormat::I420));
    }
    let source = SourceConfig::Test { pattern: "smtpe".to_owned(), mode, live: false };
    let error = media::open(&stream(source), clock()).err().expect("there is no such pattern").to_string();
    assert!(error.contains("no test pattern `smtpe`") && error.contains("smpte"), "{error}");
}

#[test]
fn a_live_test_pattern_keeps_its_rate() {
    let mode = CameraMode { width: 160, height: 120, fps: 20 };
    let source = SourceConfig::Test { pattern: "ball".to_owned(), mode, live: true };
    let mut source = media::open(&stream(source), clock()).unwrap();
    let first = next(&mut *source).unwrap().expect("a pattern has no end");
    assert_eq!(first.pts, Timestamp::ZERO);
    let begun = Instant::now();
    for _ in 0..20 {
        next(&mut *source).unwrap().expect("a pattern has no end");
    }
    assert!(begun.elapsed() > Duration::from_millis(700), "a second of frames came in {:?}", begun.elapsed());
}
