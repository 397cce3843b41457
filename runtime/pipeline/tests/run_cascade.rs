//! Models behind the first one: what they say of objects and frames, how often they are asked, and tiles.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::path::Path;

use fakes::{FILE, Script, Step};
use revoada_pipeline::run::{Parts, RunError, RunSummary, StopFlag, run};
use revoada_pipeline::sink::{self, record::FrameRecord, record::Record};

/// Frames of one stream whose first model sees one object that walks, and what the further models are.
struct Cascade {
    folder: tempfile::TempDir,
    script: Script,
}

impl Cascade {
    fn new(streams: &[(&str, &str, &[&[Step]])], secondaries: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("objects.txt"), "walker\n").unwrap();
        std::fs::write(path("shades.txt"), "black\ngrey\nwhite\n").unwrap();
        let (results, shades) = (path("results.jsonl"), path("shades.txt"));
        let secondaries = secondaries.replace("SHADES", &format!("path = \"shade.onnx\"\nlabels = {shades:?}"));
        let script =
            Script::described(streams, &format!("{secondaries}[[sink]]\ntype = \"jsonl\"\npath = {results:?}\n"));
        let labels = path("objects.txt").display().to_string();
        let script = script.set("model.decoder", "walker").set("model.labels", labels);
        Self { folder, script }
    }

    fn run(&self) -> Result<(RunSummary, Vec<FrameRecord>), RunError> {
        let (parts, _) = self.script.parts();
        let parts = Parts { open_sink: Box::new(sink::open), ..parts };
        let summary = run(self.script.config(), parts, &StopFlag::new())?;
        Ok((summary, frames(&self.folder.path().join("results.jsonl"))))
    }
}

fn frames(path: &Path) -> Vec<FrameRecord> {
    let text = std::fs::read_to_string(path).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    records.filter_map(|record| if let Record::Frame(frame) = record { Some(frame) } else { None }).collect()
}

const TEN: [(&str, &str, &[&[Step]]); 1] = [("front", FILE, &[&[Step::Frames(10)]])];

fn attribute(frame: &FrameRecord) -> Option<(&str, &str)> {
    let attribute = frame.detections[0].attributes.first()?;
    Some((attribute.name.as_str(), attribute.value.as_str()))
}

#[test]
fn a_track_is_asked_about_once_and_remembered() {
    let cascade =
        Cascade::new(&TEN, "[[secondary]]\nSHADES\nname = \"shade\"\ndecoder = \"shade\"\nsize_min = \"1x1\"\n");
    let (summary, frames) = cascade.run().unwrap();
    assert_eq!(frames.len(), 10);
    assert!(frames[1..].iter().all(|frame| attribute(frame) == Some(("shade", "black"))), "{frames:#?}");
    let said = &summary.secondaries[0];
    assert_eq!((said.name.as_str(), said.asked, said.skipped), ("shade", 1, 0));
    // In the first frame the object stands above the picture's edge.
    assert_eq!((attribute(&frames[0]), said.remembered), (None, 8));
}

#[test]
fn a_track_is_asked_about_again_after_so_many_frames() {
    let cascade = Cascade::new(&TEN, "[[secondary]]\nSHADES\nevery = 4\ndecoder = \"shade\"\nsize_min = \"1x1\"\n");
    let (summary, frames) = cascade.run().unwrap();
    let values: Vec<_> = frames[1..].iter().map(|frame| attribute(frame).unwrap().1).collect();
    let (black, grey, white) = ("black", "grey", "white");
    assert_eq!(values, [black, black, black, black, grey, grey, grey, grey, white]);
    assert_eq!(summary.secondaries[0].asked, 3);
}

#[test]
fn only_objects_of_the_named_classes_and_sizes_are_asked_about() {
    for (rules, asked) in [
        ("size_min = \"1x1\"\non = [\"walker\"]", 1),
        ("size_min = \"5x1\"", 0),
        ("size_min = \"1x1\"\nsize_max = \"3x9\"", 0),
    ] {
        let cascade = Cascade::new(&TEN, &format!("[[secondary]]\nSHADES\ndecoder = \"shade\"\n{rules}\n"));
        assert_eq!(cascade.run().unwrap().0.secondaries[0].asked, asked, "{rules}");
    }
}

