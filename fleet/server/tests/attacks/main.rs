//! Attacks on the whole service, through its sockets: what a stranger, a device, a viewer or a careless operator could try.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

mod devices;
mod operators;
mod registry;
mod siege;

#[path = "../devices/mqtt.rs"]
#[allow(dead_code, reason = "the devices' tests use the rest")]
mod mqtt;
#[path = "../devices/world.rs"]
#[allow(dead_code, reason = "the devices' tests use the rest")]
mod world;
