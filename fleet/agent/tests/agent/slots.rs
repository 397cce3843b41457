//! Slots: filled beside what is active, and activated only as they were signed.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use revoada_agent::{Failure, Fault, LocalDisk, Part, PartSource, Phase, Placed, Slot, SlotError, Slots, State, Trial};
use revoada_core::Digest;
use revoada_proto::{Deployable, Generation, Kind, Order};
use tempfile::TempDir;

use crate::artefacts::{Artefacts, Behaviour};
use crate::device::{Device, folder};
use crate::lossy_disk;

fn local(folder: &Path, artefacts: &Artefacts) -> Slots<LocalDisk> {
    Slots::open(LocalDisk, folder, artefacts.trusted()).unwrap()
}

/// Fetches everything; how many bytes that took.
fn fill(slots: &mut Slots<LocalDisk>, deployable: Deployable, slot: Slot, artefacts: &Artefacts) -> usize {
    let filling = slots.fill(deployable.kind, Placed { slot, digest: deployable.digest }).unwrap();
    let mut fetched = 0;
    while let Some(part) = filling.next().unwrap() {
        let bytes = &artefacts.get(part.source).unwrap()[part.offset as usize..];
        filling.append(&part, bytes).unwrap();
        filling.complete(&part).unwrap();
        fetched += bytes.len();
    }
    filling.finish().unwrap();
    fetched
}

/// A device's folder with a model in slot A, active.
fn with_a_model() -> (TempDir, Artefacts, Slots<LocalDisk>, Placed) {
    let (folder, mut artefacts) = (folder(), Artefacts::new());
    let model = artefacts.make(Kind::Model, "old", Behaviour::Runs);
    let mut slots = local(folder.path(), &artefacts);
    fill(&mut slots, model, Slot::A, &artefacts);
    let placed = Placed { slot: Slot::A, digest: model.digest };
    let verified = slots.verify(Kind::Model, placed).unwrap();
    let state = State { known: Generation(3), ..State::default() };
    slots.activate(&state, &[verified], &[]).unwrap();
    (folder, artefacts, slots, placed)
}

fn data(name: &str) -> TempDir {
    let folder = folder();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).join("state.json");
    fs::copy(source, folder.path().join("state.json")).unwrap();
    folder
}

#[test]
fn the_state_of_version_1_is_read_and_written_back_as_it_is() {
    let folder = data("state-v1");
    let mut slots = Slots::open(LocalDisk, folder.path(), Vec::new()).unwrap();
    let (old, new) = (Digest::new([7; 32]), Digest::new([8; 32]));
    let found = slots.found().unwrap();
    let trial = Trial {
        previous: [(Kind::Model, Some(Placed { slot: Slot::A, digest: old })), (Kind::Package, None)].into(),
        starts: 2,
    };
    let state = State {
        known: Generation(8),
        desired: [(Kind::Model, new), (Kind::Pipeline, old)].into(),
        trial: Some(trial),
        failure: Some(Failure::CrashLoop),
    };
    assert_eq!(found.state, state);
    assert_eq!(found.active[&Kind::Model], Placed { slot: Slot::B, digest: new });
    let before = fs::read(folder.path().join("state.json")).unwrap();
    slots.save(&state).unwrap();
    assert_eq!(fs::read(folder.path().join("state.json")).unwrap(), before);
}

#[test]
fn a_state_that_cannot_be_used_is_refused_and_left_alone() {
    for (name, reason) in [
        ("state-of-a-later-version", "it is of version 2 of the format, and this program reads up to 1"),
        ("state-cut-short", "EOF while parsing"),
        ("state-with-an-unknown-key", "unknown field `mood`"),
    ] {
        let folder = data(name);
        let before = fs::read(folder.path().join("state.json")).unwrap();
        let error = Slots::open(LocalDisk, folder.path(), Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("the agent's state `") && error.contains(reason), "{name}: {error}");
        assert_eq!(fs::read(folder.path().join("state.json")).unwrap(), before);
    }
}

