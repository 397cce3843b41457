//! Doors for clients of Flower, which need not know that it is not Flower who asks them.

mod framing;
mod join;
mod words;

pub use join::{JoinDoor, JoinDoorLimits, JoinDoorOptions, JoinDoorStats};
