//! What every backend must do, written once and run by each of them.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::Path;
use std::sync::Arc;

use revoada_engine::{Backend, OnnxRuntime, Rten};

mod agreement;
mod broken_models;
mod models;
mod pictures;
mod tensors;

/// ONNX Runtime's library is what `REVOADA_ONNXRUNTIME` names, else the one that `cargo xtask setup`
/// puts into the cache; without it the test says so and is counted as skipped.
fn onnxruntime() -> Option<Arc<dyn Backend>> {
    let cached = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/lib/libonnxruntime.so");
    let library = std::env::var_os("REVOADA_ONNXRUNTIME").map_or_else(cached, Into::into);
    if !library.exists() {
        println!("skipped: onnxruntime: there is no library `{}`", library.display());
        return None;
    }
    let backend = OnnxRuntime::new(vec![library]);
    backend.check().expect("the library that is there can be used");
    Some(Arc::new(backend))
}

fn rten() -> Option<Arc<dyn Backend>> {
    Some(Arc::new(Rten))
}

/// One test per check and backend.
macro_rules! conformance {
    ($($backend:ident)*: $checks:tt) => { $(conformance!(@ $backend $checks);)* };
    (@ $backend:ident { $($group:ident::$check:ident)* }) => {
        mod $backend {
            $(#[test]
            fn $check() {
                if let Some(backend) = super::$backend() {
                    super::$group::$check(&*backend);
                }
            })*
        }
    };
}

conformance! {
    onnxruntime rten: {
        tensors::inputs_and_outputs_are_as_declared
        tensors::every_element_type_comes_through
        tensors::an_open_batch_runs_the_rows_submitted
        tensors::a_fixed_batch_runs_whole_with_zeros_where_nothing_was_filled
        tensors::an_output_may_be_a_constant
        tensors::several_inputs_and_outputs_keep_their_order
        tensors::a_set_tensor_stays_until_it_is_replaced
        tensors::output_shapes_may_depend_on_the_data
        tensors::sessions_on_threads_agree
        tensors::one_network_serves_many_sessions
        tensors::nan_and_infinity_pass_through
        tensors::a_session_outlives_its_engine
        tensors::wrong_names_shapes_and_types_are_refused
        tensors::open_dimensions_are_settled_by_name_or_refused
        tensors::an_unfilled_input_is_named
        tensors::waiting_without_submitting_is_refused
        tensors::what_is_read_of_one_output_changes_no_other
        pictures::channels_land_where_the_layout_says
        pictures::every_picture_type_is_staged
        pictures::a_staged_picture_is_used_once_and_let_go
        pictures::crops_of_one_frame_fill_a_batch
        pictures::pictures_that_do_not_fit_are_refused
        broken_models::what_is_no_model_is_refused_in_one_sentence
        broken_models::an_unsupported_operator_is_named_with_its_node
        broken_models::truncation_is_an_error_wherever_it_happens
        broken_models::external_weights_are_read_beside_the_model
    }
}
