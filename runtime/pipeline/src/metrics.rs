//! The counters of a run as Prometheus reads them (OpenMetrics text), for `/metrics`.
//!
//! Streams' ids are labels: they come from the configuration and are a closed set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::run::{RunStats, Step, StepTimes, StreamStats};

/// Bounds of the latency buckets, from a staging pass to a stalled stream.
const BUCKETS_MS: [u64; 13] = [1, 2, 5, 10, 20, 33, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// Prints the metrics of one run.
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(stats: Arc<RunStats>) -> Self {
        let mut registry = Registry::with_prefix("revoada");
        registry.register_collector(Box::new(Scrape { stats }));
        Self { registry }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing into a string does not fail");
        text
    }
}

struct Scrape {
    stats: Arc<RunStats>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let streams = self.stats.streams();
        let mut counter = |name, help, value: fn(&StreamStats) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for stream in &streams {
                let labels = [("stream", stream.id.as_str())];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(stream), None)?;
            }
            Ok::<_, fmt::Error>(())
        };
        counter("frames_in", "Frames that left the decoder", StreamStats::frames_in)?;
        counter("frames_out", "Frames that reached the sinks", StreamStats::frames_out)?;
        counter("reconnects", "Times that a lost source was tried again", StreamStats::reconnects)?;
        counter("detections", "Things found", StreamStats::detections)?;
        counter("tracks", "Objects that were followed", StreamStats::tracks)?;
        counter("frame_copies", "Copies of whole pictures between decoder and sinks", StreamStats::copies)?;
        encode_dropped(&mut encoder, &streams)?;
        encode_gauges(&mut encoder, &streams)?;
        encode_latencies(&mut encoder, &streams)?;
        let help = "Inferences, each of one batch of frames";
        let mut batches = encoder.encode_descriptor("batches", help, None, MetricType::Counter)?;
        batches.encode_counter::<NoLabelSet, _, u64>(&self.stats.batches(), None)?;
        let help = "Scores and boxes that were NaN or infinite and are no results";
        let mut non_finite = encoder.encode_descriptor("non_finite", help, None, MetricType::Counter)?;
        non_finite.encode_counter::<NoLabelSet, _, u64>(&self.stats.non_finite(), None)?;
        let help = "Times that another model took over";
        let mut swaps = encoder.encode_descriptor("model_swaps", help, None, MetricType::Counter)?;
        swaps.encode_counter::<NoLabelSet, _, u64>(&self.stats.swaps(), None)?;
        let help = "Time without any model, because two did not fit into memory";
        let mut gap = encoder.encode_descriptor("model_gap", help, Some(&Unit::Seconds), MetricType::Counter)?;
        gap.encode_counter::<NoLabelSet, _, u64>(&self.stats.swap_gap().as_secs_f64(), None)
    }
}

fn encode_dropped(encoder: &mut DescriptorEncoder<'_>, streams: &[Arc<StreamStats>]) -> fmt::Result {
    let help = "Frames that left the decoder and never reached the sinks, by where they were dropped";
    let mut family = encoder.encode_descriptor("frames_dropped", help, None, MetricType::Counter)?;
    for stream in streams {
        let dropped = stream.frames_dropped();
        for (stage, frames) in
            [("interval", dropped.interval), ("queue", dropped.queue), ("shutdown", dropped.shutdown)]
        {
            let labels = [("stream", stream.id.as_str()), ("stage", stage)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&frames, None)?;
        }
    }
    Ok(())
}

fn encode_gauges(encoder: &mut DescriptorEncoder<'_>, streams: &[Arc<StreamStats>]) -> fmt::Result {
    let help = "Frames that wait to be inferred";
    let mut family = encoder.encode_descriptor("queue_frames", help, None, MetricType::Gauge)?;
    for stream in streams {
        let labels = [("stream", stream.id.as_str())];
        family.encode_family(&labels)?.encode_gauge(&i64::try_from(stream.queue_frames()).unwrap_or(i64::MAX))?;
    }
    let help = "1 for the state that the stream is in";
    let mut family = encoder.encode_descriptor("stream_state", help, None, MetricType::Gauge)?;
    for stream in streams {
        let labels = [("stream", stream.id.as_str()), ("state", stream.state().name())];
        family.encode_family(&labels)?.encode_gauge(&1i64)?;
    }
    Ok(())
}

