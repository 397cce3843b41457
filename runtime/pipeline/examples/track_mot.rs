//! Tracks the detections of a MOTChallenge sequence, for evaluations.
//!
//!     track_mot DET [KEY=VALUE]…
//!
//! `DET` has rows of `frame, -1, left, top, width, height, score, …`, or with a class in the eighth column where
//! `classes=true` stands among the keys; the other keys are those of `[tracker]`. Standard output gets the results as
//! MOTChallenge wants them, `frame, id, left, top, width, height, score, -1, -1, -1`; standard error gets how long the
//! tracker needed, as `frames=… seconds=…`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufWriter, Write, stdout};
use std::time::{Duration, Instant};

use revoada_core::{Detection, Rect};
use revoada_pipeline::config::{Draft, TrackerConfig, Value};
use revoada_pipeline::track::{Step, Tracker};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: track_mot DET [KEY=VALUE]…")?;
    let (mut draft, mut classes) = (Draft::empty(), false);
    draft.add_stream("sequence.mp4");
    draft.set("model.path", "model.onnx");
    for argument in arguments {
        let (key, value) = argument.split_once('=').ok_or("expected KEY=VALUE")?;
        match key {
            "classes" => classes = value.parse()?,
            // What is no number, no switch and not quoted is a word.
            _ => draft.set(&format!("tracker.{key}"), value.parse().unwrap_or_else(|_| Value::from(value))),
        }
    }
    let config: TrackerConfig = draft.check()?.tracker.ok_or("no `algorithm=…`")?;
    let frames = read(&fs::read_to_string(&path)?, classes)?;
    let last = frames.keys().last().copied().unwrap_or(0);

    let mut tracker = Tracker::new(&config, 0);
    let mut out = BufWriter::new(stdout().lock());
    let mut spent = Duration::ZERO;
    for number in 1..=last {
        let mut found = frames.get(&number).cloned().unwrap_or_default();
        let started = Instant::now();
        tracker.update(&mut found, &Step::default());
        spent += started.elapsed();
        for Detection { track, score, bbox: Rect { x, y, width, height }, .. } in found {
            if let Some(id) = track {
                writeln!(out, "{number},{id},{x:.3},{y:.3},{width:.3},{height:.3},{score},-1,-1,-1")?;
            }
        }
    }
    out.flush()?;
    eprintln!("frames={last} seconds={}", spent.as_secs_f64());
    Ok(())
}

/// Detections by frame, in the order in which they stand.
fn read(text: &str, classes: bool) -> Result<BTreeMap<u64, Vec<Detection>>, Box<dyn Error>> {
    let mut frames: BTreeMap<u64, Vec<Detection>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<f32> = line.split(',').map(|field| field.trim().parse()).collect::<Result<_, _>>()?;
        let [frame, _, x, y, width, height, score, ref rest @ ..] = fields[..] else {
            return Err(format!("expected at least 7 columns, got `{line}`").into());
        };
        let class = if classes { rest.first().copied().ok_or("a row has no class")? as u32 } else { 0 };
        let bbox = Rect::new(x, y, width, height);
        frames.entry(frame as u64).or_default().push(Detection { class, score, bbox, ..Detection::default() });
    }
    Ok(frames)
}
