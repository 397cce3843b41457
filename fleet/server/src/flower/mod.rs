//! Doors for clients of Flower, which need not know that it is not Flower who asks them: [`JoinDoor`] for `start_client`,
//! [`NodeDoor`] for SuperNodes.

mod framing;
pub mod incoming;
mod join;
pub mod node;
pub mod node_auth;
pub mod nodes;
pub mod objects;
pub mod outgoing;
mod words;

pub use join::{JoinDoor, JoinDoorLimits, JoinDoorOptions, JoinDoorStats};
pub use node::{NodeDoor, NodeLimits, NodeStats};
pub use node_auth::{AuthError, NodeKey};
pub use nodes::{Allowed, MemoryNodes, Nodes, NodesError};
