//! Features of pictures by a real engine, kept and erased.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_bundle::manifest::InputManifest;
use revoada_bundle::onnx::{Attribute, GraphBuilder, OnnxModel};
use revoada_core::{ColorSpec, DType, Frame, ImageLayout, PixelFormat, Rect, Size, Tensor, TensorRef};
use revoada_engine::{Backend, BackendOptions, LoadOptions, ModelFormat, ModelSource, backends, picture_input, select};
use revoada_learn::{
    Backbone, Erase, Extracted, FeaturesError, HeadShape, Pause, Picture, Wanted, derived_folder, forget, layers,
    weights_of,
};

const SIDE: usize = 4;
const FEATURES: usize = 5;
const CLASSES: usize = 3;

/// Four by four grey pixels to five features to three classes.
fn classifier(rows: &str) -> OnnxModel {
    let mut random = fastrand::Rng::with_seed(3);
    let mut numbers = |count: usize| (0..count).map(|_| random.f32() - 0.5).collect::<Vec<f32>>();
    let (pixels, by_output) = (SIDE * SIDE, [("transB", Attribute::Int(1))]);
    let graph = GraphBuilder::new("classifier")
        .input("x", DType::F32, &format!("{rows},1,{SIDE},{SIDE}"))
        .initializer("w1", TensorRef::of(&[pixels, FEATURES], &numbers(pixels * FEATURES)).unwrap())
        .initializer("w2", TensorRef::of(&[CLASSES, FEATURES], &numbers(CLASSES * FEATURES)).unwrap())
        .initializer("b2", TensorRef::of(&[CLASSES], &numbers(CLASSES)).unwrap())
        .node("Flatten", &["x"], &["flat"])
        .node("MatMul", &["flat", "w1"], &["sums"])
        .node("Relu", &["sums"], &["features"])
        .node_with("Gemm", &["features", "w2", "b2"], &["logits"], &by_output)
        .node("Softmax", &["logits"], &["scores"])
        .output("scores", DType::F32, &format!("{rows},{CLASSES}"));
    OnnxModel::parse(graph.encode()).unwrap()
}

fn rten() -> Arc<dyn Backend> {
    let choice = revoada_engine::BackendChoice::parse("rten");
    select(&choice, &backends(&BackendOptions::default()), ModelFormat::Onnx).unwrap().backend
}

/// A file's bytes are the picture's pixels.
fn read(path: &Path) -> Result<Frame, String> {
    let pixels = fs::read(path).map_err(|error| error.to_string())?;
    let layout = ImageLayout::packed(PixelFormat::Gray, ColorSpec::default(), Size::new(SIDE, SIDE));
    Frame::still(layout, pixels).map_err(|error| error.to_string())
}

/// What a model answers to some pictures.
fn answers(model: &OnnxModel, pictures: &[Picture]) -> Vec<Tensor> {
    let backend = rten();
    let engine = backend.load(ModelSource::Bytes(&model.encode()), &LoadOptions::default()).unwrap();
    let input = picture_input(engine.inputs(), &InputManifest::default()).unwrap();
    let mut session = engine.session(&input.shapes(1)).unwrap();
    let answer = |picture: &Picture| {
        let surface = backend.import(&Arc::new(read(&picture.path).unwrap())).unwrap();
        session.stage(input.index, 0, &surface, Rect::of(surface.size()), &input.transform).unwrap();
        session.submit(1).unwrap();
        session.wait().unwrap().to_owned().remove(0)
    };
    pictures.iter().map(answer).collect()
}

fn pictures(folder: &Path, count: usize) -> Vec<Picture> {
    let mut random = fastrand::Rng::with_seed(9);
    fs::create_dir_all(folder.join("a")).unwrap();
    let write = |number: usize| {
        let path = folder.join("a").join(format!("{number}.png"));
        let pixels: Vec<u8> = (0..SIDE * SIDE).map(|_| random.u8(..)).collect();
        fs::write(&path, pixels).unwrap();
        Picture { class: (number % CLASSES) as u32, path }
    };
    (0..count).map(write).collect()
}

/// The model's backbone is loaded where anything is computed, and only there.
fn examples_until(
    pause: &mut dyn FnMut() -> Pause,
    model: &OnnxModel,
    manifest: &InputManifest,
    folder: &Path,
    pictures: &[Picture],
) -> Result<Extracted, FeaturesError> {
    let split = model.split_head(None).unwrap();
    let (key, features) = (Backbone::key(&split.backbone, manifest), split.head.inputs());
    let mut was_loaded = false;
    let load = || {
        was_loaded = true;
        Backbone::load(&split.backbone, features, manifest, rten(), &LoadOptions::default())
            .map_err(FeaturesError::from)
    };
    let extracted = Wanted { folder, pictures, key, features }.examples(load, &read, pause)?;
    assert_eq!(was_loaded, extracted.computed > 0);
    Ok(extracted)
}

fn examples(model: &OnnxModel, folder: &Path, pictures: &[Picture]) -> Extracted {
    examples_until(&mut || Pause::Continue, model, &InputManifest::default(), folder, pictures).unwrap()
}

