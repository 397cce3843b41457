//! Rounds, whatever happens in them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::prelude::*;
use revoada_core::{Digest, Timestamp};
use revoada_federated::{
    Action, Event, Head, Member, Participant, Phase, Rejection, Round, Standing, Terms, TermsError,
};

const BASE: Digest = Digest::new([0; 32]);
const SECOND: Duration = Duration::from_secs(1);

fn participant(index: u8) -> Participant {
    Participant(format!("gate-{index}"))
}

fn digest(number: u8) -> Digest {
    Digest::new([number; 32])
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_secs(seconds)
}

fn terms(quorum: usize) -> Terms {
    Terms { quorum: NonZeroUsize::new(quorum).unwrap(), enough: None, time_max: 60 * SECOND, refusals_max: 2 }
}

fn begin(invited: u8, terms: Terms) -> Round {
    let (round, actions) = Round::begin(1, BASE, terms, (0..invited).map(participant).collect(), at(0)).unwrap();
    let expected: Vec<Action> = (0..invited).map(|index| Action::Invite { participant: participant(index) }).collect();
    assert_eq!(actions, expected);
    round
}

fn sent(index: u8, update: u8) -> Event {
    Event::Arrived { participant: participant(index), update: digest(update), examples: 10, checked: Ok(()) }
}

fn broken(index: u8, update: u8) -> Event {
    let checked = Err("it is no number".to_owned());
    Event::Arrived { participant: participant(index), update: digest(update), examples: 10, checked }
}

fn accepted(index: u8, update: u8) -> Action {
    Action::Accept { participant: participant(index), update: digest(update) }
}

fn refused(index: u8, update: u8, why: Rejection) -> Action {
    Action::Refuse { participant: participant(index), update: digest(update), why }
}

#[test]
fn a_round_in_which_everybody_answers_ends_with_weights() {
    let mut round = begin(3, terms(2));
    assert_eq!(round.handle(sent(0, 1), at(1)), [accepted(0, 1)]);
    assert_eq!(round.handle(sent(1, 2), at(2)), [accepted(1, 2)]);
    assert_eq!(round.handle(Event::Tick, at(3)), []);
    assert_eq!(round.handle(sent(2, 3), at(4)), [accepted(2, 3), Action::Aggregate]);
    assert_eq!(round.updates().count(), 3);
    let weights = digest(9);
    assert_eq!(round.handle(Event::Aggregated(Ok(weights)), at(5)), [Action::Finish { weights }]);
    assert_eq!(round.phase(), &Phase::Finished { weights });
    assert_eq!(round.handle(Event::CallOff { why: "too late".to_owned() }, at(6)), []);
}

#[test]
fn stragglers_are_waited_for_until_the_deadline() {
    let mut round = begin(3, terms(2));
    round.handle(sent(0, 1), at(1));
    round.handle(sent(1, 2), at(60));
    assert_eq!(round.handle(Event::Tick, at(61)), [Action::Aggregate]);
    assert_eq!(round.handle(sent(2, 3), at(62)), [refused(2, 3, Rejection::Late)]);

    let mut round = begin(3, terms(2));
    round.handle(sent(0, 1), at(1));
    let why = "1 updates came in time; the quorum is 2".to_owned();
    assert_eq!(round.handle(Event::Tick, at(61)), [Action::CallOff { why }]);

    let enough = Terms { enough: NonZeroUsize::new(2), ..terms(1) };
    let mut round = begin(3, enough);
    round.handle(sent(0, 1), at(1));
    assert_eq!(round.handle(sent(1, 2), at(2)), [accepted(1, 2), Action::Aggregate]);
}

#[test]
fn what_comes_twice_counts_once() {
    let mut round = begin(3, terms(2));
    round.handle(sent(0, 1), at(1));
    assert_eq!(round.handle(sent(0, 1), at(2)), [accepted(0, 1)], "it did not hear the first time");
    assert_eq!(round.handle(sent(0, 2), at(3)), [refused(0, 2, Rejection::Already)]);
    assert_eq!(round.handle(sent(7, 2), at(3)), [refused(7, 2, Rejection::NotInvited)]);
    assert_eq!(round.updates().collect::<Vec<_>>(), [(&participant(0), digest(1), 10)]);
}

