//! One round of learning, from its invitations to its weights.
//!
//! It is told what happens and says what is to be done. All that it knows can be written down: a service that was killed reads
//! it, tells it so, and goes on; whatever was under way is said to it again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use revoada_core::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::participant::Participant;

/// What holds for a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Fewer updates are not aggregated.
    pub quorum: NonZeroUsize,
    /// Nobody is waited for once there are so many; `None` for everybody.
    pub enough: Option<NonZeroUsize>,
    /// From the invitations on.
    pub time_max: Duration,
    /// Updates of one participant that are refused, before nothing more is heard of it.
    pub refusals_max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TermsError {
    #[error("{invited} are invited, and the quorum is {quorum}")]
    Quorum { invited: usize, quorum: usize },
    #[error("{enough} updates are said to be enough, and the quorum is {quorum}")]
    Enough { enough: usize, quorum: usize },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    Collecting,
    Aggregating,
    Finished {
        weights: Digest,
    },
    CalledOff {
        /// For people.
        why: String,
    },
}

/// Where a participant is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Standing {
    Invited,
    /// Its update counts.
    Sent {
        update: Digest,
        examples: u64,
    },
    /// It said that it will send none.
    Left {
        /// For people.
        why: String,
    },
    /// It was refused too often.
    SetAside,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub standing: Standing,
    pub refusals: u32,
    /// Why its last update was refused, for people.
    pub refused: Option<String>,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The service has started anew.
    Resume,
    /// Time has passed.
    Tick,
    /// An update is there, whole. Whether it passed its [check](crate::Update::check), or why not.
    Arrived { participant: Participant, update: Digest, examples: u64, checked: Result<(), String> },
    /// A participant will send none.
    Left { participant: Participant, why: String },
    /// An update that counted is not there any more.
    Lost { participant: Participant },
    /// What became of [`Action::Aggregate`]: the new weights, or why there are none.
    Aggregated(Result<Digest, String>),
    /// Somebody does not want it any more.
    CallOff { why: String },
}

/// What is to be done. Each may have to be done again, and does no harm then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Invite {
        participant: Participant,
    },
    /// Its update counts.
    Accept {
        participant: Participant,
        update: Digest,
    },
    /// Its update does not count, and need not be kept.
    Refuse {
        participant: Participant,
        update: Digest,
        why: Rejection,
    },
    /// Make weights of [what was sent](Round::updates).
    Aggregate,
    Finish {
        weights: Digest,
    },
    CallOff {
        why: String,
    },
}

/// Why an update is not taken. The participant is told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    #[error("it was not invited")]
    NotInvited,
    #[error("the round is over")]
    Late,
    #[error("another update of it counts already")]
    Already,
    #[error("it was refused too often")]
    SetAside,
    #[error("{0}")]
    Refused(String),
}

/// A round without its members, of which there are many and few change at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub number: u64,
    /// The weights that are learned from.
    pub base: Digest,
    pub terms: Terms,
    pub began: Timestamp,
    pub phase: Phase,
}

/// A round, and all that happened in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    head: Head,
    members: BTreeMap<Participant, Member>,
    /// Members whose update counts.
    sent: usize,
    /// Members whose update may come.
    waiting: usize,
}

impl Round {
    /// Begins one, and invites.
    pub fn begin(
        number: u64,
        base: Digest,
        terms: Terms,
        invited: BTreeSet<Participant>,
        now: Timestamp,
    ) -> Result<(Self, Vec<Action>), TermsError> {
        let quorum = terms.quorum.get();
        if invited.len() < quorum {
            return Err(TermsError::Quorum { invited: invited.len(), quorum });
        }
        if let Some(enough) = terms.enough.filter(|enough| enough.get() < quorum) {
            return Err(TermsError::Enough { enough: enough.get(), quorum });
        }
        let member = || Member { standing: Standing::Invited, refusals: 0, refused: None };
        let members = invited.into_iter().map(|participant| (participant, member())).collect();
        let round = Self::restore(Head { number, base, terms, began: now, phase: Phase::Collecting }, members);
        let invitations = round.invitations();
        Ok((round, invitations))
    }

