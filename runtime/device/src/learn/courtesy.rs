//! Standing aside for whoever needs the machine more, and ending when asked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use revoada_bundle::strict::parse_duration;
use revoada_learn::{Limits, Pause, Signs, Yielding, hottest};
use revoada_pipeline::control::{Client, Command};
use revoada_pipeline::run::{StopFlag, StopLevel};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde_json::Value;
use tracing::{info, warn};

use crate::stop;

const THERMAL: &str = "/sys/class/thermal";
/// Between two looks while nothing is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A pipeline that takes longer to answer has something else to do.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct CourtesyArgs {
    /// How much others come first, 0 (not at all) to 19.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i32).range(0..=19))]
    nice: i32,
    /// Wait while the hottest part of the machine is hotter, in °C, and until it is 5 below.
    #[arg(long, value_name = "CELSIUS", value_parser = clap::value_parser!(u8).range(20..=120))]
    celsius_max: Option<u8>,
    /// Wait while the pipeline that listens on this control socket drops frames of live streams.
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// The longest that all of it may take, waiting included, such as 30m.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_time)]
    time_max: Duration,
    /// End with the process of this number, which has to be the one that started this.
    #[arg(long, value_name = "PID")]
    parent: Option<i32>,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
    let time = parse_duration(text).filter(|time| range.contains(time));
    time.ok_or_else(|| "not a duration of 1s to 168h, such as `30m`".to_owned())
}

/// What is asked between two steps.
pub(super) struct Courtesy {
    stop: StopFlag,
    until: Instant,
    yielding: Yielding,
    control: Option<PathBuf>,
    client: Option<Client>,
    /// Whether it was said that nobody listens there.
    unheard: bool,
    looked: Option<Instant>,
    waits: bool,
}

impl Courtesy {
    pub(super) fn start(args: &CourtesyArgs) -> anyhow::Result<Self> {
        if let Some(parent) = args.parent {
            end_with(parent)?;
        }
        rustix::process::nice(args.nice).context("cannot lower the priority")?;
        let limits = Limits { celsius_max: args.celsius_max.map(f32::from), cooling: 5.0 };
        Ok(Self {
            stop: stop::on_signals()?,
            until: Instant::now() + args.time_max,
            yielding: Yielding::new(limits),
            control: args.control.clone(),
            client: None,
            unheard: false,
            looked: None,
            waits: false,
        })
    }

    pub(super) fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// As [`ask`](Self::ask), for what does not look at the time itself.
    pub(super) fn ask_in_time(&mut self) -> Pause {
        if self.time_left().is_zero() { Pause::Stop } else { self.ask() }
    }

    pub(super) fn ask(&mut self) -> Pause {
        if self.stop.level() > StopLevel::Run {
            return Pause::Stop;
        }
        if !self.waits && self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Pause::Continue;
        }
        self.looked = Some(Instant::now());
        let signs = Signs { celsius: hottest(Path::new(THERMAL)), dropped: self.dropped() };
        let answer = self.yielding.look(signs);
        let waits = answer != Pause::Continue;
        if waits != self.waits {
            info!(celsius = signs.celsius, dropped = signs.dropped, "{}", if waits { "waiting" } else { "going on" });
        }
        self.waits = waits;
        answer
    }

    /// Frames of live queues that the pipeline has dropped; `None` where it does not say.
    fn dropped(&mut self) -> Option<u64> {
        let path = self.control.as_ref()?;
        let mut client = match self.client.take() {
            Some(client) => Ok(client),
            None => Client::connect(path).map(|client| client.with_answer_time_max(ANSWER_TIME_MAX)),
        };
        match client.as_mut().map(|client| client.request(Command::Stats)) {
            Ok(Ok(statistics)) => {
                self.client = client.ok();
                self.unheard = false;
                dropped(&statistics)
            }
            Ok(Err(error)) => self.not_heard(&error),
            Err(error) => {
                let error = error.to_string();
                self.not_heard(&error)
            }
        }
    }

    fn not_heard(&mut self, error: &dyn std::fmt::Display) -> Option<u64> {
        if !self.unheard {
            warn!(%error, "the pipeline is not asked whether it drops frames");
        }
        self.unheard = true;
        None
    }
}

/// Nobody waits for what an orphan learns, and it is not to write where the next one does.
fn end_with(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot be told when the process ends that started this")?;
    // It may have ended before.
    let is_there = getppid().is_some_and(|found| found.as_raw_nonzero().get() == parent);
    anyhow::ensure!(is_there, "process {parent}, with which this was to end, has not started it or is gone");
    Ok(())
}

/// The sum over the streams.
fn dropped(statistics: &Value) -> Option<u64> {
    let streams = statistics["streams"].as_array()?.iter();
    Some(streams.filter_map(|stream| stream["frames_dropped"]["queue"].as_u64()).fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use revoada_pipeline::run::{RunSummary, StreamSummary};

    #[test]
    fn dropped_frames_are_read_of_what_a_pipeline_says() {
        let stream = |queue| {
            let mut stream = StreamSummary::default();
            stream.frames_dropped.queue = queue;
            stream.frames_dropped.interval = 1000;
            stream
        };
        let summary = RunSummary { streams: vec![stream(3), stream(4)], ..RunSummary::default() };
        assert_eq!(dropped(&serde_json::to_value(summary).unwrap()), Some(7));
        assert_eq!(dropped(&Value::Null), None);
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(parse_time("30m"), Ok(Duration::from_secs(1800)));
        for text in ["30", "10ms", "1000h", "soon"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
