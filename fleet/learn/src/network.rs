//! A head as candle computes with it.

use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::ops::log_softmax;
use revoada_federated::Weights;

use crate::examples::Examples;
use crate::head::{HeadError, HeadShape};

/// The tensors of a head, which gradients are asked of.
pub(crate) struct Network {
    shape: HeadShape,
    /// In the order of the shape's layout.
    variables: Vec<Var>,
}

impl Network {
    pub(crate) fn new(shape: HeadShape, weights: &Weights) -> std::result::Result<Self, NetworkError> {
        let mut variables = Vec::new();
        for (wanted, sides) in shape.layout()?.tensors() {
            let values = weights.tensors().find(|(name, found, _)| name == wanted && found == sides);
            let (_, _, values) = values.ok_or_else(|| {
                let reason = format!("there is no `{wanted}` of shape {sides:?}");
                NetworkError::Head(HeadError::NotAHead { reason })
            })?;
            variables.push(Var::from_vec(values.to_vec(), sides.as_slice(), &Device::Cpu)?);
        }
        Ok(Self { shape, variables })
    }

    pub(crate) fn variables(&self) -> &[Var] {
        &self.variables
    }

    /// One number for each class and row, before any softmax.
    pub(crate) fn answers(&self, rows: &Tensor) -> Result<Tensor> {
        let mut rows = rows.clone();
        for (index, layer) in self.variables.chunks_exact(2).enumerate() {
            if index > 0 {
                rows = rows.relu()?;
            }
            let [weight, bias] = layer else { unreachable!("layers are cut into pairs") };
            rows = rows.matmul(&weight.as_tensor().t()?)?.broadcast_add(bias.as_tensor())?;
        }
        Ok(rows)
    }

    /// The cross-entropy of each row: how little is expected of its class.
    pub(crate) fn losses(&self, batch: &Batch) -> Result<Tensor> {
        let expected = log_softmax(&self.answers(&batch.rows)?, D::Minus1)?;
        expected.gather(&batch.classes.unsqueeze(1)?, 1)?.squeeze(1)?.neg()
    }

    pub(crate) fn weights(&self) -> std::result::Result<Weights, NetworkError> {
        let layout = self.shape.layout()?;
        let mut values = Vec::with_capacity(layout.count());
        for variable in &self.variables {
            values.extend(variable.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(Weights::new(layout, values).expect("the variables have the layout's shapes"))
    }
}

/// Some examples as tensors.
pub(crate) struct Batch {
    pub(crate) rows: Tensor,
    pub(crate) classes: Tensor,
}

impl Batch {
    pub(crate) fn of(examples: &Examples, indices: &[usize]) -> Result<Self> {
        let mut values = Vec::with_capacity(indices.len() * examples.features());
        indices.iter().for_each(|index| values.extend_from_slice(examples.row(*index)));
        let classes: Vec<u32> = indices.iter().map(|index| examples.class(*index)).collect();
        let rows = Tensor::from_vec(values, (indices.len(), examples.features()), &Device::Cpu)?;
        Ok(Self { rows, classes: Tensor::from_vec(classes, indices.len(), &Device::Cpu)? })
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Compute(#[from] candle_core::Error),
}