#[test]
fn an_interrupted_fetch_is_gone_on_with() {
    let (_folder, mut artefacts, mut slots, _) = with_a_model();
    let new = artefacts.make(Kind::Model, "new", Behaviour::Runs);
    let placed = Placed { slot: Slot::B, digest: new.digest };
    let filling = slots.fill(Kind::Model, placed).unwrap();
    let mut had = 0;
    for _ in 0..3 {
        let part = filling.next().unwrap().unwrap();
        filling.append(&part, artefacts.get(part.source).unwrap()).unwrap();
        filling.complete(&part).unwrap();
        had += artefacts.get(part.source).unwrap().len();
    }
    let part = filling.next().unwrap().unwrap();
    filling.append(&part, &artefacts.get(part.source).unwrap()[..9]).unwrap();
    drop(filling);

    let filling = slots.fill(Kind::Model, placed).unwrap();
    assert_eq!(filling.next().unwrap(), Some(Part { offset: 9, ..part }));
    let everything: usize = artefacts.parts_of(new.digest).map(|bytes| bytes.len()).sum();
    assert_eq!(fill(&mut slots, new, Slot::B, &artefacts), everything - had - 9);
    slots.verify(Kind::Model, placed).unwrap();
}

#[test]
fn what_a_fetch_of_something_else_has_left_is_removed() {
    let (folder, mut artefacts, mut slots, _) = with_a_model();
    let [begun, half_removed, wanted] =
        ["begun", "half removed", "wanted"].map(|name| artefacts.make(Kind::Model, name, Behaviour::Runs));
    let place = folder.path().join("model/b");
    let filling = slots.fill(Kind::Model, Placed { slot: Slot::B, digest: begun.digest }).unwrap();
    filling.append(&filling.next().unwrap().unwrap(), b"{").unwrap();
    fs::create_dir_all(place.join(format!("{}.removed/reports", half_removed.digest.hex()))).unwrap();
    fs::write(place.join("stray"), "").unwrap();
    fill(&mut slots, wanted, Slot::B, &artefacts);
    let left: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [wanted.digest.hex().as_str()]);
}

#[test]
fn bytes_that_are_not_those_of_the_digest_are_fetched_again() {
    let (_folder, mut artefacts, mut slots, _) = with_a_model();
    let new = artefacts.make(Kind::Model, "new", Behaviour::Runs);
    let filling = slots.fill(Kind::Model, Placed { slot: Slot::B, digest: new.digest }).unwrap();
    let part = filling.next().unwrap().unwrap();
    filling.append(&part, b"<html>").unwrap();
    let error = filling.complete(&part).unwrap_err();
    assert_eq!(error.fault(), Fault::Damaged);
    assert_eq!(error.to_string(), format!("the bytes of `bundle.json` are not those of {}", new.digest));
    assert_eq!(filling.next().unwrap(), Some(part), "they are missing again, from the first on");

    let part = filling.next().unwrap().unwrap();
    let error = filling.append(&part, &vec![0; part.bytes_max as usize + 1]).unwrap_err();
    assert_eq!(error.to_string(), "`bundle.json` is longer than its 1048576 bytes");
    assert!(matches!(filling.finish(), Err(SlotError::Unfinished { part }) if part == "bundle.json"));
}

#[test]
fn a_torn_signature_is_fetched_again() {
    let (_folder, mut artefacts, mut slots, _) = with_a_model();
    let pipeline = artefacts.make(Kind::Pipeline, "cameras", Behaviour::Runs);
    let filling = slots.fill(Kind::Pipeline, Placed { slot: Slot::A, digest: pipeline.digest }).unwrap();
    let content = filling.next().unwrap().unwrap();
    filling.append(&content, artefacts.get(content.source).unwrap()).unwrap();
    filling.complete(&content).unwrap();
    let signature = filling.next().unwrap().unwrap();
    assert_eq!(signature.source, PartSource::SignatureOf(pipeline.digest));
    filling.append(&signature, &artefacts.get(signature.source).unwrap()[..20]).unwrap();
    assert_eq!(filling.complete(&signature).unwrap_err().fault(), Fault::Damaged);
    assert_eq!(filling.next().unwrap(), Some(signature));
}

