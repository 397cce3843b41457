//! A process that is killed while it writes loses nothing that it was told is stored.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use revoada_fleet::planner::Blueprint;
use revoada_fleet::store::sqlite::Sqlite;
use revoada_fleet::store::{Actor, Audit, AuditCheck, Devices, EventQuery, Events, Occurrence, Page, Rollouts};
use revoada_proto::Level;

use crate::fleet::device;
use crate::samples::{at, event};

const DATABASE: &str = "REVOADA_TEST_DATABASE";

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    let mut acknowledged = 0;
    for round in 0..8u64 {
        acknowledged = kill_while_writing(&path, 1 + fastrand::u64(0..60)).max(acknowledged);
        let store = Sqlite::open(&path).unwrap();
        let devices = store.devices().unwrap();
        for number in 1..=acknowledged {
            assert!(devices.contains_key(&name(number)), "round {round}: device {number} of {acknowledged} is lost");
        }
        assert!(store.blueprint().unwrap().number >= acknowledged, "round {round}");
        let newest = EventQuery { device: Some(name(acknowledged)), ..EventQuery::default() };
        assert_eq!(store.events(&newest, Page::first(9)).unwrap().len(), 1, "round {round}");
        assert!(matches!(store.verify_audit().unwrap(), AuditCheck::Whole { entries, .. } if entries >= acknowledged));
    }
    assert!(acknowledged > 8, "{acknowledged}");
}

fn name(number: u64) -> revoada_proto::DeviceId {
    device(&format!("cam-{number}"))
}

/// Lets the writer acknowledge `wanted` more and a little, and kills it. The last number that it acknowledged.
fn kill_while_writing(path: &Path, wanted: u64) -> u64 {
    let mut writer = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::a_writer_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let (sender, numbers) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in lines {
            if let Some(number) = line.unwrap().strip_prefix("stored ").and_then(|number| number.parse::<u64>().ok()) {
                sender.send(number).unwrap();
            }
        }
    });
    let mut last = 0;
    for _ in 0..wanted {
        last = numbers.recv_timeout(Duration::from_secs(60)).expect("the writer writes");
    }
    // Somewhere within its next transactions.
    thread::sleep(Duration::from_micros(fastrand::u64(0..3000)));
    writer.kill().unwrap();
    writer.wait().unwrap();
    reader.join().unwrap();
    numbers.iter().fold(last, u64::max)
}

#[test]
#[ignore = "it is run by the test above, and killed"]
fn a_writer_until_it_is_killed() {
    let store = Sqlite::open(&PathBuf::from(env::var(DATABASE).unwrap())).unwrap();
    let first = store.devices().unwrap().len() as u64;
    for number in first.. {
        let next = number.max(1);
        store.add_device(&name(next), &Actor::Service, at(next)).unwrap();
        let occurrence = Occurrence { device: name(next), event: event(1, Level::Info, "started"), at: at(next) };
        store.record_events(&[occurrence]).unwrap();
        let current = store.blueprint().unwrap();
        let number = next.max(current.number + 1);
        assert!(store.swap_blueprint(&current, &Blueprint { number, ..current.clone() }).unwrap());
        let mut output = std::io::stdout();
        writeln!(output, "stored {next}").unwrap();
        output.flush().unwrap();
    }
}