/// The second model finds boxes in the objects of the first one; a third names those.
#[test]
fn what_is_found_in_an_object_joins_the_frame_and_can_be_asked_about() {
    let text = "[[secondary]]\nSHADES\ndecoder = \"walker\"\nsize_min = \"1x1\"\n\
                [[secondary]]\nSHADES\ndecoder = \"shade\"\non = [\"black\"]\nsize_min = \"1x1\"\n";
    let (summary, frames) = Cascade::new(&TEN, text).run().unwrap();
    let last = frames.last().unwrap();
    assert_eq!(last.detections.len(), 2);
    let inner = &last.detections[1];
    assert_eq!((inner.class, inner.label.as_deref(), inner.parent), (1, Some("black"), Some(0)));
    assert_eq!(inner.attributes[0].value, "black");
    assert!(last.detections[0].attributes.is_empty());
    let asked: Vec<u64> = summary.secondaries.iter().map(|secondary| secondary.asked).collect();
    // A model that finds boxes is asked in every frame that shows the object.
    assert_eq!(asked, [9, 1]);
}

#[test]
fn a_model_that_reads_frames_finds_more_in_every_nth() {
    let text = "[[secondary]]\nSHADES\ndecoder = \"walker\"\nreads = \"frames\"\nevery = 3\n";
    let streams = [TEN[0], ("back", FILE, &[&[Step::Frames(10)] as &[Step]] as &[&[Step]])];
    let cascade = Cascade::new(&streams, text);
    let (summary, frames) = Cascade { script: cascade.script.set("batch.frames_max", 4), ..cascade }.run().unwrap();
    for frame in &frames {
        let expected = if frame.frame.is_multiple_of(3) { 2 } else { 1 };
        assert_eq!(frame.detections.len(), expected, "{} {}", frame.stream, frame.frame);
        assert!(frame.detections[expected - 1].class as usize == expected - 1);
    }
    assert_eq!((frames.len(), summary.secondaries[0].asked), (20, 8));
}

#[test]
fn a_model_that_has_no_place_is_refused_by_name() {
    for (text, expected) in [
        (
            "[[secondary]]\nSHADES\ndecoder = \"shade\"\non = [\"wolker\"]\n",
            "model `shade` cannot be a further one: no model before it finds `wolker`; the nearest class is `walker`",
        ),
        (
            "[[secondary]]\npath = \"eyes.onnx\"\ndecoder = \"walker\"\n",
            "model `eyes` cannot be a further one: `eyes` has no labels, so that their classes cannot be told apart; give \
             it labels in its manifest",
        ),
        ("[[secondary]]\npath = \"missing.onnx\"\n", "fake cannot load missing: it is not there"),
    ] {
        let error = Cascade::new(&TEN, text).run().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

/// Four tiles and the whole picture: five rows of an inference for each frame.
#[test]
fn a_frame_in_tiles_has_one_answer() {
    let cascade = Cascade::new(&TEN, "");
    let script = cascade.script.set("model.tiles.columns", 2).set("model.tiles.rows", 2).set("batch.frames_max", 3);
    let (summary, frames) = Cascade { script, ..cascade }.run().unwrap();
    assert_eq!((frames.len(), summary.frames_out), (10, 10));
    assert!(frames.iter().all(|frame| frame.detections.len() == 1), "every tile sees the same object");
}

#[test]
fn what_is_no_box_cannot_be_put_together_from_tiles() {
    let cascade = Cascade::new(&TEN, "");
    let script = cascade.script.set("model.decoder", "shade");
    let script = script.set("model.tiles.columns", 2).set("model.tiles.rows", 2);
    let error = Cascade { script, ..cascade }.run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "model `fake` answers as `shade`, which cannot be put together from tiles; only boxes can"
    );
}
