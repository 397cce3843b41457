//! Golden inputs: a few inputs of a model and what it answers to them, in the precision of its bundle, so that whatever
//! computes the model elsewhere can be held against it: a plan on its device, an engine that is to take over.
//!
//! They are one file of a bundle, in the safetensors format. `input.C.I` is input I of case C: an NV12 picture, its
//! chroma below its luma, for models whose only input is a picture, else the tensor itself. `output.C.O` is what output O
//! answered, of a large one every n-th element. The text under `golden` in the file's metadata says the rest.

use std::collections::HashMap;
use std::sync::Arc;

use revoada_core::{
    ColorSpec, Cosine, DType, Frame, ImageLayout, PixelFormat, Size, Tensor, TensorData, TensorRef, TensorSlice,
    TensorSpec, f16,
};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the format that this program writes, and the latest that it reads.
pub const VERSION: u32 = 1;
/// What the file is called in a bundle.
pub const GOLDEN: &str = "golden.safetensors";
/// A bundle goes to a whole fleet, over links that are slow and paid for: a small part of the model that it comes with.
pub const BYTES_MAX: usize = 8 << 20;
const CASES_MAX: usize = 16;
const KEY: &str = "golden";

/// An output whose answers differ from case to case by less, as a share of their length, is taken as constant: what
/// differs would be mostly rounding.
const VARYING_SHARE_MIN: f64 = 0.1;

/// Inputs, and what the model answers to them.
#[derive(Clone, Debug)]
pub struct Golden {
    pub inputs: GoldenInputs,
    pub outputs: Vec<GoldenOutput>,
}

#[derive(Clone, Debug)]
pub enum GoldenInputs {
    /// NV12 with even sides, one a case, for the model's only input.
    Pictures(Vec<Arc<Frame>>),
    /// For each case a tensor for each input, in the model's order.
    Tensors(Vec<Vec<Tensor>>),
}

/// What one output answers.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenOutput {
    pub name: String,
    /// Of the whole answer to one case.
    pub shape: Vec<usize>,
    /// Every so manieth element is kept, from the first on.
    pub step: usize,
    /// Per case.
    pub answers: Vec<Vec<f32>>,
    /// The least [`cosine`](Self::cosine) of answers that are as good.
    pub cosine_min: f64,
}

/// In which way answers are not the golden ones.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum GoldenFault {
    #[error("there is no output `{output}`")]
    Missing { output: String },
    #[error("output `{output}` has the shape {got:?}, not {expected:?}")]
    Shape { output: String, expected: Vec<usize>, got: Vec<usize> },
    #[error("output `{output}` has NaN or infinity where there was a number")]
    NotFinite { output: String },
    #[error("the cosine of output `{output}` is {cosine:.4}, at least {cosine_min:.4} is asked")]
    Differs { output: String, cosine: f64, cosine_min: f64 },
}

/// Why golden inputs cannot be read.
#[derive(Debug, Error, PartialEq)]
pub enum GoldenError {
    #[error("they are of version {version}, this program reads up to version {VERSION}")]
    Version { version: u32 },
    #[error("{reason}")]
    Damaged { reason: String },
}

/// What the metadata say.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    cases: usize,
    inputs: Kind,
    outputs: Vec<OutputDescription>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// `input.C.0` alone.
    Pictures,
    /// So many a case.
    Tensors(usize),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputDescription {
    name: String,
    shape: Vec<usize>,
    step: usize,
    cosine_min: f64,
}

impl GoldenInputs {
    pub fn cases(&self) -> usize {
        match self {
            Self::Pictures(frames) => frames.len(),
            Self::Tensors(cases) => cases.len(),
        }
    }
}

impl GoldenOutput {
    /// What is kept of an answer.
    pub fn sample(answer: TensorSlice<'_>, step: usize) -> Vec<f32> {
        answer.to_f64().into_iter().step_by(step).map(|number| number as f32).collect()
    }

    /// How alike other answers are: the cosine over all cases of what differs from case to case, which is 0 where the
    /// answer does not depend on the input, whatever it is. Of an output that is (nearly) constant, of the answers
    /// themselves. Elements that are not finite here are passed over.
    ///
    /// Panics where there are not as many answers, and as long ones, as here.
    pub fn cosine(&self, others: &[Vec<f32>]) -> f64 {
        assert_eq!(others.len(), self.answers.len(), "there is an answer to each case");
        let cases = self.answers.len() as f64;
        let (mut whole, mut varying) = (Cosine::default(), Cosine::default());
        for element in 0..self.answers[0].len() {
            let mean = self.answers.iter().map(|answer| f64::from(answer[element])).sum::<f64>() / cases;
            if !mean.is_finite() {
                continue;
            }
            for (answer, other) in self.answers.iter().zip(others) {
                let (answer, other) = (f64::from(answer[element]), f64::from(other[element]));
                whole.add(answer, other);
                varying.add(answer - mean, other - mean);
            }
        }
        match varying.left_length() < VARYING_SHARE_MIN * whole.left_length() {
            true => whole.value(),
            false => varying.value(),
        }
    }

