//! What is missing, used up or lost, told apart.

use std::path::PathBuf;

use revoada_core::TensorRef;
use revoada_emulator::{Emulated, Profile};
use revoada_engine::{
    Backend, BackendChoice, BackendOptions, EngineError, LoadOptions, ModelFormat, ModelSource, Session, Shapes,
    TensorRt, TensorRtOptions, backends, select,
};

use crate::compiling::{Compiling, emulated_options, on_breaking_emulator, on_emulator, text};
use crate::models;
use crate::tensors::{load, session};

const OUT_OF_MEMORY: u32 = 2;
const ILLEGAL_ADDRESS: u32 = 700;

fn failing(failures: &[(&'static str, u32, u32)]) -> Emulated {
    Emulated { failures: failures.to_vec(), ..Emulated::new(Profile::Discrete) }
}

fn unusable(options: TensorRtOptions) -> String {
    let error = TensorRt::new(options).check().unwrap_err().to_string();
    error.strip_prefix("backend `tensorrt` cannot be used here: ").expect("it says which backend").to_owned()
}

fn run(session: &mut dyn Session) -> Result<Vec<f32>, EngineError> {
    session.set_input(0, TensorRef::of(&[1, 3], &[1f32; 3]).unwrap())?;
    session.submit(1)?;
    Ok(session.wait()?.tensors[0].as_slice::<f32>().unwrap().to_vec())
}

#[test]
fn auto_runs_onnx_models_elsewhere_and_says_why_a_plan_cannot_be_run() {
    let name = "failures::auto_runs_onnx_models_elsewhere_and_says_why_a_plan_cannot_be_run";
    on_emulator(name, &Emulated::new(Profile::None), |machine| {
        let tensorrt = emulated_options(machine.folder());
        let all = &backends(&BackendOptions { tensorrt, ..BackendOptions::default() });
        let refused = select(&BackendChoice::Auto, all, ModelFormat::Plan).err().unwrap().to_string();
        let selected = select(&BackendChoice::Auto, all, ModelFormat::Onnx).unwrap();
        assert_eq!(selected.backend.name(), "rten");
        let expected = "backend `tensorrt` cannot be used here: CUDA cannot be used here: `cuInit` failed";
        assert!(refused.contains(expected), "{refused}");
    });
}

#[test]
fn what_is_missing_is_named() {
    on_emulator("failures::what_is_missing_is_named", &Emulated::new(Profile::Orin), |machine| {
        let all = emulated_options(machine.folder());
        let error = unusable(TensorRtOptions { libraries: Vec::new(), ..all.clone() });
        assert!(error.starts_with("no TensorRT was found, looked for nothing"), "{error}");
        let error = unusable(TensorRtOptions { compilers: vec![PathBuf::from("/nowhere/libnvrtc.so")], ..all.clone() });
        assert!(error.contains("NVRTC is not installed; looked for `/nowhere/libnvrtc.so`"), "{error}");
        let error = unusable(TensorRtOptions { device: 3, ..all.clone() });
        assert_eq!(error, "CUDA cannot be used here: there is no device 3, only 1 of them");
        let without_cache = TensorRt::new(TensorRtOptions { kernels: None, ..all });
        without_cache.check().unwrap();
    });
}

#[test]
fn a_machine_without_a_driver_says_so() {
    if revoada_engine::cuda::Device::all().is_ok() {
        println!("skipped: a machine without a driver: this one has a GPU");
        return;
    }
    let error = unusable(TensorRtOptions::default());
    assert!(error.starts_with("CUDA cannot be used here: "), "{error}");
}

#[test]
fn tensorrt_without_memory_for_a_plan_says_its_size() {
    let name = "failures::tensorrt_without_memory_for_a_plan_says_its_size";
    on_emulator(name, &failing(&[("deserializeCudaEngine", 1, OUT_OF_MEMORY)]), |machine| {
        let backend = Compiling::emulated(machine);
        let plan = text("increment", 0, "1,3 1,3 1,3 1,3", "1,3");
        let path = backend.seal(backend.class(), plan.as_bytes());
        let error = backend.load(ModelSource::Plan(&path), &LoadOptions::default()).err().unwrap();
        assert!(matches!(error, EngineError::OutOfMemory { .. }), "{error}");
        let expected = format!("the GPU has no memory for plan `{}` of {} bytes: ", path.display(), plan.len());
        assert!(error.to_string().starts_with(&expected), "{error}");
        // What failed can be tried again.
        backend.load(ModelSource::Plan(&path), &LoadOptions::default()).unwrap();
    });
}

/// Whatever a session cannot have, the error names it, nothing leaks, and a smaller one opens.
#[test]
fn a_session_without_memory_names_what_it_was_for() {
    let name = "failures::a_session_without_memory_names_what_it_was_for";
    let small = Emulated { memory_bytes: 1 << 20, ..failing(&[("createExecutionContext", 1, OUT_OF_MEMORY)]) };
    on_emulator(name, &small, |machine| {
        let backend = Compiling::emulated(machine);
        let error = load(&backend, &models::increment("N")).session(&Shapes::rows(1)).err().unwrap();
        assert!(matches!(error, EngineError::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("memory for a context of `"), "{error}");

        let sealed = |plan: String| backend.seal(backend.class(), plan.as_bytes());
        let opened = |path: PathBuf| backend.load(ModelSource::Plan(&path), &LoadOptions::default());
        let wide = opened(sealed(text("increment", 0, "-1,65536 1,65536 1,65536 16,65536", "-1,65536"))).unwrap();
        let error = wide.session(&Shapes::rows(4)).err().unwrap().to_string();
        assert!(error.starts_with("the GPU has no memory for an input of 1048576 bytes: "), "{error}");
        let error = wide.session(&Shapes::rows(1)).err().unwrap().to_string();
        assert!(error.starts_with("the GPU has no memory for output `y` of 262144 bytes: "), "{error}");
        assert!(error.ends_with("of its 1048576 bytes are free"), "{error}");
        let error = opened(sealed(text("increment", 2 << 20, "1,3 1,3 1,3 1,3", "1,3"))).err().unwrap().to_string();
        assert!(error.contains("memory for what lies between the layers of `"), "{error}");
        assert!(error.contains("2097152 bytes: "), "{error}");
        assert_eq!(run(&mut *session(&backend, &models::increment("N"), 1)).unwrap(), [2.0; 3]);
    });
}

#[test]
fn a_run_that_tensorrt_refuses_can_be_tried_again() {
    let name = "failures::a_run_that_tensorrt_refuses_can_be_tried_again";
    on_emulator(name, &failing(&[("enqueueV3", 1, 1), ("enqueueV3", 2, OUT_OF_MEMORY)]), |machine| {
        let mut session = session(&Compiling::emulated(machine), &models::increment("N"), 1);
        let error = run(&mut *session).unwrap_err().to_string();
        assert!(error.starts_with("tensorrt failed during inference: cannot run the engine: cudaError 1"), "{error}");
        assert!(matches!(session.wait(), Err(EngineError::NothingSubmitted)));
        assert!(matches!(run(&mut *session), Err(EngineError::OutOfMemory { .. })));
        assert_eq!(run(&mut *session).unwrap(), [2.0; 3]);
    });
}

/// A device that trapped is noticed by who waits; after that every answer says so.
#[test]
fn a_lost_device_is_told_as_such() {
    let name = "failures::a_lost_device_is_told_as_such";
    on_breaking_emulator(name, &failing(&[("cuLaunchHostFunc", 1, ILLEGAL_ADDRESS)]), |machine| {
        let backend = Compiling::emulated(machine);
        let engine = load(&backend, &models::increment("N"));
        let mut session = engine.session(&Shapes::rows(1)).unwrap();
        for answer in [run(&mut *session), run(&mut *session)] {
            let error = answer.unwrap_err();
            assert!(matches!(error, EngineError::Run { backend: "tensorrt", .. }), "{error}");
            let error = error.to_string();
            assert!(error.contains("the GPU's context is lost since"), "{error}");
            assert!(error.ends_with("only a new process can use the device again"), "{error}");
        }
        let error = engine.session(&Shapes::rows(1)).err().unwrap().to_string();
        assert!(error.contains("the GPU's context is lost since"), "{error}");
    });
}
