//! Plain tensors in and out.

use std::sync::Arc;
use std::thread;

use revoada_core::{DType, Element, Tensor, TensorRef, f16};
use revoada_engine::{Backend, Engine, EngineError, LoadOptions, ModelSource, Readback, Session, Shapes};

use crate::models;

pub(crate) fn load(backend: &dyn Backend, model: &[u8]) -> Arc<dyn Engine> {
    backend.load(ModelSource::Bytes(model), &LoadOptions::default()).expect("the model loads")
}

pub(crate) fn session(backend: &dyn Backend, model: &[u8], rows_max: usize) -> Box<dyn Session> {
    load(backend, model).session(&Shapes::rows(rows_max)).expect("the session opens")
}

fn set<T: Element>(session: &mut dyn Session, input: usize, shape: &[usize], data: &[T]) {
    session.set_input(input, TensorRef::of(shape, data).unwrap()).expect("the input takes the tensor");
}

/// Every output of one inference, owned.
fn run(session: &mut dyn Session, rows: usize) -> Vec<Tensor> {
    session.submit(rows).expect("the batch runs");
    session.wait().expect("there is an answer").tensors.iter().map(TensorRef::to_owned).collect()
}

pub(crate) fn numbers(tensor: &Tensor) -> (&[usize], &[f32]) {
    (tensor.shape(), tensor.as_ref().as_slice::<f32>().expect("an output of f32"))
}

