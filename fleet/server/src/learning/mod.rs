//! What the fleet learns together.
//!
//! A [`Board`] is where participants wait for [tasks](Task) and bring [what came of them](Reply), whatever door they came
//! through: each door speaks its own protocol, and none of them knows what a round is.

mod board;
mod csv;
mod examiner;
mod hall;
mod head;
mod plan;
mod release;
mod report;
mod run;
mod spool;
mod task;

/// Of one file that is read at once: of a bundle, of weights, of what a strategy remembers.
const FILE_BYTES_MAX: usize = 4 << 30;

pub use board::{Board, Presence, Said, TooMany, Word};
pub use csv::rounds_csv;
pub use examiner::{Examined, Examiner, ExaminerDesk, Marks, Pictures};
pub use hall::Learners;
pub use plan::{
    AppNote, ElementName, HeadPlan, HeldWeights, MemberRecord, MemberResult, Outcome, Participants, ROUNDS_MAX,
    RUNS_MAX, ReleasePlan, RoundRecord, RoundResult, RunIntent, RunPhase, RunPlan, RunState,
};
pub use release::{ReleaseError, Releaser, learned_model};
pub use report::LearningCounts;
pub use task::{App, Config, Door, Metrics, Reply, Reported, RunId, Sheet, Task, Tensor, Value, Work};
