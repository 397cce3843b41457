//! Every pass on small graphs and on real models, run before and after on each backend that is there.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

mod clean;
mod corpus;
mod fp16;
mod int8;
mod search;
mod support;
