//! How the pipeline is, from what it says of itself.

use std::collections::VecDeque;
use std::time::Duration;

use revoada_core::Timestamp;
use revoada_proto::StreamHealth;
use serde::{Deserialize, Serialize};

use crate::Health;

/// Over how many looks a rate is taken.
const LOOKS_MAX: usize = 6;

/// What a pipeline's statistics say that an agent wants to know; they say more, and later ones may say it otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) frames_out: u64,
    pub(super) non_finite: u64,
    /// The largest batch that a plan of the model is to run.
    pub(super) rows_max: Option<u16>,
    latency: Latencies,
    pub(super) streams: Vec<Stream>,
    pub(super) shadow: Option<Shadow>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stream {
    id: String,
    state: String,
    error: Option<String>,
    frames_out: u64,
    frames_dropped: Dropped,
    reconnects: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Dropped {
    queue: u64,
    shutdown: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Latencies {
    total: Latency,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Latency {
    p99_ms: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shadow {
    pub(super) frames: u64,
    frames_agreed: u64,
    pub(super) error: Option<String>,
}

impl Shadow {
    /// On which part of the frames both models said the same.
    pub(super) fn agreement(&self) -> Option<f64> {
        (self.frames > 0).then(|| self.frames_agreed as f64 / self.frames as f64)
    }
}

/// How what runs is, as a report has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Vitals {
    /// Since the device last changed what it runs.
    pub over: Duration,
    /// Of those, starts after the first.
    pub restarts: u32,
    pub fps: Option<f64>,
    pub latency_ms: Option<f64>,
    pub streams: Vec<StreamHealth>,
}

/// What was seen of one process while it runs one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// What the process had done before it ran this.
    base: (u64, u64),
    looks: VecDeque<(Timestamp, u64)>,
    stream_looks: Vec<(String, VecDeque<(Timestamp, u64)>)>,
    last: Option<Stats>,
}

impl Watch {
    /// From here on the process runs something else, and is judged anew.
    pub(super) fn begin_at(stats: &Stats) -> Self {
        Self { base: (stats.frames_out, stats.non_finite), ..Self::default() }
    }

    pub(super) fn look(&mut self, stats: Stats, now: Timestamp) -> Health {
        add(&mut self.looks, now, stats.frames_out);
        self.stream_looks.retain(|(id, _)| stats.streams.iter().any(|stream| stream.id == *id));
        for stream in &stats.streams {
            if !self.stream_looks.iter().any(|(id, _)| *id == stream.id) {
                self.stream_looks.push((stream.id.clone(), VecDeque::new()));
            }
            let looks = self.stream_looks.iter_mut().find(|(id, _)| *id == stream.id);
            looks.into_iter().for_each(|(_, looks)| add(looks, now, stream.frames_out));
        }
        let health = Health {
            frames: stats.frames_out.saturating_sub(self.base.0),
            frames_per_second: rate(&self.looks).unwrap_or(0.0),
            nonfinite: stats.non_finite.saturating_sub(self.base.1),
        };
        self.last = Some(stats);
        health
    }

    /// Frames since it runs this, as far as was seen.
    pub(super) fn frames(&self) -> u64 {
        self.last.as_ref().map_or(0, |stats| stats.frames_out.saturating_sub(self.base.0))
    }

    pub(super) fn vitals(&self, over: Duration, restarts: u32) -> Vitals {
        let streams = self.last.iter().flat_map(|stats| &stats.streams);
        let streams = streams.map(|stream| StreamHealth {
            stream: stream.id.clone(),
            frames: stream.frames_out,
            fps: self.stream_looks.iter().find(|(id, _)| *id == stream.id).and_then(|(_, l)| rate(l)).unwrap_or(0.0),
            dropped: stream.frames_dropped.queue + stream.frames_dropped.shutdown,
            reconnects: stream.reconnects,
            trouble: match stream.state.as_str() {
                "running" => None,
                state => Some(stream.error.clone().unwrap_or_else(|| state.to_owned())),
            },
        });
        let latency_ms = self.last.as_ref().map(|stats| stats.latency.total.p99_ms);
        let latency_ms = latency_ms.filter(|ms| ms.is_finite() && self.frames() > 0);
        Vitals { over, restarts, fps: rate(&self.looks), latency_ms, streams: streams.collect() }
    }
}

fn add(looks: &mut VecDeque<(Timestamp, u64)>, now: Timestamp, frames: u64) {
    if looks.len() == LOOKS_MAX {
        looks.pop_front();
    }
    looks.push_back((now, frames));
}

/// Frames a second over the looks; `None` from one alone.
fn rate(looks: &VecDeque<(Timestamp, u64)>) -> Option<f64> {
    let (first, last) = looks.front().zip(looks.back())?;
    let over = last.0.since(first.0).as_secs_f64();
    (over > 0.0).then(|| last.1.saturating_sub(first.1) as f64 / over)
}

/// The hottest of the machine's thermal zones below `root`, which is `/` but in tests.
pub(super) fn temperature_c(root: &std::path::Path) -> Option<f64> {
    let zones = std::fs::read_dir(root.join("sys/class/thermal")).ok()?.flatten();
    let celsius = zones.filter_map(|zone| {
        let millis: f64 = std::fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse().ok()?;
        // A zone that is powered down says absurd things.
        Some(millis / 1000.0).filter(|celsius| (-60.0..=200.0).contains(celsius))
    });
    celsius.max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn stats(frames: u64) -> Stats {
        let text = format!(
            r#"{{"frames_out": {frames}, "non_finite": 3, "more": [], "latency": {{"total": {{"p99_ms": 7.5, "p50_ms": 1}}}},
                "streams": [{{"id": "door", "state": "running", "frames_out": {frames}, "frames_dropped": {{"queue": 2}}}},
                            {{"id": "yard", "state": "reconnecting", "error": "no route"}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_rate_is_of_the_latest_looks_and_frames_are_of_what_runs_now() {
        let mut watch = Watch::begin_at(&stats(1000));
        assert_eq!(watch.look(stats(1000), at(0)), Health { frames: 0, frames_per_second: 0.0, nonfinite: 0 });
        for second in 1..20 {
            let health = watch.look(stats(1000 + second * 30), at(second));
            assert_eq!((health.frames, health.frames_per_second), (second * 30, 30.0));
        }
        let health = watch.look(stats(1000 + 19 * 30), at(30));
        assert!(health.frames_per_second < 10.0, "it has stood still for a while");
        let vitals = watch.vitals(Duration::from_secs(30), 2);
        assert_eq!((vitals.latency_ms, vitals.restarts), (Some(7.5), 2));
        assert_eq!((vitals.streams[0].dropped, vitals.streams[0].trouble.as_deref()), (2, None));
        assert_eq!(vitals.streams[1].trouble.as_deref(), Some("no route"));
    }

    #[test]
    fn agreement_is_a_part_of_what_was_answered() {
        let shadow = |frames, frames_agreed| Shadow { frames, frames_agreed, error: None };
        assert_eq!((shadow(0, 0).agreement(), shadow(4, 3).agreement()), (None, Some(0.75)));
    }

    #[test]
    fn the_hottest_zone_that_makes_sense_counts() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(temperature_c(root.path()), None);
        for (index, text) in ["41500\n", "-256000\n", "", "63250\n"].iter().enumerate() {
            let zone = root.path().join(format!("sys/class/thermal/thermal_zone{index}"));
            std::fs::create_dir_all(&zone).unwrap();
            std::fs::write(zone.join("temp"), text).unwrap();
        }
        assert_eq!(temperature_c(root.path()), Some(63.25));
    }
}
