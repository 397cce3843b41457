//! What this process costs, as Linux tells it.

use std::fs;

/// The first letters of the names of threads that only make load.
pub(super) const LOAD: &str = "sim-";

/// Memory that is in use, in KiB; `None` where the system does not tell.
pub fn resident_kib(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

/// Processor time in the system's ticks: of threads that make load, and of all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ticks {
    load: u64,
    all: u64,
}

impl Ticks {
    pub(super) fn now() -> Option<Self> {
        let mut ticks = Self::default();
        for task in fs::read_dir("/proc/self/task").ok()? {
            // A thread may end meanwhile.
            let Ok(stat) = fs::read_to_string(task.ok()?.path().join("stat")) else { continue };
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            let fields: Vec<u64> = rest.split_whitespace().skip(11).take(2).filter_map(|it| it.parse().ok()).collect();
            let spent: u64 = fields.iter().sum();
            ticks.all += spent;
            ticks.load += if name.starts_with(LOAD) { spent } else { 0 };
        }
        Some(ticks)
    }

    /// The share of the load in what was spent since.
    pub(super) fn load_share_since(self, then: Self) -> Option<f64> {
        let (load, all) = (self.load.saturating_sub(then.load), self.all.saturating_sub(then.all));
        (all > 0).then(|| load as f64 / all as f64)
    }
}
