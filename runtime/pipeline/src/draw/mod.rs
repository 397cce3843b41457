//! Drawing what a model found into the picture, and hiding what must not be shown.
//!
//! Everything is painted in the picture's own format and colours: only the rows that something
//! touches change, and the picture as a whole is copied once and never converted.

mod anonymize;
mod canvas;
mod palette;
mod panel;
pub(crate) mod pool;
mod rules;
mod text;

use std::fmt::Write as _;

use revoada_core::{Detection, Frame, ImageLayout, ImageView, MemoryKind, Prediction, Rect, Segmentation};
use thiserror::Error;

use crate::analyse::Analysis;
use crate::classes::{Classes, UnknownLabel};
use crate::config::{AnonymizeConfig, DrawConfig};
use anonymize::hide;
use canvas::{Area, Canvas, Ink};
use palette::text_color;
use pool::BufferPool;
use text::Font;

pub use canvas::Rgb;
pub use palette::{class_color, track_color};

/// Opacity of a segmentation mask: the picture stays readable under it.
const MASK_ALPHA: u8 = 112;
/// Of plates that belong to no class: the clock, panels.
const SHADE_ALPHA: u8 = 180;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum DrawError {
    #[error("cannot anonymize class `{class}`: the model has no such label, the nearest is `{nearest}`")]
    UnknownClass { class: String, nearest: String },
    #[error("cannot anonymize class `{class}`: the model has no labels; leave the classes empty to hide all")]
    NoLabels { class: String },
}

/// Draws the predictions of one model. Keeps its buffers from frame to frame, so that a steady
/// stream allocates no more than the handle of each drawn frame.
#[derive(Debug)]
pub struct Painter {
    config: DrawConfig,
    labels: Vec<String>,
    /// The classes that are anonymised.
    hidden: Option<Classes>,
    pool: BufferPool,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    text: String,
    hide: anonymize::Scratch,
    /// Of a mask: each picture column's column of the grid, and each row's start in it.
    columns: Vec<usize>,
    rows: Vec<usize>,
    entries: Vec<panel::Entry>,
}

impl Painter {
    /// `labels` name the model's classes. Refuses to anonymise a class that is none of them.
    pub fn new(config: &DrawConfig, labels: &[String]) -> Result<Self, DrawError> {
        let hidden = match &config.anonymize {
            None => None,
            Some(anonymize) => Some(Classes::named(&anonymize.classes, labels)?),
        };
        Ok(Self {
            config: config.clone(),
            labels: labels.to_vec(),
            hidden,
            pool: BufferPool::default(),
            scratch: Scratch::default(),
        })
    }

    /// Whether this prediction leaves a mark; where not, the frame can be shown as it is.
    pub fn draws_on(&self, prediction: &Prediction) -> bool {
        let config = &self.config;
        let detections = prediction.detections.iter().any(|detection| {
            config.boxes
                || config.labels
                || config.scores
                || (config.tracks && detection.track.is_some())
                || is_hidden(&self.hidden, detection)
                || (config.landmarks && !detection.landmarks.is_empty())
        });
        config.clock
            || detections
            || (prediction.segmentation.is_some() && (config.masks || config.labels))
            || (!prediction.classifications.is_empty() && (config.labels || config.scores))
    }

    /// Whether rules and what they tell of are drawn.
    pub fn draws_rules(&self) -> bool {
        self.config.rules
    }

    /// Whether the object is one of those that are not to be shown.
    pub(crate) fn hides(&self, detection: &Detection) -> bool {
        is_hidden(&self.hidden, detection)
    }

    /// A copy of the frame in which nothing is drawn and what is not to be shown is hidden; `None` where nothing is hidden.
    pub(crate) fn hide(&mut self, frame: &Frame, prediction: &Prediction) -> Option<Frame> {
        let hides = prediction.detections.iter().any(|detection| self.hides(detection));
        hides.then(|| self.changed(frame, |painter, canvas| painter.draw_hidden(prediction, canvas)))
    }

    /// A copy of the frame, in the same format without gaps between rows, with everything drawn:
    /// first what is to be hidden is hidden, then masks, rules, boxes, landmarks and text come on top.
    /// What is hidden keeps its box and label but shows no landmarks.
    pub fn paint(&mut self, frame: &Frame, prediction: &Prediction) -> Frame {
        self.paint_analysed(frame, prediction, None)
    }

    /// The same, with what rules made of the prediction.
    pub fn paint_analysed(&mut self, frame: &Frame, prediction: &Prediction, analysis: Option<&Analysis>) -> Frame {
        let analysis = analysis.filter(|_| self.config.rules);
        self.changed(frame, |painter, canvas| painter.draw(frame, prediction, analysis, canvas))
    }