fn encode_latencies(encoder: &mut DescriptorEncoder<'_>, streams: &[Arc<StreamStats>]) -> fmt::Result {
    let help = "Where frames' time goes; `total` is from the decoder to the sinks";
    let mut family = encoder.encode_descriptor("frame_latency", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for stream in streams {
        for (step, times) in Step::ALL.iter().zip(&stream.step_times()) {
            let labels = [("stream", stream.id.as_str()), ("stage", step.name())];
            let buckets = buckets(times);
            let mut histogram = family.encode_family(&labels)?;
            histogram.encode_histogram::<NoLabelSet>(times.sum_s(), times.count(), &buckets, None)?;
        }
    }
    Ok(())
}

/// Upper bounds in seconds and how many fell between each and the one before, the last being all
/// the rest.
fn buckets(times: &StepTimes) -> Vec<(f64, u64)> {
    let mut below = 0;
    let mut buckets: Vec<(f64, u64)> = BUCKETS_MS
        .iter()
        .map(|ms| {
            let within = times.count_within(Duration::from_millis(*ms));
            let between = within - below;
            below = within;
            (*ms as f64 / 1000.0, between)
        })
        .collect();
    buckets.push((f64::INFINITY, times.count() - below));
    buckets
}

#[cfg(test)]
mod tests {
    use revoada_core::{StreamId, Timestamp};

    use super::*;
    use crate::FrameTimings;
    use crate::run::Dropped;

    #[test]
    fn every_counter_is_in_the_text() {
        let stats = Arc::new(RunStats::default());
        let stream = stats.stream(&StreamId::new("front"));
        stream.frame_decoded(Timestamp::ZERO);
        stream.frame_decoded(Timestamp::ZERO);
        stream.frame_dropped(Dropped::Queue);
        stream.queue_entered();
        stream.copied(3);
        stream.tracked(7);
        stream.reconnecting("gone".into());
        stream.running();
        let timings = FrameTimings { total: Duration::from_millis(15), ..FrameTimings::default() };
        stream.frame_written(&timings, Duration::ZERO, 4, Timestamp::ZERO);
        stats.batch(1);
        let text = Metrics::new(stats).text();
        for line in [
            "revoada_frames_in_total{stream=\"front\"} 2",
            "revoada_frames_out_total{stream=\"front\"} 1",
            "revoada_frames_dropped_total{stream=\"front\",stage=\"queue\"} 1",
            "revoada_frames_dropped_total{stream=\"front\",stage=\"shutdown\"} 0",
            "revoada_queue_frames{stream=\"front\"} 1",
            "revoada_stream_state{stream=\"front\",state=\"running\"} 1",
            "revoada_reconnects_total{stream=\"front\"} 1",
            "revoada_detections_total{stream=\"front\"} 4",
            "revoada_tracks_total{stream=\"front\"} 7",
            "revoada_frame_copies_total{stream=\"front\"} 3",
            "revoada_batches_total 1",
            "revoada_non_finite_total 0",
            "revoada_model_swaps_total 0",
            "revoada_model_gap_seconds_total 0.0",
            "revoada_frame_latency_seconds_bucket{le=\"0.01\",stream=\"front\",stage=\"total\"} 0",
            "revoada_frame_latency_seconds_bucket{le=\"0.02\",stream=\"front\",stage=\"total\"} 1",
            "revoada_frame_latency_seconds_bucket{le=\"+Inf\",stream=\"front\",stage=\"total\"} 1",
            "revoada_frame_latency_seconds_sum{stream=\"front\",stage=\"total\"} 0.015",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
