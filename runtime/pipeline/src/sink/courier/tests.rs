use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::{Deliveries, DeliverySummary};
use super::*;

/// No condition in these tests takes a healthy machine a second.
const DEADLINE: Duration = Duration::from_secs(30);

/// Says which letter it was given, and answers what the test says.
struct Scripted {
    tried: Sender<String>,
    answers: Receiver<Result<(), Setback>>,
}

impl Carrier for Scripted {
    fn deliver(&mut self, letter: &Letter, _: Duration) -> Result<(), Setback> {
        self.tried.send(letter.kind.clone()).unwrap();
        self.answers.recv().expect("the test does not say what to answer")
    }
}

/// A courier, and the other end of its carrier.
struct Rig {
    courier: Courier,
    deliveries: Deliveries,
    tried: Receiver<String>,
    answers: Sender<Result<(), Setback>>,
}

fn rig(config: CourierConfig) -> Rig {
    let (tried_in, tried) = channel();
    let (answers, answers_out) = channel();
    let deliveries = Deliveries::default();
    let carrier = Scripted { tried: tried_in, answers: answers_out };
    let courier = Courier::start(carrier, "test".into(), config, deliveries.open("test")).unwrap();
    Rig { courier, deliveries, tried, answers }
}

impl Rig {
    fn send(&self, kind: &str) {
        self.courier.send(Letter { stream: "front".into(), kind: kind.into(), body: Vec::new() });
    }

    fn tried(&self) -> String {
        self.tried.recv_timeout(DEADLINE).expect("nothing is tried")
    }

    fn summary(&self) -> DeliverySummary {
        self.deliveries.summaries().remove(0)
    }
}

fn config() -> CourierConfig {
    let delay = Duration::from_millis(1);
    CourierConfig { delay_min: delay, delay_max: delay, flush: DEADLINE, ..CourierConfig::default() }
}

fn passing(reason: &str) -> Result<(), Setback> {
    Err(Setback::Passing { reason: reason.into(), wait: None })
}

#[test]
fn a_letter_is_tried_until_it_is_delivered_and_the_next_waits_for_it() {
    let mut rig = rig(config());
    rig.send("first");
    rig.send("second");
    for answer in [passing("away"), passing("away"), Ok(()), Ok(())] {
        rig.answers.send(answer).unwrap();
    }
    rig.courier.finish();
    assert_eq!(rig.tried.try_iter().collect::<Vec<_>>(), ["first", "first", "first", "second"]);
    let expected = DeliverySummary { sink: "test".into(), delivered: 2, retried: 2, ..DeliverySummary::default() };
    assert_eq!(rig.summary(), expected);
}

#[test]
fn what_is_refused_is_not_tried_again() {
    let mut rig = rig(config());
    rig.send("first");
    rig.send("second");
    rig.answers.send(Err(Setback::Refused { reason: "no".into() })).unwrap();
    rig.answers.send(Ok(())).unwrap();
    rig.courier.finish();
    assert_eq!(rig.tried.try_iter().collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!((rig.summary().delivered, rig.summary().failed), (1, 1));
}

#[test]
fn the_oldest_of_a_full_queue_is_dropped() {
    let mut rig = rig(CourierConfig { queue_events_max: 2, ..config() });
    rig.send("in hand");
    assert_eq!(rig.tried(), "in hand");
    for kind in ["a", "b", "c", "d"] {
        rig.send(kind);
    }
    assert_eq!((rig.summary().dropped, rig.summary().waiting), (2, 3));
    for _ in 0..3 {
        rig.answers.send(Ok(())).unwrap();
    }
    rig.courier.finish();
    assert_eq!(rig.tried.try_iter().collect::<Vec<_>>(), ["c", "d"]);
    assert_eq!((rig.summary().delivered, rig.summary().dropped, rig.summary().waiting), (3, 2, 0));
}

#[test]
fn what_is_not_delivered_in_time_is_counted_once() {
    let mut rig = rig(CourierConfig { flush: Duration::from_millis(50), ..config() });
    rig.send("stuck");
    assert_eq!(rig.tried(), "stuck");
    rig.send("behind");
    rig.courier.finish();
    assert_eq!((rig.summary().dropped, rig.summary().waiting), (2, 0));
    // The thread is let go, and what it does now counts no more.
    rig.answers.send(Ok(())).unwrap();
    let given_up = rig.summary();
    while !rig.courier.shared.lock().gone {
        thread::yield_now();
    }
    assert_eq!(rig.summary().dropped, given_up.dropped);
    assert_eq!(rig.summary().delivered, 0);
    assert_eq!(rig.tried.try_iter().count(), 0);
}

#[test]
fn the_end_of_the_run_cuts_a_wait_short() {
    let hour = Duration::from_secs(3600);
    let mut rig = rig(CourierConfig { delay_min: hour, delay_max: hour, ..config() });
    rig.send("late");
    rig.answers.send(passing("away")).unwrap();
    rig.answers.send(Ok(())).unwrap();
    assert_eq!(rig.tried(), "late");
    rig.courier.finish();
    assert_eq!((rig.summary().delivered, rig.summary().dropped), (1, 0));
}

#[test]
fn an_attempt_that_the_end_of_the_run_finds_under_way_is_not_the_last() {
    let hour = Duration::from_secs(3600);
    let rig = rig(CourierConfig { delay_min: hour, delay_max: hour, ..config() });
    rig.send("late");
    assert_eq!(rig.tried(), "late");
    let Rig { mut courier, deliveries, answers, tried: _tried } = rig;
    let shared = Arc::clone(&courier.shared);
    thread::scope(|scope| {
        scope.spawn(|| courier.finish());
        while shared.lock().deadline.is_none() {
            thread::yield_now();
        }
        answers.send(passing("away")).unwrap();
        answers.send(Ok(())).unwrap();
    });
    let summary = deliveries.summaries().remove(0);
    assert_eq!((summary.delivered, summary.dropped), (1, 0));
}

#[test]
fn a_carrier_that_panics_holds_up_nobody() {
    let mut rig = rig(CourierConfig { queue_events_max: 2, flush: Duration::from_millis(50), ..config() });
    let (_, none) = channel();
    drop(std::mem::replace(&mut rig.tried, none));
    for _ in 0..9 {
        rig.send("never");
    }
    rig.courier.finish();
    let summary = rig.summary();
    assert_eq!((summary.delivered, summary.dropped, summary.waiting), (0, 9, 0));
}

#[test]
fn delays_double_up_to_the_greatest() {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(3));
    let delays_ms: Vec<_> = (0..40).map(|_| backoff.failed().as_millis()).collect();
    assert_eq!(delays_ms[..4], [500, 1000, 2000, 3000]);
    assert!(delays_ms[4..].iter().all(|delay| *delay == 3000));
}

#[test]
fn sinks_of_a_kind_are_told_apart() {
    let deliveries = Deliveries::default();
    let _open = ["mqtt", "webhook", "mqtt"].map(|kind| deliveries.open(kind));
    let names: Vec<_> = deliveries.summaries().into_iter().map(|delivery| delivery.sink).collect();
    assert_eq!(names, ["mqtt", "webhook", "mqtt-2"]);
}
