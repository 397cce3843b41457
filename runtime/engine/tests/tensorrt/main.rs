//! The `tensorrt` backend: what every backend must do, once on the emulator, on each kind of device, and once on the real
//! GPU where there is one; and what only this backend can get wrong.
//!
//! Of the suite of conformance these cases do not apply:
//! - `tensors::output_shapes_may_depend_on_the_data`: such plans are refused;
//!   `running::an_output_whose_shape_depends_on_the_data_is_refused` stands for it;
//! - `broken_models`: no ONNX model reaches this backend; `plans` stands for it.
//!
//! TensorRT has no `Transpose` of every element type, so `tensors::every_element_type_comes_through` is the emulator's.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

#[path = "../cuda/machine.rs"]
#[allow(dead_code, reason = "the tests of `cuda` use more of it")]
mod machine;
#[path = "../conformance/models.rs"]
#[allow(dead_code, reason = "some are for backends that load ONNX models")]
mod models;
#[path = "../conformance/pictures.rs"]
mod pictures;
#[path = "../cuda/plain_filter.rs"]
mod plain_filter;
#[path = "../conformance/tensors.rs"]
#[allow(dead_code, reason = "the cases that do not apply are listed above")]
mod tensors;

mod compiling;
mod failures;
mod plans;
mod running;

macro_rules! conformance {
    ($($group:ident::$check:ident)*) => {
        conformance!(@ nano Nano tensors::every_element_type_comes_through $($group::$check)*);
        conformance!(@ orin Orin tensors::every_element_type_comes_through $($group::$check)*);
        conformance!(@ discrete Discrete tensors::every_element_type_comes_through $($group::$check)*);
        mod gpu {
            $(#[test]
            fn $check() {
                crate::machine::on_gpu(|machine| {
                    if let Some(backend) = crate::compiling::Compiling::real(machine) {
                        crate::$group::$check(&backend);
                    }
                });
            })*
        }
    };
    (@ $name:ident $profile:ident $($group:ident::$check:ident)*) => {
        mod $name {
            $(#[test]
            fn $check() {
                let emulated = revoada_emulator::Emulated::new(revoada_emulator::Profile::$profile);
                let name = concat!(stringify!($name), "::", stringify!($check));
                crate::compiling::on_emulator(name, &emulated, |machine| {
                    crate::$group::$check(&crate::compiling::Compiling::emulated(machine));
                });
            })*
        }
    };
}

conformance! {
    tensors::inputs_and_outputs_are_as_declared
    tensors::open_dimensions_are_settled_by_name_or_refused
    tensors::an_open_batch_runs_the_rows_submitted
    tensors::a_fixed_batch_runs_whole_with_zeros_where_nothing_was_filled
    tensors::several_inputs_and_outputs_keep_their_order
    tensors::a_set_tensor_stays_until_it_is_replaced
    tensors::sessions_on_threads_agree
    tensors::one_network_serves_many_sessions
    tensors::nan_and_infinity_pass_through
    tensors::a_session_outlives_its_engine
    tensors::wrong_names_shapes_and_types_are_refused
    tensors::an_unfilled_input_is_named
    tensors::waiting_without_submitting_is_refused
    tensors::what_is_read_of_one_output_changes_no_other
    pictures::channels_land_where_the_layout_says
    pictures::every_picture_type_is_staged
    pictures::a_staged_picture_is_used_once_and_let_go
    pictures::crops_of_one_frame_fill_a_batch
    pictures::pictures_that_do_not_fit_are_refused
}
