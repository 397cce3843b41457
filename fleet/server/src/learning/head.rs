//! The part of a classifier that devices learn: its last layer, or a small network in its place.
//!
//! Weights are named as `revoada learn` names them: `head.weight` and `head.bias`, before which may come `hidden.weight` and
//! `hidden.bias`; each weight has a row for each of its outputs.

use std::sync::Arc;

use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_federated::{Layout, Weights};

use super::plan::HeadPlan;

/// The weights to begin with: those that the model has where it tells the same apart in one layer, and small random ones where
/// it does not. With the labels in their order.
pub(super) fn first_weights(
    model: &[u8],
    manifest: &Manifest,
    plan: &HeadPlan,
) -> Result<(Weights, Vec<String>), String> {
    let model = OnnxModel::parse(model.to_vec()).map_err(|error| error.to_string())?;
    let split = model.split_head(None).map_err(|error| error.to_string())?;
    let (features, known) = (split.head.inputs(), &manifest.labels);
    let labels = if plan.labels.is_empty() { known.clone() } else { plan.labels.clone() };
    if labels.len() < 2 {
        return Err("there are fewer than two labels to tell apart: name them in the run".to_owned());
    }
    let classes = labels.len();
    let named = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let (layout, values) = match plan.settings.hidden {
        None if labels == *known && split.head.outputs() == classes => {
            let layout = [named(HEAD_WEIGHT, &[classes, features]), named(HEAD_BIAS, &[classes])];
            (layout.to_vec(), [split.head.weight(), split.head.bias()].concat())
        }
        None => {
            let layout = [named(HEAD_WEIGHT, &[classes, features]), named(HEAD_BIAS, &[classes])];
            // A line through nothing prefers no class, and learns as well from there as from anywhere.
            (layout.to_vec(), vec![0.0; (features + 1) * classes])
        }
        Some(hidden) => {
            let hidden = hidden as usize;
            let layout = [
                named(HIDDEN_WEIGHT, &[hidden, features]),
                named(HIDDEN_BIAS, &[hidden]),
                named(HEAD_WEIGHT, &[classes, hidden]),
                named(HEAD_BIAS, &[classes]),
            ];
            let mut values = uniform(hidden * features, features);
            values.extend(vec![0.0; hidden]);
            values.extend(uniform(classes * hidden, hidden));
            values.extend(vec![0.0; classes]);
            (layout.to_vec(), values)
        }
    };
    let layout = Layout::new(layout).map_err(|error| error.to_string())?;
    let weights = Weights::new(Arc::new(layout), values).map_err(|error| error.to_string())?;
    Ok((weights, labels))
}

/// Of a bundle, whose labels lie in it.
pub(super) fn read_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let text = str::from_utf8(bytes).map_err(|_| "its manifest is no text".to_owned())?;
    let no_file = |name: &str| Err(format!("a bundle has its labels in the manifest, and not in `{name}`"));
    Manifest::parse(revoada_bundle::bundle::MANIFEST, text, no_file).map_err(|error| error.to_string())
}

pub(super) const HEAD_WEIGHT: &str = "head.weight";
pub(super) const HEAD_BIAS: &str = "head.bias";
pub(super) const HIDDEN_WEIGHT: &str = "hidden.weight";
pub(super) const HIDDEN_BIAS: &str = "hidden.bias";

/// Wide enough for a layer of rectifiers (He et al., "Delving Deep into Rectifiers", 2015), the same in every run.
fn uniform(count: usize, inputs: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(0);
    let bound = (6.0 / inputs.max(1) as f64).sqrt();
    (0..count).map(|_| ((2.0 * random.f64() - 1.0) * bound) as f32).collect()
}
