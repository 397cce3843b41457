//! What every store keeps to.

mod devices;
mod fleet_state;
pub(crate) mod learning;
mod people;
mod registry;

use std::sync::Arc;

use revoada_fleet::store::Store;
use revoada_fleet::store::sqlite::Sqlite;
use tempfile::TempDir;

/// A store that is empty, and what must live as long.
pub(crate) struct Fresh {
    pub(crate) store: Arc<dyn Store>,
    _folder: Option<TempDir>,
}

fn in_a_folder() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("fleet.db")).unwrap();
    Fresh { store: Arc::new(store), _folder: Some(folder) }
}

fn in_memory() -> Fresh {
    Fresh { store: Arc::new(Sqlite::in_memory().unwrap()), _folder: None }
}

macro_rules! contract {
    ($($module:ident::$sentence:ident,)*) => {
        mod sqlite_in_a_folder {
            $(#[test] fn $sentence() { super::$module::$sentence(&*super::in_a_folder().store); })*
        }
        mod sqlite_in_memory {
            $(#[test] fn $sentence() { super::$module::$sentence(&*super::in_memory().store); })*
        }
    };
}

contract! {
    devices::a_device_is_kept_as_it_was_heard,
    devices::a_device_that_lost_its_disk_is_heard_again,
    devices::late_reports_and_strangers_change_nothing,
    devices::facts_are_merged_within_their_bound,
    devices::what_is_not_finite_does_not_damage_a_device,
    devices::an_operator_marks_and_removes_devices,
    devices::a_removed_device_leaves_nothing_but_revoked_certificates,
    devices::certificates_are_revoked_by_serial_and_by_device,
    devices::a_token_is_for_its_devices_its_uses_and_its_time,
    devices::a_token_taken_by_many_at_once_grants_each_use_once,
    devices::keys_are_registered_for_one_device,
    devices::events_are_new_once_and_the_oldest_go,
    devices::events_are_found_by_what_they_are,
    devices::commands_go_out_in_order_and_end_once,
    devices::numbers_of_commands_rise_over_removals_and_restored_backups,
    devices::open_commands_and_kept_ones_are_bounded,
    devices::history_is_counted_into_every_step_and_is_bounded,
    registry::a_version_is_kept_as_it_was_added,
    registry::versions_that_do_not_fit_are_refused,
    registry::what_a_rollout_or_an_order_names_is_not_removed,
    registry::plans_are_found_by_bundle_and_class_and_bounded,
    registry::blobs_are_unused_until_something_refers_to_them,
    fleet_state::the_policy_is_read_as_it_was_wanted,
    fleet_state::a_wrong_rollout_is_refused_and_no_number_is_given_twice,
    fleet_state::blueprints_are_read_as_they_were_planned,
    fleet_state::of_many_that_swap_at_once_one_wins,
    fleet_state::rules_and_alerts_are_kept,
    learning::a_run_is_read_as_it_was_wanted_and_as_it_went,
    learning::a_run_is_told_and_forgotten_and_no_number_is_given_twice,
    learning::files_of_a_run_are_kept_first_and_newest,
    learning::a_supernode_keeps_its_number,
    people::users_are_changed_and_the_last_administrator_stays,
    people::api_tokens_are_found_until_they_expire,
    people::browser_sessions_end_with_time_password_and_user,
    people::every_change_is_in_the_chain_and_reading_is_not,
    people::a_change_that_is_refused_leaves_no_entry,
}
