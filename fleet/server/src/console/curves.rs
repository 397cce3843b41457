//! Figures over rounds, of one run or of several, as a picture that the server draws.

use maud::{Markup, html};

use super::chart::{HEIGHT, WIDTH, ceiling, points, scale};

/// So many can be told apart by their colours.
pub(super) const CURVES_MAX: usize = 6;

/// One run's figure, round by round.
pub(super) struct Curve {
    pub(super) name: String,
    /// Round and value.
    pub(super) points: Vec<(u64, f64)>,
}

/// Curves with one scale, which begins at nothing unless something lies below.
pub(super) fn draw(title: &str, curves: &[Curve]) -> Markup {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    if all().next().is_none() {
        return html! { figure.chart { figcaption { span { (title) } } div.plot.empty { "nothing was reported" } } };
    }
    let bottom = match all().map(|(_, value)| *value).fold(0.0, f64::min) {
        low if low < 0.0 => -ceiling(-low),
        _ => 0.0,
    };
    let top = match all().map(|(_, value)| *value).fold(f64::MIN, f64::max) {
        high if high > 0.0 => ceiling(high),
        // A scale has a length, also where everything is nothing.
        _ if bottom < 0.0 => 0.0,
        _ => 1.0,
    };
    let (first, last) = all().fold((u64::MAX, 0), |(first, last), (round, _)| (first.min(*round), last.max(*round)));
    let x = |round: u64| (round - first) as f64 / (last - first).max(1) as f64 * WIDTH;
    let y = |value: f64| (1.0 - (value - bottom) / (top - bottom)).clamp(0.0, 1.0) * HEIGHT;
    let newest = |curve: &Curve| curve.points.last().map_or_else(|| "–".to_owned(), |(_, value)| format!("{value:.4}"));
    let said: Vec<String> = curves.iter().map(|curve| format!("{}: {} at last", curve.name, newest(curve))).collect();
    html! {
        figure.chart.curves {
            figcaption {
                span { (title) }
                @if let [only] = curves { b { (newest(only)) } }
            }
            div.plot {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                    aria-label={ (title) ", " (said.join("; ")) } {
                    @for line in [0.0, 0.5, 1.0] { line.rule x1="0" x2=(WIDTH) y1=(HEIGHT * line) y2=(HEIGHT * line) {} }
                    @for (index, curve) in curves.iter().enumerate() {
                        @let path = points(curve.points.iter().map(|(round, value)| (x(*round), y(*value))));
                        // A line of no length is not seen.
                        @let path = if curve.points.len() == 1 { path + "h3" } else { path };
                        path class={ "mean curve-" (index % CURVES_MAX) } d=(path) {}
                    }
                }
                span.high { (scale(top)) } span.middle { (scale(f64::midpoint(top, bottom))) } span.low { (scale(bottom)) }
            }
            div.axis { span { "round " (first) } span { (last) } }
            @if curves.len() > 1 {
                ul.legend {
                    @for (index, curve) in curves.iter().enumerate() {
                        li { span class={ "swatch curve-" (index % CURVES_MAX) } {} (curve.name) " " b { (newest(curve)) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_no_number_is_drawn() {
        let curve = |points: &[(u64, f64)]| Curve { name: "run 1".to_owned(), points: points.to_vec() };
        for curves in [
            vec![curve(&[(1, 0.0)])],
            vec![curve(&[(1, -3.0), (2, -1.0)])],
            vec![curve(&[(3, 0.5), (4, 0.25)]), curve(&[])],
        ] {
            let drawn = draw("loss", &curves).into_string();
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }
}
