//! What an agent hears and says.

use std::collections::BTreeMap;
use std::time::SystemTime;

use revoada_core::Digest;
use revoada_proto::{Generation, Kind, Order};

use crate::state::{Active, Failure, Placed, State};

/// One step of a deployment, as it was begun; an answer to another one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u64);

/// One start of the pipeline; what is said of another one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// One report; an answer to another one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportId(pub u64);

/// What is done for a kind before it can be flipped to, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Find out how much is to be fetched and whether the disk has room for it.
    CheckRoom,
    /// Fetch by digest into the slot that is not active, going on where it stopped.
    Fetch,
    /// Hold it against its digest and the trusted keys.
    Verify,
    /// Try it in a child process.
    Preflight,
}

/// Why a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server was asked and does not have it.
    NotFound,
    /// It may work later, however often it has not: no server, no network, a disk that fails.
    Passing,
    /// The disk is too full; it may not be later.
    NoRoom,
    /// The bytes are not those of the digest.
    Damaged,
    /// It will never do: signed by a stranger, or its pre-flight failed.
    Refused,
}

/// How the pipeline is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// Frames that it has processed since it was started.
    pub frames: u64,
    /// Lately, over all streams.
    pub frames_per_second: f64,
    /// Results since it was started that were not finite.
    pub nonfinite: u64,
}

/// What an agent hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The server can be reached again: what waits for it does not wait any longer.
    Connected,
    /// An order came. `wall` is what the clock on the wall shows, read for nothing but whether the order has expired.
    ///
    /// Where that clock is years slow, orders do not expire, and the generation alone keeps old ones harmless. Where it is
    /// years fast, every order that can expire is refused and reported so; those that cannot expire are followed.
    Order { order: Order, expires_at: Option<SystemTime>, wall: SystemTime },
    /// A step works on; its time-out begins anew where it is one of silence.
    StepProgress { id: StepId },
    /// A step has done what it was begun for.
    StepDone { id: StepId },
    /// A step has failed and changes nothing any more.
    StepFailed { id: StepId, fault: Fault },
    /// What [`Action::Save`] or [`Action::Activate`] asked for is durable.
    Saved,
    /// It is not, and everything is as it was.
    SaveFailed,
    /// A slot that was to be activated or run could not be verified, and that was not done.
    SlotDamaged { kind: Kind, placed: Placed },
    /// The pipeline said how it is.
    Healthy { run: RunId, health: Health },
    /// The pipeline ended without having been told to, after so many frames.
    Crashed { run: RunId, frames: u64 },
    /// The server has a report.
    Reported { id: ReportId },
    /// The server does not have a report, as far as is known. That never rolls anything back.
    ReportFailed { id: ReportId },
}

/// What an agent wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Begin a step; answered by [`Event::StepDone`] or [`Event::StepFailed`]. There is one at a time.
    Begin { id: StepId, step: Step, kind: Kind, placed: Placed },
    /// Give a step up. Nothing of it touches a slot once another one is begun.
    Cancel { id: StepId },
    /// Make the state durable; answered by [`Event::Saved`] or [`Event::SaveFailed`].
    Save { state: State },
    /// Verify these slots, make the state durable and flip to them, and let these kinds run nothing; answered as
    /// [`Save`](Self::Save) is, or by [`Event::SlotDamaged`].
    Activate { state: State, slots: Active, emptied: Vec<Kind> },
    /// Verify these slots and run the pipeline on them, instead of the one that runs; answered by
    /// [`Event::SlotDamaged`] where that cannot be.
    Run { run: RunId, active: Active },
    /// Run nothing.
    Stop,
    /// Tell the server; answered by [`Event::Reported`] or [`Event::ReportFailed`].
    Report { id: ReportId, report: Report },
}

/// What a server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The highest generation that the device has accepted, durably.
    pub known: Generation,
    /// What is active, durably.
    pub active: BTreeMap<Kind, Digest>,
    /// How far the last accepted order has come.
    pub phase: Phase,
    /// The last order that was not accepted, and why.
    pub refused: Option<(Generation, Refusal)>,
}

/// How far an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// What is desired is active and committed.
    Settled,
    /// This step of this kind is under way.
    Working(Step, Kind),
    /// A step of this kind waits to be tried again.
    Waiting(Fault, Kind),
    /// Flipped to, and not yet committed.
    Trial,
    /// The disk does not take what is to be remembered.
    Unsaved,
    /// Given up or rolled back. What is active is what was before.
    Failed(Failure),
}

/// Why an order was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its generation is not higher than the known one.
    Stale,
    /// Its time is over.
    Expired,
}

/// What has happened since the agent began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Orders that were made durable.
    pub orders_accepted: u64,
    /// Orders whose generation was not higher than the known one, duplicates too.
    pub orders_stale: u64,
    /// Orders that came after their time.
    pub orders_expired: u64,
    /// Orders that a newer one replaced before they were saved.
    pub orders_superseded: u64,
    /// Steps that failed and are tried again.
    pub retries: u64,
    /// Steps that were given up for their time.
    pub timeouts: u64,
    /// States that the disk did not take.
    pub saves_failed: u64,
    /// Slots that could not be verified when they were to be activated or run.
    pub slots_damaged: u64,
    /// Ends of the pipeline, in a trial and outside.
    pub crashes: u64,
    /// Trials that were passed.
    pub commits: u64,
    /// Trials that were not.
    pub rollbacks: u64,
    /// Reports that were not answered, or with an error.
    pub reports_failed: u64,
}
