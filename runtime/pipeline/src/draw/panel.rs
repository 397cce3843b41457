//! The list of classes in the picture's corner: a classifier's best guesses, or the classes that
//! cover most of a segmented picture.

use std::fmt::Write as _;

use revoada_core::Prediction;

use super::canvas::{Area, Canvas, Rgb};
use super::text::Font;
use super::{SHADE_ALPHA, Scratch, class_color, is_background, push_label};
use crate::config::DrawConfig;

const ENTRIES_MAX: usize = 5;
/// Narrower panels would leave no length to tell bars apart.
const LABEL_CHARACTERS_MIN: usize = 14;
const LABEL_CHARACTERS_MAX: usize = 28;
/// Opacity of the bar behind an entry.
const BAR_ALPHA: u8 = 170;

/// A class with its score, or its share of the picture, in 0..=1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    class: u32,
    value: f32,
}

/// Draws the panel from `top` downwards; nothing where there is nothing to list.
pub(super) fn draw(
    canvas: &mut Canvas<'_>,
    font: Font,
    top: i64,
    prediction: &Prediction,
    labels: &[String],
    config: &DrawConfig,
    scratch: &mut Scratch,
) {
    let Scratch { text, entries, .. } = scratch;
    collect(prediction, labels, entries);
    if entries.is_empty() {
        return;
    }
    let (padding, row_height) = (font.padding(), font.height() + font.padding());
    let score_width = if config.scores { font.width_of(" 0.00") } else { 0 };
    let room = canvas.size().width as i64 - 4 * padding - score_width;
    let characters = font.fitting(room).min(LABEL_CHARACTERS_MAX);
    let mut label_width = font.width_of_glyphs(characters.min(LABEL_CHARACTERS_MIN));
    if config.labels {
        for entry in entries.iter() {
            text.clear();
            push_label(text, labels, entry.class, characters);
            label_width = label_width.max(font.width_of(text));
        }
    }
    let (left, width) = (padding, label_width + score_width + 2 * padding);
    let Some(panel) = Area::clipped(left, top, width, row_height * entries.len() as i64, canvas.size()) else { return };
    canvas.fill(panel, canvas.ink(Rgb::BLACK), SHADE_ALPHA);
    for (entry, y) in entries.iter().zip((0..).map(|row| top + row * row_height)) {
        // In 0..=1 times a width in pixels; NaN becomes 0.
        let length = (entry.value.clamp(0.0, 1.0) * width as f32) as i64;
        if let Some(bar) = Area::clipped(left, y + 1, length, row_height - 2, canvas.size()) {
            canvas.fill(bar, canvas.ink(class_color(entry.class)), BAR_ALPHA);
        }
        let baseline = y + padding / 2;
        if config.labels {
            text.clear();
            push_label(text, labels, entry.class, characters);
            font.draw(canvas, left + padding, baseline, text, Rgb::WHITE);
        }
        if config.scores {
            text.clear();
            let _ = write!(text, "{:.2}", entry.value);
            font.draw(canvas, left + width - padding - font.width_of(text), baseline, text, Rgb::WHITE);
        }
    }
}

fn collect(prediction: &Prediction, labels: &[String], entries: &mut Vec<Entry>) {
    entries.clear();
    let best = prediction.classifications.iter().take(ENTRIES_MAX);
    entries.extend(best.map(|guess| Entry { class: guess.class, value: guess.score }));
    let Some(segmentation) = prediction.segmentation.as_ref().filter(|_| entries.is_empty()) else { return };
    let mut counts = [0usize; 256];
    for &class in &segmentation.classes {
        counts[usize::from(class)] += 1;
    }
    let shown = (0u32..).zip(counts).filter(|&(class, count)| count > 0 && !is_background(class, labels));
    entries
        .extend(shown.map(|(class, count)| Entry { class, value: count as f32 / segmentation.classes.len() as f32 }));
    entries.sort_by(|a, b| b.value.total_cmp(&a.value));
    entries.truncate(ENTRIES_MAX);
}
