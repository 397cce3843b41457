//! What a device is to run.

use std::collections::BTreeSet;
use std::fmt;

use revoada_core::Digest;
use serde::{Deserialize, Serialize};

/// Rises with every order to a device. What bears a lower one than the device knows is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after; 600 million orders a second would take a thousand years to the last.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What can be deployed. A device runs one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A bundle.
    Model,
    /// A pipeline's configuration.
    Pipeline,
    /// The program itself.
    Package,
}

/// One immutable thing, named by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Deployable {
    pub kind: Kind,
    pub digest: Digest,
}

/// What a device is to run from now on: at most one of each kind. What is not named stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub generation: Generation,
    pub deployables: BTreeSet<Deployable>,
}

impl Order {
    /// Which one of a kind; the first, where a broken sender names several.
    pub fn of(&self, kind: Kind) -> Option<Digest> {
        self.deployables.iter().find(|deployable| deployable.kind == kind).map(|deployable| deployable.digest)
    }
}
