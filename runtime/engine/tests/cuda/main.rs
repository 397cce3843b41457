//! The GPU's side of the engine: once on the emulator, on each kind of device, and once on the real GPU where there is
//! one.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

#[path = "../stage_cases/mod.rs"]
mod stage_cases;

mod candidates;
mod compiler;
mod failures;
mod machine;
mod memory;
mod plain_filter;
mod staging;
mod streams;

/// Tests that hold on every device: one for each of the emulator's, one for the real.
macro_rules! everywhere {
    ($($group:ident::$check:ident)*) => {
        everywhere!(@ nano Nano $($group::$check)*);
        everywhere!(@ orin Orin $($group::$check)*);
        everywhere!(@ discrete Discrete $($group::$check)*);
        mod gpu {
            $(#[test]
            fn $check() {
                crate::machine::on_gpu(crate::$group::$check);
            })*
        }
    };
    (@ $name:ident $profile:ident $($group:ident::$check:ident)*) => {
        mod $name {
            $(#[test]
            fn $check() {
                let emulated = revoada_emulator::Emulated::new(revoada_emulator::Profile::$profile);
                let name = concat!(stringify!($name), "::", stringify!($check));
                crate::machine::on_emulator(name, &emulated, crate::$group::$check);
            })*
        }
    };
}

everywhere! {
    staging::staging_equals_its_definition
    staging::whole_number_ratios_equal_the_definition
    staging::a_batch_may_mix_everything
    staging::halves_are_rounded_as_by_ieee_754
    staging::a_region_without_numbers_in_it_stays_inside_the_picture
    staging::rows_that_do_not_fit_are_refused_by_number
    staging::a_surface_in_use_is_not_overwritten
    staging::stagers_on_threads_share_a_surface
    candidates::the_filter_finds_what_a_plain_loop_finds
    candidates::more_candidates_than_fit_are_not_guessed
    candidates::outputs_that_are_too_short_are_refused
    memory::bytes_come_back_as_they_went
    memory::a_buffer_is_used_by_one_side_at_a_time
    memory::ranges_outside_a_buffer_are_refused
    memory::the_memory_of_surfaces_is_used_again
    streams::a_stream_waits_for_an_event_of_another
    streams::time_between_events_is_measured
    streams::a_graph_repeats_what_was_captured
    streams::a_failed_capture_leaves_the_stream_usable
}
