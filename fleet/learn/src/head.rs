//! The part of a classifier that is trained: one layer, or two with a ReLU between them.

use std::sync::Arc;

use revoada_bundle::onnx::Linear;
use revoada_federated::{Layout, LayoutError, Weights};
use thiserror::Error;

const HEAD: [&str; 2] = ["head.weight", "head.bias"];
const HIDDEN: [&str; 2] = ["hidden.weight", "hidden.bias"];
/// Of features, classes and hidden numbers: more than any classifier has.
const SIDE_MAX: usize = 1 << 20;

/// How wide the layers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    pub features: usize,
    /// Of the layer in between, where there is one.
    pub hidden: Option<usize>,
    pub classes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    #[error("a head of {features} features, {classes} classes and {} hidden numbers cannot be trained: each has to be 1 to {SIDE_MAX}", hidden.map_or("no".to_owned(), |hidden| hidden.to_string()))]
    Shape { features: usize, hidden: Option<usize>, classes: usize },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("the weights are no head's: {reason}")]
    NotAHead { reason: String },
}

impl HeadShape {
    /// Names and shapes of the weights, as they travel. Each weight is `[outputs, inputs]`.
    pub fn layout(&self) -> Result<Arc<Layout>, HeadError> {
        let &Self { features, hidden, classes } = self;
        let fits = |side: usize| (1..=SIDE_MAX).contains(&side);
        if !fits(features) || !fits(classes) || !hidden.is_none_or(fits) {
            return Err(HeadError::Shape { features, hidden, classes });
        }
        let layer = |names: [&str; 2], inputs: usize, outputs: usize| {
            let [weight, bias] = names.map(str::to_owned);
            [(weight, vec![outputs, inputs]), (bias, vec![outputs])]
        };
        let mut tensors = Vec::new();
        if let Some(hidden) = hidden {
            tensors.extend(layer(HIDDEN, features, hidden));
        }
        tensors.extend(layer(HEAD, hidden.unwrap_or(features), classes));
        Ok(Arc::new(Layout::new(tensors)?))
    }

    /// The shape of weights in whichever order; refused where they are no head's.
    pub fn of(layout: &Layout) -> Result<Self, HeadError> {
        let find = |name: &str| layout.tensors().iter().find(|(known, _)| known == name).map(|(_, shape)| shape);
        let sides = |name: &str| match find(name).map(Vec::as_slice) {
            Some(&[outputs, inputs]) => Ok(Some((outputs, inputs))),
            Some(shape) => Err(HeadError::NotAHead { reason: format!("`{name}` has the shape {shape:?}") }),
            None => Ok(None),
        };
        let not_a_head = |reason: String| HeadError::NotAHead { reason };
        let (classes, width) = sides(HEAD[0])?.ok_or_else(|| not_a_head(format!("there is no `{}`", HEAD[0])))?;
        let shape = match sides(HIDDEN[0])? {
            Some((hidden, _)) if hidden != width => {
                return Err(not_a_head(format!("`{}` takes {width} numbers of {hidden}", HEAD[0])));
            }
            Some((hidden, features)) => Self { features, hidden: Some(hidden), classes },
            None => Self { features: width, hidden: None, classes },
        };
        let by_name = |layout: &Layout| {
            let mut tensors = layout.tensors().to_vec();
            tensors.sort();
            tensors
        };
        match by_name(&*shape.layout()?) == by_name(layout) {
            true => Ok(shape),
            false => Err(not_a_head(format!("a head of {} classes has other tensors", shape.classes))),
        }
    }

    /// Weights to begin with where there are none. Those of each layer are uniform within ±√(6 / inputs) before a ReLU, after
    /// He et al. (2015), and ±√(3 / inputs) at the end; biases are zero. The same seed gives the same weights.
    pub fn seeded(&self, seed: u64) -> Result<Weights, HeadError> {
        let layout = self.layout()?;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut values = Vec::with_capacity(layout.count());
        for (name, shape) in layout.tensors() {
            let count: usize = shape.iter().product();
            match shape.as_slice() {
                [_, inputs] => {
                    let gain: f32 = if name == HIDDEN[0] { 6.0 } else { 3.0 };
                    let bound = (gain / *inputs as f32).sqrt();
                    values.extend((0..count).map(|_| (random.f32() * 2.0 - 1.0) * bound));
                }
                _ => values.extend(std::iter::repeat_n(0.0, count)),
            }
        }
        Ok(Weights::new(layout, values).expect("each tensor got as many numbers as it has"))
    }
}

