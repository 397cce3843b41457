//! Lines with the way in and what went through, regions with what is in them, directions, and the objects that one of
//! these tells of.

use std::fmt::Write as _;

use revoada_core::{Point, Prediction, Rect, Size};

use super::canvas::{Area, Canvas, Rgb};
use super::text::Font;
use super::{SHADE_ALPHA, Scratch, line_thickness};
use crate::analyse::geometry::{Segment, Vector};
use crate::analyse::{Analysis, DirectionRule, LineRule, RegionCount, RegionRule};

const LINE: Rgb = Rgb(255, 210, 63);
const REGION: Rgb = Rgb(64, 196, 255);
const DIRECTION: Rgb = Rgb(206, 147, 255);
/// Crowds, and objects that are told of.
const ALERT: Rgb = Rgb(255, 82, 82);
/// Of the dark rim that keeps strokes readable over whatever is behind them.
const RIM_ALPHA: u8 = 140;
/// Of a crowded region's inside.
const CROWD_ALPHA: u8 = 48;

/// Shapes without text; under the boxes, so that none of them is covered.
pub(super) fn draw(canvas: &mut Canvas<'_>, font: Font, analysis: &Analysis) {
    let (rules, counts) = (&analysis.rules, &analysis.counts);
    for (rule, count) in rules.regions.iter().zip(&counts.regions) {
        let corners = corners(rule, canvas.size());
        if count.is_crowded {
            fill(canvas, &corners, ALERT);
        }
        let closed: Vec<Vector> = corners.iter().chain(corners.first()).copied().collect();
        stroke(canvas, &closed, line_thickness(canvas) as f64, region_color(count));
    }
    rules.lines.iter().for_each(|rule| draw_line(canvas, font, rule));
    for rule in &rules.directions {
        let (from, way) = arrow_of(rule, canvas.size(), font);
        arrow(canvas, from, moved(from, way, 1.0), line_thickness(canvas) as f64, DIRECTION);
    }
}

/// Names and counts; over the boxes and their labels, because they are what the picture is looked at for.
pub(super) fn draw_counts(canvas: &mut Canvas<'_>, font: Font, analysis: &Analysis, scratch: &mut Scratch) {
    let (rules, counts) = (&analysis.rules, &analysis.counts);
    let text = &mut scratch.text;
    for (rule, count) in rules.regions.iter().zip(&counts.regions) {
        text.clear();
        let _ = write!(text, "{} {}", rule.config.scope.name, count.objects);
        let corners = corners(rule, canvas.size());
        let top = corners.iter().min_by(|a, b| a.y.total_cmp(&b.y)).copied().unwrap_or_default();
        plate(canvas, font, top, Vector::new(0.0, -1.0), text, region_color(count));
    }
    for (rule, count) in rules.lines.iter().zip(&counts.lines) {
        text.clear();
        let (name, total) = (&rule.config.scope.name, count.total);
        let _ = write!(text, "{name}  in {}  out {}", total.inwards, total.outwards);
        // On the other side of the line than its arrow.
        let (middle, inwards) = way_in(rule, canvas.size());
        plate(canvas, font, middle, moved(Vector::default(), inwards, -1.0), text, LINE);
    }
    for (rule, count) in rules.directions.iter().zip(&counts.directions) {
        text.clear();
        let _ = write!(text, "{} {}", rule.config.scope.name, count.objects);
        let (from, way) = arrow_of(rule, canvas.size(), font);
        plate(canvas, font, from, moved(Vector::default(), way, -1.0), text, DIRECTION);
    }
}

/// A frame around the box of each object that a rule tells of.
pub(super) fn mark(canvas: &mut Canvas<'_>, prediction: &Prediction, analysis: &Analysis) {
    let thickness = line_thickness(canvas);
    let reach = 2.0 * thickness as f32;
    for detection in analysis.marked.iter().filter_map(|index| prediction.detections.get(*index)) {
        let Rect { x, y, width, height } = detection.bbox;
        let around = Rect::new(x - reach, y - reach, width + 2.0 * reach, height + 2.0 * reach);
        if let Some(area) = Area::of(around, canvas.size()) {
            canvas.outline(area, thickness, canvas.ink(ALERT));
        }
    }
}

fn region_color(count: &RegionCount) -> Rgb {
    if count.is_crowded { ALERT } else { REGION }
}

fn draw_line(canvas: &mut Canvas<'_>, font: Font, rule: &LineRule) {
    let [from, to] = ends(rule, canvas.size());
    let along = to.minus(from);
    let width = line_thickness(canvas) as f64;
    if rule.config.extended {
        // Farther than any picture reaches; strokes are clipped.
        let reach = (canvas.size().width + canvas.size().height) as f64 / along.length().max(1.0);
        stroke(canvas, &[moved(from, along, -reach), from], width / 2.0, LINE);
        stroke(canvas, &[to, moved(to, along, reach)], width / 2.0, LINE);
    }
    stroke(canvas, &[from, to], width, LINE);
    let (middle, inwards) = way_in(rule, canvas.size());
    let tip = moved(middle, inwards, 2.5 * font.height() as f64 / inwards.length());
    arrow(canvas, middle, tip, width, LINE);
}

fn ends(rule: &LineRule, size: Size) -> [Vector; 2] {
    let scale = scale(size, rule.config.scope.extent(size));
    rule.config.points.map(|point| Vector::from(point).times(scale))
}

