//! What is SQLite's own: files, versions, damage and copies.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use revoada_fleet::learning::RunId;
use revoada_fleet::planner::{Blueprint, RolloutId, RolloutState};
use revoada_fleet::store::sqlite::{Sqlite, check_copy, restore};
use revoada_fleet::store::{Audit, AuditCheck, Devices, Events, Occurrence, Rollouts, RunChanges, Store, Upkeep};
use revoada_proto::Level;
use rusqlite::Connection;

use crate::contract::learning;
use crate::fleet::{World, device, limits, model, rollout};
use crate::samples::{add_version, anna, at, certificate, digest, enrol, event, heard};

/// A little of everything that is hard to read back.
fn populate(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    store.record(&[heard("cam-1", 5, 60)]).unwrap();
    store.set_tags(&cam, &["north".to_owned()].into(), &anna(), at(1)).unwrap();
    store
        .record_events(&[Occurrence { device: cam.clone(), event: event(6, Level::Warn, "fell"), at: at(61) }])
        .unwrap();
    store.add_certificate(&certificate("0a", &cam), &anna(), at(0)).unwrap();
    store.revoke_certificate("0a", &anna(), at(2)).unwrap();
    add_version(store, 1);
    store.set_limits(&limits(), 7, &anna(), at(3)).unwrap();
    store.add_rollout("first", &rollout(model(1)), &anna(), at(3)).unwrap();
    assert!(store.swap_blueprint(&Blueprint::default(), &planned()).unwrap());
    let id = store.add_run("first", &learning::everything_planned(), &anna(), at(4)).unwrap();
    let (round, participant, member) = learning::everything_of_a_member();
    let rounds = vec![learning::everything_of_a_round()];
    let members = vec![(round, participant, member)];
    let state = Some(learning::everything_of_a_state());
    store.change_run(id, &RunChanges { state, rounds, members, files: Vec::new() }).unwrap();
}

fn planned() -> Blueprint {
    let mut world = World::new(3);
    world.add(rollout(model(2)));
    world.plan();
    world.blueprint
}

fn assert_populated(store: &dyn Store) {
    let known = store.device(&device("cam-1")).unwrap().unwrap();
    assert_eq!((known.report.unwrap(), known.tags), (heard("cam-1", 5, 60).report, ["north".to_owned()].into()));
    assert_eq!(store.revoked_serials().unwrap(), ["0a".to_owned()].into());
    assert_eq!(store.version(&digest(1)).unwrap().unwrap().reports["accuracy"]["map"], 0.1 + 0.2);
    assert_eq!(store.policy().unwrap().unwrap().notes[&RolloutId(1)].title, "first");
    assert_eq!(store.blueprint().unwrap(), planned());
    assert!(matches!(store.verify_audit().unwrap(), AuditCheck::Whole { entries, .. } if entries >= 7));
}

fn refusal(path: &Path) -> String {
    let error = Sqlite::open(path).err().expect("it is refused").to_string();
    error.replace(&path.display().to_string(), "fleet.db")
}

#[test]
fn what_was_stored_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    populate(&Sqlite::open(&path).unwrap());
    let store = Sqlite::open(&path).unwrap();
    assert_populated(&store);
    assert_learned(&store);
    drop(store);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "it is one file while nobody has it open");
}

fn assert_learned(store: &dyn Store) {
    let record = store.run(RunId(1)).unwrap().unwrap();
    assert_eq!((record.plan, record.state), (learning::everything_planned(), learning::everything_of_a_state()));
    assert_eq!(store.rounds(RunId(1)).unwrap(), [learning::everything_of_a_round()]);
    let (round, participant, member) = learning::everything_of_a_member();
    assert_eq!(store.members(RunId(1), round).unwrap(), [(participant, member)].into());
}

/// The fixtures are `sqlite3 fleet.db .dump` of what [`populate`] stored, with its two pragmas.
#[test]
fn databases_of_all_versions_are_read() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for version in 1..=2 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.db");
        let dump = fs::read_to_string(data.join(format!("store-v{version}/fleet.sql"))).unwrap();
        Connection::open(&path).unwrap().execute_batch(&dump).unwrap();
        let store = Sqlite::open(&path).unwrap();
        assert_populated(&store);
        if version >= 2 {
            assert_learned(&store);
        }
        store.check().unwrap();
        store.set_builder(&device("cam-1"), true, &anna(), at(99)).unwrap();
        let reopened = Sqlite::open(&path).unwrap();
        assert!(reopened.device(&device("cam-1")).unwrap().unwrap().is_builder);
    }
}