    fn changed(&mut self, frame: &Frame, change: impl FnOnce(&mut Self, &mut Canvas<'_>)) -> Frame {
        let source = frame.layout();
        let layout = ImageLayout::packed(source.format, source.color, source.size);
        let mut buffer = self.pool.take(layout.bytes().expect("the frame's own size was checked when it was made"));
        copy_packed(&frame.view(), &mut buffer);
        change(self, &mut Canvas::new(layout, &mut buffer));
        let memory = self.pool.memory(buffer);
        Frame::new(frame.stream.clone(), frame.sequence, frame.pts, frame.captured, layout, MemoryKind::Host, memory)
            .expect("a packed copy holds its own layout")
    }

    fn draw_hidden(&mut self, prediction: &Prediction, canvas: &mut Canvas<'_>) {
        if let Some(anonymize) = &self.config.anonymize {
            for detection in prediction.detections.iter().filter(|detection| is_hidden(&self.hidden, detection)) {
                if let Some(area) = Area::covering(grown(detection.bbox, anonymize), canvas.size()) {
                    hide(canvas, area, anonymize.method, &mut self.scratch.hide);
                }
            }
        }
    }

    fn draw(&mut self, frame: &Frame, prediction: &Prediction, analysis: Option<&Analysis>, canvas: &mut Canvas<'_>) {
        let font = Font::for_picture(canvas.size());
        self.draw_hidden(prediction, canvas);
        if let Some(segmentation) = prediction.segmentation.as_ref().filter(|_| self.config.masks) {
            draw_mask(canvas, segmentation, &self.labels, &mut self.scratch);
        }
        if let Some(analysis) = analysis {
            rules::draw(canvas, font, analysis);
            rules::mark(canvas, prediction, analysis);
        }
        if self.config.boxes {
            let thickness = line_thickness(canvas);
            for detection in &prediction.detections {
                if let Some(area) = Area::of(detection.bbox, canvas.size()) {
                    canvas.outline(area, thickness, canvas.ink(self.config.color(detection)));
                }
            }
        }
        if self.config.landmarks {
            // On a hidden face they would give its features away again.
            for detection in prediction.detections.iter().filter(|detection| !is_hidden(&self.hidden, detection)) {
                draw_landmarks(canvas, detection, self.config.color(detection));
            }
        }
        if self.config.labels || self.config.scores || self.config.tracks {
            // The best are listed first and so are drawn last, on top.
            for detection in prediction.detections.iter().rev() {
                self.draw_plate(canvas, font, detection);
            }
        }
        if let Some(analysis) = analysis {
            rules::draw_counts(canvas, font, analysis, &mut self.scratch);
        }
        let mut top = font.padding();
        if self.config.clock {
            let text = &mut self.scratch.text;
            text.clear();
            let _ = write!(text, "{}", frame.pts);
            font.plate(canvas, font.padding(), top, text, Rgb::BLACK, SHADE_ALPHA);
            top += font.plate_height() + font.padding();
        }
        if self.config.labels || self.config.scores {
            panel::draw(canvas, font, top, prediction, &self.labels, &self.config, &mut self.scratch);
        }
    }

    /// The label and score on the box's upper edge, or inside it where there is no room above.
    fn draw_plate(&mut self, canvas: &mut Canvas<'_>, font: Font, detection: &Detection) {
        let Some(area) = Area::of(detection.bbox, canvas.size()) else { return };
        let text = &mut self.scratch.text;
        text.clear();
        if self.config.labels {
            push_label(text, &self.labels, detection.class, usize::MAX);
            for attribute in &detection.attributes {
                let _ = write!(text, " {}", attribute.value);
            }
        }
        let space = |text: &String| if text.is_empty() { "" } else { " " };
        if let Some(track) = detection.track.filter(|_| self.config.tracks) {
            let _ = write!(text, "{}#{track}", space(text));
        }
        if self.config.scores {
            let _ = write!(text, "{}{:.2}", space(text), detection.score);
        }
        if text.is_empty() {
            return;
        }
        let (left, top) = (area.left as i64, area.top as i64);
        let x_max = canvas.size().width as i64 - font.width_of(text) - 2 * font.padding();
        let y = if top >= font.plate_height() { top - font.plate_height() } else { top };
        font.plate(canvas, left.min(x_max).max(0), y, text, self.config.color(detection), 255);
    }
}

fn is_hidden(hidden: &Option<Classes>, detection: &Detection) -> bool {
    hidden.as_ref().is_some_and(|hidden| hidden.has(detection.class))
}

impl From<UnknownLabel> for DrawError {
    fn from(UnknownLabel { class, nearest }: UnknownLabel) -> Self {
        match nearest {
            Some(nearest) => Self::UnknownClass { class, nearest },
            None => Self::NoLabels { class },
        }
    }
}

impl DrawConfig {
    fn color(&self, detection: &Detection) -> Rgb {
        let track = detection.track.filter(|_| self.tracks);
        track.map_or_else(|| class_color(detection.class), track_color)
    }
}

/// The box with its margin on every side. An endless box is cut to what floats can still tell
/// apart, so that it hides the whole picture rather than nothing.
fn grown(bbox: Rect, anonymize: &AnonymizeConfig) -> Rect {
    const REACH: f32 = 1e6;
    let (left, right) = (bbox.x.clamp(-REACH, REACH), bbox.right().clamp(-REACH, REACH));
    let (top, bottom) = (bbox.y.clamp(-REACH, REACH), bbox.bottom().clamp(-REACH, REACH));
    let margin = anonymize.margin.clamp(0.0, 10.0);
    let (x, y) = ((right - left) * margin, (bottom - top) * margin);
    Rect::new(left - x, top - y, right - left + 2.0 * x, bottom - top + 2.0 * y)
}

/// Grows with the square root of the picture's height, 4 pixels at 1080 lines. At least 2: a thinner
/// line would share its chroma with the picture around it and lose its colour.
fn line_thickness(canvas: &Canvas<'_>) -> usize {
    ((canvas.size().height as f32).sqrt() / 9.0).round().max(2.0) as usize
}

fn draw_landmarks(canvas: &mut Canvas<'_>, detection: &Detection, color: Rgb) {
    let radius = (canvas.size().height as f32 / 270.0).max(1.5);
    let (rim, core) = (canvas.ink(text_color(color)), canvas.ink(color));
    for landmark in &detection.landmarks {
        canvas.dot(landmark.x, landmark.y, radius + 1.0, rim);
        canvas.dot(landmark.x, landmark.y, radius, core);
    }
}

/// Tints every pixel in the colour of its class. Cells of the background stay clear.
fn draw_mask(canvas: &mut Canvas<'_>, segmentation: &Segmentation, labels: &[String], scratch: &mut Scratch) {
    let Segmentation { width, height, ref classes, area: covered } = *segmentation;
    if width == 0 || height == 0 || width.checked_mul(height) != Some(classes.len()) {
        return;
    }
    let Some(area) = Area::of(covered, canvas.size()) else { return };
    let cell = |pixel: usize, from: f32, length: f32, count: usize| {
        // Saturates; the grid is not empty.
        (((pixel as f32 + 0.5 - from) * (count as f32 / length)) as usize).min(count - 1)
    };
    let Scratch { columns, rows, .. } = scratch;
    columns.clear();
    columns.extend((area.left..area.right).map(|x| cell(x, covered.x, covered.width, width)));
    rows.clear();
    rows.extend((area.top..area.bottom).map(|y| cell(y, covered.y, covered.height, height) * width));
    let mut shades = [(Ink::default(), 0u8); 256];
    for (class, shade) in (0u32..).zip(&mut shades) {
        if !is_background(class, labels) {
            *shade = (canvas.ink(class_color(class)), MASK_ALPHA);
        }
    }
    let (columns, shades) = (&columns[..], &shades);
    canvas.blend(area, |y| {
        let row = &classes[rows[y - area.top]..][..width];
        move |x| shades[usize::from(row[columns[x - area.left]])]
    });
}

/// Whether a segmentation's class means "nothing": one named so, one without a name among named
/// ones (255 often marks what was not labelled), or class 0 where no class has a name.
fn is_background(class: u32, labels: &[String]) -> bool {
    match labels.get(class as usize) {
        Some(label) => {
            ["background", "__background__", "unlabeled", "void"].iter().any(|name| label.eq_ignore_ascii_case(name))
        }
        None => !labels.is_empty() || class == 0,
    }
}

/// The class's name, cut to `characters_max`; `class 7` where it has none.
fn push_label(text: &mut String, labels: &[String], class: u32, characters_max: usize) {
    match labels.get(class as usize) {
        Some(label) if label.chars().count() <= characters_max => text.push_str(label),
        Some(label) => {
            text.extend(label.chars().take(characters_max.saturating_sub(2)));
            text.push_str("..");
        }
        None => {
            let _ = write!(text, "class {class}");
        }
    }
}

fn copy_packed(view: &ImageView<'_>, buffer: &mut Vec<u8>) {
    let layout = view.layout();
    for index in 0..layout.format.planes(layout.size).as_slice().len() {
        let plane = view.plane(index);
        if plane.stride == plane.row {
            buffer.extend_from_slice(&view.bytes()[layout.planes[index].offset..][..plane.row * plane.rows]);
            continue;
        }
        for y in 0..plane.rows {
            buffer.extend_from_slice(plane.row(y));
        }
    }
}

#[cfg(test)]
mod tests;
