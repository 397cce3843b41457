//! The doors for clients of Flower, which come unchanged.
//!
//! [`NodeDoor`] is the one for SuperNodes.

pub mod incoming;
pub mod node;
pub mod node_auth;
pub mod nodes;
pub mod objects;
pub mod outgoing;

pub use node::{NodeDoor, NodeLimits, NodeStats};
pub use node_auth::{AuthError, NodeKey};
pub use nodes::{Allowed, MemoryNodes, Nodes, NodesError};
