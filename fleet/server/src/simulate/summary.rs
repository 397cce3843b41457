//! What a simulation came to.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::operator::{Ended, RoundEnded};

/// Of many times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Spread {
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { count: times.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// Figures, and every failure. Nothing may be lost, applied twice or out of order, whatever goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub devices: usize,
    pub liars: usize,
    pub seconds: f64,
    pub enrolments_per_second: f64,
    pub connects_per_second: f64,
    /// Both ends of each, where the service is in this process; the devices' alone, where it is not.
    pub kib_per_connection: Option<f64>,
    /// Of this process's time, how much went into devices rather than the service.
    pub load_cpu_share: Option<f64>,
    pub rollouts: Vec<Ended>,
    pub orders_applied: u64,
    pub orders_failed: u64,
    /// The newest order again, which was refused.
    pub orders_again: u64,
    /// Older orders, which were refused.
    pub orders_older: u64,
    /// From an order's issue, which is told in whole seconds, to its end on the device.
    pub order_to_applied: Spread,
    pub commands_asked: u64,
    pub commands_done: u64,
    pub commands_again: u64,
    /// From an operator's question to the device's doing.
    pub command_latency: Spread,
    pub events_said: u64,
    pub events_stored: u64,
    pub messages_said: u64,
    pub messages_lost: u64,
    pub messages_doubled: u64,
    pub reboots: u64,
    pub cuts: u64,
    pub lies: u64,
    pub reconnects: u64,
    pub blobs_fetched: u64,
    pub fetches_failed: u64,
    pub rounds: Vec<RoundEnded>,
    /// From an invitation to the word whether the update counts.
    pub invited_to_counted: Spread,
    pub invitations_again: u64,
    /// Attempts to bring an update, and those that came to nothing.
    pub updates_brought: u64,
    pub updates_again: u64,
    /// The first of them, in words.
    pub failures: Vec<String>,
    pub failures_count: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |share: Option<f64>| share.map_or("not known".to_owned(), |share| format!("{:.0}%", share * 100.0));
        let spread = |it: &Spread| {
            format!("p50 {:.0} ms, p99 {:.0} ms, at most {:.0} ms of {}", it.p50_ms, it.p99_ms, it.max_ms, it.count)
        };
        writeln!(f, "seed             {}", self.seed)?;
        writeln!(f, "devices          {}, of which {} lie", self.devices, self.liars)?;
        writeln!(f, "took             {:.1} s", self.seconds)?;
        writeln!(f, "enrolled         {:.0} a second", self.enrolments_per_second)?;
        let kib = self.kib_per_connection.map_or("not known".to_owned(), |kib| format!("{kib:.0} KiB each"));
        writeln!(f, "connected        {:.0} a second, {kib}", self.connects_per_second)?;
        writeln!(f, "load generator   {} of the processor time", share(self.load_cpu_share))?;
        for Ended { id, phase, devices, reached, gave_up, seconds } in &self.rollouts {
            writeln!(f, "rollout {id:<8} {phase} after {seconds:.1} s: {reached} of {devices}, {gave_up} gave up")?;
        }
        writeln!(
            f,
            "orders           {} applied, {} failed; refused: {} again, {} older",
            self.orders_applied, self.orders_failed, self.orders_again, self.orders_older
        )?;
        writeln!(f, "issued, applied  {}", spread(&self.order_to_applied))?;
        writeln!(
            f,
            "commands         {} asked, {} done, {} came again",
            self.commands_asked, self.commands_done, self.commands_again
        )?;
        writeln!(f, "asked, done      {}", spread(&self.command_latency))?;
        writeln!(f, "events           {} happened, {} stored", self.events_said, self.events_stored)?;
        writeln!(
            f,
            "faults           {} of {} messages lost, {} doubled, {} reboots, {} cuts, {} lies, {} reconnects",
            self.messages_lost,
            self.messages_said,
            self.messages_doubled,
            self.reboots,
            self.cuts,
            self.lies,
            self.reconnects
        )?;
        writeln!(f, "blobs            {} fetched, {} not", self.blobs_fetched, self.fetches_failed)?;
        for round in &self.rounds {
            let RoundEnded { round, status, invited, updates, refused, seconds, .. } = round;
            let name = format!("round {round}");
            writeln!(f, "{name:<16} {status} after {seconds:.1} s: {updates} of {invited} updates, {refused} refused")?;
        }
        if !self.rounds.is_empty() {
            let (brought, again, invited) = (self.updates_brought, self.updates_again, self.invitations_again);
            writeln!(
                f,
                "updates          brought {brought} times, {again} of them in vain; {invited} invitations came again"
            )?;
            writeln!(f, "invited, counted {}", spread(&self.invited_to_counted))?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED           {failure}")?;
        }
        write!(f, "{} failures", self.failures_count)
    }
}
