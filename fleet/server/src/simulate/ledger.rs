//! What happened to every device, kept apart from the devices, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use revoada_core::Digest;
use revoada_federated::Weights;
use revoada_proto::{Deployable, DeviceId, Dispatch, Order};

use super::lesson::Lesson;

/// Failures that are told in words; more are counted.
const FAILURES_MAX: usize = 50;

/// What is counted of all devices together.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connects: AtomicU64,
    pub(super) applied: AtomicU64,
    pub(super) orders_again: AtomicU64,
    pub(super) orders_older: AtomicU64,
    pub(super) orders_failed: AtomicU64,
    pub(super) commands_done: AtomicU64,
    pub(super) commands_again: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) said: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) doubled: AtomicU64,
    pub(super) reboots: AtomicU64,
    pub(super) cuts: AtomicU64,
    pub(super) lies: AtomicU64,
    pub(super) fetched: AtomicU64,
    pub(super) fetches_failed: AtomicU64,
    pub(super) invitations_again: AtomicU64,
    pub(super) updates: AtomicU64,
    pub(super) updates_again: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What one device did, over its reboots.
#[derive(Debug, Default)]
pub(super) struct Book {
    is_connected: bool,
    /// Every order that it heard, by generation.
    heard: BTreeMap<u64, BTreeSet<Deployable>>,
    applied: BTreeSet<u64>,
    /// From the order's issue to its end.
    pub(super) applied_after: Vec<Duration>,
    /// Commands by number, and when they were carried out.
    pub(super) done: BTreeMap<u64, Instant>,
    /// By sequence; whether the service said that it has them.
    pub(super) events: BTreeMap<u64, bool>,
    /// By round, whether its update counts, as it was told last.
    pub(super) verdicts: BTreeMap<Lesson, Result<(), String>>,
    /// From an invitation to the first verdict.
    pub(super) learned_after: Vec<Duration>,
}

/// What happened so far.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) counts: Counts,
    books: Vec<Mutex<Book>>,
    failures: Mutex<Failures>,
    /// What devices were given to learn from.
    bases: Mutex<BTreeMap<Lesson, (Digest, Weights)>>,
}

#[derive(Debug, Default)]
struct Failures {
    told: Vec<String>,
    count: u64,
}

impl Ledger {
    pub(super) fn new(devices: usize) -> Self {
        let books = std::iter::repeat_with(Mutex::default).take(devices).collect();
        Self { counts: Counts::default(), books, failures: Mutex::default(), bases: Mutex::default() }
    }

    pub(super) fn book(&self, index: usize) -> MutexGuard<'_, Book> {
        self.books[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that must not happen, whatever else goes wrong.
    pub(super) fn fail(&self, failure: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        if failures.told.len() < FAILURES_MAX {
            failures.told.push(failure);
        }
    }

    /// Those in words, and how many there were.
    pub(super) fn failures(&self) -> (Vec<String>, u64) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        (failures.told.clone(), failures.count)
    }

    pub(super) fn connected(&self, index: usize) {
        count(&self.counts.connects);
        self.book(index).is_connected = true;
    }

    /// Devices that were connected at least once.
    pub(super) fn devices_connected(&self) -> usize {
        (0..self.books.len()).filter(|index| self.book(*index).is_connected).count()
    }

    /// An order that bears the service's signature and the device's name.
    pub(super) fn heard(&self, index: usize, device: &DeviceId, order: &Order) {
        let mut book = self.book(index);
        let known = book.heard.entry(order.generation.0).or_insert_with(|| order.deployables.clone());
        if *known != order.deployables {
            self.fail(format!("{device} was given two orders of generation {}", order.generation));
        }
    }

    pub(super) fn applied(&self, index: usize, order: &Dispatch<Order>, now: SystemTime) {
        let (device, generation) = (&order.device, order.content.generation.0);
        count(&self.counts.applied);
        let mut book = self.book(index);
        match book.applied.last() {
            Some(last) if *last == generation => self.fail(format!("{device} applied generation {generation} twice")),
            Some(last) if *last > generation => {
                self.fail(format!("{device} applied generation {generation} after {last}"));
            }
            _ => {}
        }
        book.applied.insert(generation);
        book.applied_after.push(now.duration_since(order.issued_at).unwrap_or_default());
    }

    pub(super) fn done(&self, index: usize, device: &DeviceId, number: u64, now: Instant) {
        count(&self.counts.commands_done);
        if self.book(index).done.insert(number, now).is_some() {
            self.fail(format!("{device} carried out command {number} twice"));
        }
    }

    /// A command that is not higher than the last that was carried out: one of those, or one that came too late.
    pub(super) fn command_again(&self, index: usize, device: &DeviceId, number: u64) {
        count(&self.counts.commands_again);
        if !self.book(index).done.contains_key(&number) {
            self.fail(format!("{device} was given command {number} after a later one"));
        }
    }

    /// What a device was given to learn from, which is the same for all.
    pub(super) fn given(&self, lesson: Lesson, digest: Digest, weights: &Weights) {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, _) = bases.entry(lesson).or_insert_with(|| (digest, weights.clone()));
        if *known != digest {
            self.fail(format!("devices were given several weights in round {} of run {}", lesson.round, lesson.run));
        }
    }

    pub(super) fn base(&self, lesson: Lesson) -> Option<Weights> {
        let bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.get(&lesson).map(|(_, weights)| weights.clone())
    }

    /// A device was told whether its update counts. One that does is not told later that it does not.
    pub(super) fn judged(
        &self,
        (index, device): (usize, &DeviceId),
        lesson: Lesson,
        verdict: Result<(), String>,
        after: Duration,
    ) {
        let mut book = self.book(index);
        match book.verdicts.insert(lesson, verdict.clone()) {
            None => book.learned_after.push(after),
            Some(earlier) if earlier == verdict => {}
            Some(earlier) => {
                let Lesson { run, round } = lesson;
                self.fail(format!("{device} was told {earlier:?} and then {verdict:?} in round {round} of run {run}"));
            }
        }
    }

    pub(super) fn said(&self, index: usize, sequence: u64) {
        count(&self.counts.events);
        self.book(index).events.insert(sequence, false);
    }

    pub(super) fn receipted(&self, index: usize, sequence: u64) {
        if let Some(is_receipted) = self.book(index).events.get_mut(&sequence) {
            *is_receipted = true;
        }
    }
}
