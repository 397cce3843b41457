//! The accuracy report for people: one HTML page that needs nothing beside it.

use std::fmt::Write as _;

use crate::convert::Accuracy;

/// Layers shown; the rest do less damage than these.
const LAYERS_SHOWN: usize = 30;
const BAR_WIDTH: f64 = 260.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .8rem .2rem 0;text-align:left}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.fail{color:#b3261e}.pass{color:#146c2e}\
rect{fill:#76b900}rect.kept{fill:#b3261e}svg{vertical-align:middle}";

/// Writes the page of a model called `name`.
pub fn html(name: &str, accuracy: &Accuracy) -> String {
    let mut page = String::new();
    // A string takes whatever is written to it.
    let _ = write_page(&mut page, name, accuracy);
    page
}

fn write_page(page: &mut String, name: &str, accuracy: &Accuracy) -> std::fmt::Result {
    let (title, comparison) = (format!("{name}, {}", accuracy.precision.name()), &accuracy.comparison);
    write!(
        page,
        "<!doctype html><meta charset=utf-8><title>{0}</title><style>{STYLE}</style><h1>{0}</h1>",
        text(&title)
    )?;
    if accuracy.failures.is_empty() {
        write!(page, "<p class=pass>Accurate enough, on {} samples.</p>", comparison.samples)?;
    } else {
        write!(page, "<p class=fail>Not accurate enough, on {} samples:</p><ul>", comparison.samples)?;
        for failure in &accuracy.failures {
            write!(page, "<li>{}</li>", text(&failure.to_string()))?;
        }
        page.push_str("</ul>");
    }

    page.push_str(
        "<h2>Outputs against the original</h2><table><tr><th>output<th class=n>least cosine<th class=n>mean cosine\
        <th class=n>largest difference<th class=n>largest number<th class=n>infinities<th>relative difference",
    );
    let largest = comparison.outputs.iter().map(|output| output.relative).fold(0.0, f64::max);
    for output in &comparison.outputs {
        write!(
            page,
            "<tr><td>{}<td class=n>{:.6}<td class=n>{:.6}<td class=n>{:.4}<td class=n>{:.4}<td class=n>{}<td>{} {:.5}",
            text(&output.name),
            output.cosine_min,
            output.cosine,
            output.max_abs,
            output.reference_max_abs,
            output.not_finite,
            bar(output.relative, largest, false),
            output.relative
        )?;
    }
    page.push_str("</table>");
    if let Some(top) = &comparison.top {
        let (top1, top5) = (top.top1 * 100.0, top.top5 * 100.0);
        write!(
            page,
            "<p>The best class is the same in {top1:.1} % of {} rows, among the five best in {top5:.1} %.</p>",
            top.rows
        )?;
    }
    if let Some(boxes) = &comparison.boxes {
        write!(
            page,
            "<p>{} boxes are the same, {} are missed, {} are added; of those that match, the mean intersection over \
             union is {:.3}, the largest difference of scores {:.3}.</p>",
            boxes.matched, boxes.missed, boxes.added, boxes.iou_mean, boxes.score_difference_max
        )?;
    }

    write!(page, "<h2>Layers</h2><p>{} in lower precision", accuracy.lowered_nodes)?;
    match accuracy.kept.as_slice() {
        [] => page.push_str(", none kept as it was.</p>"),
        kept => write!(page, ", kept as they were: {}.</p>", text(&kept.join(", ")))?,
    }
    if !accuracy.layers.is_empty() {
        write_layers(page, accuracy)?;
    }
    Ok(())
}

/// The search's layers, worst first; what is kept in the proposal is red.
fn write_layers(page: &mut String, accuracy: &Accuracy) -> std::fmt::Result {
    page.push_str("<table><tr><th>layer<th>operator<th class=n>largest number<th>error alone<th>");
    let shown = &accuracy.layers[..accuracy.layers.len().min(LAYERS_SHOWN)];
    let damage = |error: Option<f64>| error.filter(|error| error.is_finite());
    let largest = shown.iter().filter_map(|layer| damage(layer.error_alone)).fold(0.0, f64::max);
    for layer in shown {
        let error = match (layer.overflows, layer.error_alone) {
            (true, _) => format!("{} overflows", bar(1.0, 1.0, layer.kept)),
            (false, Some(error)) => format!("{} {error:.5}", bar(error, largest, layer.kept)),
            (false, None) => "not tried".to_owned(),
        };
        let kept = if layer.kept { "kept" } else { "" };
        let (node, op, number) = (text(&layer.node), text(&layer.op), layer.largest);
        write!(page, "<tr><td>{node}<td>{op}<td class=n>{number:.4}<td>{error}<td>{kept}")?;
    }
    page.push_str("</table>");
    Ok(())
}

fn bar(value: f64, largest: f64, kept: bool) -> String {
    let share = if largest > 0.0 && value.is_finite() { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
    let class = if kept { " class=kept" } else { "" };
    format!("<svg width={BAR_WIDTH} height=12><rect{class} width={:.1} height=12></rect></svg>", share * BAR_WIDTH)
}

/// Names come from models, which anybody may have written.
fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use revoada_bundle::bundle::Precision;

    use super::*;
    use crate::compare::{Direction, Failure, OutputDifference, Report, Thresholds};

    #[test]
    fn a_page_shows_what_failed_and_trusts_no_name() {
        let output = OutputDifference { name: "<script>".to_owned(), relative: 0.25, ..OutputDifference::default() };
        let accuracy = Accuracy {
            version: 1,
            precision: Precision::Fp16,
            thresholds: Thresholds::default(),
            comparison: Report { samples: 3, outputs: vec![output], ..Report::default() },
            failures: vec![Failure { measure: "it".into(), got: Some(0.5), bound: 0.9, direction: Direction::AtLeast }],
            clean: Default::default(),
            lowered_nodes: 7,
            kept: vec!["a&b".to_owned()],
            layers: Vec::new(),
        };
        let page = html("faces", &accuracy);
        for part in ["faces, fp16", "it is 0.5000, at least 0.9", "&lt;script&gt;", "a&amp;b", "0.25000"] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert!(!page.contains("<script>"));
    }
}
