//! Pictures of tracks that a person has named, kept while a pipeline runs.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fakes::{FILE, Script, Started, Step};
use image::DynamicImage;
use revoada_core::{
    ColorSpec, Detection, Frame, ImageLayout, MemoryKind, PixelFormat, Placement, Prediction, Rect, Size, StreamId,
    TensorRef, Timestamp,
};
use revoada_pipeline::config::Value;
use revoada_pipeline::control::{Client, Command};
use revoada_pipeline::decode::{DecodeError, Decoder};
use serde_json::json;

const SIZE: Size = Size::new(96, 48);
const SIDE: usize = 12;
/// The second square is there for so many frames.
const VISIT_FRAMES: u64 = 200;

/// Where the first square stands in a frame, whose first byte says so: it goes to and fro.
fn left(phase: u8) -> usize {
    20 + usize::from(phase.abs_diff(32)) / 2
}

/// A grey picture with a white square, and another one below for a while. Its first byte says what the model is to answer.
fn squares(id: &StreamId, sequence: u64, captured: Timestamp) -> Frame {
    let layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), SIZE);
    let mut pixels = vec![60; layout.bytes().unwrap()];
    let phase = (sequence % 64) as u8;
    let is_visited = sequence < VISIT_FRAMES;
    let mut square = |left: usize, top: usize, shade: u8| {
        for y in top..top + SIDE {
            pixels[(y * SIZE.width + left) * 3..][..SIDE * 3].fill(shade);
        }
    };
    square(left(phase), 8, 250);
    if is_visited {
        square(60, 30, 0);
    }
    pixels[0] = phase + if is_visited { 128 } else { 0 };
    let pts = Timestamp::from_nanos(sequence * 40_000_000);
    Frame::new(id.clone(), sequence, pts, captured, layout, MemoryKind::Host, Box::new(pixels)).unwrap()
}

struct SquareDecoder;

impl Decoder for SquareDecoder {
    fn name(&self) -> &str {
        "squares"
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, _: &Placement) -> Result<Prediction, DecodeError> {
        let [answer, score] = outputs[0].as_slice::<f32>().unwrap()[row * 2..][..2] else { panic!("two numbers") };
        let square = |left: usize, top: f32| Detection {
            // The sink looks whether an answer is its frame's.
            class: answer as u32,
            score,
            bbox: Rect::new(left as f32, top, SIDE as f32, SIDE as f32),
            ..Detection::default()
        };
        let mut detections = vec![square(left(answer as u8 % 128), 8.0)];
        if answer >= 128.0 {
            detections.push(square(60, 30.0));
        }
        Ok(Prediction { detections, ..Prediction::default() })
    }
}