#[test]
fn whoever_is_refused_too_often_is_set_aside() {
    let mut round = begin(3, terms(2));
    let why = || Rejection::Refused("it is no number".to_owned());
    assert_eq!(round.handle(broken(0, 1), at(1)), [refused(0, 1, why())]);
    assert_eq!(round.handle(broken(0, 2), at(2)), [refused(0, 2, why())]);
    assert_eq!(round.handle(sent(0, 3), at(3)), [refused(0, 3, Rejection::SetAside)]);
    let member = &round.members()[&participant(0)];
    assert_eq!((&member.standing, member.refusals), (&Standing::SetAside, 2));
    // Nobody waits for it.
    round.handle(sent(1, 4), at(4));
    assert_eq!(round.handle(sent(2, 5), at(5)), [accepted(2, 5), Action::Aggregate]);
}

#[test]
fn a_round_that_cannot_reach_its_quorum_any_more_ends_at_once() {
    let mut round = begin(3, terms(3));
    let left = Event::Left { participant: participant(0), why: "it is hot".to_owned() };
    let why = "0 updates are there and 2 may come; the quorum is 3".to_owned();
    assert_eq!(round.handle(left, at(1)), [Action::CallOff { why }]);

    let invited = BTreeSet::from([participant(0)]);
    let refusal = Round::begin(1, BASE, terms(2), invited, at(0)).unwrap_err();
    assert_eq!(refusal, TermsError::Quorum { invited: 1, quorum: 2 });
}

/// Something that may happen, and how long after what happened before.
fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let event = prop_oneof![
        8 => (0..6_u8, 0..4_u8).prop_map(|(index, update)| sent(index, update)),
        2 => (0..6_u8, 0..4_u8).prop_map(|(index, update)| broken(index, update)),
        1 => (0..6_u8).prop_map(|index| Event::Left { participant: participant(index), why: "no".to_owned() }),
        1 => (0..6_u8).prop_map(|index| Event::Lost { participant: participant(index) }),
        2 => Just(Event::Tick),
        2 => Just(Event::Resume),
        1 => any::<bool>().prop_map(|is_made| Event::Aggregated(is_made.then(|| digest(9)).ok_or("no".to_owned()))),
        1 => Just(Event::CallOff { why: "enough".to_owned() }),
    ];
    prop::collection::vec((event, 0..20_u64), 0..60)
}

proptest! {
    /// A service that is killed after every event knows as much as one that never was, nothing that counted is lost or
    /// replaced, and what has ended stays as it is.
    #[test]
    fn nothing_is_lost_whatever_happens(events in events(), quorum in 1..5_usize) {
        let mut round = begin(5, terms(quorum));
        let (mut counted, mut seconds) = (BTreeMap::new(), 0);
        for (event, later) in events {
            seconds += later;
            let before = round.clone();
            let lost = if let Event::Lost { participant } = &event { Some(participant.clone()) } else { None };
            let actions = round.handle(event, at(seconds));
            let text = serde_json::to_string(&(round.head(), round.members())).unwrap();
            let (head, members): (Head, BTreeMap<Participant, Member>) = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&Round::restore(head, members), &round);
            if let Some(lost) = lost
                && actions.contains(&Action::Invite { participant: lost.clone() })
            {
                prop_assert!(counted.remove(&lost).is_some(), "only what counted is lost");
            }
            for action in &actions {
                match action {
                    Action::Accept { participant, update } => {
                        let known = counted.entry(participant.clone()).or_insert(*update);
                        prop_assert_eq!(known, update, "one update counts");
                    }
                    Action::Aggregate => {
                        prop_assert_eq!(round.phase(), &Phase::Aggregating);
                        prop_assert!(counted.len() >= quorum);
                    }
                    Action::Finish { weights } => {
                        prop_assert_eq!(round.phase(), &Phase::Finished { weights: *weights });
                    }
                    Action::CallOff { why } => {
                        prop_assert_eq!(round.phase(), &Phase::CalledOff { why: why.clone() });
                    }
                    Action::Invite { participant } => prop_assert!(!counted.contains_key(participant)),
                    Action::Refuse { .. } => {}
                }
            }
            let updates: BTreeMap<_, _> = round.updates().map(|(who, update, _)| (who.clone(), update)).collect();
            prop_assert_eq!(&updates, &counted, "what counted goes on counting");
            if matches!(before.phase(), Phase::Finished { .. } | Phase::CalledOff { .. }) {
                prop_assert_eq!(&before, &round, "what has ended stays as it is");
            }
        }
        round.handle(Event::Tick, round.deadline() + SECOND);
        prop_assert!(round.phase() != &Phase::Collecting, "nobody is waited for for ever");
    }
}
