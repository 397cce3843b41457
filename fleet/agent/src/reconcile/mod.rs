//! Desired against actual, without I/O and without a clock.

mod agent;
mod deployment;
mod policy;
mod supervision;
mod words;

pub use agent::Agent;
pub use policy::Policy;
pub use words::{Action, Counts, Event, Fault, Health, Phase, Refusal, Report, ReportId, RunId, Step, StepId};
