//! The agent against disks that lose power, servers that lose orders, and models that crash.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

mod artefacts;
mod configs;
mod device;
mod fleet;
mod learning;
mod lossy_disk;
mod machine;
mod plans;
mod power_loss;
mod shell;
mod shell_device;
mod simulation;
mod slots;
