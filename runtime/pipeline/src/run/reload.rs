//! What a changed configuration changes, and what of that cannot be changed while running. Pure.

use std::time::Duration;

use revoada_core::StreamId;
use serde::Serialize;

use crate::config::{AnalyticsConfig, DrawConfig, ModelConfig, PipelineConfig, StreamConfig, TrackerConfig};

/// What is to be done so that the running pipeline is the new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) added: Vec<StreamConfig>,
    pub(crate) removed: Vec<StreamId>,
    /// Ended and started again with the same id.
    pub(crate) changed: Vec<StreamConfig>,
    pub(crate) analytics: Option<Option<AnalyticsConfig>>,
    pub(crate) draw: Option<DrawConfig>,
    pub(crate) tracker: Option<Option<TrackerConfig>>,
    pub(crate) perf_interval: Option<Option<Duration>>,
}

/// The answer to `reload`.
#[derive(Debug, Serialize)]
pub(crate) struct Reloaded {
    streams_added: Vec<String>,
    streams_removed: Vec<String>,
    streams_changed: Vec<String>,
    analytics_changed: bool,
    draw_changed: bool,
    tracker_changed: bool,
    perf_changed: bool,
}

impl Changes {
    pub(crate) fn report(&self) -> Reloaded {
        let ids = |streams: &[StreamConfig]| streams.iter().map(|stream| stream.id.to_string()).collect();
        Reloaded {
            streams_added: ids(&self.added),
            streams_removed: self.removed.iter().map(StreamId::to_string).collect(),
            streams_changed: ids(&self.changed),
            analytics_changed: self.analytics.is_some(),
            draw_changed: self.draw.is_some(),
            tracker_changed: self.tracker.is_some(),
            perf_changed: self.perf_interval.is_some(),
        }
    }
}

/// The way from one configuration to another; a sentence naming the keys where a restart is needed.
pub(crate) fn changes(from: &PipelineConfig, to: &PipelineConfig) -> Result<Changes, String> {
    let PipelineConfig {
        streams: _,
        model,
        secondaries,
        batch,
        tracker: _,
        analytics: _,
        draw: _,
        sinks,
        http,
        control,
        perf_interval: _,
        deterministic,
    } = from;
    // What a model's decoder was built for.
    let score_low = to.model.score_low;
    let fixed = [
        ("model", ModelConfig { score_low, ..model.clone() } != to.model),
        ("tracker.score_low", model.score_low != score_low),
        ("secondary", *secondaries != to.secondaries),
        ("batch", *batch != to.batch),
        ("sink", *sinks != to.sinks),
        ("http", *http != to.http),
        ("control", *control != to.control),
        ("deterministic", *deterministic != to.deterministic),
    ];
    let keys: Vec<String> = fixed.iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("`{key}`")).collect();
    if !keys.is_empty() {
        return Err(format!("{} cannot be changed while running; restart the pipeline", keys.join(", ")));
    }
    let find = |streams: &[StreamConfig], id: &StreamId| streams.iter().find(|stream| stream.id == *id).cloned();
    let mut changes = Changes {
        analytics: (from.analytics != to.analytics).then(|| to.analytics.clone()),
        draw: (from.draw != to.draw).then(|| to.draw.clone()),
        tracker: (from.tracker != to.tracker).then_some(to.tracker),
        perf_interval: (from.perf_interval != to.perf_interval).then_some(to.perf_interval),
        ..Changes::default()
    };
    for stream in &to.streams {
        match find(&from.streams, &stream.id) {
            None => changes.added.push(stream.clone()),
            Some(before) if before != *stream => changes.changed.push(stream.clone()),
            Some(_) => {}
        }
    }
    let gone = from.streams.iter().filter(|stream| find(&to.streams, &stream.id).is_none());
    changes.removed = gone.map(|stream| stream.id.clone()).collect();
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Draft;

    fn config(uris: &[&str]) -> PipelineConfig {
        let mut draft = Draft::empty();
        uris.iter().for_each(|uri| draft.add_stream(uri));
        draft.set("model.path", "model.onnx");
        draft.check().expect("the draft is whole")
    }

    #[test]
    fn streams_are_told_apart_by_id() {
        let from = config(&["a.mp4", "b.mp4", "c.mp4"]);
        let mut to = config(&["b.mp4", "c.mp4", "d.mp4"]);
        to.streams[0].interval = 7;
        to.draw.clock = true;
        let changes = changes(&from, &to).expect("all of it can be changed");
        let report = serde_json::to_value(changes.report()).expect("a report is plain data");
        let expected = serde_json::json!({
            "streams_added": ["d"], "streams_removed": ["a"], "streams_changed": ["b"],
            "analytics_changed": false, "draw_changed": true, "tracker_changed": false, "perf_changed": false,
        });
        assert_eq!(report, expected);
    }

    #[test]
    fn what_needs_a_restart_is_refused_by_name() {
        let from = config(&["a.mp4"]);
        assert_eq!(changes(&from, &from), Ok(Changes::default()));
        let mut to = config(&["a.mp4", "b.mp4"]);
        to.model.path = "other.onnx".into();
        to.batch.frames_max = 4;
        let refusal = changes(&from, &to).unwrap_err();
        assert_eq!(refusal, "`model`, `batch` cannot be changed while running; restart the pipeline");
    }

    #[test]
    fn a_tracker_is_changed_unless_it_needs_other_detections() {
        let with = |algorithm: Option<&str>| {
            let mut draft = Draft::empty();
            draft.add_stream("a.mp4");
            draft.set("model.path", "model.onnx");
            if let Some(algorithm) = algorithm {
                draft.set("tracker.algorithm", algorithm);
            }
            draft.check().expect("the draft is whole")
        };
        let changed = changes(&with(Some("sort")), &with(Some("ocsort"))).expect("both track the same detections");
        assert_eq!(changed.tracker, Some(Some(TrackerConfig::OC_SORT)));
        assert_eq!(changes(&with(Some("sort")), &with(None)).expect("the same").tracker, Some(None));
        let refusal = changes(&with(Some("sort")), &with(Some("bytetrack"))).unwrap_err();
        assert_eq!(refusal, "`tracker.score_low` cannot be changed while running; restart the pipeline");
    }
}