    fn judge(&self, answers: &[TensorRef<'_>]) -> Result<(), GoldenFault> {
        let output = || self.name.clone();
        let elements: usize = self.shape.iter().product();
        let mut kept = Vec::new();
        for answer in answers {
            let data = answer.data();
            // A batch of several rows has the same answer in each of them.
            let fits = answer.shape().get(1..) == self.shape.get(1..) && data.len() >= elements;
            if !fits {
                let (expected, got) = (self.shape.clone(), answer.shape().to_vec());
                return Err(GoldenFault::Shape { output: output(), expected, got });
            }
            kept.push(Self::sample(data.range(0..elements), self.step));
        }
        let pairs = self.answers.iter().flatten().zip(kept.iter().flatten());
        if pairs.into_iter().any(|(answer, other)| answer.is_finite() && !other.is_finite()) {
            return Err(GoldenFault::NotFinite { output: output() });
        }
        match self.cosine(&kept) {
            cosine if cosine < self.cosine_min => {
                Err(GoldenFault::Differs { output: output(), cosine, cosine_min: self.cosine_min })
            }
            _ => Ok(()),
        }
    }
}

impl Golden {
    /// The same, satisfied with less where more is asked.
    pub fn asking_at_most(mut self, cosine: f64) -> Self {
        for output in &mut self.outputs {
            output.cosine_min = output.cosine_min.min(cosine);
        }
        self
    }

    /// Holds answers, those to each case in the order of `outputs`, against the golden ones.
    pub fn judge(&self, outputs: &[TensorSpec], answers: &[Vec<Tensor>]) -> Result<(), GoldenFault> {
        for golden in &self.outputs {
            let place = outputs.iter().position(|spec| spec.name == golden.name);
            let place = place.ok_or_else(|| GoldenFault::Missing { output: golden.name.clone() })?;
            golden.judge(&answers.iter().map(|outputs| outputs[place].as_ref()).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let cases = self.inputs.cases();
        let mut tensors = Vec::new();
        let inputs = match &self.inputs {
            GoldenInputs::Pictures(frames) => {
                for (case, frame) in frames.iter().enumerate() {
                    let Size { width, height } = frame.size();
                    let shape = vec![height / 2 * 3, width];
                    tensors.push((format!("input.{case}.0"), Dtype::U8, shape, frame.view().bytes().to_vec()));
                }
                Kind::Pictures
            }
            GoldenInputs::Tensors(all) => {
                for (case, inputs) in all.iter().enumerate() {
                    for (index, input) in inputs.iter().enumerate() {
                        let (dtype, bytes) = (dtype(input.dtype()), input.as_ref().data().to_le_bytes());
                        tensors.push((format!("input.{case}.{index}"), dtype, input.shape().to_vec(), bytes));
                    }
                }
                Kind::Tensors(all.first().map_or(0, Vec::len))
            }
        };
        for (index, output) in self.outputs.iter().enumerate() {
            for (case, answer) in output.answers.iter().enumerate() {
                let bytes = TensorSlice::F32(answer).to_le_bytes();
                tensors.push((format!("output.{case}.{index}"), Dtype::F32, vec![answer.len()], bytes));
            }
        }
        let describe = |output: &GoldenOutput| OutputDescription {
            name: output.name.clone(),
            shape: output.shape.clone(),
            step: output.step,
            cosine_min: output.cosine_min,
        };
        let outputs = self.outputs.iter().map(describe).collect();
        let description = Description { version: VERSION, cases, inputs, outputs };
        let description = serde_json::to_string(&description).expect("plain data with string keys");
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor is as long as its shape says");
            (name.as_str(), view)
        });
        let metadata = HashMap::from([(KEY.to_owned(), description)]);
        safetensors::serialize(views, Some(metadata)).expect("the names are those of this function")
    }

    /// Reads what [`encode`](Self::encode) wrote, or refuses it.
    pub fn parse(bytes: &[u8]) -> Result<Self, GoldenError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if bytes.len() > BYTES_MAX {
            return Err(damaged(format!("they are longer than {BYTES_MAX} bytes")));
        }
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(error.to_string()))?;
        let text = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let text = text.ok_or_else(|| damaged(format!("they have no description under `{KEY}`")))?;
        let Versioned { version } = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        if version == 0 || version > VERSION {
            return Err(GoldenError::Version { version });
        }
        let described: Description = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let cases = described.cases;
        if cases == 0 || cases > CASES_MAX {
            return Err(damaged(format!("they have {cases} cases, 1 to {CASES_MAX} are read")));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
        let find = |name: String| {
            tensors.tensor(&name).map_err(|_| damaged(format!("they have no `{name}`"))).and_then(|view| tensor(&view))
        };
        let inputs = match described.inputs {
            Kind::Pictures => {
                let picture = |case| find(format!("input.{case}.0")).and_then(picture);
                GoldenInputs::Pictures((0..cases).map(picture).collect::<Result<_, _>>()?)
            }
            Kind::Tensors(count) => {
                let case = |case| (0..count).map(|index| find(format!("input.{case}.{index}"))).collect();
                GoldenInputs::Tensors((0..cases).map(case).collect::<Result<_, _>>()?)
            }
        };
        let output = |(index, output): (usize, OutputDescription)| {
            let OutputDescription { name, shape, step, cosine_min } = output;
            let elements = shape.iter().try_fold(1usize, |product, length| product.checked_mul(*length));
            let kept = elements.filter(|_| step > 0).map(|elements| elements.div_ceil(step));
            let answers = (0..cases).map(|case| match find(format!("output.{case}.{index}"))?.data() {
                TensorData::F32(numbers) if Some(numbers.len()) == kept => Ok(numbers.clone()),
                _ => Err(damaged(format!("the answers of output `{name}` are not as long as described"))),
            });
            let answers = answers.collect::<Result<_, _>>()?;
            Ok(GoldenOutput { name, shape, step, answers, cosine_min })
        };
        let outputs = described.outputs.into_iter().enumerate().map(output).collect::<Result<_, _>>()?;
        Ok(Self { inputs, outputs })
    }
}

