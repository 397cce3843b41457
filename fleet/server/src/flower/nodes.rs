//! Which SuperNodes there are, and who may be one.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::node_auth::NodeKey;

/// It may pass, so a node is told to come again.
pub type NodesError = Box<dyn Error + Send + Sync>;

/// What is kept of SuperNodes, over restarts too: a node whose heartbeat meets a service that does not know it any more falls
/// silent for ever. Asked on threads that may wait.
pub trait Nodes: Send + Sync + 'static {
    /// The number of the node with this key; one that is new is given one, by [`new_id`], which is kept before it is said.
    fn id_of(&self, key: &NodeKey) -> Result<u64, NodesError>;

    fn key_of(&self, id: u64) -> Result<Option<NodeKey>, NodesError>;

    /// Whether a node with this key may take part.
    fn is_allowed(&self, key: &NodeKey) -> Result<bool, NodesError>;

    /// Forgets a node that has made its key for one life and ends it.
    fn forget(&self, id: u64) -> Result<(), NodesError>;
}

/// A number that nobody guesses: neither 0, nor 1, which is the server's own, and of 63 bits, as databases have them.
pub fn new_id() -> Result<u64, NodesError> {
    loop {
        let id = getrandom::u64().map_err(|error| error.to_string())? >> 1;
        if id > 1 {
            return Ok(id);
        }
    }
}

/// Who may take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    Any,
    Listed(BTreeSet<NodeKey>),
}

impl Allowed {
    pub fn includes(&self, key: &NodeKey) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(keys) => keys.contains(key),
        }
    }
}

/// Kept for as long as the process lives.
#[derive(Debug)]
pub struct MemoryNodes {
    allowed: Allowed,
    ids: Mutex<BTreeMap<NodeKey, u64>>,
    nodes_max: usize,
}

impl MemoryNodes {
    /// Beyond `nodes_max` no new one is taken in.
    pub fn new(allowed: Allowed, nodes_max: usize) -> Self {
        Self { allowed, ids: Mutex::default(), nodes_max }
    }

    fn ids(&self) -> MutexGuard<'_, BTreeMap<NodeKey, u64>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nodes for MemoryNodes {
    fn id_of(&self, key: &NodeKey) -> Result<u64, NodesError> {
        let mut ids = self.ids();
        if let Some(id) = ids.get(key) {
            return Ok(*id);
        }
        if ids.len() >= self.nodes_max {
            return Err(format!("{} nodes are known already", self.nodes_max).into());
        }
        let id = new_id()?;
        ids.insert(key.clone(), id);
        Ok(id)
    }

    fn key_of(&self, id: u64) -> Result<Option<NodeKey>, NodesError> {
        Ok(self.ids().iter().find(|(_, known)| **known == id).map(|(key, _)| key.clone()))
    }

    fn is_allowed(&self, key: &NodeKey) -> Result<bool, NodesError> {
        Ok(self.allowed.includes(key))
    }

    fn forget(&self, id: u64) -> Result<(), NodesError> {
        self.ids().retain(|_, known| *known != id);
        Ok(())
    }
}