#[test]
fn what_is_no_database_of_ours_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let ours = |name: &str| {
        populate(&Sqlite::open(&path(name)).unwrap());
        path(name)
    };
    let later = ours("later.db");
    Connection::open(&later).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let known = "the database `fleet.db` is of version 99; this program knows up to 2, so run a later one on it";
    assert_eq!(refusal(&later), known);
    let foreign = path("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE tracks (title TEXT)").unwrap();
    assert_eq!(refusal(&foreign), "the database is damaged: `fleet.db`: it is no database of revoada-fleet");
    let text = path("text.db");
    fs::write(&text, "not a database at all, but long enough to have a header of one".repeat(99)).unwrap();
    let refused = refusal(&text);
    assert!(refused.starts_with("the database is damaged: `fleet.db`: cannot open the database"), "{refused}");
    let truncated = ours("truncated.db");
    let length = fs::metadata(&truncated).unwrap().len();
    OpenOptions::new().write(true).open(&truncated).unwrap().set_len(length / 2).unwrap();
    let refused = refusal(&truncated);
    assert!(refused.starts_with("the database is damaged: `fleet.db`"), "{refused}");
    let refused = refusal(&path("no/such/folder/fleet.db"));
    assert_eq!(refused, "cannot open the database `fleet.db`");
}

#[test]
fn a_database_with_a_damaged_page_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    populate(&Sqlite::open(&path).unwrap());
    let whole = fs::read(&path).unwrap();
    let mut found = 0;
    for page in 1..whole.len() / 4096 {
        fs::write(&path, &whole).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xa5; 512], page as u64 * 4096).unwrap();
        // Free pages hold nothing.
        found += usize::from(Sqlite::open(&path).is_err());
    }
    assert!(found > 20, "{found} of {} damaged pages were found", whole.len() / 4096);
}

#[test]
fn a_row_that_cannot_be_read_is_named_as_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    let store = Sqlite::open(&path).unwrap();
    populate(&store);
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE device SET tags = '{\"version\":2,\"content\":[]}'", []).unwrap();
    let error = store.devices().unwrap_err().to_string();
    assert!(error.starts_with("the database is damaged: cannot read the devices"), "{error}");
    assert!(error.contains("it is of version 2"), "{error}");
}

#[test]
fn whoever_changes_the_audit_log_is_found_out() {
    let changes = [
        ("UPDATE audit SET subject = 'cam-2' WHERE number = 2", 2, "it is not what was written"),
        ("UPDATE audit SET actor = replace(actor, 'anna', 'ben') WHERE number = 3", 3, "it is not what was written"),
        ("UPDATE audit SET at = at + 1 WHERE number = 1", 1, "it is not what was written"),
        ("UPDATE audit SET details = '{}' WHERE number = 2", 2, "it is not what was written"),
        ("UPDATE audit SET digest = zeroblob(32) WHERE number = 2", 2, "it is not what was written"),
        ("UPDATE audit SET previous = zeroblob(32) WHERE number = 2", 2, "it does not follow the entry before"),
        ("DELETE FROM audit WHERE number = 3", 3, "entry 3 is missing"),
        ("DELETE FROM audit WHERE number = 1", 1, "entry 1 is missing"),
    ];
    for (change, number, why) in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.db");
        let store = Sqlite::open(&path).unwrap();
        populate(&store);
        let other = Connection::open(&path).unwrap();
        let refused = other.execute(change, []).unwrap_err().to_string();
        assert!(refused.contains("entries of the audit log are never"), "{refused}");
        other.execute_batch("DROP TRIGGER audit_keeps_entries; DROP TRIGGER audit_keeps_content").unwrap();
        assert_eq!(other.execute(change, []).unwrap(), 1, "{change}");
        let found = AuditCheck::Broken { number, why: why.to_owned() };
        assert_eq!(store.verify_audit().unwrap(), found, "{change}");
    }
}