pub(crate) fn inputs_and_outputs_are_as_declared(backend: &dyn Backend) {
    let engine = load(backend, &models::sum_and_scaled_difference());
    let strings = |specs: &[revoada_core::TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(strings(engine.inputs()), ["a f32[N,2]", "b f32[N,2]", "factor f32[1]"]);
    assert_eq!(strings(engine.outputs()), ["sum f32[N,2]", "scaled f32[N,2]"]);
    let engine = load(backend, &models::transpose(DType::F16));
    assert_eq!(strings(engine.inputs()), ["x f16[N,3]"]);
    let engine = load(backend, &models::increment("?"));
    assert_eq!(strings(engine.inputs()), ["x f32[?,3]"]);
}

pub(crate) fn every_element_type_comes_through(backend: &dyn Backend) {
    fn check<T: Element + PartialEq + std::fmt::Debug>(backend: &dyn Backend, values: [T; 6]) {
        let mut session = session(backend, &models::transpose(T::DTYPE), 2);
        set(&mut *session, 0, &[2, 3], &values);
        let outputs = run(&mut *session, 2);
        let [a, b, c, d, e, f] = values;
        assert_eq!(outputs[0].shape(), [3, 2], "{}", T::DTYPE);
        assert_eq!(outputs[0].as_ref().as_slice::<T>(), Some(&[a, d, b, e, c, f][..]), "{}", T::DTYPE);
    }
    check(backend, [0.5f32, -1.0, 2.25, f32::MAX, f32::MIN_POSITIVE, -0.0]);
    check(backend, [0.5, -1.0, 2.25, 65504.0, 6.1e-5, 0.0].map(f16::from_f32));
    check(backend, [0u8, 1, 127, 128, 254, 255]);
    check(backend, [0i8, 1, 127, -128, -1, 7]);
    check(backend, [0i32, 1, -1, i32::MAX, i32::MIN, 7]);
    check(backend, [0i64, 1, -1, 2_147_483_647, -2_147_483_648, 7]);
    check(backend, [true, false, false, true, true, false]);
}

pub(crate) fn an_open_batch_runs_the_rows_submitted(backend: &dyn Backend) {
    let mut session = session(backend, &models::increment("N"), 4);
    set(&mut *session, 0, &[4, 3], &[0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    for rows in [1, 3, 4, 2] {
        let outputs = run(&mut *session, rows);
        let expected: Vec<f32> = (1..=rows * 3).map(|number| number as f32).collect();
        assert_eq!(numbers(&outputs[0]), (&[rows, 3][..], &expected[..]));
    }
    for rows in [0, 5] {
        assert!(matches!(session.submit(rows), Err(EngineError::Batch { rows_max: 4, .. })), "{rows} rows");
    }
}

pub(crate) fn a_fixed_batch_runs_whole_with_zeros_where_nothing_was_filled(backend: &dyn Backend) {
    let engine = load(backend, &models::channel_means("3,3,2,2", [2, 3]));
    let too_many = engine.session(&Shapes::rows(4)).err();
    assert!(matches!(too_many, Some(EngineError::FixedBatch { rows_max: 4, .. })), "{too_many:?}");
    let mut session = engine.session(&Shapes::rows(2)).unwrap();
    set(&mut *session, 0, &[3, 3, 2, 2], &[7f32; 36]);
    let outputs = run(&mut *session, 1);
    let first_of_three = [7f32, 7.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_eq!(numbers(&outputs[0]), (&[3, 3][..], &first_of_three[..]));
    // What was left out is gone, what was run stays.
    assert!(matches!(session.submit(2), Err(EngineError::Unfilled { row: 1, .. })));
    assert_eq!(numbers(&run(&mut *session, 1)[0]).1, &first_of_three[..]);
}

pub(crate) fn an_output_may_be_a_constant(backend: &dyn Backend) {
    let mut session = session(backend, &models::increment_and_constant(), 1);
    set(&mut *session, 0, &[1, 1], &[2f32]);
    let outputs = run(&mut *session, 1);
    assert_eq!(numbers(&outputs[0]), (&[1, 1][..], &[3f32][..]));
    assert_eq!(numbers(&outputs[1]), (&[2][..], &[5f32, 6.0][..]));
}

pub(crate) fn several_inputs_and_outputs_keep_their_order(backend: &dyn Backend) {
    let mut session = session(backend, &models::sum_and_scaled_difference(), 2);
    set(&mut *session, 2, &[1], &[10f32]);
    set(&mut *session, 0, &[2, 2], &[1f32, 2.0, 3.0, 4.0]);
    set(&mut *session, 1, &[2, 2], &[0.5f32, 0.5, 0.5, 0.5]);
    let outputs = run(&mut *session, 2);
    assert_eq!(numbers(&outputs[0]), (&[2, 2][..], &[1.5f32, 2.5, 3.5, 4.5][..]));
    assert_eq!(numbers(&outputs[1]), (&[2, 2][..], &[5f32, 15.0, 25.0, 35.0][..]));
}

/// A backend may bring what nobody asked for.
pub(crate) fn what_is_read_of_one_output_changes_no_other(backend: &dyn Backend) {
    let mut session = session(backend, &models::sum_and_scaled_difference(), 2);
    set(&mut *session, 2, &[1], &[10f32]);
    set(&mut *session, 0, &[2, 2], &[1f32, 2.0, 3.0, 4.0]);
    set(&mut *session, 1, &[2, 2], &[0.5f32; 4]);
    let expected = run(&mut *session, 2);
    for wanted in [&[Readback::Nothing][..], &[Readback::Whole, Readback::Nothing]] {
        session.read_back(wanted).unwrap();
        let outputs = run(&mut *session, 2);
        for (index, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
            let asked = wanted.get(index) != Some(&Readback::Nothing);
            assert!(output == expected || !asked && output.shape() == [0], "{wanted:?}: {output:?}");
        }
    }
    session.read_back(&[]).unwrap();
    assert_eq!(run(&mut *session, 2), expected);
}

pub(crate) fn a_set_tensor_stays_until_it_is_replaced(backend: &dyn Backend) {
    let mut session = session(backend, &models::increment("N"), 2);
    set(&mut *session, 0, &[2, 3], &[1f32; 6]);
    assert_eq!(run(&mut *session, 2), run(&mut *session, 2));
    let answer = run(&mut *session, 1);
    let again: Vec<Tensor> = session.wait().unwrap().tensors.iter().map(TensorRef::to_owned).collect();
    assert_eq!(answer, again, "waiting again gives the same answer");
    // A shorter tensor replaces all of the longer one.
    set(&mut *session, 0, &[1, 3], &[2f32; 3]);
    assert!(matches!(session.submit(2), Err(EngineError::Unfilled { row: 1, .. })));
    assert_eq!(numbers(&run(&mut *session, 1)[0]), (&[1, 3][..], &[3f32; 3][..]));
}

pub(crate) fn output_shapes_may_depend_on_the_data(backend: &dyn Backend) {
    let mut session = session(backend, &models::nonzero(), 2);
    for (values, expected) in [
        ([0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0], vec![0i64, 1, 1, 3]),
        ([0f32; 8], vec![]),
        ([0f32, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0], vec![0, 3]),
    ] {
        set(&mut *session, 0, &[2, 4], &values);
        let outputs = run(&mut *session, 2);
        assert_eq!(outputs[0].shape(), [2, expected.len() / 2]);
        assert_eq!(outputs[0].as_ref().as_slice::<i64>(), Some(&expected[..]));
    }
}

fn threads_agree(backend: &dyn Backend, options: &LoadOptions) {
    let engine = backend.load(ModelSource::Bytes(&models::network()), options).unwrap();
    let input = models::network_input(3);
    let answers: Vec<Vec<Tensor>> = thread::scope(|scope| {
        let work = || {
            let mut session = engine.session(&Shapes::rows(3)).unwrap();
            set(&mut *session, 0, &[3, 3, 16, 16], &input);
            let first = run(&mut *session, 3);
            for _ in 0..30 {
                assert_eq!(run(&mut *session, 3), first);
            }
            first
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no session fails")).collect()
    });
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(answers[0][0].shape(), [3, 5]);
}

pub(crate) fn sessions_on_threads_agree(backend: &dyn Backend) {
    threads_agree(backend, &LoadOptions { threads: Some(1), concurrent_max: 2, ..LoadOptions::default() });
}

pub(crate) fn one_network_serves_many_sessions(backend: &dyn Backend) {
    threads_agree(backend, &LoadOptions { threads: Some(2), ..LoadOptions::default() });
}

pub(crate) fn nan_and_infinity_pass_through(backend: &dyn Backend) {
    let mut session = session(backend, &models::increment("N"), 1);
    set(&mut *session, 0, &[1, 3], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    let outputs = run(&mut *session, 1);
    let (_, values) = numbers(&outputs[0]);
    assert!(values[0].is_nan());
    assert_eq!(values[1..], [f32::INFINITY, f32::NEG_INFINITY]);
}

pub(crate) fn a_session_outlives_its_engine(backend: &dyn Backend) {
    let engine = load(backend, &models::increment("N"));
    let mut session = engine.session(&Shapes::rows(1)).unwrap();
    drop(engine);
    set(&mut *session, 0, &[1, 3], &[1f32; 3]);
    assert_eq!(numbers(&run(&mut *session, 1)[0]), (&[1, 3][..], &[2f32; 3][..]));
}

pub(crate) fn wrong_names_shapes_and_types_are_refused(backend: &dyn Backend) {
    let engine = load(backend, &models::sum_and_scaled_difference());
    let opened = |shapes: Shapes| engine.session(&shapes).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(opened(Shapes::rows(2).with("c", &[2, 2])), "there is no input `c`; the model has 3");
    // A plan has no name for the open dimension.
    let a = &engine.inputs()[0];
    assert_eq!(opened(Shapes::rows(2).with("a", &[2, 3])), format!("input `{a}` cannot take a tensor of shape [2, 3]"));
    assert_eq!(opened(Shapes::rows(2).with("a", &[2])), format!("input `{a}` cannot take a tensor of shape [2]"));
    assert!(matches!(engine.session(&Shapes::rows(0)).err(), Some(EngineError::Batch { rows: 0, .. })));

    let mut session = engine.session(&Shapes::rows(2)).unwrap();
    let mut given = |input: usize, tensor: Result<TensorRef<'_>, revoada_core::TensorError>| {
        session.set_input(input, tensor.unwrap()).unwrap_err().to_string()
    };
    assert_eq!(given(3, TensorRef::of(&[1], &[1f32])), "there is no input 3; the model has 3");
    assert_eq!(given(0, TensorRef::of(&[1, 2], &[1i32, 2])), "input `a` takes f32, not i32");
    let refused = format!("input `{a}` cannot take a tensor of shape [3, 2]");
    assert_eq!(given(0, TensorRef::of(&[3, 2], &[0f32; 6])), refused);
    assert_eq!(given(2, TensorRef::of(&[2], &[0f32; 2])), "input `factor f32[1]` cannot take a tensor of shape [2]");
}

pub(crate) fn open_dimensions_are_settled_by_name_or_refused(backend: &dyn Backend) {
    use revoada_bundle::onnx::GraphBuilder;
    let model = GraphBuilder::new("named")
        .input("a", DType::F32, "N,L")
        .input("b", DType::F32, "N,L")
        .node("Add", &["a", "b"], &["y"])
        .output("y", DType::F32, "N,L")
        .encode();
    let engine = load(backend, &model);
    let open = engine.session(&Shapes::rows(1)).err().map(|error| error.to_string());
    assert_eq!(open.as_deref(), Some("dimension `L` of input `a f32[N,L]` is open; say how large it is"));
    let contradiction = engine.session(&Shapes::rows(1).with("a", &[1, 2]).with("b", &[1, 3])).err();
    assert!(matches!(contradiction, Some(EngineError::Shape { .. })), "{contradiction:?}");

    let mut session = engine.session(&Shapes::rows(1).with("a", &[1, 2])).unwrap();
    set(&mut *session, 0, &[1, 2], &[1f32, 2.0]);
    set(&mut *session, 1, &[1, 2], &[10f32, 20.0]);
    assert_eq!(numbers(&run(&mut *session, 1)[0]), (&[1, 2][..], &[11f32, 22.0][..]));
}

pub(crate) fn an_unfilled_input_is_named(backend: &dyn Backend) {
    let mut session = session(backend, &models::sum_and_scaled_difference(), 2);
    set(&mut *session, 0, &[2, 2], &[0f32; 4]);
    set(&mut *session, 2, &[1], &[0f32]);
    let error = session.submit(2).unwrap_err();
    assert_eq!(error.to_string(), "row 0 of input `b` was not filled before inference");
}

pub(crate) fn waiting_without_submitting_is_refused(backend: &dyn Backend) {
    let mut session = session(backend, &models::increment("N"), 1);
    assert!(matches!(session.wait(), Err(EngineError::NothingSubmitted)));
    set(&mut *session, 0, &[1, 3], &[0f32; 3]);
    session.submit(1).unwrap();
    assert!(session.wait().is_ok());
    assert!(session.submit(2).is_err());
    assert!(matches!(session.wait(), Err(EngineError::NothingSubmitted)), "after a failure there is no old answer");
}
