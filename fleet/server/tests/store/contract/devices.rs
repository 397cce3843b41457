//! Devices, who they are, what they say, and what they are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use revoada_core::Timestamp;
use revoada_fleet::store::{
    Actor, Answer, COMMANDS_MAX, CommandState, EVENTS_MAX, EventQuery, Gauge, OPEN_COMMANDS_MAX, Occurrence, Page,
    Sample, Step, Store, StoreError, Taken, TokenScope,
};
use revoada_proto::message::FACTS_MAX;
use revoada_proto::{Ask, DeviceId, Fact, Level};

use crate::fleet::device;
use crate::samples::{anna, at, certificate, digest, enrol, event, heard, token};

pub(super) fn a_device_is_kept_as_it_was_heard(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    assert!(!store.add_device(&cam, &anna(), at(9)).unwrap(), "it is there already");
    let fresh = store.device(&cam).unwrap().unwrap();
    assert_eq!((fresh.enrolled_at, fresh.seen, fresh.report), (at(0), None, None));
    let said = heard("cam-1", 5, 60);
    store.record(std::slice::from_ref(&said)).unwrap();
    let known = store.device(&cam).unwrap().unwrap();
    assert_eq!((known.report.as_ref(), &known.details, known.seen), (Some(&said.report), &said.details, Some(at(60))));
    assert_eq!(store.devices().unwrap(), [(cam.clone(), known.clone())].into());
    assert_eq!(known.to_inventory().facts, said.details.facts);
    store.record_seen(&[(cam.clone(), at(90)), (cam.clone(), at(70)), (device("stranger"), at(90))]).unwrap();
    assert_eq!(store.device(&cam).unwrap().unwrap().seen, Some(at(90)), "times never go back");
}

pub(super) fn a_device_that_lost_its_disk_is_heard_again(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    store.set_tags(&cam, &["north".to_owned()].into(), &anna(), at(1)).unwrap();
    store.record(&[heard("cam-1", 500, 60)]).unwrap();
    let many: Vec<_> = (0..EVENTS_MAX as u64 - 1).map(|sequence| occurrence(&cam, sequence)).collect();
    store.record_events(&many).unwrap();
    for round in 0..2 {
        assert!(!store.add_device(&cam, &Actor::Service, at(70)).unwrap());
        store.record(&[heard("cam-1", 1, 80)]).unwrap();
        let known = store.device(&cam).unwrap().unwrap();
        assert_eq!((known.report.unwrap().sequence, known.tags), (1, ["north".to_owned()].into()));
        let events = [occurrence(&cam, 0), occurrence(&cam, 1), occurrence(&cam, 1)];
        assert_eq!(store.record_events(&events).unwrap(), [true, true, false], "round {round}");
    }
    let kept = store.events(&EventQuery::default(), Page::first(usize::MAX)).unwrap();
    let sequences: Vec<u64> = kept.iter().map(|record| record.occurrence.event.sequence).collect();
    let older = (3..EVENTS_MAX as u64 - 1).rev();
    assert_eq!(sequences, [1, 0, 1, 0].into_iter().chain(older).collect::<Vec<_>>(), "the oldest went");
}

pub(super) fn late_reports_and_strangers_change_nothing(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    let late = heard("cam-1", 4, 80);
    store.record(&[heard("cam-1", 5, 60), late, heard("stranger", 1, 60)]).unwrap();
    let known = store.device(&cam).unwrap().unwrap();
    assert_eq!((known.report.unwrap().sequence, known.seen), (5, Some(at(80))), "it was heard of all the same");
    assert_eq!(store.devices().unwrap().len(), 1);
}

pub(super) fn facts_are_merged_within_their_bound(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    let mut second = heard("cam-1", 6, 61);
    second.details.facts = (0..FACTS_MAX).map(|index| (format!("fact-{index:03}"), Fact::Number(0.1))).collect();
    let mut third = heard("cam-1", 7, 62);
    third.details.facts = BTreeMap::from([
        ("site".to_owned(), Fact::Text("south".to_owned())),
        ("one-more".to_owned(), Fact::Number(1.0)),
    ]);
    store.record(&[heard("cam-1", 5, 60), second, third]).unwrap();
    let facts = store.device(&cam).unwrap().unwrap().details.facts;
    assert_eq!(facts.len(), FACTS_MAX);
    assert_eq!(facts["site"], Fact::Text("south".to_owned()), "what is known still changes at the bound");
    assert!(!facts.contains_key("one-more"));
}

