//! What an agent must not forget.

use std::collections::BTreeMap;
use std::fmt;

use revoada_core::Digest;
use revoada_proto::{Generation, Kind};
use serde::{Deserialize, Serialize};

/// Where a deployable lies: there are two places for each kind, of which at most one is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first that is filled.
    A,
    /// The other one.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The one that this is not.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// What its folder is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A deployable in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    pub slot: Slot,
    pub digest: Digest,
}

/// What runs, by kind. A kind that is not named runs nothing.
pub type Active = BTreeMap<Kind, Placed>;

/// The slots that hold something whole, whether it is active or not.
pub type Contents = BTreeMap<(Kind, Slot), Digest>;

/// What an agent knows and does, but for what is active.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The highest generation that was ever accepted. What comes with this one or a lower one is refused.
    pub known: Generation,
    /// What is to be active in the end. Kinds that the last order did not name are here as they were.
    pub desired: BTreeMap<Kind, Digest>,
    /// Set while what is active has yet to prove itself.
    pub trial: Option<Trial>,
    /// Why the last order came to nothing, where it did.
    pub failure: Option<Failure>,
}

/// What was flipped to and is not yet committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// What was active before, of the kinds that were flipped: `None` where nothing was.
    pub previous: BTreeMap<Kind, Option<Placed>>,
    /// How often the pipeline was started for this trial, whatever ended it: a crash, a power cut, the agent itself.
    pub starts: u32,
}

/// How an order came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The server does not have it, asked several times.
    NotFound,
    /// What came was, several times, not what its digest says.
    Damaged,
    /// Not signed by a trusted key, or refused by its pre-flight.
    Refused,
    /// Verification or pre-flight did not end, several times.
    TimedOut,
    /// Rolled back: it crashed before its first frame.
    CrashedAtLoad,
    /// Rolled back: it was started as often as a trial allows.
    CrashLoop,
    /// Rolled back: its results were no numbers.
    NonFinite,
    /// Rolled back: it was not healthy for long enough within the time of a trial.
    Unhealthy,
    /// Rolled back: its slot could no longer be verified.
    SlotDamaged,
}

impl Failure {
    /// Whether it had been active.
    pub fn is_rollback(self) -> bool {
        match self {
            Self::NotFound | Self::Damaged | Self::Refused | Self::TimedOut => false,
            Self::CrashedAtLoad | Self::CrashLoop | Self::NonFinite | Self::Unhealthy | Self::SlotDamaged => true,
        }
    }
}

/// What an agent starts from: everything that its disk says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub state: State,
    pub active: Active,
    pub contents: Contents,
}

/// What a kind is called in paths.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "model",
        Kind::Pipeline => "pipeline",
        Kind::Package => "package",
    }
}