#[test]
fn only_what_a_trusted_key_has_signed_is_verified() {
    let (folder, mut artefacts, mut slots, old) = with_a_model();
    for kind in [Kind::Model, Kind::Pipeline, Kind::Package] {
        let slot = if kind == Kind::Model { Slot::B } else { Slot::A };
        let foreign = artefacts.make(kind, "a stranger's", Behaviour::IsAStrangers);
        fill(&mut slots, foreign, slot, &artefacts);
        let error = slots.verify(kind, Placed { slot, digest: foreign.digest }).unwrap_err();
        assert_eq!(error.fault(), Fault::Refused, "{error}");
        assert!(error.to_string().ends_with("is not among the trusted keys"), "{error}");
    }
    fs::write(folder.path().join("model/a").join(old.digest.hex()).join("model.onnx"), "changed later").unwrap();
    assert_eq!(slots.verify(Kind::Model, old).unwrap_err().fault(), Fault::Damaged);
    let elsewhere = Placed { slot: Slot::B, ..old };
    assert_eq!(slots.verify(Kind::Model, elsewhere).unwrap_err().fault(), Fault::Damaged, "it is not there");
}

#[test]
fn a_signature_of_one_kind_is_worth_nothing_for_another() {
    let (_folder, mut artefacts, mut slots, _) = with_a_model();
    let pipeline = artefacts.make(Kind::Pipeline, "cameras", Behaviour::Runs);
    let filling = slots.fill(Kind::Package, Placed { slot: Slot::A, digest: pipeline.digest }).unwrap();
    let content = filling.next().unwrap().unwrap();
    filling.append(&content, artefacts.get(content.source).unwrap()).unwrap();
    filling.complete(&content).unwrap();
    let signature = filling.next().unwrap().unwrap();
    filling.append(&signature, artefacts.get(signature.source).unwrap()).unwrap();
    assert!(filling.complete(&signature).is_err());
}

#[test]
fn neither_what_is_active_nor_what_a_trial_may_go_back_to_is_written_to() {
    let (_folder, mut artefacts, mut slots, old) = with_a_model();
    let new = artefacts.make(Kind::Model, "new", Behaviour::Runs);
    let error = slots.fill(Kind::Model, Placed { slot: Slot::A, digest: new.digest }).unwrap_err();
    assert_eq!(error.to_string(), "slot a cannot be filled with another model: it is active");

    fill(&mut slots, new, Slot::B, &artefacts);
    let verified = slots.verify(Kind::Model, Placed { slot: Slot::B, digest: new.digest }).unwrap();
    let trial = Trial { previous: [(Kind::Model, Some(old))].into(), starts: 1 };
    let state = State { known: Generation(4), trial: Some(trial), ..State::default() };
    slots.activate(&state, &[verified], &[]).unwrap();
    let error = slots.fill(Kind::Model, Placed { slot: Slot::A, digest: new.digest }).unwrap_err();
    assert_eq!(error.to_string(), "a model cannot be fetched while a trial may go back to the one that its slot holds");
}

#[test]
fn an_older_generation_is_not_written() {
    let (folder, artefacts, mut slots, _) = with_a_model();
    let error = slots.save(&State { known: Generation(2), ..State::default() }).unwrap_err();
    assert_eq!(error.to_string(), "generation 2 is older than 3, which this device knows");
    assert_eq!(local(folder.path(), &artefacts).found().unwrap().state.known, Generation(3));
}

#[test]
fn a_disk_without_room_is_said_so_before_anything_large_is_fetched() {
    let (_folder, mut artefacts, mut slots, old) = with_a_model();
    let new = artefacts.make(Kind::Model, "new", Behaviour::Runs);
    let filling = slots.fill(Kind::Model, Placed { slot: Slot::B, digest: new.digest }).unwrap();
    filling.check_room(0, 1000).unwrap();
    let error = filling.check_room(u64::MAX, 1000).unwrap_err();
    assert_eq!(error.fault(), Fault::NoRoom);
    assert!(error.to_string().ends_with("and 18446744073709551615 are needed"), "{error}");
    slots.verify(Kind::Model, old).unwrap();
}