#[test]
fn a_model_split_and_merged_answers_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = pictures(folder.path(), 20);
    let model = classifier("N");
    let split = model.split_head(None).unwrap();
    let same = layers(&weights_of(&split.head).unwrap()).unwrap();
    let merged = model.merge_head(None, &same).unwrap();
    assert_eq!(answers(&model, &pictures), answers(&merged, &pictures));
    // The hidden layer passes positive features on as they are, so that the answers stay.
    let shape = HeadShape { features: FEATURES, hidden: Some(FEATURES), classes: CLASSES };
    let identity = (0..FEATURES * FEATURES).map(|place| f32::from(u8::from(place % (FEATURES + 1) == 0)));
    let values = identity.chain([0.0; FEATURES]).chain(same[0].weight().to_vec()).chain(same[0].bias().to_vec());
    let weights = revoada_federated::Weights::new(shape.layout().unwrap(), values.collect()).unwrap();
    let deeper = model.merge_head(None, &layers(&weights).unwrap()).unwrap();
    assert_eq!(answers(&model, &pictures), answers(&deeper, &pictures));
}

#[test]
fn features_are_what_the_head_was_fed() {
    let folder = tempfile::tempdir().unwrap();
    // More than one inference takes, and a number that it does not divide.
    let pictures = pictures(folder.path(), 19);
    for rows in ["N", "4"] {
        let model = classifier(rows);
        let extracted = examples(&model, folder.path(), &pictures);
        let head = model.split_head(None).unwrap().head;
        for (index, expected) in answers(&classifier("N"), &pictures).iter().enumerate() {
            let row = extracted.examples.row(index);
            let logits = head.weight().chunks(FEATURES).zip(head.bias()).map(|(weight, bias)| {
                weight.iter().zip(row).map(|(weight, feature)| weight * feature).sum::<f32>() + bias
            });
            let logits: Vec<f32> = logits.collect();
            let best = |numbers: &[f32]| {
                (0..numbers.len()).max_by(|left, right| numbers[*left].total_cmp(&numbers[*right])).unwrap()
            };
            assert_eq!(best(&logits), best(expected.as_ref().as_slice::<f32>().unwrap()), "picture {index}");
            assert_eq!(extracted.examples.class(index), pictures[index].class);
        }
    }
}

#[test]
fn features_are_computed_once_and_again_where_they_are_damaged_or_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let mut pictures = pictures(folder.path(), 12);
    let model = classifier("N");
    let first = examples(&model, folder.path(), &pictures);
    assert_eq!((first.computed, first.examples.len()), (12, 12));
    let again = examples(&model, folder.path(), &pictures);
    assert_eq!((again.computed, &again.examples), (0, &first.examples));
    // Another picture, and one that is there twice.
    let (extra, twin) = (folder.path().join("a/extra.png"), folder.path().join("a/twin.png"));
    fs::write(&extra, [7; SIDE * SIDE]).unwrap();
    fs::write(&twin, [7; SIDE * SIDE]).unwrap();
    pictures.extend([extra, twin].map(|path| Picture { class: 1, path }));
    let more = examples(&model, folder.path(), &pictures);
    assert_eq!((more.computed, more.examples.len()), (1, 14));
    // Staged otherwise, the same pictures have other features.
    let scaled = InputManifest { scale: [0.5; 3], ..InputManifest::default() };
    let otherwise = examples_until(&mut || Pause::Continue, &model, &scaled, folder.path(), &pictures).unwrap();
    assert_eq!(otherwise.computed, 13);
    let whole = examples(&model, folder.path(), &pictures);
    assert_eq!(whole.computed, 13);
    let cache = derived_folder(folder.path()).join("features");
    let mut bytes = fs::read(&cache).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&cache, bytes).unwrap();
    let recomputed = examples(&model, folder.path(), &pictures);
    assert_eq!((recomputed.computed, recomputed.examples), (13, whole.examples));
    forget(folder.path(), Erase::Derived).unwrap();
    assert!(!cache.exists() && pictures.iter().all(|picture| picture.path.exists()));
    assert_eq!(examples(&model, folder.path(), &pictures).computed, 13);
}

#[test]
fn a_picture_that_cannot_be_read_does_not_keep_others_from_being_learned_from() {
    let folder = tempfile::tempdir().unwrap();
    let mut pictures = pictures(folder.path(), 3);
    let short = folder.path().join("a/short.png");
    fs::write(&short, [1, 2, 3]).unwrap();
    let missing = folder.path().join("a/missing.png");
    pictures.extend([&short, &missing].map(|path| Picture { class: 0, path: path.clone() }));
    let extracted = examples(&classifier("N"), folder.path(), &pictures);
    assert_eq!(extracted.examples.len(), 3);
    let failed: Vec<PathBuf> = extracted.failed.into_iter().map(|(path, _)| path).collect();
    assert_eq!(failed, [missing, short]);
}

#[test]
fn what_was_computed_before_a_stop_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = pictures(folder.path(), 20);
    let model = classifier("N");
    let asked = Cell::new(0);
    let mut pause = || {
        asked.set(asked.get() + 1);
        if asked.get() > 2 { Pause::Stop } else { Pause::Continue }
    };
    let stopped = examples_until(&mut pause, &model, &InputManifest::default(), folder.path(), &pictures).unwrap_err();
    assert!(matches!(stopped, FeaturesError::Stopped { done: 16, count: 20 }), "{stopped}");
    assert_eq!(examples(&model, folder.path(), &pictures).computed, 4);
}
