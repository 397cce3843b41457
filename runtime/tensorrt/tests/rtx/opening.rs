//! Finding libraries, and opening plans.

use std::fs;

use revoada_tensorrt::{
    Cancel, Flavour, Library, LibraryPaths, OpenError, PlanFault, RunError, Runtime, RuntimeOptions, Version, dialects,
};

use crate::{cache, library, onnx, request};

#[test]
fn every_set_of_headers_has_a_dialect_that_answers_its_version() {
    let Ok(sets) = fs::read_dir(cache("tensorrt-headers")) else {
        println!("skipped: dialects of TensorRT: `cargo xtask setup` has fetched no headers");
        return;
    };
    let mut checked = 0;
    for set in sets {
        let name = set.unwrap().file_name().into_string().unwrap();
        let Some((flavour, version)) = name.strip_prefix("TRT-").and_then(|name| name.split_once('-')) else {
            continue;
        };
        let flavour = if flavour == "RTX" { Flavour::Rtx } else { Flavour::Full };
        let (major, minor) = version.split_once('.').unwrap();
        let expected = (flavour, major.parse().unwrap(), minor.parse().unwrap());
        let answers = |version: &Version| (version.flavour, version.major, version.minor) == expected;
        assert!(dialects().iter().any(answers), "{name} is not among {:?}", dialects());
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn the_versions_of_tensorrt_8_that_jetsons_have_are_spoken_without_headers() {
    for minor in [2, 5, 6] {
        let answers = |version: &Version| (version.flavour, version.major, version.minor) == (Flavour::Full, 8, minor);
        assert!(dialects().iter().any(answers), "8.{minor} is not among {:?}", dialects());
    }
}

#[test]
fn without_tensorrt_the_error_says_what_was_looked_for_and_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let search: Vec<_> = LibraryPaths::in_folder(folder.path()).into_iter().take(1).collect();
    let error = Library::open(&search).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no TensorRT was found, looked for `{}/libnvinfer.so.11` (cannot open shared object file: No such file or \
             directory); it comes with JetPack, or as the packages `libnvinfer10` and `libnvonnxparsers10` of NVIDIA's \
             apt repository",
            folder.path().display()
        )
    );
    assert!(Library::open(&[]).unwrap_err().to_string().starts_with("no TensorRT was found, looked for nothing;"));
}

#[test]
fn another_library_is_not_taken_for_tensorrt() {
    let paths = LibraryPaths { infer: "libc.so.6".into(), parser: "libc.so.6".into() };
    let error = Library::open(&[paths]).unwrap_err();
    assert!(matches!(error, OpenError::NotTensorRt { .. }));
    assert_eq!(error.to_string(), "`libc.so.6` is no TensorRT: it has no `getInferLibVersion`");
}

#[test]
fn a_plan_that_is_not_whole_is_refused_in_one_sentence() {
    let Some(library) = library() else { return };
    let plan = library.build(&request(&onnx::convolution("1")), &(), &Cancel::default()).unwrap().plan;
    let runtime = Runtime::new(&library, RuntimeOptions::default()).unwrap();
    let mut noise: u32 = 1;
    let mut random = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    let wrong_magic = plan.iter().enumerate().map(|(index, byte)| if index < 4 { !byte } else { *byte }).collect();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("one byte", vec![plan[0]]),
        ("part of the header", plan[..20].to_vec()),
        ("half a plan", plan[..plan.len() / 2].to_vec()),
        ("a plan without its last byte", plan[..plan.len() - 1].to_vec()),
        ("a plan with another magic number", wrong_magic),
        ("random bytes", (0..8192).map(|_| random()).collect()),
        ("words", b"these are words, and not few of them: ".repeat(64)),
    ] {
        let Err(error) = runtime.engine(&bytes) else { panic!("{what} was taken for a plan") };
        assert!(matches!(&error, RunError::Plan { fault: PlanFault::Damaged { .. }, .. }), "{what}: {error:?}");
        let text = error.to_string();
        assert!(text.starts_with("TensorRT for RTX 1.7.1 cannot open the plan: it is damaged or no plan ("), "{text}");
        assert!(!text.contains("/_src/") && !text.contains('\n') && text.len() < 240, "{text}");
    }
}

#[test]
fn a_whole_plan_tells_its_tensors() {
    let Some(library) = library() else { return };
    let plan = library.build(&request(&onnx::convolution("1")), &(), &Cancel::default()).unwrap().plan;
    let runtime = Runtime::new(&library, RuntimeOptions::default()).unwrap();
    match runtime.engine(&plan) {
        Ok(engine) => {
            let names: Vec<_> = engine.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.is_input)).collect();
            assert_eq!(names, [("pictures", true), ("maps", false)]);
            assert_eq!(engine.profiles().len(), 1);
            let inspected: serde_json::Value = serde_json::from_str(&engine.inspect().unwrap()).unwrap();
            assert!(inspected["Layers"].is_array(), "{inspected}");
        }
        Err(RunError::Plan { fault: PlanFault::OtherDevice { reason } | PlanFault::NoDevice { reason }, .. }) => {
            println!("skipped: opening a plan for SM 86: {reason}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn without_a_gpu_a_whole_plan_is_not_called_damaged() {
    let Some(library) = library() else { return };
    let plan = library.build(&request(&onnx::convolution("1")), &(), &Cancel::default()).unwrap().plan;
    match Runtime::new(&library, RuntimeOptions::default()).unwrap().engine(&plan) {
        Ok(_) => println!("skipped: a plan without a GPU: this machine has one"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("TensorRT for RTX 1.7.1 cannot open the plan: "), "{text}");
            assert!(!text.contains("damaged"), "{text}");
        }
    }
}