pub(super) fn what_is_not_finite_does_not_damage_a_device(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    let mut said = heard("cam-1", 5, 60);
    said.report.figures.fps = Some(f64::NAN);
    said.details.streams[0].fps = f64::INFINITY;
    said.details.facts.insert("load".to_owned(), Fact::Number(f64::NAN));
    store.record(&[said]).unwrap();
    let known = store.devices().unwrap().remove(&cam).unwrap();
    assert_eq!(known.report.unwrap().figures.fps, None);
    assert_eq!(known.details.streams[0].fps, 0.0);
    assert!(!known.details.facts.contains_key("load") && known.details.facts.contains_key("site"));
}

pub(super) fn an_operator_marks_and_removes_devices(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    let tags = BTreeSet::from(["entrance".to_owned(), "ä b".to_owned()]);
    store.set_tags(&cam, &tags, &anna(), at(1)).unwrap();
    store.set_builder(&cam, true, &anna(), at(1)).unwrap();
    let known = store.device(&cam).unwrap().unwrap();
    assert_eq!((known.tags, known.is_builder), (tags, true));
    let too_many = (0..100).map(|index| index.to_string()).collect();
    let error = store.set_tags(&cam, &too_many, &anna(), at(2)).unwrap_err();
    assert_eq!(error.to_string(), "tags of a device may be at most 64");
    let error = store.set_builder(&device("stranger"), true, &anna(), at(2)).unwrap_err();
    assert_eq!(error.to_string(), "there is no device `stranger`");
    assert!(store.remove_device(&cam, &anna(), at(3)).unwrap());
    assert!(!store.remove_device(&cam, &anna(), at(3)).unwrap());
    assert_eq!(store.device(&cam).unwrap(), None);
}

pub(super) fn a_removed_device_leaves_nothing_but_revoked_certificates(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    store.record(&[heard("cam-1", 5, 60)]).unwrap();
    store
        .record_events(&[Occurrence { device: cam.clone(), event: event(6, Level::Warn, "fell"), at: at(61) }])
        .unwrap();
    let sample = Sample { device: cam.clone(), gauge: Gauge::Fps, at: at(60), value: 25.0 };
    store.record_samples(&[sample]).unwrap();
    store.add_command(&cam, &Ask::RestartPipeline, at(999), &anna(), at(61)).unwrap();
    store.add_certificate(&certificate("0a", &cam), &anna(), at(0)).unwrap();
    store.register_key(&digest(7), &cam, &anna(), at(0)).unwrap();
    store.remove_device(&cam, &anna(), at(70)).unwrap();
    assert_eq!(store.revoked_serials().unwrap(), ["0a".to_owned()].into());
    assert_eq!(store.registered_keys().unwrap(), []);
    enrol(store, "cam-1");
    let known = store.device(&cam).unwrap().unwrap();
    assert_eq!((known.report, known.seen), (None, None));
    assert_eq!(store.events(&EventQuery::default(), Page::first(10)).unwrap(), []);
    assert_eq!(store.history(&cam, Gauge::Fps, Step::Day, Timestamp::ZERO..at(99)).unwrap(), []);
    assert_eq!(store.commands(&cam, Page::first(10)).unwrap(), []);
}

pub(super) fn certificates_are_revoked_by_serial_and_by_device(store: &dyn Store) {
    let (one, two) = (enrol(store, "cam-1"), enrol(store, "cam-2"));
    for (serial, device) in [("0a", &one), ("0b", &one), ("0c", &two)] {
        store.add_certificate(&certificate(serial, device), &anna(), at(0)).unwrap();
    }
    let again = store.add_certificate(&certificate("0a", &two), &anna(), at(0)).unwrap_err();
    assert!(matches!(again, StoreError::Exists { what: "certificate", .. }), "{again}");
    assert!(store.revoke_certificate("0a", &anna(), at(5)).unwrap());
    assert!(!store.revoke_certificate("0a", &anna(), at(6)).unwrap());
    assert!(!store.revoke_certificate("ff", &anna(), at(6)).unwrap());
    assert_eq!(store.certificate("0a").unwrap().unwrap().revoked_at, Some(at(5)), "the first time counts");
    assert_eq!(store.revoke_device(&one, &anna(), at(7)).unwrap(), 1);
    assert_eq!(store.revoked_serials().unwrap(), ["0a", "0b"].map(str::to_owned).into());
    assert_eq!(store.certificates(&one).unwrap().len(), 2);
    assert_eq!(store.forget_certificates(at(1000)).unwrap(), 0, "they end then");
    assert_eq!(store.forget_certificates(at(1001)).unwrap(), 3);
    assert!(store.revoked_serials().unwrap().is_empty());
}

