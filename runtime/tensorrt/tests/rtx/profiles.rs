//! Ranges of shapes.

use revoada_tensorrt::{BuildError, BuildRequest, Cancel, Profile, Range};

use crate::onnx::{self, Graph};
use crate::{library, request};

fn range(min: &[u64], opt: &[u64], max: &[u64]) -> Range {
    Range { min: min.to_vec(), opt: opt.to_vec(), max: max.to_vec() }
}

fn batches(min: u64, opt: u64, max: u64) -> Profile {
    let shape = |batch| vec![batch, 3, 32, 32];
    Profile::default().with("pictures", range(&shape(min), &shape(opt), &shape(max)))
}

#[test]
fn a_dynamic_batch_compiles_within_its_profiles() {
    let Some(library) = library() else { return };
    let model = onnx::convolution("N");
    for profiles in [vec![batches(1, 4, 8)], vec![batches(1, 1, 1), batches(2, 8, 16)]] {
        let request = BuildRequest { profiles, ..request(&model) };
        let built = library.build(&request, &(), &Cancel::default()).unwrap();
        assert!(!built.plan.is_empty());
        assert_eq!(built.inputs[0].dims, [None, Some(3), Some(32), Some(32)]);
    }
}

#[test]
fn a_dynamic_batch_without_a_profile_is_refused_by_the_input_s_name() {
    let Some(library) = library() else { return };
    let error = library.build(&request(&onnx::convolution("N")), &(), &Cancel::default()).unwrap_err();
    assert!(matches!(error, BuildError::NoProfile { .. }));
    assert_eq!(
        error.to_string(),
        "input `pictures` has dimensions that are not known (?×3×32×32), and no profile gives their range"
    );
}

#[test]
fn a_profile_that_does_not_fit_the_model_is_refused_with_what_is_wrong() {
    let Some(library) = library() else { return };
    let model = onnx::convolution("N");
    let good = || batches(1, 4, 8);
    for (profile, expected) in [
        (batches(4, 2, 8), "the profile's range of input `pictures` is not in order at dimension 0: 4, 2, 8"),
        (
            Profile::default().with("pictures", range(&[1, 3, 16, 32], &[1, 3, 32, 32], &[1, 3, 32, 32])),
            "the profile's range of input `pictures` must have 32 at dimension 2, which the model fixes",
        ),
        (
            Profile::default().with("pictures", range(&[1], &[1], &[1])),
            "the profile's range of input `pictures` must have 4 dimensions",
        ),
        (
            good().with("photos", range(&[1], &[1], &[1])),
            "the profile's range of input `photos` names no input of the model, which has `pictures`",
        ),
    ] {
        let request = BuildRequest { profiles: vec![good(), profile], ..request(&model) };
        let error = library.build(&request, &(), &Cancel::default()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

fn meeting(left: &str, right: &str) -> Vec<u8> {
    let graph = Graph::new().input("left", left).input("right", right);
    graph.node("meet", "Add", &["left", "right"], "sum").output("sum", left).encode()
}

#[test]
fn shapes_that_a_layer_cannot_take_are_refused_by_the_layer_s_name() {
    let Some(library) = library() else { return };
    let fixed = |shape: &[u64]| range(shape, shape, shape);
    let profile = |left, right| Profile::default().with("left", fixed(left)).with("right", fixed(right));
    let compile = |model: &[u8], profile| {
        let request = BuildRequest { profiles: vec![profile], ..request(model) };
        library.build(&request, &(), &Cancel::default()).unwrap_err()
    };

    // What the ranges bring about is found when the plan is built …
    let error = compile(&meeting("N,4", "M,4"), profile(&[2, 4], &[3, 4]));
    assert!(matches!(&error, BuildError::Compile { layer: Some(layer), .. } if layer == "meet"), "{error:?}");
    assert_eq!(
        error.to_string(),
        "TensorRT for RTX 1.7.1 cannot compile the network at layer `meet`: IElementWiseLayer meet: broadcast dimensions \
         must be conformable"
    );
    // … and what the model says itself when it is read.
    let error = compile(&meeting("N,4", "M,5"), profile(&[2, 4], &[2, 5]));
    assert_eq!(
        error.to_string(),
        "TensorRT for RTX 1.7.1 cannot read the model: node `meet` (`Add`): broadcast dimensions must be conformable"
    );
}
