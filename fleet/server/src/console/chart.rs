//! What was measured, as a picture that the server draws.

use std::fmt::Write as _;

use humantime::format_rfc3339_seconds;
use maud::{Markup, html};
use revoada_core::Timestamp;

use crate::service;
use crate::store::{Bucket, Step};

pub(super) const WIDTH: f64 = 600.0;
pub(super) const HEIGHT: f64 = 120.0;

/// One gauge over a range of time.
pub(super) struct Chart<'a> {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) buckets: &'a [Bucket],
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) step: Step,
}

impl Chart<'_> {
    /// The mean as a line and what lay between as an area. Text stands beside the picture, which is stretched.
    pub(super) fn draw(&self) -> Markup {
        let Some(last) = self.buckets.last() else {
            return html! {
                figure.chart { figcaption { span { (self.title) } } div.plot.empty { "nothing was measured" } }
            };
        };
        let top = ceiling(self.buckets.iter().map(|bucket| bucket.max).fold(0.0, f64::max));
        let runs = self.runs();
        let (low, high) =
            self.buckets.iter().fold((f64::MAX, f64::MIN), |(low, high), it| (low.min(it.min), high.max(it.max)));
        let label = format!("{}: {:.1} {} at last, between {low:.1} and {high:.1}", self.title, last.mean, self.unit);
        html! {
            figure.chart {
                figcaption { span { (self.title) } b { (format!("{:.1}", last.mean)) " " small { (self.unit) } } }
                div.plot {
                    svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
                        @for line in [0.0, 0.5, 1.0] {
                            line.rule x1="0" x2=(WIDTH) y1=(HEIGHT * line) y2=(HEIGHT * line) {}
                        }
                        @for run in &runs {
                            path.range d=(self.area(run, top)) {}
                            path.mean d=(self.line(run, top)) {}
                        }
                    }
                    span.high { (scale(top)) } span.middle { (scale(top / 2.0)) } span.low { "0" }
                }
                div.axis { span { (self.moment(self.from)) } span { (self.moment(self.to)) } }
            }
        }
    }

    /// Buckets that follow one another; between two runs nothing was measured.
    fn runs(&self) -> Vec<Vec<Bucket>> {
        let mut runs: Vec<Vec<Bucket>> = Vec::new();
        for bucket in self.buckets {
            match runs.last_mut() {
                Some(run)
                    if run.last().is_some_and(|last| bucket.start.since(last.start) <= 2 * self.step.length()) =>
                {
                    run.push(*bucket);
                }
                _ => runs.push(vec![*bucket]),
            }
        }
        runs
    }

    fn x(&self, at: Timestamp) -> f64 {
        let whole = self.to.since(self.from).as_secs_f64().max(1.0);
        (at.since(self.from).as_secs_f64() / whole).min(1.0) * WIDTH
    }

    fn line(&self, run: &[Bucket], top: f64) -> String {
        let mut path = points(run.iter().map(|bucket| (self.x(bucket.start), y(bucket.mean, top))));
        if let [only] = run {
            // A line of no length is not seen.
            write!(path, "h2M{:.1} {:.1}", self.x(only.start), y(only.mean, top)).expect("texts grow");
        }
        path
    }

    fn area(&self, run: &[Bucket], top: f64) -> String {
        let above = run.iter().map(|bucket| (self.x(bucket.start), y(bucket.max, top)));
        let below = run.iter().rev().map(|bucket| (self.x(bucket.start), y(bucket.min, top)));
        points(above.chain(below)) + "Z"
    }

    fn moment(&self, at: Timestamp) -> String {
        let text = format_rfc3339_seconds(service::wall(at)).to_string();
        match self.step {
            Step::Day => text[..10].to_owned(),
            Step::QuarterHour => format!("{} {}", &text[5..10], &text[11..16]),
            Step::Minute => format!("{} UTC", &text[11..16]),
        }
    }
}

pub(super) fn points(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (x, y) in points {
        let letter = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{letter}{x:.1} {y:.1}").expect("texts grow");
    }
    path
}

fn y(value: f64, top: f64) -> f64 {
    (1.0 - value / top).clamp(0.0, 1.0) * HEIGHT
}

/// The next round number, so that the top and the middle of a scale are numbers that people read.
pub(super) fn ceiling(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value * 0.9999).unwrap_or(10.0 * power)
}

pub(super) fn scale(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bucket(minute: u64, mean: f64) -> Bucket {
        let start = Timestamp::ZERO + Duration::from_mins(minute);
        Bucket { start, samples: 1, mean, min: mean - 1.0, max: mean + 1.0 }
    }

    #[test]
    fn a_gap_breaks_the_line() {
        let buckets = [bucket(0, 20.0), bucket(1, 21.0), bucket(30, 20.0), bucket(31, 20.0)];
        let chart = Chart {
            title: "Frames",
            unit: "1/s",
            buckets: &buckets,
            from: Timestamp::ZERO,
            to: Timestamp::ZERO + Duration::from_mins(60),
            step: Step::Minute,
        };
        let drawn = chart.draw().into_string();
        assert_eq!(drawn.matches("class=\"mean\"").count(), 2, "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn a_scale_ends_at_a_round_number() {
        for (value, top) in [(0.0, 1.0), (-3.0, 1.0), (29.7, 40.0), (100.0, 100.0), (0.31, 0.4), (1e15, 1e15)] {
            assert!((ceiling(value) / top - 1.0).abs() < 1e-9, "{value}: {}", ceiling(value));
        }
    }
}
