//! Backends, models, numbers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_bundle::onnx::{GraphBuilder, OnnxModel};
use revoada_core::{
    ColorSpec, Dim, Fit, ImageLayout, ImageTransform, ImageView, PixelFormat, Placement, Rect, Size, Tensor, TensorRef,
};
use revoada_engine::{Backend, EngineError, LoadOptions, ModelSource, OnnxRuntime, Rten, Shapes, StageTarget, Stager};

/// ONNX Runtime's library is what `REVOADA_ONNXRUNTIME` names, else the one that `cargo xtask setup` puts
/// into the cache.
pub(crate) fn onnxruntime() -> Option<Arc<dyn Backend>> {
    let library = std::env::var_os("REVOADA_ONNXRUNTIME").map_or_else(|| cache("lib/libonnxruntime.so"), Into::into);
    if !library.exists() {
        println!("skipped: onnxruntime: there is no library `{}`", library.display());
        return None;
    }
    let backend = OnnxRuntime::new(vec![library]);
    backend.check().expect("the library that is there can be used");
    Some(Arc::new(backend))
}

/// Every backend that is there, the best first.
pub(crate) fn backends() -> Vec<Arc<dyn Backend>> {
    let rten: Arc<dyn Backend> = Arc::new(Rten);
    onnxruntime().into_iter().chain([rten]).collect()
}

pub(crate) fn cache(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache").join(path)
}

/// Whether `cargo xtask test --full` asks for the long form of a test.
pub(crate) fn is_full() -> bool {
    std::env::var_os("REVOADA_FULL").is_some()
}

/// A model that set-up fetched.
pub(crate) fn real_model(name: &str) -> Option<OnnxModel> {
    let path = cache("models").join(name);
    if !path.exists() {
        println!("skipped: {name}: there is no `{}`", path.display());
        return None;
    }
    Some(OnnxModel::read(&path).unwrap())
}

pub(crate) fn parse(graph: GraphBuilder) -> OnnxModel {
    OnnxModel::parse(graph.encode()).unwrap()
}

pub(crate) fn run(backend: &dyn Backend, model: &OnnxModel, inputs: &[Tensor]) -> Vec<Tensor> {
    try_run(backend, model, inputs).unwrap()
}

pub(crate) fn try_run(backend: &dyn Backend, model: &OnnxModel, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
    let engine = backend.load(ModelSource::Bytes(&model.encode()), &LoadOptions::default())?;
    let specs = engine.inputs().to_vec();
    let open = matches!(specs.first().and_then(|spec| spec.dims.first()), Some(Dim::Dynamic(_)));
    let rows = if open { inputs[0].shape()[0] } else { 1 };
    let named = specs.iter().zip(inputs);
    let shapes = named.fold(Shapes::rows(rows), |all, (spec, input)| all.with(&spec.name, input.shape()));
    let mut session = engine.session(&shapes)?;
    for (index, input) in inputs.iter().enumerate() {
        session.set_input(index, input.as_ref())?;
    }
    session.submit(rows)?;
    Ok(session.wait()?.tensors.iter().map(TensorRef::to_owned).collect())
}

pub(crate) fn floats(tensor: &Tensor) -> &[f32] {
    tensor.as_ref().as_slice::<f32>().expect("an output of f32")
}

/// Numbers in −1..1 that are unlike each other; the same for the same seed.
pub(crate) fn noise(shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        // Numerical Recipes' generator.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let count = shape.iter().product();
    Tensor::of(shape.to_vec(), (0..count).map(|_| next()).collect()).unwrap()
}

/// The largest difference, as a share of the reference's largest number.
pub(crate) fn difference(reference: &Tensor, other: &Tensor) -> f32 {
    assert_eq!(reference.shape(), other.shape());
    let (reference, other) = (floats(reference), floats(other));
    let largest = reference.iter().fold(f32::MIN_POSITIVE, |largest, number| largest.max(number.abs()));
    reference.iter().zip(other).fold(0f32, |worst, (a, b)| {
        let difference = (a - b).abs() / largest;
        // NaN must not get lost.
        if difference.is_nan() { f32::INFINITY } else { worst.max(difference) }
    })
}

/// Crops of a photograph that set-up fetched, staged for EfficientNet-Lite0: the middle and the corners, at
/// several sizes.
pub(crate) fn crops(picture: &str) -> Option<Vec<Vec<Tensor>>> {
    let path = cache("pictures").join(picture);
    if !path.exists() {
        println!("skipped: {picture}: there is no `{}`", path.display());
        return None;
    }
    let pixels = image::open(&path).unwrap().into_rgb8();
    let size = Size::new(pixels.width() as usize, pixels.height() as usize);
    let layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), size);
    let image = ImageView::new(layout, pixels.as_raw()).unwrap();
    // ImageNet's mean and deviation, as in the model's manifest.
    let transform = ImageTransform {
        fit: Fit::CenterCrop,
        mean: [123.675, 116.28, 103.53],
        scale: [1.0 / 58.395, 1.0 / 57.12, 1.0 / 57.375],
        ..ImageTransform::stretch(Size::new(224, 224))
    };
    let mut stager = Stager::new();
    let side = size.width.min(size.height) as f32;
    let mut staged = Vec::new();
    for share in [1.0, 0.8, 0.6] {
        let (across, down) = (size.width as f32 - side * share, size.height as f32 - side * share);
        for (x, y) in [(0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
            let region = Rect::new(across * x, down * y, side * share, side * share);
            let mut row = vec![0f32; 3 * 224 * 224];
            stager.stage(&image, &Placement::new(region, &transform), &transform, StageTarget::F32(&mut row));
            staged.push(vec![Tensor::of(vec![1, 3, 224, 224], row).unwrap()]);
        }
    }
    Some(staged)
}
