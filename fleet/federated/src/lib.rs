//! What a fleet learns together: updates of many devices made into one set of weights.
//!
//! Pure arithmetic and state machines: nothing here does I/O or reads a clock.
//!
//! A *strategy* says how. Those that only average are *streaming*: an update is folded and forgotten, so that memory grows
//! with the weights and not with the devices. Those that withstand liars look at all updates at once, some weights at a time.
//!
//! ```
//! use std::sync::Arc;
//!
//! use revoada_core::Digest;
//! use revoada_federated::{Contribution, Layout, Mean, Optimiser, ServerOptimiser, Weights};
//!
//! let layout = Arc::new(Layout::new([("bias".to_owned(), vec![2])])?);
//! let global = Weights::zeros(Arc::clone(&layout));
//! let mut mean = Mean::new(Arc::clone(&layout));
//! for (values, examples) in [([1.0, 2.0], 30), ([3.0, 4.0], 10)] {
//!     let weights = Weights::new(Arc::clone(&layout), values.to_vec())?;
//!     mean.fold(&Contribution::Full(weights), examples)?;
//! }
//! let mut optimiser = ServerOptimiser::new(Optimiser::Average)?;
//! let next = optimiser.step(&global, &mean.finish(&global)?)?;
//! assert_eq!(next.values(), [1.5, 2.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod aggregation;
mod check;
pub mod npy;
mod participant;
mod privacy;
mod recipe;
mod round;
mod safetensors;
mod strategy;
mod weights;

pub use aggregation::{AggregationError, Gathering, Memory, MemoryError, aggregate_robust};
pub use check::{Bounds, Expected, Refusal, Update};
pub use participant::{Participant, Sample, draw};
pub use privacy::{Accountant, Clipper, Clipping, ClippingError, PrivacyError, add_noise, deviation};
pub use recipe::{Privacy, Recipe, RecipeError, Strategy};
pub use round::{Action, Event, Head, Member, Phase, Rejection, Round, Standing, Terms, TermsError};
pub use safetensors::{SafetensorsError, from_safetensors, to_safetensors};
pub use strategy::{
    AggregateError, Contribution, InMemory, Mean, Optimiser, OptimiserError, ReadError, Robust, RobustError,
    ServerOptimiser, UpdateReader,
};
pub use weights::{Layout, LayoutError, SentWeights, Weights, WeightsError};