/// The middle of a line, and the way in from there.
fn way_in(rule: &LineRule, size: Size) -> (Vector, Vector) {
    let [from, to] = ends(rule, size);
    (moved(from, to.minus(from), 0.5), rule.inwards.times(scale(size, rule.config.scope.extent(size))))
}

/// Where a direction's arrow begins and where it leads; long enough to be seen, however short it is written.
fn arrow_of(rule: &DirectionRule, size: Size, font: Font) -> (Vector, Vector) {
    let scale = scale(size, rule.config.scope.extent(size));
    let [from, to] = rule.config.points.map(|point| Vector::from(point).times(scale));
    let way = to.minus(from);
    let length = way.length().max(3.0 * font.height() as f64);
    (from, moved(Vector::default(), way, length / way.length()))
}

/// What turns the units of a rule's points into pixels.
fn scale(size: Size, extent: Vector) -> Vector {
    Vector::new(size.width as f64 / extent.x, size.height as f64 / extent.y)
}

fn moved(from: Vector, along: Vector, part: f64) -> Vector {
    Vector::new(from.x + along.x * part, from.y + along.y * part)
}

fn corners(rule: &RegionRule, size: Size) -> Vec<Vector> {
    let scale = scale(size, rule.config.scope.extent(size));
    rule.config.corners.iter().map(|corner: &Point| Vector::from(*corner).times(scale)).collect()
}

/// From one point to another, with a head of two strokes.
fn arrow(canvas: &mut Canvas<'_>, from: Vector, to: Vector, width: f64, color: Rgb) {
    let back = from.minus(to);
    let length = back.length().max(1.0);
    let barb = (length * 0.4).min(6.0 * width) / length;
    let side = |turn: f64| {
        let side = back.right();
        Vector::new(to.x + (back.x + side.x * turn) * barb, to.y + (back.y + side.y * turn) * barb)
    };
    let (left, right) = (side(-0.7), side(0.7));
    // One rim around all three strokes, so that none cuts through another.
    let parts = [[from, to], [left, to], [right, to]];
    parts.iter().for_each(|part| rim(canvas, part, width));
    parts.iter().for_each(|part| ink(canvas, part, width, color));
}

fn stroke(canvas: &mut Canvas<'_>, points: &[Vector], width: f64, color: Rgb) {
    rim(canvas, points, width);
    ink(canvas, points, width, color);
}

fn rim(canvas: &mut Canvas<'_>, points: &[Vector], width: f64) {
    let black = canvas.ink(Rgb::BLACK);
    points.windows(2).for_each(|pair| canvas.stroke(segment(pair), (width + 2.0) as f32, black, RIM_ALPHA));
}

fn ink(canvas: &mut Canvas<'_>, points: &[Vector], width: f64, color: Rgb) {
    let ink = canvas.ink(color);
    points.windows(2).for_each(|pair| canvas.stroke(segment(pair), width as f32, ink, 255));
}

fn segment(pair: &[Vector]) -> Segment {
    Segment { from: pair[0], to: pair[1] }
}

/// Tints the inside of an outline, two rows at a time: they share their chroma.
fn fill(canvas: &mut Canvas<'_>, corners: &[Vector], color: Rgb) {
    let ink = canvas.ink(color);
    let size = canvas.size();
    let (low, high) =
        corners.iter().fold((f64::MAX, 0f64), |(low, high), corner| (low.min(corner.y), high.max(corner.y)));
    // A float becomes the nearest row of the picture; `as` saturates.
    let (first, last) = ((low.max(0.0) as usize / 2) * 2, (high as usize).min(size.height));
    let mut met = Vec::new();
    for top in (first..last).step_by(2) {
        let y = top as f64 + 1.0;
        met.clear();
        let ends = corners.iter().cycle().skip(1);
        met.extend(
            corners
                .iter()
                .zip(ends)
                .filter(|(from, to)| (from.y > y) != (to.y > y))
                .map(|(from, to)| from.x + (to.x - from.x) * (y - from.y) / (to.y - from.y)),
        );
        met.sort_by(f64::total_cmp);
        for span in met.chunks_exact(2) {
            let (left, width) = (span[0].round() as i64, (span[1] - span[0]).round() as i64);
            if let Some(area) = Area::clipped(left, top as i64, width, 2, size) {
                canvas.fill(area, ink, CROWD_ALPHA);
            }
        }
    }
}

/// Text beside a point, on the side to which `towards` points, and pushed into the picture where it would reach out.
fn plate(canvas: &mut Canvas<'_>, font: Font, point: Vector, towards: Vector, text: &str, color: Rgb) {
    let (width, height) = (font.width_of(text) + 2 * font.padding(), font.plate_height());
    let (x, y) = (towards.x / towards.length(), towards.y / towards.length());
    // So far that a line through the point, across the way, does not run through the plate.
    let distance = (x.abs() * width as f64 + y.abs() * height as f64) / 2.0 + 1.5 * font.padding() as f64;
    let Size { width: columns, height: rows } = canvas.size();
    let place = |center: f64, length: i64, side: usize| {
        (center.round() as i64).saturating_sub(length / 2).min(side as i64 - length).max(0)
    };
    let (left, top) = (place(point.x + x * distance, width, columns), place(point.y + y * distance, height, rows));
    // Dark, so that nobody takes it for the label of an object.
    if let Some(area) = Area::clipped(left, top, width, height, canvas.size()) {
        canvas.fill(area, canvas.ink(Rgb::BLACK), SHADE_ALPHA);
        font.draw(canvas, left + font.padding(), top + (height - font.height()) / 2, text, color);
    }
}
