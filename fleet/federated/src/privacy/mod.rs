//! What may be learned of one participant from the weights, and how little.
//!
//! Each update is clipped, so that it moves the weights by so much at most; Gaussian noise covers what is left, and an
//! [`Accountant`] adds up what the rounds give away together.

mod accountant;
mod clipping;
mod noise;

pub use accountant::{Accountant, PrivacyError};
pub use clipping::{Clipper, Clipping, ClippingError};
pub use noise::{add_noise, deviation};
