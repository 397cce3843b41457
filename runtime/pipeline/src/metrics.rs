//! The counters of a run as Prometheus reads them (OpenMetrics text), for `/metrics`.
//!
//! Streams' ids and the names of lines, regions and directions are labels: they come from the configuration and are
//! closed sets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::analyse::{EventKind, RegionCount};
use crate::run::{RunStats, SecondarySummary, Step, StepTimes, StreamStats};
use crate::sink::{DeliverySummary, RecordingSummary};

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
        encode_analysis(&mut encoder, &streams)?;
        encode_secondaries(&mut encoder, &self.stats.secondaries())?;
        encode_deliveries(&mut encoder, &self.stats.deliveries())?;
        encode_recordings(&mut encoder, &self.stats.recordings())?;
        if let Some(shadow) = self.stats.shadow() {
            let help = "Frames that a shadow was shown, by what became of them";
            let mut family = encoder.encode_descriptor("shadow_frames", help, None, MetricType::Counter)?;
            let differed = shadow.frames - shadow.frames_agreed;
            for (outcome, count) in
                [("agreed", shadow.frames_agreed), ("differed", differed), ("skipped", shadow.frames_skipped)]
            {
                family.encode_family(&[("outcome", outcome)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
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

/// Of each further model, whose names the configuration gives.
fn encode_secondaries(encoder: &mut DescriptorEncoder<'_>, secondaries: &[SecondarySummary]) -> fmt::Result {
    if secondaries.is_empty() {
        return Ok(());
    }
    let help = "Objects and frames for further models, by what became of them";
    let mut family = encoder.encode_descriptor("secondary_pictures", help, None, MetricType::Counter)?;
    for SecondarySummary { name, asked, remembered, skipped } in secondaries {
        for (outcome, count) in [("asked", asked), ("remembered", remembered), ("skipped", skipped)] {
            let labels = [("model", name.as_str()), ("outcome", outcome)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    Ok(())
}

/// Of each sink that delivers events; there are few, and outcomes are a closed set.
fn encode_deliveries(encoder: &mut DescriptorEncoder<'_>, deliveries: &[DeliverySummary]) -> fmt::Result {
    if deliveries.is_empty() {
        return Ok(());
    }
    let help = "Events for another machine, by what became of them, and attempts that were made again";
    let mut family = encoder.encode_descriptor("deliveries", help, None, MetricType::Counter)?;
    for delivery in deliveries {
        for (outcome, count) in delivery.outcomes() {
            let labels = [("sink", delivery.sink.as_str()), ("outcome", outcome)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

/// Of each sink that records.
fn encode_recordings(encoder: &mut DescriptorEncoder<'_>, recordings: &[RecordingSummary]) -> fmt::Result {
    if recordings.is_empty() {
        return Ok(());
    }
    let mut counter = |name, help, unit: Option<&Unit>, value: fn(&RecordingSummary) -> u64| {
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for summary in recordings {
            let labels = [("sink", summary.sink.as_str())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(summary), None)?;
        }
        Ok::<_, fmt::Error>(())
    };
    counter("recordings", "Recordings that are complete", None, |summary| summary.recordings)?;
    counter("recordings", "Bytes of recordings that are complete", Some(&Unit::Bytes), |summary| summary.bytes)?;
    counter("recordings_failed", "Recordings that were wanted and are not there", None, |summary| summary.failed)?;
    counter("recordings_deleted", "Old recordings that made room or were too old", None, |summary| summary.deleted)?;
    let help = "Groups of pictures that memory was too small for";
    counter("recording_groups_dropped", help, None, |summary| summary.groups_dropped)?;
    let help = "Recordings that are being written";
    let mut family = encoder.encode_descriptor("recordings_open", help, None, MetricType::Gauge)?;
    for summary in recordings {
        let open = i64::try_from(summary.open).unwrap_or(i64::MAX);
        family.encode_family(&[("sink", summary.sink.as_str())])?.encode_gauge(&open)?;
    }
    Ok(())
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

/// What the rules of `[analytics]` count.
fn encode_analysis(encoder: &mut DescriptorEncoder<'_>, streams: &[Arc<StreamStats>]) -> fmt::Result {
    let analyses: Vec<_> =
        streams.iter().filter_map(|stream| Some((stream.id.as_str(), stream.analysis()?, stream.events()))).collect();
    if analyses.is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor("events", "Events, by their kind", None, MetricType::Counter)?;
    for (stream, _, events) in &analyses {
        for (kind, count) in EventKind::NAMES.iter().zip(events) {
            let labels = [("stream", *stream), ("event", kind)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    let help = "Objects that crossed a line, by the way that they went";
    let mut family = encoder.encode_descriptor("line_crossings", help, None, MetricType::Counter)?;
    for (stream, analysis, _) in &analyses {
        for (rule, count) in analysis.rules.lines.iter().zip(&analysis.counts.lines) {
            for (way, crossings) in [("in", count.total.inwards), ("out", count.total.outwards)] {
                let labels = [("stream", *stream), ("line", &rule.config.scope.name), ("way", way)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&crossings, None)?;
            }
        }
    }
    let regions = || {
        analyses.iter().flat_map(|(stream, analysis, _)| {
            let counts = analysis.rules.regions.iter().zip(&analysis.counts.regions);
            counts.map(|(rule, count)| ([("stream", *stream), ("region", rule.config.scope.name.as_str())], count))
        })
    };
    let mut gauge = |name, help, value: fn(&RegionCount) -> u64| {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, count) in regions() {
            family.encode_family(&labels)?.encode_gauge(&i64::try_from(value(count)).unwrap_or(i64::MAX))?;
        }
        Ok::<_, fmt::Error>(())
    };
    gauge("region_objects", "Objects in a region", |count| count.objects)?;
    gauge("region_crowded", "1 where a region holds too many objects for too long", |count| count.is_crowded.into())?;
    let mut counter = |name, help, value: fn(&RegionCount) -> u64| {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in regions() {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(count), None)?;
        }
        Ok::<_, fmt::Error>(())
    };
    counter("region_entered", "Tracks that came into a region", |count| count.entered)?;
    counter("region_left", "Tracks that left a region", |count| count.left)?;
    counter("region_dwelt", "Stays in a region that reached the time to tell", |count| count.dwelt)?;
    let help = "Times that a track began to move in a direction";
    let mut family = encoder.encode_descriptor("direction_taken", help, None, MetricType::Counter)?;
    for (stream, analysis, _) in &analyses {
        for (rule, count) in analysis.rules.directions.iter().zip(&analysis.counts.directions) {
            let labels = [("stream", *stream), ("direction", &rule.config.scope.name)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count.taken, None)?;
        }
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
    use revoada_core::{Detection, Point, Rect, Size, StreamId, Timestamp, TrackId};

    use super::*;
    use crate::FrameTimings;
    use crate::analyse::{Analyser, Analysis, Rules};
    use crate::config::{AnalyticsConfig, CrossingMode, DirectionConfig, LineConfig, RegionConfig, Scope};
    use crate::run::Dropped;
    use crate::sink::{Deliveries, Recordings};

    /// Somebody has come down through the door into the hall.
    fn analysis() -> Analysis {
        let scope = |name: &str| Scope { name: name.to_owned(), ..Scope::default() };
        let (left, right, below) = (Point::new(0.0, 10.0), Point::new(20.0, 10.0), Point::new(0.0, 50.0));
        let line = LineConfig {
            scope: scope("door"),
            points: [left, right],
            direction: None,
            mode: CrossingMode::Loose,
            extended: false,
        };
        let region = RegionConfig {
            scope: scope("hall"),
            corners: vec![left, right, below],
            inverse: false,
            dwell: None,
            crowd: None,
        };
        let direction = DirectionConfig { scope: scope("down"), points: [left, below], angle_deg: 45.0 };
        let (lines, regions, directions) = (vec![line], vec![region], vec![direction]);
        let config = AnalyticsConfig { lines, regions, directions, ..AnalyticsConfig::default() };
        let mut analyser = Analyser::new(Rules::of(&config, &StreamId::new("front"), &[]).unwrap().unwrap());
        let mut walk = |bottom: f32| {
            let bbox = Rect::new(4.0, bottom - 10.0, 2.0, 10.0);
            let somebody = Detection { bbox, track: Some(TrackId(1)), ..Detection::default() };
            analyser.update(Timestamp::ZERO, Size::new(100, 100), &[somebody])
        };
        walk(5.0);
        walk(20.0)
    }

    #[test]
    fn every_counter_is_in_the_text() {
        let deliveries = Deliveries::default();
        deliveries.open("mqtt").count(|count| (count.delivered, count.dropped, count.retried) = (3, 2, 1));
        let recordings = Recordings::default();
        recordings.counting(|count| {
            (count.recordings, count.bytes, count.open) = (4, 5000, 1);
            (count.failed, count.deleted, count.groups_dropped) = (2, 3, 6);
        });
        let stats = Arc::new(RunStats::of_sinks(deliveries, recordings));
        let stream = stats.stream(&StreamId::new("front"));
        stream.frame_decoded(Timestamp::ZERO);
        stream.frame_decoded(Timestamp::ZERO);
        stream.frame_dropped(Dropped::Queue);
        stream.queue_entered();
        stream.copied(3);
        stream.tracked(7);
        stream.reconnecting("gone".into());
        stream.running();
        stream.analysed(Some(&Arc::new(analysis())));
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
            "revoada_events_total{stream=\"front\",event=\"line-crossed\"} 1",
            "revoada_events_total{stream=\"front\",event=\"crowd-began\"} 0",
            "revoada_line_crossings_total{stream=\"front\",line=\"door\",way=\"in\"} 1",
            "revoada_line_crossings_total{stream=\"front\",line=\"door\",way=\"out\"} 0",
            "revoada_region_objects{stream=\"front\",region=\"hall\"} 1",
            "revoada_region_crowded{stream=\"front\",region=\"hall\"} 0",
            "revoada_region_entered_total{stream=\"front\",region=\"hall\"} 1",
            "revoada_region_left_total{stream=\"front\",region=\"hall\"} 0",
            "revoada_region_dwelt_total{stream=\"front\",region=\"hall\"} 0",
            "revoada_direction_taken_total{stream=\"front\",direction=\"down\"} 1",
            "revoada_deliveries_total{sink=\"mqtt\",outcome=\"delivered\"} 3",
            "revoada_deliveries_total{sink=\"mqtt\",outcome=\"dropped\"} 2",
            "revoada_deliveries_total{sink=\"mqtt\",outcome=\"failed\"} 0",
            "revoada_deliveries_total{sink=\"mqtt\",outcome=\"retried\"} 1",
            "revoada_recordings_total{sink=\"recording\"} 4",
            "revoada_recordings_bytes_total{sink=\"recording\"} 5000",
            "revoada_recordings_failed_total{sink=\"recording\"} 2",
            "revoada_recordings_deleted_total{sink=\"recording\"} 3",
            "revoada_recording_groups_dropped_total{sink=\"recording\"} 6",
            "revoada_recordings_open{sink=\"recording\"} 1",
            "revoada_batches_total 1",
            "revoada_non_finite_total 0",
            "revoada_model_swaps_total 0",
            "revoada_model_gap_seconds_total 0.0",
            "revoada_frame_latency_seconds_count{stream=\"front\",stage=\"tracking\"} 1",
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