fn damaged(reason: String) -> GoldenError {
    GoldenError::Damaged { reason }
}

/// From luma with chroma below it.
fn picture(tensor: Tensor) -> Result<Arc<Frame>, GoldenError> {
    let ([rows, width], TensorData::U8(bytes)) = (tensor.shape(), tensor.data()) else {
        return Err(damaged("a picture is not of bytes in rows".to_owned()));
    };
    let size = Size::new(*width, rows / 3 * 2);
    if rows % 3 != 0 || width % 2 != 0 {
        return Err(damaged(format!("a picture of {size} is no NV12 picture")));
    }
    let layout = ImageLayout::packed(PixelFormat::Nv12, ColorSpec::default(), size);
    Frame::still(layout, bytes.clone()).map(Arc::new).map_err(|error| damaged(error.to_string()))
}

/// The types that are both.
const TYPES: [(DType, Dtype); 7] = [
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::U8, Dtype::U8),
    (DType::I8, Dtype::I8),
    (DType::I32, Dtype::I32),
    (DType::I64, Dtype::I64),
    (DType::Bool, Dtype::BOOL),
];

fn dtype(dtype: DType) -> Dtype {
    TYPES.iter().find(|(ours, _)| *ours == dtype).expect("every type has its line").1
}

fn tensor(view: &TensorView<'_>) -> Result<Tensor, GoldenError> {
    fn numbers<const N: usize, T>(bytes: &[u8], number: fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
    }
    let bytes = view.data();
    let data = match TYPES.iter().find(|(_, theirs)| *theirs == view.dtype()).map(|(ours, _)| ours) {
        Some(DType::F32) => TensorData::F32(numbers(bytes, f32::from_le_bytes)),
        Some(DType::F16) => TensorData::F16(numbers(bytes, f16::from_le_bytes)),
        Some(DType::U8) => TensorData::U8(bytes.to_vec()),
        Some(DType::I8) => TensorData::I8(numbers(bytes, i8::from_le_bytes)),
        Some(DType::I32) => TensorData::I32(numbers(bytes, i32::from_le_bytes)),
        Some(DType::I64) => TensorData::I64(numbers(bytes, i64::from_le_bytes)),
        Some(DType::Bool) => TensorData::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        None => return Err(damaged(format!("they have a tensor of {:?}", view.dtype()))),
    };
    Tensor::new(view.shape().to_vec(), data).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(answers: &[[f32; 3]]) -> GoldenOutput {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        GoldenOutput { name: "y".to_owned(), shape: vec![1, 3], step: 1, answers, cosine_min: 0.99 }
    }

    #[test]
    fn only_what_depends_on_the_input_counts() {
        let golden = output(&[[100.0, 120.0, 90.0], [80.0, 140.0, 95.0], [130.0, 100.0, 60.0]]);
        let same = |answer: [f32; 3]| golden.cosine(&vec![answer.to_vec(); 3]);
        assert!(golden.cosine(&golden.answers) > 1.0 - 1e-12);
        for constant in [[0.0; 3], [127.0; 3], [103.0, 120.0, 82.0]] {
            assert!(same(constant).abs() < 1e-9, "{constant:?}: {}", same(constant));
        }
        let twice: Vec<Vec<f32>> = golden.answers.iter().map(|a| a.iter().map(|x| 2.0 * x).collect()).collect();
        assert!(golden.cosine(&twice) < 0.6, "another scale is another answer");
    }

    #[test]
    fn an_output_that_never_changes_is_held_against_itself() {
        let golden = output(&[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0001]]);
        assert!(golden.cosine(&[vec![1.0, 2.0001, 3.0], vec![1.0, 2.0, 3.0]]) > 0.9999);
        assert!(golden.cosine(&[vec![3.0, 2.0, -1.0], vec![3.0, 2.0, -1.0]]) < 0.5);
        assert_eq!(golden.cosine(&[vec![0.0; 3], vec![0.0; 3]]), 0.0);
    }
}
