//! How right a head is about examples whose classes are known.

use revoada_federated::Weights;
use serde::Serialize;

use crate::examples::Examples;
use crate::head::HeadShape;
use crate::network::{Batch, Network};
use crate::train::TrainError;

/// So many at once, that a large set takes no more memory than a small one.
const ROWS_MAX: usize = 256;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    pub examples: usize,
    /// The mean cross-entropy, in nats.
    pub loss: f64,
    /// The share whose best class is theirs.
    pub accuracy: f64,
    /// By class.
    pub classes: Vec<ClassCounts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClassCounts {
    /// Of this class.
    pub examples: usize,
    /// Of this class, and taken for it.
    pub right: usize,
    /// Of whichever class, and taken for this one.
    pub predicted: usize,
}

/// Judges a head by all examples; without any there is nothing to say.
pub fn evaluate(weights: &Weights, examples: &Examples) -> Result<Option<Evaluation>, TrainError> {
    let shape = HeadShape::of(weights.layout())?;
    crate::train::check_examples(&shape, examples)?;
    let network = Network::new(shape, weights)?;
    judge(&shape, &network, examples, &(0..examples.len()).collect::<Vec<_>>())
}

pub(crate) fn judge(
    shape: &HeadShape,
    network: &Network,
    examples: &Examples,
    indices: &[usize],
) -> Result<Option<Evaluation>, TrainError> {
    let mut classes = vec![ClassCounts::default(); shape.classes];
    let mut loss = 0.0;
    for some in indices.chunks(ROWS_MAX) {
        let batch = Batch::of(examples, some)?;
        loss += network.losses(&batch)?.to_vec1::<f32>()?.into_iter().map(f64::from).sum::<f64>();
        let answers = network.answers(&batch.rows)?.to_vec2::<f32>()?;
        for (index, answer) in some.iter().zip(answers) {
            let (class, best) = (examples.class(*index) as usize, best(&answer));
            classes[class].examples += 1;
            classes[class].right += usize::from(class == best);
            classes[best].predicted += 1;
        }
    }
    if indices.is_empty() {
        return Ok(None);
    }
    let right: usize = classes.iter().map(|class| class.right).sum();
    let count = indices.len() as f64;
    Ok(Some(Evaluation { examples: indices.len(), loss: loss / count, accuracy: right as f64 / count, classes }))
}

/// The first of the largest.
fn best(answer: &[f32]) -> usize {
    let better = |best: usize, index: usize| if answer[index] > answer[best] { index } else { best };
    (0..answer.len()).fold(0, better)
}