/// Every frame's squares are of another class.
fn tracked() -> [(&'static str, Value); 2] {
    [("tracker.algorithm", "sort".into()), ("tracker.across_classes", true.into())]
}

struct Scene {
    folder: tempfile::TempDir,
    client: Client,
    run: Started,
}

impl Scene {
    fn start(settings: &[(&str, Value)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let script = Script::new(&[("gate", FILE, &[&[Step::FramesWithoutEnd]])]);
        let script =
            script.showing(squares).decoding(SquareDecoder).set("control.socket", socket.display().to_string());
        let script = settings.iter().fold(script, |script, (key, value)| script.set(key, value.clone()));
        let run = script.start();
        let deadline = Instant::now() + fakes::DEADLINE;
        let client = loop {
            match Client::connect(&socket) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
            std::thread::yield_now();
        };
        fs::create_dir(folder.path().join("data")).unwrap();
        Self { folder, client, run }
    }

    fn tracked() -> Self {
        Self::start(&tracked())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn label(&mut self, track: u64, count: u32) -> Result<PathBuf, String> {
        self.label_into(track, count, &self.data(), "gate")
    }

    fn label_into(&mut self, track: u64, count: u32, folder: &Path, stream: &str) -> Result<PathBuf, String> {
        let (stream, label) = (stream.to_owned(), "white square".parse().unwrap());
        let command = Command::Label { stream, track, label, folder: folder.to_owned(), count, every_ms: 200 };
        let answer = self.client.request(command).map_err(|error| error.to_string())?;
        Ok(answer["file"].as_str().unwrap().into())
    }

    /// The pictures that are there, once there are so many.
    fn wait_for_pictures(&self, count: usize) -> Vec<PathBuf> {
        let deadline = Instant::now() + fakes::DEADLINE;
        loop {
            let kept = self.pictures();
            if kept.len() >= count {
                return kept;
            }
            assert!(Instant::now() < deadline, "{kept:?}");
            std::thread::yield_now();
        }
    }

    /// Whole ones: what is being written has a hidden name.
    fn pictures(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.data().join("white square")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')).collect()
    }

    fn end(self) {
        self.run.stop.request();
        self.run.finish().unwrap();
    }
}

#[test]
fn so_many_pictures_show_the_track_alone_with_nothing_drawn() {
    let mut scene = Scene::tracked();
    scene.run.collected[0].wait_for("gate", 10);
    let first = scene.label(1, 3).unwrap();
    let name = first.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("gate-1-2") && name.ends_with(".jpg") && !name.contains([':', ' ']), "{name}");
    let kept = scene.wait_for_pictures(3);
    assert!(kept.contains(&first));
    for path in &kept {
        let picture = image::open(path).unwrap();
        // The square, and a tenth of it on every side.
        assert!((14..=16).contains(&picture.width()) && (14..=16).contains(&picture.height()), "{picture:?}");
        let DynamicImage::ImageRgb8(picture) = picture else { panic!("a picture of a colour camera has colours") };
        assert!(picture.get_pixel(7, 7)[0] > 230, "{path:?} shows the square");
        assert!(picture.get_pixel(0, 0)[0] < 120, "{path:?} shows what is around it");
        let is_grey = |pixel: &image::Rgb<u8>| pixel.0.iter().all(|value| value.abs_diff(pixel[1]) < 8);
        assert!(picture.pixels().all(is_grey), "{path:?} has no coloured box");
    }
    // Many more are due by then.
    let seen = scene.run.collected[0].of("gate").len();
    scene.run.collected[0].wait_for("gate", seen + 100);
    scene.client.request(Command::EndLabels).unwrap();
    assert_eq!(scene.pictures().len(), 3);
    scene.end();
}

#[test]
fn no_more_are_kept_once_they_are_ended() {
    let mut scene = Scene::tracked();
    scene.run.collected[0].wait_for("gate", 10);
    scene.label(1, 500).unwrap();
    scene.wait_for_pictures(2);
    assert_eq!(scene.client.request(Command::EndLabels).unwrap(), json!({ "ended": 1 }));
    let kept = scene.pictures().len();
    let seen = scene.run.collected[0].of("gate").len();
    scene.run.collected[0].wait_for("gate", seen + 100);
    assert_eq!(scene.pictures().len(), kept);
    assert_eq!(scene.client.request(Command::EndLabels).unwrap(), json!({ "ended": 0 }));
    scene.end();
}

#[test]
fn a_track_that_is_gone_is_kept_for_as_long_as_it_was_there() {
    let mut scene = Scene::tracked();
    scene.run.collected[0].wait_for("gate", 10);
    // At five a second of its time, and twenty-five frames.
    scene.label(2, 500).unwrap();
    scene.run.collected[0].wait_for("gate", 400);
    assert_eq!(scene.client.request(Command::EndLabels).unwrap(), json!({ "ended": 0 }), "it ended by itself");
    let kept = scene.pictures();
    assert!((1..=40).contains(&kept.len()), "{}", kept.len());
    for path in &kept {
        assert!(image::open(path).unwrap().to_luma8().get_pixel(7, 7)[0] < 30, "{path:?} shows the other square");
    }
    let refused = scene.label(2, 1).unwrap_err();
    assert_eq!(refused, "stream `gate` does not show track 2; it shows 1");
    scene.end();
}

#[test]
fn a_snapshot_says_which_tracks_it_shows() {
    let mut scene = Scene::tracked();
    scene.run.collected[0].wait_for("gate", 10);
    let path = scene.data().join("shot.png");
    let answer = scene.client.request(Command::snapshot("gate", &path, Path::new("/"))).unwrap();
    let tracks: Vec<_> = answer["tracks"].as_array().unwrap().iter().map(|track| track["track"].clone()).collect();
    assert_eq!(tracks, [json!(1), json!(2)]);
    scene.end();
}

#[test]
fn what_cannot_be_kept_is_refused_with_the_reason() {
    let mut scene = Scene::tracked();
    scene.run.collected[0].wait_for("gate", 10);
    let data = scene.data();
    for (track, folder, stream, reason) in [
        (1, data.as_path(), "attic", "there is no stream `attic`; choose one of `gate`"),
        (9, &data, "gate", "stream `gate` has no track 9: the newest is 2"),
        (0, &data, "gate", "stream `gate` has no track 0"),
        (1, Path::new("/no/such"), "gate", "there is no folder `/no/such`"),
    ] {
        let refused = scene.label_into(track, 1, folder, stream).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "nothing is left behind");
    scene.end();
}

#[test]
fn without_a_tracker_there_is_nothing_to_keep() {
    let mut scene = Scene::start(&[]);
    let refused = scene.label(1, 1).unwrap_err();
    assert!(refused.starts_with("nothing is tracked here"), "{refused}");
    scene.end();
}

#[test]
fn what_is_anonymized_is_not_kept() {
    let hidden = ("draw.anonymize.method", "blur".into());
    let mut scene = Scene::start(&tracked().into_iter().chain([hidden]).collect::<Vec<_>>());
    scene.run.collected[0].wait_for("gate", 10);
    let refused = scene.label(1, 1).unwrap_err();
    assert_eq!(refused, "track 1 is of a class that this pipeline anonymizes: it is not kept");
    assert!(scene.pictures().is_empty());
    scene.end();
}
