//! What a converted model must reach.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Report;

/// Bounds on a [`Report`]. A bound on what was not measured fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// The least cosine of any output and sample.
    pub cosine_min: Option<f64>,
    /// The largest absolute difference of any element.
    pub max_abs_max: Option<f64>,
    /// The length of the difference over the length of the reference, of any output.
    pub relative_max: Option<f64>,
    pub top1_min: Option<f64>,
    pub top5_min: Option<f64>,
    /// Matched boxes as a share of all.
    pub boxes_min: Option<f64>,
}

impl Default for Thresholds {
    /// Answers that point the same way to within 2.6°.
    fn default() -> Self {
        Self {
            cosine_min: Some(0.999),
            max_abs_max: None,
            relative_max: None,
            top1_min: None,
            top5_min: None,
            boxes_min: None,
        }
    }
}

/// One bound that was not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What was measured: ``the cosine of output `y` ``.
    pub measure: String,
    /// `None` where it was not measured.
    pub got: Option<f64>,
    pub bound: f64,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    AtLeast,
    AtMost,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measure, bound, .. } = self;
        match self.got {
            Some(got) => write!(f, "{measure} is {got:.4}")?,
            None => write!(f, "{measure} was not measured")?,
        }
        match self.direction {
            Direction::AtLeast => write!(f, ", at least {bound} is asked"),
            Direction::AtMost => write!(f, ", at most {bound} is asked"),
        }
    }
}

impl Report {
    /// Every bound that is not kept; none where the model passes. An element that is infinite or NaN, and
    /// finite in the reference, always fails.
    pub fn failures(&self, thresholds: &Thresholds) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut check = |measure: String, got: Option<f64>, bound: Option<f64>, direction: Direction| {
            let Some(bound) = bound else { return };
            let kept = got.is_some_and(|got| match direction {
                Direction::AtLeast => got >= bound,
                Direction::AtMost => got <= bound,
            });
            if !kept {
                failures.push(Failure { measure, got, bound, direction });
            }
        };
        use Direction::{AtLeast, AtMost};
        for output in &self.outputs {
            let name = &output.name;
            let not_finite = Some(output.not_finite as f64);
            check(format!("the number of infinities in output `{name}`"), not_finite, Some(0.0), AtMost);
            check(format!("the cosine of output `{name}`"), Some(output.cosine_min), thresholds.cosine_min, AtLeast);
            let max_abs = Some(output.max_abs);
            check(format!("the largest difference of output `{name}`"), max_abs, thresholds.max_abs_max, AtMost);
            let relative = Some(output.relative);
            check(format!("the relative difference of output `{name}`"), relative, thresholds.relative_max, AtMost);
        }
        let top = |number: fn(&super::TopAgreement) -> f64| self.top.as_ref().map(number);
        check("top-1 agreement".to_owned(), top(|top| top.top1), thresholds.top1_min, AtLeast);
        check("top-5 agreement".to_owned(), top(|top| top.top5), thresholds.top5_min, AtLeast);
        let boxes = self.boxes.as_ref().map(super::BoxAgreement::share);
        check("the share of matched boxes".to_owned(), boxes, thresholds.boxes_min, AtLeast);
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BoxAgreement, OutputDifference, Report, TopAgreement};
    use super::*;

    #[test]
    fn every_bound_can_fail_and_says_what_was_asked() {
        let output = OutputDifference {
            name: "y".to_owned(),
            cosine_min: 0.5,
            max_abs: 2.0,
            relative: 0.3,
            not_finite: 7,
            ..Default::default()
        };
        let top = Some(TopAgreement { rows: 4, top1: 0.25, top5: 0.75 });
        let boxes = Some(BoxAgreement { matched: 1, missed: 1, ..BoxAgreement::default() });
        let report = Report { samples: 4, outputs: vec![output], top, boxes };
        let strict = Thresholds {
            cosine_min: Some(0.9),
            max_abs_max: Some(1.0),
            relative_max: Some(0.1),
            top1_min: Some(0.9),
            top5_min: Some(0.9),
            boxes_min: Some(0.9),
        };
        let sentences: Vec<String> = report.failures(&strict).iter().map(ToString::to_string).collect();
        assert_eq!(
            sentences,
            [
                "the number of infinities in output `y` is 7.0000, at most 0 is asked",
                "the cosine of output `y` is 0.5000, at least 0.9 is asked",
                "the largest difference of output `y` is 2.0000, at most 1 is asked",
                "the relative difference of output `y` is 0.3000, at most 0.1 is asked",
                "top-1 agreement is 0.2500, at least 0.9 is asked",
                "top-5 agreement is 0.7500, at least 0.9 is asked",
                "the share of matched boxes is 0.5000, at least 0.9 is asked",
            ]
        );
        let loose = Thresholds { cosine_min: Some(0.5), max_abs_max: Some(2.0), ..Thresholds::default() };
        assert_eq!(report.failures(&loose).len(), 1, "infinities always fail");
        let unmeasured = Report::default().failures(&Thresholds { top1_min: Some(0.9), ..Thresholds::default() });
        assert_eq!(unmeasured[0].to_string(), "top-1 agreement was not measured, at least 0.9 is asked");
    }

    #[test]
    fn a_report_goes_through_json() {
        let report = Report { samples: 1, top: Some(TopAgreement::default()), ..Report::default() };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert!(serde_json::from_str::<Thresholds>("{\"cosine\": 1}").is_err());
    }
}
