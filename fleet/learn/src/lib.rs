//! Transfer learning that a small device can afford.
//!
//! A deployed classifier is [split](revoada_bundle::onnx::OnnxModel::split_head): its backbone turns each picture into
//! [features](Backbone) once, and only a small [head](HeadShape) is [trained](train()) on them. What leaves the device is the head's
//! weights; [`layers`] makes of them what takes the old head's place in the model.
//!
//! It is *not* what runs a round of a fleet (the agent's and the service's), nor a place for learning on a GPU.
//!
//! ```
//! use revoada_core::{Clock, Digest, Timestamp};
//! use revoada_learn::{Examples, HeadShape, Pause, Settings, evaluate, train};
//!
//! struct Still;
//! impl Clock for Still {
//!     fn now(&self) -> Timestamp {
//!         Timestamp::ZERO
//!     }
//! }
//!
//! let mut examples = Examples::new(2);
//! for picture in 0..100 {
//!     let class = picture % 2;
//!     let side = if class == 0 { -1.0 } else { 1.0 };
//!     examples.push(&[side, f32::from(picture) / 100.0], class.into(), Digest::new([picture; 32]))?;
//! }
//! let start = HeadShape { features: 2, hidden: None, classes: 2 }.seeded(1)?;
//! let settings = Settings { rate: 0.05, ..Settings::default() };
//! let trained = train(&start, &examples, &settings, &Still, &mut || Pause::Continue)?;
//! let judged = evaluate(&trained.weights, &examples)?.expect("there are examples");
//! assert_eq!(judged.accuracy, 1.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod cache;
mod evaluate;
mod examples;
mod features;
mod forget;
mod hash;
mod head;
mod network;
mod pictures;
mod train;
mod yielding;

pub use cache::derived_folder;
pub use evaluate::{ClassCounts, Evaluation, evaluate};
pub use examples::{ExampleError, Examples};
pub use features::{Backbone, Extracted, FeaturesError, ROWS, Wanted};
pub use forget::{Erase, ForgetError, Forgotten, forget};
pub use head::{HeadError, HeadShape, layers, weights_of};
pub use pictures::{Labelled, Picture, PicturesError, labelled};
pub use train::{ClassWeights, Ended, Optimiser, Pause, Settings, TrainError, Trained, train};
pub use yielding::{Limits, Signs, Yielding, hottest};
