//! Clients of Flower before our doors: some that this test plays, and unmodified ones.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod hall;
mod join;
mod join_unmodified;
mod node;
mod node_client;
mod node_server;
mod supernode;
