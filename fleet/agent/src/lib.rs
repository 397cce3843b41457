//! What brings a device to its desired state: the reconciler and the slots of the agent.
//!
//! [`Agent`] decides: it is told what happened ([`Event`]) and says what to do ([`Action`]). [`Slots`] keep two places
//! for each kind of deployable on disk, of which one is active, and the record that survives a power cut.
//!
//! It is *not* the loop between them: nothing here opens a socket, starts a process or reads a clock, and nothing links an
//! engine, a builder or GPU code.
//!
//! ```
//! use revoada_agent::{Action, Agent, Event, Found, Policy, Step};
//! use revoada_core::{Digest, Timestamp};
//! use revoada_proto::{Deployable, Generation, Kind, Order};
//! use std::time::SystemTime;
//!
//! let mut agent = Agent::start(Policy::default(), 7, Found::default());
//! let model = Deployable { kind: Kind::Model, digest: Digest::new([7; 32]) };
//! let order = Order { generation: Generation(1), deployables: [model].into() };
//! let order = Event::Order { order, expires_at: None, wall: SystemTime::UNIX_EPOCH };
//! // Nothing is begun before the order is durable.
//! assert!(matches!(agent.handle(order, Timestamp::ZERO)[..], [Action::Save { .. }]));
//! let actions = agent.handle(Event::Saved, Timestamp::ZERO);
//! assert!(matches!(actions[0], Action::Begin { step: Step::CheckRoom, kind: Kind::Model, .. }));
//! ```
#![forbid(unsafe_code)]

pub mod rails;
pub mod reconcile;
pub mod shell;
pub mod slots;
mod state;
pub mod sysfs;

pub use reconcile::{
    Action, Agent, Counts, Event, Fault, Health, Phase, Policy, Refusal, Report, ReportId, RunId, Step, StepId,
};
pub use slots::{CONTENT, Disk, Filling, LocalDisk, Part, PartSource, SlotError, Slots, VerifiedSlot, Verifier};
pub use state::{Active, Contents, Failure, Found, Placed, Slot, State, Trial};
