//! The same model on two backends.

use revoada_core::{Tensor, TensorRef};
use revoada_engine::Backend;

use crate::models;
use crate::tensors::{numbers, session};

fn scores(backend: &dyn Backend) -> Tensor {
    let mut session = session(backend, &models::network(), 4);
    session.set_input(0, TensorRef::of(&[4, 3, 16, 16], &models::network_input(4)).unwrap()).unwrap();
    session.submit(4).unwrap();
    session.wait().unwrap().tensors[0].to_owned()
}

#[test]
fn both_backends_agree_to_a_ten_thousandth() {
    let Some(other) = crate::onnxruntime() else { return };
    let (one, other) = (scores(&*crate::rten().expect("it is built in")), scores(&*other));
    assert_eq!(one.shape(), other.shape());
    let largest = numbers(&one).1.iter().zip(numbers(&other).1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-4, "they differ by {largest}");
    assert!(numbers(&one).1.iter().any(|score| score.abs() > 1e-2), "the scores are not all zero");
}
