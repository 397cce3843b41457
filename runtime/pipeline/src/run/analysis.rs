//! The analysers of all streams, in the hands of the output thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use revoada_core::{Detection, Frame, StreamId};

use crate::analyse::{Analyser, Analysis, RuleError, Rules};
use crate::config::AnalyticsConfig;

/// One analyser for each stream that has rules.
pub(crate) struct Analysers {
    config: AnalyticsConfig,
    /// Of the model.
    labels: Arc<[String]>,
    /// `None` where no rule holds for the stream.
    streams: BTreeMap<StreamId, Option<Analyser>>,
}

impl Analysers {
    /// Refuses rules that look at a class which the model does not have.
    pub(crate) fn new(config: AnalyticsConfig, labels: Arc<[String]>) -> Result<Self, RuleError> {
        Rules::check(&config, &labels)?;
        Ok(Self { config, labels, streams: BTreeMap::new() })
    }

    /// Takes over the streams of `before`: rules that did not change go on counting.
    pub(crate) fn follow(&mut self, before: Self) {
        for (stream, analyser) in before.streams {
            let analyser = match (analyser, self.rules(&stream)) {
                (Some(mut analyser), Some(rules)) => {
                    analyser.change(rules);
                    Some(analyser)
                }
                (None, rules) => rules.map(Analyser::new),
                (Some(_), None) => None,
            };
            self.streams.insert(stream, analyser);
        }
    }

    /// What the next frame of a stream shows.
    pub(crate) fn update(&mut self, frame: &Frame, detections: &[Detection]) -> Option<Analysis> {
        if !self.streams.contains_key(&frame.stream) {
            let analyser = self.rules(&frame.stream).map(Analyser::new);
            self.streams.insert(frame.stream.clone(), analyser);
        }
        let analyser = self.streams.get_mut(&frame.stream)?.as_mut()?;
        Some(analyser.update(frame.pts, frame.size(), detections))
    }

    /// A stream that comes again begins anew.
    pub(crate) fn end_stream(&mut self, stream: &StreamId) {
        self.streams.remove(stream);
    }

    fn rules(&self, stream: &StreamId) -> Option<Rules> {
        Rules::of(&self.config, stream, &self.labels).expect("the rules' classes were checked")
    }
}