#[test]
fn a_full_disk_leaves_what_is_active_alone_and_is_waited_for() {
    let (parent, mut artefacts) = (folder(), Artefacts::new());
    let mut device = Device::new(parent.path(), &artefacts, 1);
    let [old, new] = ["old", "new"].map(|name| artefacts.make(Kind::Model, name, Behaviour::Runs));
    let order = |generation, model| Order { generation: Generation(generation), deployables: [model].into() };
    device.order(&order(1, old));
    device.run_to_end(Generation(1), &artefacts).unwrap();

    device.disk.set_free_bytes(10);
    device.order(&order(2, new));
    while device.agent.counts().retries < 20 {
        device.handle_all(&artefacts).unwrap();
        device.pass_time(&artefacts);
    }
    assert_eq!(device.agent.phase(), Phase::Waiting(Fault::NoRoom, Kind::Model));
    assert!(device.errors[0].contains(".partial` has room for 10 bytes, and 1"), "{}", device.errors[0]);
    assert_eq!((device.digests()[&Kind::Model], device.runs), (old.digest, 1), "the old one runs on");

    device.disk.set_free_bytes(u64::MAX);
    device.run_to_end(Generation(2), &artefacts).unwrap();
    assert_eq!((device.digests()[&Kind::Model], device.agent.phase()), (new.digest, Phase::Settled));
}

#[test]
fn a_slot_that_has_rotted_is_replaced_by_the_other_and_fetched_again() {
    let (parent, mut artefacts) = (folder(), Artefacts::new());
    let mut device = Device::new(parent.path(), &artefacts, 1);
    let [old, new] = ["old", "new"].map(|name| artefacts.make(Kind::Model, name, Behaviour::Runs));
    for (generation, model) in [(1, old), (2, new)] {
        device.order(&Order { generation: Generation(generation), deployables: [model].into() });
        device.run_to_end(Generation(generation), &artefacts).unwrap();
    }
    device.restart(&artefacts).unwrap();
    let active = device.slots.active()[&Kind::Model];
    let folder = parent.path().join("agent/model").join(active.slot.name()).join(active.digest.hex());
    fs::write(folder.join("model.onnx"), "rotten").unwrap();
    while device.running.is_none() {
        device.handle_all(&artefacts).unwrap();
    }
    assert_eq!(device.agent.counts().slots_damaged, 1);
    device.run_to_end(Generation(2), &artefacts).unwrap();
    assert_eq!((device.digests()[&Kind::Model], device.agent.phase()), (new.digest, Phase::Settled));
}

#[test]
fn a_write_that_fails_leaves_no_doubt_about_what_is_active() {
    let (parent, mut artefacts) = (folder(), Artefacts::new());
    let mut device = Device::new(parent.path(), &artefacts, 1);
    let old = artefacts.make(Kind::Model, "old", Behaviour::Runs);
    device.order(&Order { generation: Generation(1), deployables: [old].into() });
    device.run_to_end(Generation(1), &artefacts).unwrap();
    let (state, placed) = (device.agent.state().clone(), Placed { slot: Slot::B, digest: Digest::new([9; 32]) });
    // The last of the four operations of a replacement: the new record has its name already.
    device.disk.trouble_after(3, lossy_disk::Trouble::Fails(ErrorKind::Other));
    device.slots.save(&State { known: Generation(5), ..state }).unwrap_err();
    assert_eq!(device.slots.found().unwrap().state.known, Generation(1));
    device.slots.fill(Kind::Model, placed).unwrap();
    device.disk.reboot(lossy_disk::Left::Names);
    let slots = Slots::open(device.disk.clone(), &parent.path().join("agent"), artefacts.trusted()).unwrap();
    assert_eq!(slots.found().unwrap().state.known, Generation(1));
}
