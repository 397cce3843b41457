//! What virtual devices learn: what they were given and a little more, so that it is known to the last bit what has to come of
//! a round.

use std::collections::BTreeMap;
use std::sync::Arc;

use revoada_bundle::bundle::{FileRecord, Index, Lineage, MANIFEST, MODEL, Precision};
use revoada_bundle::hash;
use revoada_bundle::onnx::{Attribute, GraphBuilder};
use revoada_core::{DType, TensorRef};
use revoada_federated::Weights;

use super::faults::Fate;

/// The head that is learned: as large as that of a small network for photographs.
const FEATURES: usize = 1280;
const CLASSES: usize = 10;
/// Steps are this part of one, or so many of it, so that numbers of a few bits are added.
const STEPS: u64 = 1 << 16;
const EXAMPLES_MAX: f64 = 100.0;
/// Not all numbers of a head get the same step: they would hide that some were exchanged.
const STRIDE: usize = 3;

/// A round of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lesson {
    pub(super) run: u64,
    pub(super) round: u64,
}

/// What a device learns in a round. A double has room for sums of such numbers, so that their order does not matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Learned {
    step: f32,
    pub(super) examples: u64,
}

impl Learned {
    /// No two of so many devices learn the same.
    pub(super) fn of(fate: &Fate, index: usize, round: u64) -> Self {
        let step = 1 + (index as u64).wrapping_add(round) % STEPS;
        let examples = 1 + (fate.draw(10, round) * EXAMPLES_MAX) as u64;
        Self { step: step as f32 / STEPS as f32, examples }
    }

    fn number(&self, place: usize, base: f32) -> f32 {
        base + self.step * (1 + place % STRIDE) as f32
    }

    /// The weights after it.
    pub(super) fn weights(&self, base: &Weights) -> Weights {
        let values = base.values().iter().enumerate().map(|(place, base)| self.number(place, *base));
        Weights::new(Arc::clone(base.layout()), values.collect()).expect("there is a number for each")
    }
}

/// What is to come of a round: the mean by examples.
pub(super) fn mean(base: &Weights, learned: &[Learned]) -> Vec<f32> {
    let examples: u64 = learned.iter().map(|learned| learned.examples).sum();
    let mean = |(place, base): (usize, &f32)| {
        let sum: f64 = learned.iter().map(|it| it.examples as f64 * f64::from(it.number(place, *base))).sum();
        (sum / examples as f64) as f32
    };
    base.values().iter().enumerate().map(mean).collect()
}

/// A classifier whose head knows nothing yet, as a bundle: its files, of which the last is the index.
pub(super) fn classifier(name: &str) -> Vec<Vec<u8>> {
    let weight = vec![0_f32; CLASSES * FEATURES];
    let shape = [CLASSES, FEATURES];
    let tensor = TensorRef::of(&shape, &weight).expect("there is a number for each place");
    let model = GraphBuilder::new(name)
        .input("features", DType::F32, &format!("N,{FEATURES}"))
        .initializer("weight", tensor)
        .initializer("bias", TensorRef::of(&[CLASSES], &[0_f32; CLASSES]).expect("there is one for each class"))
        .node("Relu", &["features"], &["used"])
        .node_with("Gemm", &["used", "weight", "bias"], &["classes"], &[("transB", Attribute::Int(1))])
        .output("classes", DType::F32, &format!("N,{CLASSES}"))
        .encode();
    let labels: Vec<String> = (0..CLASSES).map(|class| format!("\"class {class}\"")).collect();
    let manifest = format!(
        "version = 1\nname = \"{name}\"\nlabels = [{}]\n[input]\nsize = [1, 1]\n[output]\ndecoder = \"classification\"\n",
        labels.join(", ")
    );
    let manifest = manifest.into_bytes();
    let record = |bytes: &[u8]| FileRecord { bytes: bytes.len() as u64, sha256: hash(bytes) };
    let index = Index {
        version: 1,
        name: name.to_owned(),
        precision: Precision::Fp32,
        producer: "a simulation".to_owned(),
        licence: None,
        lineage: Lineage::default(),
        files: BTreeMap::from([(MODEL.to_owned(), record(&model)), (MANIFEST.to_owned(), record(&manifest))]),
    };
    let index = serde_json::to_vec_pretty(&index).expect("it is plain data");
    vec![model, manifest, index]
}

#[cfg(test)]
mod tests {
    use revoada_federated::{Contribution, Layout, Mean};

    use super::*;
    use crate::simulate::Faults;

    #[test]
    fn a_mean_of_what_devices_learn_is_the_same_in_every_order() {
        let layout = Arc::new(Layout::new([("w".to_owned(), vec![7])]).unwrap());
        let learned: Vec<Learned> =
            (0..5000).map(|index| Learned::of(&Fate::of(Faults::None, 3, index), index, 1)).collect();
        let mut base = Weights::zeros(Arc::clone(&layout));
        for _ in 0..3 {
            let next = mean(&base, &learned);
            let mut backwards = Mean::new(Arc::clone(&layout));
            for learned in learned.iter().rev() {
                backwards.fold(&Contribution::Full(learned.weights(&base)), learned.examples).unwrap();
            }
            base = backwards.finish(&base).unwrap();
            assert_eq!(base.values(), next);
        }
        assert!(base.values()[0] < base.values()[1]);
    }
}
