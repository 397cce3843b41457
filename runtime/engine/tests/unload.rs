//! Engines give back what they take. Alone in its program, since it watches the memory of the whole
//! process.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::Path;

use revoada_bundle::onnx::GraphBuilder;
use revoada_core::{DType, TensorRef};
use revoada_engine::{Backend, LoadOptions, ModelSource, OnnxRuntime, Rten, Shapes};

/// 8 MiB of weights, enough that one leaked engine shows.
const WEIGHTS: usize = 2 << 20;
const ENGINES: usize = 50;
/// How many freed buffers allocators may keep that they did not keep before.
const ARENAS_MAX: usize = 5;

fn model() -> Vec<u8> {
    let weights: Vec<f32> = (0..WEIGHTS).map(|index| (index % 17) as f32).collect();
    GraphBuilder::new("large")
        .input("x", DType::F32, "N,1024")
        .initializer("w", TensorRef::of(&[1024, WEIGHTS / 1024], &weights).unwrap())
        .node("MatMul", &["x", "w"], &["y"])
        .output("y", DType::F32, &format!("N,{}", WEIGHTS / 1024))
        .encode()
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn load_run_unload(backend: &dyn Backend, model: &[u8]) {
    let options = LoadOptions { threads: Some(2), ..LoadOptions::default() };
    let engine = backend.load(ModelSource::Bytes(model), &options).unwrap();
    let mut session = engine.session(&Shapes::rows(2)).unwrap();
    session.set_input(0, TensorRef::of(&[2, 1024], &[1f32; 2048]).unwrap()).unwrap();
    session.submit(2).unwrap();
    // The model is let go when the last session is.
    drop(engine);
    assert_eq!(session.wait().unwrap().tensors[0].shape(), [2, WEIGHTS / 1024]);
}

#[test]
fn fifty_engines_one_after_the_other_take_the_memory_of_one() {
    let library = std::env::var_os("REVOADA_ONNXRUNTIME")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/lib/libonnxruntime.so"), Into::into);
    let mut backends: Vec<Box<dyn Backend>> = vec![Box::new(Rten)];
    if library.exists() {
        backends.push(Box::new(OnnxRuntime::new(vec![library])));
    } else {
        println!("skipped: onnxruntime: there is no library `{}`", library.display());
    }
    let model = model();
    for backend in backends {
        // The first ones settle what allocators and thread pools keep: an arena of each thread may hold
        // on to a freed buffer of this size, which thread that is changes from run to run.
        for _ in 0..ENGINES / 2 {
            load_run_unload(&*backend, &model);
        }
        let before = resident_bytes();
        for _ in 0..ENGINES {
            load_run_unload(&*backend, &model);
        }
        let grown = resident_bytes().saturating_sub(before);
        // Engines that are not given back would take fifty times their weights, a buffer in an arena one. Over 500
        // engines both backends grew by less than 8 KiB, so what is let through here is not a slow leak.
        assert!(
            grown < ARENAS_MAX * 4 * WEIGHTS,
            "{}: {ENGINES} engines left {} KiB behind",
            backend.name(),
            grown >> 10
        );
    }
}