pub(super) fn a_token_is_for_its_devices_its_uses_and_its_time(store: &dyn Store) {
    let prefix = TokenScope::Prefix("cam-".to_owned());
    store.add_enrolment_token(&token(1, prefix, 2), &anna(), at(0)).unwrap();
    store.add_enrolment_token(&token(2, TokenScope::Device(device("gate")), 1), &anna(), at(0)).unwrap();
    let take = |hash, name, seconds| store.take_token(&digest(hash), &device(name), at(seconds)).unwrap();
    assert_eq!(take(3, "cam-1", 1), Taken::Unknown);
    assert_eq!(take(1, "gate", 1), Taken::OtherDevice);
    assert_eq!(take(1, "cam-1", 1000), Taken::Expired);
    assert_eq!(take(1, "cam-1", 999), Taken::Granted);
    assert_eq!(take(1, "cam-2", 1), Taken::Granted);
    assert_eq!(take(1, "cam-3", 1), Taken::UsedUp);
    assert_eq!(take(2, "gate-2", 1), Taken::OtherDevice);
    assert_eq!(take(2, "gate", 1), Taken::Granted);
    let left: Vec<u32> = store.enrolment_tokens().unwrap().iter().map(|token| token.uses_left).collect();
    assert_eq!(left, [0, 0]);
    assert!(store.add_enrolment_token(&token(1, TokenScope::Prefix(String::new()), 9), &anna(), at(0)).is_err());
    assert!(store.remove_enrolment_token("token-1", &anna(), at(2)).unwrap());
    assert_eq!(take(1, "cam-4", 1), Taken::Unknown);
}

