//! Moving cameras and bent pictures in a running pipeline.

#![cfg(feature = "opencv")]
#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;
#[path = "../../vision/tests/pictures/mod.rs"]
mod pictures;

use std::sync::{Arc, Mutex};

use fakes::{FILE, Script, Step};
use pictures::{blots, covers, painted};
use revoada_core::{
    Detection, Frame, MemoryKind, PixelFormat, Placement, Prediction, Rect, Size, StreamId, TensorRef, Timestamp,
};
use revoada_pipeline::decode::{DecodeError, Decoder};
use revoada_pipeline::run::{StopFlag, run};
use revoada_pipeline::{FrameResult, Sink, SinkError, SinkReport};
use revoada_vision::{Lens, Undistort};

const WALKERS: usize = 5;

/// The n-th frame of a camera that is shaken, with walkers in it.
fn shaken(id: &StreamId, frame: u64, captured: Timestamp) -> Frame {
    let (shift_x, shift_y) = shake(frame);
    let walkers: Vec<Rect> = walkers(frame).collect();
    let mut picture = painted(PixelFormat::Gray, Size::new(320, 240), |_, _, x, y| {
        match walkers.iter().position(|walker| covers(*walker, x, y)) {
            Some(walker) => {
                blots(1 + walker as u64, x - f64::from(walkers[walker].x), y - f64::from(walkers[walker].y))
            }
            None => blots(0, x - shift_x, y - shift_y),
        }
    });
    // What the fake reads, in one pixel.
    picture.pixels[0] = frame as u8;
    let pts = Timestamp::from_nanos(frame * 40_000_000);
    Frame::new(id.clone(), frame, pts, captured, picture.layout, MemoryKind::Host, Box::new(picture.pixels)).unwrap()
}

/// Where the world lies in the picture.
fn shake(frame: u64) -> (f64, f64) {
    let steps = [(0.0, 0.0), (26.0, 5.0), (-4.0, -8.0), (24.0, 0.0), (-25.0, 3.0)];
    steps[frame as usize % steps.len()]
}

/// Each goes its way to the right, a pixel a frame.
fn walkers(frame: u64) -> impl Iterator<Item = Rect> {
    let (shift_x, shift_y) = shake(frame);
    (0..WALKERS).map(move |walker| {
        let x = 30.0 + 50.0 * walker as f64 + frame as f64 + shift_x;
        Rect::new(x as f32, (90.0 + shift_y) as f32, 16.0, 40.0)
    })
}

struct WalkersDecoder;

impl Decoder for WalkersDecoder {
    fn name(&self) -> &str {
        "walkers"
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, _: &Placement) -> Result<Prediction, DecodeError> {
        let frame = outputs[0].as_slice::<f32>().unwrap()[row * 2] as u64;
        let found =
            walkers(frame).map(|bbox| Detection { class: frame as u32, score: 0.9, bbox, ..Detection::default() });
        Ok(Prediction { detections: found.collect(), ..Prediction::default() })
    }
}

#[test]
fn walkers_keep_their_tracks_where_the_motion_of_the_camera_is_followed() {
    for algorithm in ["sort", "bytetrack", "ocsort"] {
        let tracks = |camera_motion: bool| {
            let script = Script::new(&[("shaken", FILE, &[&[Step::Frames(30)]])]);
            let script = script.showing(shaken).decoding(WalkersDecoder).set("tracker.algorithm", algorithm);
            let script = script.set("tracker.across_classes", true).set("tracker.camera_motion", camera_motion);
            script.run().0.unwrap().tracks
        };
        assert_eq!(tracks(true), WALKERS as u64, "{algorithm}");
        let lost = tracks(false);
        assert!(lost > WALKERS as u64, "{algorithm}: nothing is lost with a camera that is taken to stand still");
    }
}

const SIZE: Size = Size::new(320, 180);
const LENS: &str = "camera_matrix = [880, 884, 640, 362]\ndistortion = [-0.3, 0.1, 0.001, 0]\nsize = \"1280x720\"\n";

fn lens() -> Lens {
    Lens {
        camera_matrix: [880.0, 884.0, 640.0, 362.0],
        distortion: vec![-0.3, 0.1, 0.001, 0.0],
        size: Size::new(1280, 720),
        alpha: None,
    }
}

fn bent(id: &StreamId, frame: u64, captured: Timestamp) -> Frame {
    let picture = painted(PixelFormat::Nv12, SIZE, |plane, channel, x, y| {
        blots(frame * 8 + (plane + channel) as u64, x / 2.0, y / 2.0)
    });
    let pts = Timestamp::from_nanos(frame * 40_000_000);
    Frame::new(id.clone(), frame, pts, captured, picture.layout, MemoryKind::Host, Box::new(picture.pixels)).unwrap()
}

/// Keeps what the frames look like.
struct Kept(Arc<Mutex<Vec<Arc<Frame>>>>);

impl Sink for Kept {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        self.0.lock().unwrap().push(Arc::clone(result.picture()));
        Ok(())
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        Ok(SinkReport::default())
    }
}

fn through_a_lens(steps: &[Step]) -> Script {
    Script::described(&[("wide", FILE, &[steps])], &format!("[stream.lens]\n{LENS}[[sink]]\ntype = \"none\"\n"))
}

#[test]
fn all_that_follows_sees_straight_pictures() {
    let script = through_a_lens(&[Step::Frames(6)]).showing(bent).set_every_stream("interval", 2);
    let (mut parts, _) = script.parts();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    parts.open_sink = Box::new(move |_, _| Ok(Box::new(Kept(Arc::clone(&keeping)))));
    let summary = run(script.config(), parts, &StopFlag::new()).unwrap();

    let undistort = Undistort::new(&lens(), SIZE).unwrap();
    let kept = kept.lock().unwrap();
    assert_eq!(kept.iter().map(|frame| frame.sequence).collect::<Vec<_>>(), [0, 2, 4]);
    for frame in &*kept {
        let source = bent(&frame.stream, frame.sequence, frame.captured);
        let mut straight = Vec::new();
        undistort.apply(&source.view(), &mut straight).unwrap();
        assert_eq!(frame.pts, source.pts);
        assert!(frame.view().bytes() == straight, "frame {}", frame.sequence);
        assert!(source.view().bytes() != straight);
    }
    assert_eq!(summary.streams[0].copies_per_frame, 1.0);
}

#[test]
fn a_stream_of_another_shape_than_its_lens_ends_with_the_reason() {
    let (summary, _) = through_a_lens(&[Step::Frames(3)]).run();
    let error = summary.unwrap_err();
    let sentence = revoada_core::sentence_of(revoada_core::causes(&error));
    assert!(
        sentence.ends_with("the lens was calibrated at 1280×720, a picture of 16×16 has another shape"),
        "{sentence}"
    );
}