/// The layers that a model takes in the place of its head.
pub fn layers(weights: &Weights) -> Result<Vec<Linear>, HeadError> {
    let shape = HeadShape::of(weights.layout())?;
    let tensor = |wanted: &str| {
        let mut tensors = weights.tensors();
        tensors.find(|(name, ..)| *name == wanted).map(|(_, _, values)| values.to_vec())
    };
    let layer = |[weight, bias]: [&str; 2], inputs: usize| {
        let (weight, bias) = (tensor(weight)?, tensor(bias)?);
        Linear::new(inputs, weight, bias).ok()
    };
    let layers = match shape.hidden {
        None => vec![layer(HEAD, shape.features)],
        Some(hidden) => vec![layer(HIDDEN, shape.features), layer(HEAD, hidden)],
    };
    Ok(layers.into_iter().map(|layer| layer.expect("the shape of each tensor was looked at")).collect())
}

/// The weights of a head that a model has already.
pub fn weights_of(head: &Linear) -> Result<Weights, HeadError> {
    let shape = HeadShape { features: head.inputs(), hidden: None, classes: head.outputs() };
    let values = [head.weight(), head.bias()].concat();
    Ok(Weights::new(shape.layout()?, values).expect("a layer has as many numbers as its shape says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: HeadShape = HeadShape { features: 3, hidden: None, classes: 2 };
    const DEEP: HeadShape = HeadShape { features: 3, hidden: Some(4), classes: 2 };

    #[test]
    fn a_shape_is_told_from_the_names_in_any_order() {
        for shape in [LINEAR, DEEP] {
            let layout = shape.layout().unwrap();
            assert_eq!(HeadShape::of(&layout), Ok(shape));
            let backwards = Layout::new(layout.tensors().iter().rev().cloned()).unwrap();
            assert_eq!(HeadShape::of(&backwards), Ok(shape));
        }
        let names: Vec<String> = DEEP.layout().unwrap().tensors().iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, ["hidden.weight", "hidden.bias", "head.weight", "head.bias"]);
    }

    #[test]
    fn what_is_no_head_is_refused_by_its_name() {
        let of = |tensors: &[(&str, &[usize])]| {
            let tensors = tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec()));
            HeadShape::of(&Layout::new(tensors).unwrap()).unwrap_err().to_string()
        };
        assert_eq!(of(&[("w", &[1])]), "the weights are no head's: there is no `head.weight`");
        assert_eq!(of(&[("head.weight", &[6])]), "the weights are no head's: `head.weight` has the shape [6]");
        let other = of(&[("head.weight", &[2, 3]), ("head.bias", &[3])]);
        assert_eq!(other, "the weights are no head's: a head of 2 classes has other tensors");
        let broken = of(&[("hidden.weight", &[4, 3]), ("head.weight", &[2, 3])]);
        assert_eq!(broken, "the weights are no head's: `head.weight` takes 3 numbers of 4");
        let empty = HeadShape { classes: 0, ..DEEP }.layout().unwrap_err();
        assert!(matches!(empty, HeadError::Shape { hidden: Some(4), .. }), "{empty}");
    }

    #[test]
    fn a_seed_gives_the_same_weights_again_and_biases_of_zero() {
        let weights = DEEP.seeded(7).unwrap();
        assert_eq!(weights, DEEP.seeded(7).unwrap());
        assert_ne!(weights, DEEP.seeded(8).unwrap());
        let layers = layers(&weights).unwrap();
        assert!(layers.iter().all(|layer| layer.bias().iter().all(|bias| *bias == 0.0)));
        assert!(layers[0].weight().iter().all(|weight| weight.abs() <= 2f32.sqrt()));
    }

    #[test]
    fn weights_and_layers_are_the_same_numbers() {
        let weights = LINEAR.seeded(1).unwrap();
        let [head] = layers(&weights).unwrap().try_into().unwrap();
        assert_eq!(weights_of(&head), Ok(weights));
        assert_eq!(layers(&DEEP.seeded(1).unwrap()).unwrap().len(), 2);
    }
}
