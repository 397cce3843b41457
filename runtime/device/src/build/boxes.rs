//! Whether a converted detector finds what the original finds.

use std::sync::Arc;

use revoada_builder::compare::{BoxAgreement, Thresholds};
use revoada_builder::convert::{ConvertError, Converted, Refusal};
use revoada_builder::{BuilderError, emulate};
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_core::{Detection, Frame};
use revoada_engine::{Backend, Engine, LoadOptions, ModelSource};
use revoada_pipeline::decode::Decoders;
use revoada_pipeline::run::{Model, SystemClock};
use tracing::debug;

use super::evidence::Evidence;

/// Boxes that share so much of their union are the same box.
const IOU_MIN: f32 = 0.5;

/// A model on a backend.
pub(super) struct Loaded {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) engine: Arc<dyn Engine>,
}

/// Adds the agreement of boxes to the report, and holds it against the bound. A model that is no detector, or
/// that cannot be read as one, is left as it is unless a bound was asked for.
pub(crate) fn judge(
    boxes_min: Option<f64>,
    model: &OnnxModel,
    manifest: &Manifest,
    backend: &Arc<dyn Backend>,
    evidence: &Evidence,
    mut converted: Converted,
) -> Result<Converted, ConvertError> {
    let emulated = emulate(&converted.model).map_err(BuilderError::from)?;
    let load = |model: &OnnxModel| {
        let engine = backend.load(ModelSource::Bytes(&model.encode()), &LoadOptions::default());
        engine.map(|engine| Loaded { backend: Arc::clone(backend), engine }).map_err(BuilderError::from)
    };
    if !evidence.frames().is_empty() {
        let (original, candidate) = (load(model)?, load(&emulated)?);
        converted.accuracy.comparison.boxes = agreement(&original, &candidate, manifest, evidence.frames());
    }
    let thresholds = Thresholds { boxes_min, ..converted.accuracy.thresholds.clone() };
    converted.accuracy.failures = converted.accuracy.comparison.failures(&thresholds);
    converted.accuracy.thresholds = thresholds;
    match converted.accuracy.failures.is_empty() {
        true => Ok(converted),
        false => Err(ConvertError::Refused(Box::new(Refusal { accuracy: converted.accuracy, proposal: None }))),
    }
}

/// How far both find the same boxes; `None` where neither finds any, or they cannot be read as detectors.
pub(super) fn agreement(
    original: &Loaded,
    candidate: &Loaded,
    manifest: &Manifest,
    frames: &[Arc<Frame>],
) -> Option<BoxAgreement> {
    let found = detections(original, manifest, frames)
        .and_then(|original| Ok((original, detections(candidate, manifest, frames)?)));
    let (original, candidate) = match found {
        Ok(found) => found,
        Err(error) => {
            debug!("not compared as a detector: {error:#}");
            return None;
        }
    };
    let mut agreement = BoxAgreement::default();
    for (original, candidate) in original.iter().zip(&candidate) {
        agreement.add(original, candidate, IOU_MIN);
    }
    (agreement != BoxAgreement::default()).then_some(agreement)
}

/// What the model finds in each picture.
fn detections(model: &Loaded, manifest: &Manifest, frames: &[Arc<Frame>]) -> anyhow::Result<Vec<Vec<Detection>>> {
    let Loaded { backend, engine } = model;
    let decoders = Decoders::standard();
    let model = Model::new("model".to_owned(), Arc::clone(backend), Arc::clone(engine), manifest.clone(), &decoders)?;
    let mut session = model.session(1)?;
    let clock = SystemClock::start();
    frames
        .iter()
        .map(|frame| {
            let answers = session.run(std::slice::from_ref(frame), &clock)?;
            Ok(answers.into_iter().flat_map(|answer| answer.prediction.detections).collect())
        })
        .collect()
}
