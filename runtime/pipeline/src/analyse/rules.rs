//! The rules of one stream, with classes as the model counts them.

use std::sync::Arc;

use revoada_core::{Size, StreamId};
use thiserror::Error;

use super::geometry::{Polygon, Segment, Vector};
use crate::classes::{Classes, UnknownLabel};
use crate::config::{AnalyticsConfig, DirectionConfig, LineConfig, RegionConfig, Scope};

/// Why rules and a model do not go together.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RuleError {
    #[error("`{rule}` looks at class `{class}`: the model has no such label, the nearest is `{nearest}`")]
    UnknownClass { rule: String, class: String, nearest: String },
    #[error("`{rule}` looks at class `{class}`: the model has no labels; leave the classes out to look at all")]
    NoLabels { rule: String, class: String },
}

/// What is asked of one stream's objects.
#[derive(Debug, PartialEq)]
pub struct Rules {
    pub(super) config: Arc<AnalyticsConfig>,
    pub(crate) lines: Vec<Arc<LineRule>>,
    pub(crate) regions: Vec<Arc<RegionRule>>,
    pub(crate) directions: Vec<Arc<DirectionRule>>,
    /// Names of the classes.
    pub(crate) labels: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct LineRule {
    pub(crate) config: LineConfig,
    pub(super) classes: Classes,
    pub(crate) line: Segment,
    /// The way in.
    pub(crate) inwards: Vector,
    /// Whether "in" is to the right of the line.
    pub(super) in_is_right: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) struct RegionRule {
    pub(crate) config: RegionConfig,
    pub(super) classes: Classes,
    pub(super) polygon: Polygon,
}

#[derive(Debug, PartialEq)]
pub(crate) struct DirectionRule {
    pub(crate) config: DirectionConfig,
    pub(super) classes: Classes,
    pub(super) way: Vector,
}

impl Rules {
    /// Whether all rules, of whichever stream, look at classes that are there.
    pub fn check(config: &AnalyticsConfig, labels: &[String]) -> Result<(), RuleError> {
        let lines = config.lines.iter().map(|rule| &rule.scope);
        let regions = config.regions.iter().map(|rule| &rule.scope);
        let directions = config.directions.iter().map(|rule| &rule.scope);
        lines.chain(regions).chain(directions).try_for_each(|scope| classes(scope, labels).map(drop))
    }

    /// The rules that hold for `stream`; `None` where there are none. `labels` name the model's classes.
    pub fn of(config: &AnalyticsConfig, stream: &StreamId, labels: &[String]) -> Result<Option<Self>, RuleError> {
        let classes = |scope: &Scope| classes(scope, labels);
        let line = |config: &LineConfig| Ok(Arc::new(LineRule::new(config.clone(), classes(&config.scope)?)));
        let region = |config: &RegionConfig| Ok(Arc::new(RegionRule::new(config.clone(), classes(&config.scope)?)));
        let direction =
            |config: &DirectionConfig| Ok(Arc::new(DirectionRule::new(config.clone(), classes(&config.scope)?)));
        let lines = config.lines.iter().filter(|rule| rule.scope.covers(stream)).map(line);
        let regions = config.regions.iter().filter(|rule| rule.scope.covers(stream)).map(region);
        let directions = config.directions.iter().filter(|rule| rule.scope.covers(stream)).map(direction);
        let rules = Self {
            lines: lines.collect::<Result<_, RuleError>>()?,
            regions: regions.collect::<Result<_, RuleError>>()?,
            directions: directions.collect::<Result<_, RuleError>>()?,
            config: Arc::new(config.clone()),
            labels: labels.to_vec(),
        };
        let any = !rules.lines.is_empty() || !rules.regions.is_empty() || !rules.directions.is_empty();
        Ok(any.then_some(rules))
    }
}

impl LineRule {
    fn new(config: LineConfig, classes: Classes) -> Self {
        let [from, to] = config.points;
        let line = Segment::new(from, to);
        let inwards = match config.direction {
            Some([from, to]) => Segment::new(from, to).along(),
            None => line.along().right(),
        };
        let in_is_right = line.along().right().dot(inwards) >= 0.0;
        Self { config, classes, line, inwards, in_is_right }
    }
}

impl RegionRule {
    fn new(config: RegionConfig, classes: Classes) -> Self {
        let polygon = Polygon::new(&config.corners);
        Self { config, classes, polygon }
    }
}

impl DirectionRule {
    fn new(config: DirectionConfig, classes: Classes) -> Self {
        let [from, to] = config.points;
        let way = Segment::new(from, to).along();
        Self { config, classes, way }
    }
}

impl Scope {
    fn covers(&self, stream: &StreamId) -> bool {
        self.streams.is_empty() || self.streams.contains(stream)
    }

    /// What a picture of `size` measures in the units of the rule's points.
    pub(crate) fn extent(&self, size: Size) -> Vector {
        let Size { width, height } = self.reference.unwrap_or(size);
        Vector::new(width as f64, height as f64)
    }
}

fn classes(scope: &Scope, labels: &[String]) -> Result<Classes, RuleError> {
    Classes::named(&scope.classes, labels).map_err(|UnknownLabel { class, nearest }| {
        let rule = scope.name.clone();
        match nearest {
            Some(nearest) => RuleError::UnknownClass { rule, class, nearest },
            None => RuleError::NoLabels { rule, class },
        }
    })
}
