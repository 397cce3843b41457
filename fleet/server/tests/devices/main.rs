//! Devices, good and bad, before the service's two ports: over real sockets, with real certificates.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

mod blobs;
mod broker;
mod crowd;
mod grpc;
mod identity;
mod intruder;
mod mqtt;
mod port;
mod world;
