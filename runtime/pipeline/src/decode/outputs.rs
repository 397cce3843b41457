//! Finding a decoder's outputs among those declared, and reading rows of those that came.

use std::borrow::Cow;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use revoada_core::{TensorRef, TensorSlice, TensorSpec};
use revoada_engine::{CandidateQuery, Readback};

use super::boxes::unreadable;
use super::{DecodeError, DecoderContext};

impl DecoderContext<'_> {
    /// All outputs, for messages.
    pub(super) fn describe(&self) -> String {
        describe(self.outputs)
    }

    /// The output that plays `role`: the one that the manifest names for it, else the first with
    /// one of the `usual` names.
    pub(super) fn role(&self, decoder: &str, role: &str, usual: &[&str]) -> Result<Option<usize>, DecodeError> {
        let named = |name: &str| self.outputs.iter().position(|spec| spec.name == name);
        if let Some(name) = self.manifest.tensors.get(role) {
            let missing = || {
                let reason = format!("`{role}` shall be output `{name}`, but there are only {}", self.describe());
                unreadable(decoder, reason)
            };
            return named(name).map(Some).ok_or_else(missing);
        }
        Ok(usual.iter().find_map(|name| named(name)))
    }

    /// Refuses a manifest that gives a name to a role which the decoder does not have.
    pub(super) fn check_roles(&self, decoder: &str, known: &[&str]) -> Result<(), DecodeError> {
        match self.manifest.tensors.keys().find(|role| !known.contains(&role.as_str())) {
            None => Ok(()),
            Some(role) => {
                let known = known.join("`, `");
                Err(unreadable(decoder, format!("there is no role `{role}` in `tensors`; the roles are `{known}`")))
            }
        }
    }

    /// The output for `role`, or the first that `suits`; where there is none, what was expected.
    pub(super) fn only(
        &self,
        decoder: &str,
        role: &str,
        expected: &str,
        suits: impl Fn(&TensorSpec) -> bool,
    ) -> Result<usize, DecodeError> {
        let index = match self.role(decoder, role, &[])? {
            Some(index) => Some(index).filter(|index| suits(&self.outputs[*index])),
            None => self.outputs.iter().position(suits),
        };
        index.ok_or_else(|| self.expected(decoder, expected))
    }

    pub(super) fn expected(&self, decoder: &str, expected: &str) -> DecodeError {
        unreadable(decoder, format!("expected {expected}, found {}", self.describe()))
    }

    /// Labels may be absent; where there are any, there is one for each class.
    pub(super) fn check_labels(&self, classes: usize) -> Result<(), DecodeError> {
        check_labels(classes, self.labels)
    }
}

pub(super) fn check_labels(classes: usize, labels: usize) -> Result<(), DecodeError> {
    if labels == 0 || labels == classes { Ok(()) } else { Err(DecodeError::Labels { classes, labels }) }
}

pub(super) fn describe(outputs: &[TensorSpec]) -> String {
    if outputs.is_empty() {
        return "no output".to_owned();
    }
    outputs.iter().map(|spec| format!("`{spec}`")).collect::<Vec<_>>().join(", ")
}

/// The fixed size of dimension `index`, `None` where it is absent or chosen at run time.
pub(super) fn fixed(spec: &TensorSpec, index: usize) -> Option<usize> {
    spec.dims.get(index).and_then(|dim| dim.fixed())
}

/// For decoders that need all of the outputs that they read.
pub(super) fn whole_if(read: bool) -> Readback {
    if read { Readback::Whole } else { Readback::Nothing }
}

/// For decoders to which candidates are enough where the answers to `query` are them.
pub(super) fn candidates_if(read: bool, query: Option<CandidateQuery>) -> Readback {
    query.filter(|_| read).map_or(whole_if(read), Readback::Candidates)
}

/// One picture's part of an output.
pub(super) struct Row<'a> {
    /// Without the batch.
    pub(super) shape: &'a [usize],
    pub(super) values: Cow<'a, [f32]>,
}

impl<'a> Row<'a> {
    /// Row `row` of output `index`. Integers become floats: class ids and counts are small.
    pub(super) fn read(
        decoder: &str,
        outputs: &[TensorRef<'a>],
        index: usize,
        row: usize,
    ) -> Result<Self, DecodeError> {
        let tensor = tensor(decoder, outputs, index)?;
        let Some((batch, shape)) = tensor.shape().split_first().filter(|(batch, _)| row < **batch) else {
            let reason = format!("there is no row {row} in output {index} of shape {:?}", tensor.shape());
            return Err(unreadable(decoder, reason));
        };
        let length = tensor.data().len() / batch;
        Ok(Self { shape, values: floats(tensor.data(), row * length..(row + 1) * length) })
    }

    /// The last `R` dimensions, where all before them are 1.
    pub(super) fn dims<const R: usize>(&self) -> Option<[usize; R]> {
        let (leading, dims) = self.shape.split_last_chunk::<R>()?;
        leading.iter().all(|size| *size == 1).then_some(*dims)
    }

    /// Of shape `[dims]` exactly, or a message that says what came.
    pub(super) fn expect<const R: usize>(&self, decoder: &str, expected: &str) -> Result<[usize; R], DecodeError> {
        let message = || unreadable(decoder, format!("expected {expected} per picture, got shape {:?}", self.shape));
        self.dims::<R>().ok_or_else(message)
    }
}

pub(super) fn tensor<'a>(decoder: &str, outputs: &[TensorRef<'a>], index: usize) -> Result<TensorRef<'a>, DecodeError> {
    let missing = || unreadable(decoder, format!("output {index} is missing, there are {}", outputs.len()));
    outputs.get(index).copied().ok_or_else(missing)
}

pub(super) fn floats(data: TensorSlice<'_>, range: Range<usize>) -> Cow<'_, [f32]> {
    fn converted<T: Copy>(values: &[T], to_f32: impl Fn(T) -> f32) -> Cow<'static, [f32]> {
        Cow::Owned(values.iter().map(|value| to_f32(*value)).collect())
    }
    match data {
        TensorSlice::F32(values) => Cow::Borrowed(&values[range]),
        TensorSlice::F16(values) => {
            let mut floats = vec![0f32; range.len()];
            values[range].convert_to_f32_slice(&mut floats);
            Cow::Owned(floats)
        }
        TensorSlice::U8(values) => converted(&values[range], f32::from),
        TensorSlice::I8(values) => converted(&values[range], f32::from),
        TensorSlice::I32(values) => converted(&values[range], |value| value as f32),
        TensorSlice::I64(values) => converted(&values[range], |value| value as f32),
        TensorSlice::Bool(values) => converted(&values[range], |value| f32::from(u8::from(value))),
    }
}
