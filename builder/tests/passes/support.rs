//! Backends, models, numbers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_bundle::onnx::{GraphBuilder, OnnxModel};
use revoada_core::{Dim, Tensor, TensorRef};
use revoada_engine::{Backend, LoadOptions, ModelSource, OnnxRuntime, Rten, Shapes};

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
    let engine = backend.load(ModelSource::Bytes(&model.encode()), &LoadOptions::default()).unwrap();
    let specs = engine.inputs().to_vec();
    let open = matches!(specs[0].dims.first(), Some(Dim::Dynamic(_)));
    let rows = if open { inputs[0].shape()[0] } else { 1 };
    let named = specs.iter().zip(inputs);
    let shapes = named.fold(Shapes::rows(rows), |all, (spec, input)| all.with(&spec.name, input.shape()));
    let mut session = engine.session(&shapes).unwrap();
    for (index, input) in inputs.iter().enumerate() {
        session.set_input(index, input.as_ref()).unwrap();
    }
    session.submit(rows).unwrap();
    session.wait().unwrap().tensors.iter().map(TensorRef::to_owned).collect()
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
