//! Whatever the disk does at whichever operation, the device comes up with the old or the new, and ends as it should.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use revoada_agent::{Event, Failure, Phase};
use revoada_core::Digest;
use revoada_proto::{Generation, Kind, Order};
use tempfile::TempDir;

use crate::artefacts::{Artefacts, Behaviour};
use crate::device::{Device, folder};
use crate::lossy_disk::{Left, Trouble};

struct Upgrade {
    artefacts: Artefacts,
    old: Order,
    new: Order,
    /// What is to be active in the end.
    end: BTreeMap<Kind, Digest>,
    phase: Phase,
}

fn upgrade(behaviour: Behaviour, phase: Phase) -> Upgrade {
    let mut artefacts = Artefacts::new();
    let mut order = |generation, name: &str, behaviour| {
        let model = artefacts.make(Kind::Model, name, behaviour);
        let pipeline = artefacts.make(Kind::Pipeline, name, Behaviour::Runs);
        Order { generation: Generation(generation), deployables: [model, pipeline].into() }
    };
    let (old, new) = (order(7, "old", Behaviour::Runs), order(8, "new", behaviour));
    let end = set(if behaviour.is_good() { &new } else { &old });
    Upgrade { artefacts, old, new, end, phase }
}

fn set(order: &Order) -> BTreeMap<Kind, Digest> {
    order.deployables.iter().map(|deployable| (deployable.kind, deployable.digest)).collect()
}

impl Upgrade {
    /// A device that runs the old, in its own folder.
    fn device(&self) -> (TempDir, Device) {
        let parent = folder();
        let mut device = Device::new(parent.path(), &self.artefacts, 1);
        device.order(&self.old);
        device.run_to_end(self.old.generation, &self.artefacts).unwrap();
        assert_eq!(device.digests(), set(&self.old));
        (parent, device)
    }

    /// How many operations the upgrade takes.
    fn operations(&self) -> u64 {
        let (_parent, mut device) = self.device();
        let before = device.disk.operations();
        device.order(&self.new);
        device.run_to_end(self.new.generation, &self.artefacts).unwrap();
        assert_eq!((device.digests(), device.agent.phase()), (self.end.clone(), self.phase), "{:?}", device.errors);
        device.disk.operations() - before
    }

    fn check_end(&self, device: &mut Device, context: &str) {
        device.push(Event::Connected);
        device.order(&self.new);
        device.run_to_end(self.new.generation, &self.artefacts).unwrap();
        assert_eq!(device.digests(), self.end, "{context}: {:?} {:?}", device.agent.phase(), device.errors);
        assert_eq!(device.known(), self.new.generation, "{context}");
        device.reboot(Left::Nothing, &self.artefacts).unwrap();
        assert_eq!(device.digests(), self.end, "{context}: it was not durable");
    }

    fn lose_power_at_every_operation(&self) {
        let operations = self.operations();
        assert!(operations > 30, "an upgrade of two kinds takes more than {operations} operations");
        for after in 0..operations {
            for left in Left::ALL {
                let context = format!("power lost at operation {after} of {operations}, which leaves {left:?}");
                let (_parent, mut device) = self.device();
                device.disk.trouble_after(after, Trouble::PowerLoss);
                device.order(&self.new);
                device.run_to_end(self.new.generation, &self.artefacts).expect_err("the power is lost");

                device.reboot(left, &self.artefacts).unwrap();
                device.handle_all(&self.artefacts).unwrap();
                let runs = device.running.as_ref().unwrap_or_else(|| panic!("{context}: nothing runs"));
                let runs: BTreeMap<_, _> = runs.1.iter().map(|(kind, placed)| (*kind, placed.digest)).collect();
                assert!(runs == set(&self.old) || runs == set(&self.new), "{context}: half of each runs");
                self.check_end(&mut device, &context);
            }
        }
        println!("lost power at {operations} operations, three ways each");
    }
}

#[test]
fn power_lost_at_any_operation_of_an_upgrade_leaves_the_old_or_the_new_and_ends_with_the_new() {
    upgrade(Behaviour::Runs, Phase::Settled).lose_power_at_every_operation();
}

#[test]
fn power_lost_at_any_operation_of_a_rollback_leaves_the_old_or_the_new_and_ends_with_the_old() {
    upgrade(Behaviour::CrashesAtFrame(50), Phase::Failed(Failure::CrashLoop)).lose_power_at_every_operation();
}

#[test]
fn an_operation_that_fails_is_done_again() {
    let upgrade = upgrade(Behaviour::Runs, Phase::Settled);
    let operations = upgrade.operations();
    for after in 0..operations {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            let context = format!("operation {after} of {operations} fails: {kind}");
            let (_parent, mut device) = upgrade.device();
            device.disk.trouble_after(after, Trouble::Fails(kind));
            device.order(&upgrade.new);
            device.run_to_end(upgrade.new.generation, &upgrade.artefacts).unwrap();
            assert_eq!(device.errors.len(), 1, "{context}: {:?}", device.errors);
            assert_eq!(kind == ErrorKind::StorageFull, device.errors[0].contains("the disk is full"), "{context}");
            upgrade.check_end(&mut device, &context);
        }
    }
}

#[test]
fn the_first_deployment_is_interrupted_like_any_other() {
    let mut artefacts = Artefacts::new();
    let model = artefacts.make(Kind::Model, "first", Behaviour::Runs);
    let order = Order { generation: Generation(1), deployables: [model].into() };
    for after in 0.. {
        let parent = folder();
        let mut device = Device::new(parent.path(), &artefacts, 1);
        device.disk.trouble_after(after, Trouble::PowerLoss);
        device.order(&order);
        if device.run_to_end(order.generation, &artefacts).is_ok() {
            assert!(after > 15, "only {after} operations");
            break;
        }
        device.reboot(Left::ALL[after as usize % 3], &artefacts).unwrap();
        device.order(&order);
        device.run_to_end(order.generation, &artefacts).unwrap();
        assert_eq!(device.digests(), set(&order), "power lost at operation {after}");
    }
}

#[test]
fn a_device_that_takes_itself_down_in_every_trial_comes_back_to_the_old() {
    let upgrade = upgrade(Behaviour::Runs, Phase::Settled);
    let (_parent, mut device) = upgrade.device();
    device.order(&upgrade.new);
    let mut reboots = 0;
    loop {
        // It dies as soon as the new one has run for a moment, before anything can be said about it.
        device.handle_all(&upgrade.artefacts).unwrap();
        if device.agent.state().trial.is_some() && device.running.is_some() {
            device.reboot(Left::Nothing, &upgrade.artefacts).unwrap();
            reboots += 1;
        } else if matches!(device.agent.phase(), Phase::Failed(_)) {
            break;
        } else {
            assert!(device.pass_time(&upgrade.artefacts));
        }
    }
    assert_eq!(device.agent.phase(), Phase::Failed(Failure::CrashLoop));
    assert_eq!((device.digests(), reboots), (set(&upgrade.old), 3));
    assert_eq!(device.known(), upgrade.new.generation, "what it knows does not go back with it");
}
