//! The golden inputs of a bundle: made, never a user's pictures, for a bundle travels to a whole fleet.

use std::sync::Arc;

use revoada_bundle::golden::{BYTES_MAX, Golden, GoldenInputs, GoldenOutput};
use revoada_bundle::manifest::InputManifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_core::{ColorSpec, DType, Frame, ImageLayout, PixelFormat, Size, Tensor};
use revoada_engine::{Backend, LoadOptions, ModelSource, golden_answers, picture_input};
use tracing::info;

use crate::emulate;
use crate::run::{BuilderError, sample};
use crate::samples::Noise;

/// More than two, so that an answer that happens to fit one is told; each is inferred at every swap.
const CASES: usize = 3;
/// Neither of a network's shape nor of its size, so that staging has something to do.
const PICTURE: Size = Size { width: 256, height: 144 };
/// So many numbers tell an angle as well as all of them do.
const ELEMENTS_MAX: usize = 1 << 14;
/// Inputs and answers have half of the file each.
const HALF_BYTES: usize = BYTES_MAX / 2;

/// The conversion turned the original's answer by some angle. What computes the converted graph elsewhere may turn it by as
/// much again, to the other side: twice the angle, which is four times as far from 1 in cosine.
const SLACK: f64 = 4.0;
/// An answer that does not depend on the input has a cosine of 0, and must not pass. Where rounding alone leads as far,
/// the output says nothing.
const COSINE_LEAST: f64 = 0.1;

/// Makes inputs for `converted` and notes what it answers to them by the arithmetic of its precision (see [`emulate`]).
/// Answers elsewhere are as good from `cosine_min` on, or from less where converting cost more on these inputs. `None`
/// where no output says anything: of each that is left out the reason is logged.
pub fn make_golden(
    backend: &dyn Backend,
    original: &OnnxModel,
    converted: &OnnxModel,
    manifest: &InputManifest,
    cosine_min: f64,
) -> Result<Option<Golden>, BuilderError> {
    let Some(inputs) = make_inputs(converted, manifest)? else { return Ok(None) };
    let load = |model: &OnnxModel| backend.load(ModelSource::Bytes(&model.encode()), &LoadOptions::default());
    let (original, reference) = (load(original)?, load(&emulate(converted)?)?);
    let before = golden_answers(backend, &*original, manifest, &inputs, &[])?;
    let answers = golden_answers(backend, &*reference, manifest, &inputs, &[])?;
    let specs = converted.outputs()?;
    let elements_max = ELEMENTS_MAX.min(HALF_BYTES / size_of::<f32>() / inputs.cases() / specs.len().max(1));
    let mut outputs = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let of = |answers: &[Vec<Tensor>]| answers.iter().map(|outputs| outputs[index].clone()).collect::<Vec<_>>();
        match output(&spec.name, &of(&before), &of(&answers), elements_max, cosine_min) {
            Ok(output) => outputs.push(output),
            Err(reason) => info!(output = spec.name, reason, "an output is not among the golden ones"),
        }
    }
    Ok((!outputs.is_empty()).then_some(Golden { inputs, outputs }))
}

/// `None` where they would be too large for a bundle.
fn make_inputs(model: &OnnxModel, manifest: &InputManifest) -> Result<Option<GoldenInputs>, BuilderError> {
    let specs = model.inputs()?;
    if specs.len() == 1 && picture_input(&specs, manifest).is_ok() {
        let pictures = (0..CASES).map(|case| Arc::new(picture(case as u64)));
        return Ok(Some(GoldenInputs::Pictures(pictures.collect())));
    }
    let noise = Noise::new(&specs, manifest, CASES);
    let mut cases = Vec::new();
    let mut bytes = 0;
    for case in 0..CASES {
        let tensors = sample(&noise, case)?.into_owned();
        bytes += tensors.iter().map(|tensor| tensor.data().as_slice().len() * tensor.dtype().size()).sum::<usize>();
        if bytes > HALF_BYTES {
            info!(cases = case, bytes_max = HALF_BYTES, "more golden inputs would be too large for a bundle");
            break;
        }
        cases.push(tensors);
    }
    Ok((!cases.is_empty()).then_some(GoldenInputs::Tensors(cases)))
}

