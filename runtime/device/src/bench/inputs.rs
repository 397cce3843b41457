//! What is fed to a model that is measured.

use std::collections::BTreeMap;

use revoada_core::{DType, Tensor, TensorSpec, f16};
use revoada_engine::{Engine, Session, Shapes};

use crate::failure::Misuse;
use crate::shapes;

/// A session whose inputs are filled, and what with.
pub(crate) struct Filled {
    pub(crate) session: Box<dyn Session>,
    tensors: Vec<Tensor>,
}

impl Filled {
    /// Sessions of different seeds get different numbers.
    pub(crate) fn open(engine: &dyn Engine, shapes: &Shapes, seed: u64) -> anyhow::Result<Self> {
        let inputs = engine.inputs().iter();
        let tensors = inputs.map(|input| noise(input.dtype, &shapes.inputs[&input.name], seed));
        let mut filled = Self { session: engine.session(shapes)?, tensors: tensors.collect::<anyhow::Result<_>>()? };
        filled.set()?;
        Ok(filled)
    }

    /// Sets all inputs again.
    pub(crate) fn set(&mut self) -> anyhow::Result<()> {
        for (index, tensor) in self.tensors.iter().enumerate() {
            self.session.set_input(index, tensor.as_ref())?;
        }
        Ok(())
    }
}

/// Declared shapes with the batch in front, except where `--shape` says otherwise.
pub(crate) fn shapes_for(
    inputs: &[TensorSpec],
    fixed: &BTreeMap<String, Vec<usize>>,
    rows: usize,
) -> anyhow::Result<Shapes> {
    shapes::check_names(inputs, fixed)?;
    let mut shapes = Shapes::rows(rows);
    for input in inputs {
        let shape = match fixed.get(&input.name) {
            Some(shape) => {
                let mut shape = shape.clone();
                // The batch of `--batch` goes over the one in `--shape` where the model leaves it open.
                if input.dims.first().is_some_and(|dim| dim.fixed().is_none()) && !shape.is_empty() {
                    shape[0] = rows;
                }
                shape
            }
            None => declared_shape(input, rows)?,
        };
        shapes = shapes.with(&input.name, &shape);
    }
    Ok(shapes)
}

fn declared_shape(input: &TensorSpec, rows: usize) -> anyhow::Result<Vec<usize>> {
    input
        .dims
        .iter()
        .enumerate()
        .map(|(index, dim)| match dim.fixed() {
            Some(size) => Ok(size),
            None if index == 0 => Ok(rows),
            None => {
                let question: Vec<String> = input.dims.iter().map(ToString::to_string).collect();
                let text = format!(
                    "input `{input}` leaves `{dim}` open; say how large it is with `--shape {}={}`",
                    input.name,
                    question.join("x")
                );
                Err(Misuse(text).into())
            }
        })
        .collect()
}

/// Values between 0 and 1 (whole bytes for u8, zeros for indices): a network fed with nothing but
/// zeros can be faster than on pictures.
fn noise(dtype: DType, shape: &[usize], seed: u64) -> anyhow::Result<Tensor> {
    let mut tensor = Tensor::zeros(dtype, shape.to_vec())?;
    // Marsaglia's xorshift64: any nonzero start has the full period.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    if let Some(values) = tensor.as_mut_slice::<f32>() {
        values.fill_with(|| f32::from(next()) / 255.0);
    } else if let Some(values) = tensor.as_mut_slice::<f16>() {
        values.fill_with(|| f16::from_f32(f32::from(next()) / 255.0));
    } else if let Some(values) = tensor.as_mut_slice::<u8>() {
        values.fill_with(next);
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use revoada_core::Dim;

    fn picture() -> TensorSpec {
        TensorSpec {
            name: "images".into(),
            dtype: DType::F32,
            dims: vec![Dim::Dynamic("N".into()), Dim::Fixed(3), Dim::Dynamic("H".into()), Dim::Dynamic("W".into())],
        }
    }

    #[test]
    fn an_open_dimension_is_asked_for_by_name() {
        let error = shapes_for(&[picture()], &BTreeMap::new(), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "input `images f32[N,3,H,W]` leaves `H` open; say how large it is with `--shape images=Nx3xHxW`"
        );
    }

    #[test]
    fn the_batch_of_the_command_line_wins_over_that_of_a_shape() {
        let fixed = shapes::parse(&["images=1x3x64x32".to_owned()]).unwrap();
        let shapes = shapes_for(&[picture()], &fixed, 4).unwrap();
        assert_eq!(shapes.inputs["images"], [4, 3, 64, 32]);
    }
}
