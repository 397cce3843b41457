//! The table that people read.

use std::fmt::Write as _;

use revoada_builder::compare::BoxAgreement;
use revoada_bundle::bundle::Precision;

use super::{Report, Row};
use crate::bench::measure::{Measured, Power};
use crate::bench::render::mib;
use crate::bench::times::name_of;
use crate::terminal::table;

/// What a column shows of a row; a dash where there is nothing.
type Figure = Box<dyn Fn(&Row) -> Option<String>>;

pub(super) fn report(report: &Report, percentiles: &[f64]) -> String {
    let rows = &report.precisions;
    // A column that nobody has a figure for is left out.
    let has = |figure: fn(&Row) -> bool| rows.iter().any(figure);
    let plans = has(|row| row.plan_bytes.is_some());
    let top = has(|row| row.top1().is_some());
    let boxes = has(|row| row.boxes().is_some());
    let device = has(|row| row.memory().is_some_and(|memory| memory.device_bytes.is_some()));
    let power = has(|row| row.measured.as_ref().is_some_and(|measured| measured.power.is_some()));

    let mut columns: Vec<(String, Figure)> = Vec::new();
    let mut column = |name: &str, figure: Figure| columns.push((name.to_owned(), figure));
    column("precision", Box::new(|row| Some(row.precision.name().to_owned())));
    column("model MiB", Box::new(|row| Some(mib(row.model_bytes? as u64))));
    if plans {
        column("plan MiB", Box::new(|row| Some(mib(row.plan_bytes? as u64))));
    }
    let measured =
        |figure: fn(&Measured) -> String| -> Figure { Box::new(move |row| row.measured.as_ref().map(figure)) };
    column("frames/s", measured(|measured| format!("{:.1}", measured.throughput_per_s)));
    column("median ms", measured(|measured| format!("{:.2}", measured.latency_ms.median)));
    for percent in percentiles {
        let name = name_of(*percent);
        let figure = name.clone();
        column(
            &format!("{name} ms"),
            Box::new(move |row| Some(format!("{:.2}", row.measured.as_ref()?.latency_ms.percentiles[&figure]))),
        );
    }
    column("peak MiB", Box::new(|row| row.memory()?.peak_bytes.map(mib)));
    if device {
        column("GPU MiB", Box::new(|row| row.memory()?.device_bytes.map(mib)));
    }
    column("speed-up", Box::new(|row| row.speed_up.map(|ratio| format!("{ratio:.2}"))));
    column("cosine min", Box::new(|row| Some(format!("{:.5}", row.cosine_min()?))));
    if top {
        column("top-1", Box::new(|row| Some(format!("{:.1} %", row.top1()? * 100.0))));
    }
    if boxes {
        let count = |figure: fn(&BoxAgreement) -> usize| -> Figure {
            Box::new(move |row| Some(figure(&row.boxes()?).to_string()))
        };
        column("matched", count(|boxes| boxes.matched));
        column("missed", count(|boxes| boxes.missed));
        column("added", count(|boxes| boxes.added));
        column("IoU", Box::new(|row| Some(format!("{:.3}", row.boxes()?.iou_mean))));
    }
    if power {
        let watts = |figure: fn(&Power) -> f64| -> Figure {
            Box::new(move |row| Some(format!("{:.2}", figure(row.measured.as_ref()?.power.as_ref()?))))
        };
        column("W", watts(|power| power.watts));
        column("frames/s/W", watts(|power| power.frames_per_s_per_watt));
    }

    let mut lines = vec![columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()];
    for row in rows {
        lines.push(columns.iter().map(|(_, figure)| figure(row).unwrap_or_else(|| "–".to_owned())).collect());
    }
    format!(
        "{} on {}, {} session(s)\n\n{}\n{}",
        report.model,
        report.measured_on,
        report.sessions,
        table(&lines),
        notes(report)
    )
}

fn notes(report: &Report) -> String {
    let mut text = String::new();
    for row in &report.precisions {
        let name = row.precision.name();
        if let Some(failure) = &row.failure {
            let _ = writeln!(text, "{name} was not measured: {failure}");
        }
        if row.precision != Precision::Fp32 && !row.kept.is_empty() {
            let _ = writeln!(text, "{name} keeps {} layer(s) as they are: {}", row.kept.len(), some_of(&row.kept));
        }
    }
    let samples = report.precisions.iter().filter_map(|row| row.comparison.as_ref()).map(|found| found.samples).max();
    let _ = writeln!(
        text,
        "Answers are compared with the original's on {} {}{}.",
        samples.unwrap_or(0),
        if report.compared_on == "noise" { "samples of noise, which says little" } else { "pictures" },
        if report.plans { ", by the plan itself" } else { "" }
    );
    if !report.plans {
        let cpu = "Measured on the CPU, which is often slower at FP16 and INT8 than at FP32: it says nothing of a GPU.";
        let _ = writeln!(text, "{cpu}");
    }
    let mut measured = report.precisions.iter().filter_map(|row| row.measured.as_ref()).peekable();
    match &report.no_power {
        _ if measured.peek().is_none() => {}
        Some(reason) => {
            let _ = writeln!(text, "Power is not shown: {reason}.");
        }
        None => {
            let power = measured.find_map(|measured| measured.power.as_ref());
            let source = power.map_or("nothing, it could not be read any more", |power| &power.source);
            let _ = writeln!(text, "Power is that of {source}.");
        }
    }
    text
}

/// The first few names.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