    /// A round that was written down.
    pub fn restore(head: Head, members: BTreeMap<Participant, Member>) -> Self {
        let count = |is_so: fn(&Standing) -> bool| members.values().filter(|member| is_so(&member.standing)).count();
        let sent = count(|standing| matches!(standing, Standing::Sent { .. }));
        let waiting = count(|standing| *standing == Standing::Invited);
        Self { head, members, sent, waiting }
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    pub fn number(&self) -> u64 {
        self.head.number
    }

    /// The weights that are learned from.
    pub fn base(&self) -> Digest {
        self.head.base
    }

    pub fn phase(&self) -> &Phase {
        &self.head.phase
    }

    pub fn members(&self) -> &BTreeMap<Participant, Member> {
        &self.members
    }

    /// No update counts after it.
    pub fn deadline(&self) -> Timestamp {
        self.head.began + self.head.terms.time_max
    }

    /// The updates that count: whose, which, and of how many examples.
    pub fn updates(&self) -> impl Iterator<Item = (&Participant, Digest, u64)> {
        self.members.iter().filter_map(|(participant, member)| match member.standing {
            Standing::Sent { update, examples } => Some((participant, update, examples)),
            _ => None,
        })
    }

    /// Takes in what happens.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = match event {
            Event::Resume => self.resume(),
            Event::Tick => Vec::new(),
            Event::Arrived { participant, update, examples, checked } => {
                vec![self.arrived(participant, update, examples, checked, now)]
            }
            Event::Left { participant, why } => {
                self.left(&participant, why);
                Vec::new()
            }
            Event::Lost { participant } => self.lost(participant).into_iter().collect(),
            Event::Aggregated(outcome) => match (&self.head.phase, outcome) {
                (Phase::Aggregating, Ok(weights)) => {
                    self.head.phase = Phase::Finished { weights };
                    vec![Action::Finish { weights }]
                }
                (Phase::Aggregating, Err(why)) => vec![self.call_off(why)],
                // Of an aggregation that was begun before the service was killed, or after the round was called off.
                _ => Vec::new(),
            },
            Event::CallOff { why } if self.is_open() => vec![self.call_off(why)],
            Event::CallOff { .. } => Vec::new(),
        };
        actions.extend(self.advance(now));
        actions
    }

    fn is_open(&self) -> bool {
        matches!(self.head.phase, Phase::Collecting | Phase::Aggregating)
    }

    fn invitations(&self) -> Vec<Action> {
        let waiting = self.members.iter().filter(|(_, member)| member.standing == Standing::Invited);
        waiting.map(|(participant, _)| Action::Invite { participant: participant.clone() }).collect()
    }

    /// What was under way when nobody was there.
    fn resume(&self) -> Vec<Action> {
        match &self.head.phase {
            Phase::Collecting => self.invitations(),
            Phase::Aggregating => vec![Action::Aggregate],
            Phase::Finished { weights } => vec![Action::Finish { weights: *weights }],
            Phase::CalledOff { why } => vec![Action::CallOff { why: why.clone() }],
        }
    }

    fn arrived(
        &mut self,
        participant: Participant,
        update: Digest,
        examples: u64,
        checked: Result<(), String>,
        now: Timestamp,
    ) -> Action {
        let is_late = self.head.phase != Phase::Collecting || now > self.deadline();
        let refusals_max = self.head.terms.refusals_max;
        let why = match self.members.get_mut(&participant) {
            None => Rejection::NotInvited,
            Some(member) => match (&member.standing, checked) {
                // It did not hear the first time.
                (Standing::Sent { update: known, .. }, _) if *known == update => {
                    return Action::Accept { participant, update };
                }
                (Standing::Sent { .. }, _) => Rejection::Already,
                (Standing::SetAside, _) => Rejection::SetAside,
                (Standing::Invited | Standing::Left { .. }, _) if is_late => Rejection::Late,
                (standing @ (Standing::Invited | Standing::Left { .. }), Ok(())) => {
                    self.waiting -= usize::from(*standing == Standing::Invited);
                    self.sent += 1;
                    member.standing = Standing::Sent { update, examples };
                    return Action::Accept { participant, update };
                }
                (standing @ (Standing::Invited | Standing::Left { .. }), Err(why)) => {
                    member.refusals += 1;
                    member.refused = Some(why.clone());
                    if member.refusals >= refusals_max {
                        self.waiting -= usize::from(*standing == Standing::Invited);
                        member.standing = Standing::SetAside;
                    }
                    Rejection::Refused(why)
                }
            },
        };
        Action::Refuse { participant, update, why }
    }

    fn left(&mut self, participant: &Participant, why: String) {
        if self.head.phase == Phase::Collecting
            && let Some(member) = self.members.get_mut(participant)
            && member.standing == Standing::Invited
        {
            member.standing = Standing::Left { why };
            self.waiting -= 1;
        }
    }

    /// It is asked again, though time runs on.
    fn lost(&mut self, participant: Participant) -> Option<Action> {
        let is_open = self.is_open();
        let member = self.members.get_mut(&participant)?;
        if !is_open || !matches!(member.standing, Standing::Sent { .. }) {
            return None;
        }
        member.standing = Standing::Invited;
        self.sent -= 1;
        self.waiting += 1;
        self.head.phase = Phase::Collecting;
        Some(Action::Invite { participant })
    }

    /// Whether enough is there, or enough time has passed.
    fn advance(&mut self, now: Timestamp) -> Option<Action> {
        if self.head.phase != Phase::Collecting {
            return None;
        }
        let (sent, waiting) = (self.sent, self.waiting);
        let (quorum, is_over) = (self.head.terms.quorum.get(), now > self.deadline());
        if sent + waiting < quorum {
            return Some(
                self.call_off(format!("{sent} updates are there and {waiting} may come; the quorum is {quorum}")),
            );
        }
        let is_enough = self.head.terms.enough.is_some_and(|enough| sent >= enough.get());
        if waiting > 0 && !is_over && !is_enough {
            return None;
        }
        if sent < quorum {
            return Some(self.call_off(format!("{sent} updates came in time; the quorum is {quorum}")));
        }
        self.head.phase = Phase::Aggregating;
        Some(Action::Aggregate)
    }

    fn call_off(&mut self, why: String) -> Action {
        self.head.phase = Phase::CalledOff { why: why.clone() };
        Action::CallOff { why }
    }
}
