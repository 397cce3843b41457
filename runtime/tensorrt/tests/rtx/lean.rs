//! The lean runtimes of TensorRT 10 and 11, the only libraries of those that can be fetched: they run plans that were
//! built to be version-compatible, and show that their dialects call what they mean to.

use std::sync::Arc;

use revoada_tensorrt::{Cancel, Flavour, Library, LibraryPaths, PlanFault, RunError, Runtime, RuntimeOptions};

use crate::{folder, onnx, request};

const MAJORS: [u32; 2] = [10, 11];

fn lean(major: u32) -> Option<Arc<Library>> {
    let infer = folder().join(format!("lean/libnvinfer_lean.so.{major}"));
    let parser = format!("libnvonnxparser.so.{major}").into();
    match Library::open(&[LibraryPaths { infer, parser }]) {
        Ok(library) => Some(library),
        Err(error) => {
            println!("skipped: the lean runtime of TensorRT {major}: {error}");
            None
        }
    }
}

#[test]
fn a_lean_runtime_is_known_by_its_version_and_builds_nothing() {
    for major in MAJORS {
        let Some(library) = lean(major) else { return };
        assert_eq!((library.version().flavour, library.version().major), (Flavour::Full, major));
        assert!(!library.can_build());
        let error = library.build(&request(&onnx::convolution("1")), &(), &Cancel::default()).unwrap_err();
        let path = library.path().display();
        assert_eq!(error.to_string(), format!("cannot build plans with `{path}`, which is a runtime alone"));
    }
}

/// TensorRT answers a bad pointer then, and no null one.
#[test]
fn without_a_gpu_a_runtime_says_so_and_does_not_crash() {
    for major in MAJORS {
        let Some(library) = lean(major) else { return };
        match Runtime::new(&library, RuntimeOptions::default()) {
            Err(error @ RunError::Start { .. }) => {
                let text = error.to_string();
                let expected = format!("{} cannot start: CUDA initialization failure with error: ", library.version());
                assert!(text.starts_with(&expected) && !text.contains("/_src"), "{text}");
            }
            Err(error) => panic!("{error}"),
            Ok(runtime) => {
                let Err(error) = runtime.engine(b"these are words") else { panic!("words were taken for a plan") };
                assert!(matches!(error, RunError::Plan { fault: PlanFault::Damaged { .. }, .. }), "{error}");
                println!("skipped: TensorRT {major} without a GPU: this machine has one");
            }
        }
    }
}
