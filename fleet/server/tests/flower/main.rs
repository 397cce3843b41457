//! The doors for clients of Flower, through their sockets.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod node;
mod node_client;
mod node_server;
mod supernode;