/// Triggers of another connection count what is written.
#[test]
fn swapping_a_blueprint_writes_only_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    let store = Sqlite::open(&path).unwrap();
    let mut world = World::new(60);
    world.add(rollout(model(2)));
    world.plan();
    assert!(store.swap_blueprint(&Blueprint::default(), &world.blueprint).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE written (what TEXT, device TEXT)").unwrap();
    for (table, row) in [("member", "NEW.device"), ("target", "NEW.device"), ("rollout_state", "NEW.rollout")] {
        let trigger = format!(
            "CREATE TRIGGER count_{table} AFTER INSERT ON {table}
             BEGIN INSERT INTO written VALUES ('{table}', {row}); END"
        );
        other.execute_batch(&trigger).unwrap();
    }
    let mut next = Blueprint { number: world.blueprint.number + 1, ..world.blueprint.clone() };
    let state = next.rollouts.get_mut(&RolloutId(1)).unwrap();
    let mut changed = RolloutState::clone(state);
    let (name, member) = changed.members.iter_mut().nth(30).unwrap();
    member.attempts += 1;
    let name = name.clone();
    *state = Arc::new(changed);
    assert!(store.swap_blueprint(&world.blueprint, &next).unwrap());
    let mut statement = other.prepare("SELECT what, device FROM written").unwrap();
    let written = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let written: Vec<(String, String)> = written.collect::<Result<_, _>>().unwrap();
    assert_eq!(written, [("member".to_owned(), name.to_string())]);
    assert_eq!(store.blueprint().unwrap(), next);
}

#[test]
fn a_backup_is_whole_while_others_write_and_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("fleet.db"), folder.path().join("copy.db"));
    let store = Sqlite::open(&path).unwrap();
    populate(&store);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..200 {
                store.add_device(&device(&format!("new-{number}")), &anna(), at(9)).unwrap();
            }
        });
        let mut devices = 0;
        while !writer.is_finished() {
            store.backup(&copy).unwrap();
            check_copy(&copy).unwrap();
            let known = Sqlite::open(&copy).unwrap().devices().unwrap().len();
            assert!(known >= devices, "a later copy knows more");
            devices = known;
        }
        writer.join().unwrap();
    });
    store.backup(&copy).unwrap();
    let taken = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert!(!taken.iter().any(|name| name.to_string_lossy().contains("partial")), "{taken:?}");
    for file in [&path, &copy] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let error = store.backup(&path).unwrap_err();
    assert!(error.to_string().starts_with("there is a file"), "it is the database itself: {error}");
    let error = restore(&copy, &path).unwrap_err();
    assert!(error.to_string().starts_with("there is a file"), "{error}");
    let restored = folder.path().join("restored.db");
    restore(&copy, &restored).unwrap();
    let restored = Sqlite::open(&restored).unwrap();
    assert_populated(&restored);
    assert_eq!(restored.devices().unwrap().len(), 201);
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, target) = (folder.path().join("copy.db"), folder.path().join("fleet.db"));
    let store = Sqlite::in_memory().unwrap();
    populate(&store);
    store.backup(&copy).unwrap();
    let length = fs::metadata(&copy).unwrap().len();
    OpenOptions::new().write(true).open(&copy).unwrap().set_len(length - 4096).unwrap();
    assert!(restore(&copy, &target).unwrap_err().to_string().starts_with("the database is damaged"));
    fs::write(&copy, "").unwrap();
    let error = restore(&copy, &target).unwrap_err().to_string();
    assert!(error.ends_with("it is empty"), "{error}");
    assert!(!target.exists());
}

/// What a write-ahead log is for.
#[test]
fn readers_do_not_wait_for_a_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    let store = Sqlite::open(&path).unwrap();
    populate(&store);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; DELETE FROM event").unwrap();
    assert_eq!(store.devices().unwrap().len(), 1);
    assert_eq!(store.events(&Default::default(), revoada_fleet::store::Page::first(9)).unwrap().len(), 1);
    other.execute_batch("ROLLBACK").unwrap();
}

#[test]
#[ignore = "writes the fixture of a new version: FLEET_DB=fleet.db cargo test --test store fixture -- --ignored"]
fn a_fixture_is_written() {
    let path = std::env::var("FLEET_DB").unwrap();
    populate(&Sqlite::open(Path::new(&path)).unwrap());
}
