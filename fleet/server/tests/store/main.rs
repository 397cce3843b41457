//! What the service keeps: one contract for every store, and what is SQLite's own.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

mod blobs;
mod contract;
mod crash;
#[path = "../fleet/mod.rs"]
mod fleet;
mod imports;
mod samples;
mod sqlite;