pub(super) fn a_token_taken_by_many_at_once_grants_each_use_once(store: &dyn Store) {
    store.add_enrolment_token(&token(1, TokenScope::Prefix(String::new()), 7), &anna(), at(0)).unwrap();
    let taken: Vec<Taken> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn(move || {
                    let take = |turn| store.take_token(&digest(1), &device(&format!("cam-{thread}-{turn}")), at(1));
                    (0..4).map(|turn| take(turn).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(taken.iter().filter(|taken| **taken == Taken::Granted).count(), 7);
    assert_eq!(taken.iter().filter(|taken| **taken == Taken::UsedUp).count(), 32 - 7);
}

pub(super) fn keys_are_registered_for_one_device(store: &dyn Store) {
    store.register_key(&digest(7), &device("cam-1"), &anna(), at(0)).unwrap();
    let again = store.register_key(&digest(7), &device("cam-2"), &anna(), at(0)).unwrap_err();
    assert!(matches!(again, StoreError::Exists { what: "key", .. }), "{again}");
    assert_eq!(store.registered_key(&digest(7)).unwrap(), Some(device("cam-1")));
    assert_eq!(store.registered_key(&digest(8)).unwrap(), None);
    assert!(store.remove_key(&digest(7), &anna(), at(1)).unwrap());
    assert_eq!(store.registered_key(&digest(7)).unwrap(), None);
}

fn occurrence(device: &DeviceId, sequence: u64) -> Occurrence {
    Occurrence { device: device.clone(), event: event(sequence, Level::Info, "started"), at: at(sequence) }
}

pub(super) fn events_are_new_once_and_the_oldest_go(store: &dyn Store) {
    let (one, two) = (enrol(store, "cam-1"), enrol(store, "cam-2"));
    let record = |events: &[Occurrence]| store.record_events(events).unwrap();
    assert_eq!(record(&[occurrence(&one, 5), occurrence(&one, 5), occurrence(&two, 5)]), [true, false, true]);
    assert_eq!(record(&[occurrence(&one, 5), occurrence(&one, 3)]), [false, true], "one that comes late is new");
    assert_eq!(record(&[occurrence(&device("stranger"), 1)]), [false]);
    let max = EVENTS_MAX as u64;
    let many: Vec<_> = (10..10 + max).map(|sequence| occurrence(&one, sequence)).collect();
    assert!(record(&many).iter().all(|is_new| *is_new));
    assert_eq!(record(&[occurrence(&one, 3), occurrence(&one, 9)]), [false, false], "older than all that are kept");
    let query = EventQuery { device: Some(one), ..EventQuery::default() };
    let kept = store.events(&query, Page::first(usize::MAX)).unwrap();
    let sequences: Vec<u64> = kept.iter().map(|record| record.occurrence.event.sequence).collect();
    assert_eq!(sequences, (10..10 + max).rev().collect::<Vec<_>>());
    assert_eq!(kept[0].occurrence, occurrence(&device("cam-1"), 9 + max));
}

pub(super) fn events_are_found_by_what_they_are(store: &dyn Store) {
    let (one, two) = (enrol(store, "cam-1"), enrol(store, "cam-2"));
    for (device, sequence, level, name) in [
        (&one, 1, Level::Info, "started"),
        (&two, 1, Level::Warn, "hot"),
        (&one, 2, Level::Error, "rolled-back"),
        (&two, 2, Level::Warn, "started"),
    ] {
        let event = event(sequence, level, name);
        store.record_events(&[Occurrence { device: device.clone(), event, at: at(1) }]).unwrap();
    }
    let find = |device: Option<&DeviceId>, level_min, name: Option<&str>, page| {
        let query = EventQuery { device: device.cloned(), level_min, name: name.map(str::to_owned) };
        let found = store.events(&query, page).unwrap().into_iter();
        found
            .map(|record| format!("{} {}", record.occurrence.device, record.occurrence.event.sequence))
            .collect::<Vec<_>>()
    };
    let all = Page::first(10);
    assert_eq!(find(None, None, None, all), ["cam-2 2", "cam-1 2", "cam-2 1", "cam-1 1"]);
    assert_eq!(find(Some(&one), None, None, all), ["cam-1 2", "cam-1 1"]);
    assert_eq!(find(None, Some(Level::Warn), None, all), ["cam-2 2", "cam-1 2", "cam-2 1"]);
    assert_eq!(find(None, Some(Level::Error), None, all), ["cam-1 2"]);
    assert_eq!(find(None, Some(Level::Info), Some("started"), all), ["cam-2 2", "cam-1 1"]);
    assert_eq!(find(Some(&two), Some(Level::Warn), Some("started"), all), ["cam-2 2"]);
    let first = store.events(&EventQuery::default(), Page::first(3)).unwrap();
    let page = Page { before: Some(first[2].number), limit: 3 };
    assert_eq!((first.len(), find(None, None, None, page)), (3, vec!["cam-1 1".to_owned()]));
}

pub(super) fn commands_go_out_in_order_and_end_once(store: &dyn Store) {
    let (one, two) = (enrol(store, "cam-1"), enrol(store, "cam-2"));
    let ask = |device, ask: &Ask| store.add_command(device, ask, at(100), &anna(), at(1)).unwrap();
    let snapshot = Ask::Snapshot { stream: "door".to_owned() };
    let (a, b, c) = (ask(&one, &Ask::RestartPipeline), ask(&one, &snapshot), ask(&two, &snapshot));
    assert!(a < b && b < c);
    let open =
        |device| store.open_commands(device).unwrap().into_iter().map(|command| command.number).collect::<Vec<_>>();
    assert_eq!(open(&one), [a, b]);
    store.command_sent(&one, a).unwrap();
    assert_eq!(store.command(&one, a).unwrap().unwrap().state, CommandState::Sent);
    assert_eq!(open(&one), [a, b], "one that was sent may not have come");
    assert_eq!(store.queued_commands(10).unwrap().iter().map(|command| command.number).collect::<Vec<_>>(), [b, c]);
    assert!(store.end_command(&one, a, Ok("restarted")).unwrap());
    assert!(!store.end_command(&one, a, Err("no")).unwrap(), "it has ended");
    store.command_sent(&one, a).unwrap();
    assert_eq!(store.command(&one, a).unwrap().unwrap().state, CommandState::Done { text: "restarted".to_owned() });
    assert!(!store.end_command(&two, b, Ok("")).unwrap(), "it is another device's");
    assert_eq!(store.expire_commands(at(99)).unwrap(), []);
    let mut expired = store.expire_commands(at(100)).unwrap();
    expired.sort();
    assert_eq!(expired, [(one.clone(), b), (two.clone(), c)]);
    assert_eq!(open(&one), [0; 0]);
    assert!(store.end_command(&one, b, Err("no such stream")).unwrap(), "it was done all the same");
    let failed = store.command(&one, b).unwrap().unwrap();
    assert_eq!(failed.state, CommandState::Failed { text: "no such stream".to_owned() });
    assert_eq!((failed.ask, failed.by, failed.issued_at, failed.expires_at), (snapshot, anna(), at(1), at(100)));
    let answer = Answer { digest: digest(9), media_type: "image/jpeg".to_owned() };
    let missing = store.answer_command(&one, b, &answer).unwrap_err();
    assert!(matches!(missing, StoreError::Missing { what: "blob", .. }), "{missing}");
    store.add_blob(&digest(9), 5, at(2)).unwrap();
    assert!(store.answer_command(&one, b, &answer).unwrap());
    assert!(!store.answer_command(&one, b, &answer).unwrap());
    assert_eq!(store.command(&one, b).unwrap().unwrap().answer, Some(answer));
    let page = Page { before: Some(b), limit: 5 };
    assert_eq!(store.commands(&one, page).unwrap().iter().map(|command| command.number).collect::<Vec<_>>(), [a]);
}

pub(super) fn numbers_of_commands_rise_over_removals_and_restored_backups(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    let ask = |seconds| store.add_command(&cam, &Ask::RestartPipeline, at(9999), &anna(), at(seconds)).unwrap();
    let first = ask(100);
    let second = ask(50);
    assert!(second > first, "the clock went back");
    store.remove_device(&cam, &anna(), at(101)).unwrap();
    enrol(store, "cam-1");
    assert!(ask(50) > second);
    // What a store gave that is no more, at 10 commands a second, is below what this one gives later.
    assert!(ask(1000) > second + 900 * 10);
}

pub(super) fn open_commands_and_kept_ones_are_bounded(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    let ask = || store.add_command(&cam, &Ask::RestartPipeline, at(9999), &anna(), at(1));
    for _ in 0..OPEN_COMMANDS_MAX {
        ask().unwrap();
    }
    assert_eq!(ask().unwrap_err().to_string(), "open commands of a device may be at most 32");
    let oldest = store.open_commands(&cam).unwrap()[0].number;
    for _ in 0..2 * COMMANDS_MAX {
        let open = store.open_commands(&cam).unwrap();
        store.end_command(&cam, open.last().unwrap().number, Ok("")).unwrap();
        ask().unwrap();
    }
    let kept = store.commands(&cam, Page::first(1000)).unwrap().len();
    assert!((COMMANDS_MAX..=COMMANDS_MAX + OPEN_COMMANDS_MAX).contains(&kept), "{kept} are kept");
    assert!(store.command(&cam, oldest).unwrap().is_some(), "an open one is never dropped");
}

pub(super) fn history_is_counted_into_every_step_and_is_bounded(store: &dyn Store) {
    let cam = enrol(store, "cam-1");
    // A midnight.
    let midnight = Timestamp::from_nanos(20_000 * 86_400 * 1_000_000_000);
    let minute = |minutes: u64| midnight + Duration::from_mins(minutes);
    let record = |minutes, value| {
        let sample = |name| Sample { device: device(name), gauge: Gauge::Fps, at: minute(minutes), value };
        store.record_samples(&[sample("cam-1"), sample("stranger")]).unwrap();
    };
    let read = |step, range| store.history(&cam, Gauge::Fps, step, range).unwrap();
    for (minutes, value) in [(0, 10.0), (0, 20.0), (1, 6.0), (16, 4.0), (16, f64::NAN), (16, 1e300)] {
        record(minutes, value);
    }
    let all = midnight..minute(1440);
    let starts: Vec<_> = read(Step::Minute, all.clone()).iter().map(|bucket| (bucket.start, bucket.samples)).collect();
    assert_eq!(starts, [(minute(0), 2), (minute(1), 1), (minute(16), 1)]);
    let quarters = read(Step::QuarterHour, all.clone());
    assert_eq!((quarters[0].samples, quarters[0].mean, quarters[0].min, quarters[0].max), (3, 12.0, 6.0, 20.0));
    assert_eq!((quarters.len(), quarters[1].start), (2, minute(15)));
    assert_eq!(read(Step::Day, all.clone())[0].mean, 10.0);
    assert_eq!(read(Step::Minute, minute(1)..minute(16)).len(), 1, "the end is not in it");
    assert_eq!(store.history(&cam, Gauge::Latency, Step::Day, all.clone()).unwrap(), []);
    record(150, 1.0);
    assert_eq!(read(Step::Minute, all.clone()).len(), 1, "what is older than two hours went as it was written");
    store.compact(minute(271)).unwrap();
    assert_eq!(read(Step::Minute, all.clone()), []);
    assert_eq!(read(Step::QuarterHour, all.clone()).len(), 3);
    store.compact(minute(1440 * 10)).unwrap();
    assert_eq!((read(Step::QuarterHour, all.clone()).len(), read(Step::Day, all.clone()).len()), (0, 1));
    store.compact(minute(1440 * 500)).unwrap();
    assert_eq!(read(Step::Day, all), []);
}
