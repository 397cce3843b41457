//! What became of events that go to another machine: counted by the sinks, read by metrics and statistics.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::lock::lock;

/// The deliveries of one run, one for each sink that delivers.
#[derive(Clone, Debug, Default)]
pub struct Deliveries(Arc<Mutex<Vec<Arc<Delivery>>>>);

/// Where the events of one sink went so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverySummary {
    /// `mqtt` or `webhook`; the second of its kind is `mqtt-2`.
    pub sink: String,
    /// The other side has them.
    pub delivered: u64,
    /// The oldest of a full queue, and what still waited at the end of the run.
    pub dropped: u64,
    /// The other side refused them for good.
    pub failed: u64,
    /// Attempts that were made again later.
    pub retried: u64,
    /// Not delivered yet.
    pub waiting: u64,
    /// Why the latest attempt failed; `None` once one has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl DeliverySummary {
    /// By the names that metrics use.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 4] {
        [("delivered", self.delivered), ("dropped", self.dropped), ("failed", self.failed), ("retried", self.retried)]
    }
}

/// The counters of one sink.
#[derive(Debug)]
pub(crate) struct Delivery(Mutex<DeliverySummary>);

impl Deliveries {
    /// Counters for one more sink of a kind.
    pub(crate) fn open(&self, kind: &str) -> Arc<Delivery> {
        let mut all = lock(&self.0);
        let earlier = all.iter().filter(|delivery| lock(&delivery.0).sink.split('-').next() == Some(kind)).count();
        let sink = if earlier == 0 { kind.to_owned() } else { format!("{kind}-{}", earlier + 1) };
        let delivery = Arc::new(Delivery(Mutex::new(DeliverySummary { sink, ..DeliverySummary::default() })));
        all.push(Arc::clone(&delivery));
        delivery
    }

    pub(crate) fn summaries(&self) -> Vec<DeliverySummary> {
        lock(&self.0).iter().map(|delivery| delivery.summary()).collect()
    }
}

impl Delivery {
    pub(crate) fn count(&self, change: impl FnOnce(&mut DeliverySummary)) {
        change(&mut lock(&self.0));
    }

    pub(crate) fn summary(&self) -> DeliverySummary {
        lock(&self.0).clone()
    }
}
