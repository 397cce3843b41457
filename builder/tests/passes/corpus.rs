//! The models by which ONNX itself tests backends, one for each operator and each way of using it. They come
//! with the Python package `onnx`, which set-up installs.

use std::path::{Path, PathBuf};

use prost::Message;
use revoada_builder::clean::{CleanOptions, clean};
use revoada_builder::{emulate, fp16, mixed_nodes};
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::onnx::proto::TensorProto;
use revoada_core::{Tensor, TensorSlice};
use revoada_engine::{Backend, Rten};

use crate::support::{cache, is_full, onnxruntime, try_run};

/// The folders of the corpus, each with a model and some with inputs.
fn corpus() -> Option<Vec<PathBuf>> {
    let versions = std::fs::read_dir(cache("venv/lib")).into_iter().flatten();
    let data = versions.map(|entry| entry.unwrap().path().join("site-packages/onnx/backend/test/data"));
    let mut folders = Vec::new();
    for data in data.filter(|data| data.exists()) {
        for kind in ["node", "simple", "pytorch-operator", "pytorch-converted"] {
            let entries = std::fs::read_dir(data.join(kind)).unwrap().map(|entry| entry.unwrap().path());
            folders.extend(entries.filter(|folder| folder.join("model.onnx").exists()));
        }
    }
    folders.sort();
    if folders.is_empty() {
        println!("skipped: ONNX's models: the Python package `onnx` is not in `{}`", cache("venv").display());
        return None;
    }
    Some(folders)
}

fn read(folder: &Path) -> OnnxModel {
    OnnxModel::read(&folder.join("model.onnx")).unwrap()
}

#[test]
fn every_operator_is_converted_to_a_strongly_typed_graph() {
    let Some(folders) = corpus() else { return };
    let mut converted = 0;
    let mut wrong = Vec::new();
    for folder in &folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let model = read(folder);
        // One that casts a value like another mixes types on purpose.
        if !mixed_nodes(&model.edit().unwrap()).is_empty() {
            continue;
        }
        let half = fp16::convert(&model, &Default::default()).unwrap();
        let mixed = mixed_nodes(&half.model.edit().unwrap());
        if !mixed.is_empty() {
            wrong.push(format!("{name}: {mixed:?}"));
        }
        converted += usize::from(half.report.half_nodes > 0);
        clean(&Rten, &model, &CleanOptions::default()).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(converted > 1000, "only {converted} of {} models have something to convert", folders.len());
}

/// ONNX Runtime folds a condition that is constant, and then finds fault with the branch that it chose.
const CLEAN_EXCEPTIONS: &[&str] = &["test_affine_grid_2d_align_corners_expanded", "test_affine_grid_2d_expanded"];

#[test]
fn every_operator_answers_alike_when_it_is_lifted_and_cleaned() {
    // A few of them are enough for every day.
    let step = if is_full() { 1 } else { 20 };
    let (Some(folders), Some(backend)) = (corpus(), onnxruntime()) else { return };
    let (mut lifted, mut cleaned, mut emulated) = (0, 0, 0);
    let mut wrong = Vec::new();
    for folder in folders.iter().step_by(step) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let model = read(folder);
        let Some(inputs) = inputs(folder, &model) else { continue };
        // Not every backend has every operator.
        let Ok(before) = try_run(&*backend, &model, &inputs) else { continue };
        let mut compare =
            |what: &str, model: &OnnxModel, tolerance: f64| match differs(&*backend, model, &inputs, &before) {
                Some(difference) if difference <= tolerance => true,
                other => {
                    wrong.push(format!("{name} {what}: {other:?}"));
                    false
                }
            };
        let mut graph = model.edit().unwrap();
        if graph.opset() < 19 && graph.lift(19).is_ok() {
            lifted += usize::from(compare("lifted", &graph.finish().unwrap(), 1e-6));
        }
        if !CLEAN_EXCEPTIONS.contains(&name.as_str()) {
            let after = clean(&Rten, &model, &CleanOptions::default()).unwrap();
            cleaned += usize::from(compare("cleaned", &after.model, 1e-5));
        }
        let half = fp16::convert(&model, &Default::default()).unwrap();
        let rounded = emulate(&half.model).ok().filter(|_| half.report.half_nodes > 0 && !is_hard_on_half(&name));
        if let Some(rounded) = rounded {
            emulated += usize::from(compare("in half precision", &rounded, 2e-2));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{lifted} lifted, {cleaned} cleaned, {emulated} emulated");
    assert!(lifted > 400 / step && cleaned > 800 / step && emulated > 500 / step);
}

/// Numbers near 10000 to be told apart, a product beyond 65504, and statistics of a handful of numbers.
fn is_hard_on_half(name: &str) -> bool {
    ["softmax_large_number", "reduce_prod", "training_mode"].iter().any(|hard| name.contains(hard))
}

/// The inputs that come with a model; `None` where they are no tensors of ours.
fn inputs(folder: &Path, model: &OnnxModel) -> Option<Vec<Tensor>> {
    let count = model.inputs().ok()?.len();
    let input = |index: usize| {
        let bytes = std::fs::read(folder.join(format!("test_data_set_0/input_{index}.pb"))).ok()?;
        TensorProto::decode(bytes.as_slice()).ok()?.tensor()
    };
    (0..count).map(input).collect()
}

/// The largest difference as a share of the largest number; `None` where the answers cannot be compared.
fn differs(backend: &dyn Backend, model: &OnnxModel, inputs: &[Tensor], before: &[Tensor]) -> Option<f64> {
    let after = try_run(backend, model, inputs).ok()?;
    let mut worst = 0f64;
    for (before, after) in before.iter().zip(&after) {
        if before.shape() != after.shape() {
            return None;
        }
        let (before, after) = (numbers(before), numbers(after));
        let largest = before.iter().filter(|x| x.is_finite()).fold(1e-3f64, |largest, x| largest.max(x.abs()));
        for (a, b) in before.iter().zip(&after).filter(|(a, _)| a.is_finite()) {
            let difference = (a - b).abs() / largest;
            worst = if difference.is_nan() { f64::INFINITY } else { worst.max(difference) };
        }
    }
    Some(worst)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.as_ref().data() {
        TensorSlice::F32(data) => data.iter().map(|x| f64::from(*x)).collect(),
        TensorSlice::F16(data) => data.iter().map(|x| x.to_f64()).collect(),
        TensorSlice::U8(data) => data.iter().map(|x| f64::from(*x)).collect(),
        TensorSlice::I8(data) => data.iter().map(|x| f64::from(*x)).collect(),
        TensorSlice::I32(data) => data.iter().map(|x| f64::from(*x)).collect(),
        TensorSlice::I64(data) => data.iter().map(|x| *x as f64).collect(),
        TensorSlice::Bool(data) => data.iter().map(|x| f64::from(u8::from(*x))).collect(),
    }
}
