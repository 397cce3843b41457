//! Inputs for a model that takes pictures.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use revoada_bundle::manifest::InputManifest;
use revoada_core::{DType, Dim, Frame, Placement, Rect, Tensor, TensorSpec, f16};
use revoada_engine::{EngineError, PictureInput, StageTarget, Stager, picture_input};

use crate::Samples;

/// Pictures, staged into the model's input when they are asked for exactly as at run time, one a batch.
pub struct Pictures {
    frames: Vec<Arc<Frame>>,
    input: PictureInput,
}

impl Pictures {
    /// Refuses a model with other inputs beside the picture: nobody knows what would be in them.
    pub fn new(inputs: &[TensorSpec], manifest: &InputManifest, frames: Vec<Arc<Frame>>) -> Result<Self, EngineError> {
        let input = picture_input(inputs, manifest)?;
        match inputs.iter().enumerate().find(|(index, _)| *index != input.index) {
            None => Ok(Self { frames, input }),
            Some((_, other)) => Err(EngineError::NotAPicture {
                spec: other.to_string(),
                reason: "only models with one input can be compared on pictures".to_owned(),
            }),
        }
    }

    /// Where the picture of a sample lies in the network's input, for decoding answers.
    pub fn placement(&self, index: usize) -> Placement {
        Placement::new(whole(&self.frames[index]), &self.input.transform)
    }
}

impl Samples for Pictures {
    fn count(&self) -> usize {
        self.frames.len()
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Box<dyn Error + Send + Sync>> {
        let rows = self.input.rows_fixed.unwrap_or(1);
        let shape = self.input.shape(rows);
        let (elements, row) = (shape.iter().product(), shape[1..].iter().product());
        let view = self.frames[index].view();
        let placement = self.placement(index);
        let mut stager = Stager::new();
        // Every row of a fixed batch shows the same picture.
        macro_rules! staged {
            ($zero:expr, $target:path) => {{
                let mut data = vec![$zero; elements];
                for row in data.chunks_exact_mut(row) {
                    stager.stage(&view, &placement, &self.input.transform, $target(row));
                }
                Tensor::of(shape.to_vec(), data)?
            }};
        }
        let tensor = match self.input.dtype {
            DType::F16 => staged!(f16::ZERO, StageTarget::F16),
            DType::U8 => staged!(0u8, StageTarget::U8),
            _ => staged!(0f32, StageTarget::F32),
        };
        Ok(Cow::Owned(vec![tensor]))
    }
}

fn whole(frame: &Frame) -> Rect {
    let size = frame.size();
    Rect::new(0.0, 0.0, size.width as f32, size.height as f32)
}

/// Numbers that stand in for pictures where there are none: evenly spread, the same every time. They find
/// overflow and rounding, and say little of how good a model's answers are.
#[derive(Clone, Debug)]
pub struct Noise {
    inputs: Vec<TensorSpec>,
    shapes: Vec<Vec<usize>>,
    /// What pixels of 0 and 255 become.
    range: (f32, f32),
    count: usize,
}

impl Noise {
    /// For `count` samples of one row. Open dimensions of a picture are those of the manifest.
    pub fn new(inputs: &[TensorSpec], manifest: &InputManifest, count: usize) -> Self {
        let picture = picture_input(inputs, manifest).ok();
        let size = |dim: &Dim| dim.fixed().unwrap_or(1);
        let shape = |(index, spec): (usize, &TensorSpec)| match &picture {
            Some(picture) if picture.index == index => picture.shape(picture.rows_fixed.unwrap_or(1)).to_vec(),
            _ => spec.dims.iter().map(size).collect(),
        };
        let normalised = |pixel: f32| (pixel - manifest.mean[0]) * manifest.scale[0];
        Self {
            inputs: inputs.to_vec(),
            shapes: inputs.iter().enumerate().map(shape).collect(),
            range: if picture.is_some() { (normalised(0.0), normalised(255.0)) } else { (-1.0, 1.0) },
            count,
        }
    }
}

impl Samples for Noise {
    fn count(&self) -> usize {
        self.count
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Box<dyn Error + Send + Sync>> {
        let mut random = fastrand::Rng::with_seed(index as u64);
        let mut share = || random.f32();
        let (low, high) = self.range;
        let tensors = self.inputs.iter().zip(&self.shapes).map(|(spec, shape)| {
            let elements = shape.iter().product();
            let mut number = || low + (high - low) * share();
            Ok(match spec.dtype {
                DType::F32 => Tensor::of(shape.clone(), (0..elements).map(|_| number()).collect::<Vec<f32>>())?,
                DType::F16 => {
                    Tensor::of(shape.clone(), (0..elements).map(|_| f16::from_f32(number())).collect::<Vec<_>>())?
                }
                DType::U8 => {
                    Tensor::of(shape.clone(), (0..elements).map(|_| (share() * 255.0) as u8).collect::<Vec<_>>())?
                }
                other => return Err(format!("input `{}` is {other}, for which there is no noise", spec.name).into()),
            })
        });
        tensors.collect::<Result<Vec<_>, Box<dyn Error + Send + Sync>>>().map(Cow::Owned)
    }
}