/// What an output answers, or why it is left out.
fn output(
    name: &str,
    before: &[Tensor],
    answers: &[Tensor],
    elements_max: usize,
    cosine_min: f64,
) -> Result<GoldenOutput, &'static str> {
    let shape = answers[0].shape().to_vec();
    let elements: usize = shape.iter().product();
    if !matches!(answers[0].dtype(), DType::F32 | DType::F16) {
        return Err("its numbers are names, of which none is nearer than another");
    }
    if elements == 0 || answers.iter().chain(before).any(|answer| answer.shape() != shape) {
        return Err("its shape depends on the data");
    }
    let step = sparse_step(elements, elements_max);
    let sampled = |answers: &[Tensor]| -> Vec<Vec<f32>> {
        answers.iter().map(|answer| GoldenOutput::sample(answer.as_ref().data(), step)).collect()
    };
    let answers = sampled(answers);
    if answers.iter().flatten().all(|number| *number == 0.0 || !number.is_finite()) {
        return Err("it answers nothing but zeros");
    }
    let golden = GoldenOutput { name: name.to_owned(), shape, step, answers, cosine_min };
    let borne = 1.0 - SLACK * (1.0 - golden.cosine(&sampled(before)));
    match borne < COSINE_LEAST.min(cosine_min) {
        true => Err("rounding alone changes its answers to these inputs"),
        false => Ok(GoldenOutput { cosine_min: borne.min(cosine_min), ..golden }),
    }
}

/// The least step that leaves at most so many elements and shares no factor with their number: it goes through all
/// columns and channels.
fn sparse_step(elements: usize, elements_max: usize) -> usize {
    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    let least = elements.div_ceil(elements_max.max(1)).max(1);
    (least..).find(|step| *step == 1 || divisor(*step, elements) == 1).expect("one more than the elements has none")
}

/// Discs that lie on each other like dead leaves, large ones rarely and small ones often: as natural pictures do, it has
/// edges and areas of every size (Lee, Mumford, Huang: "Occlusion models for natural images", IJCV 2001).
fn picture(seed: u64) -> Frame {
    const DISCS: usize = 600;
    const RADIUS: (f32, f32) = (3.0, 60.0);
    let mut random = fastrand::Rng::with_seed(seed);
    let layout = ImageLayout::packed(PixelFormat::Nv12, ColorSpec::default(), PICTURE);
    let Size { width, height } = PICTURE;
    let mut bytes = vec![128u8; layout.bytes().expect("it is small")];
    let (luma, chroma) = bytes.split_at_mut(width * height);
    for _ in 0..DISCS {
        // By the inverse of the distribution function of radii whose density falls with the third power.
        let (small, large) = (RADIUS.0.powi(-2), RADIUS.1.powi(-2));
        let radius = (small - random.f32() * (small - large)).powf(-0.5);
        let (x, y) = (random.f32() * width as f32, random.f32() * height as f32);
        let (shade, blue, red) = (random.u8(16..=235), random.u8(16..=240), random.u8(16..=240));
        let inside = |column: usize, row: usize, scale: f32| {
            let (across, down) = (column as f32 * scale - x, row as f32 * scale - y);
            across * across + down * down <= radius * radius
        };
        for (index, pixel) in luma.iter_mut().enumerate().filter(|(index, _)| inside(index % width, index / width, 1.0))
        {
            // A little texture: flat areas are rare.
            *pixel = shade.saturating_add((index as u8).wrapping_mul(37) % 8);
        }
        for (index, pair) in chroma.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            if inside(index % (width / 2), index / (width / 2), 2.0) {
                *pair = [blue, red];
            }
        }
    }
    Frame::still(layout, bytes).expect("the memory is that of the layout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_leave_few_elements_and_no_column_out() {
        for (elements, elements_max) in
            [(10, 16), (3549 * 85, 1 << 14), (160 * 160 * 10, 1 << 14), (1000, 1000), (8, 3)]
        {
            let step = sparse_step(elements, elements_max);
            assert!(elements.div_ceil(step) <= elements_max, "{elements} by {step}");
            let columns: std::collections::BTreeSet<usize> =
                (0..elements).step_by(step).map(|index| index % 85).collect();
            assert!(elements != 3549 * 85 || columns.len() == 85);
        }
    }

    #[test]
    fn pictures_are_the_same_every_time_and_not_each_other() {
        let bytes = |seed| picture(seed).view().bytes().to_vec();
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }
}
