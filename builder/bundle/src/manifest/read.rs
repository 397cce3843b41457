//! From a manifest's text to what it says.

use revoada_core::{Anchor, ChannelOrder, Fit, Layout, Size};

use super::{Activation, BoxFormat, InputManifest, Manifest, OutputManifest, VERSION};
use crate::strict::{Document, Problems, Table};

/// More classes than any published model has; a longer list is some other file.
const LABELS_MAX: usize = 65_536;
/// Wider than any network's picture; keeps sizes far from overflow.
const SIDE_MAX: usize = 16_384;
/// A YOLO pyramid has three or four levels.
const LEVELS_MAX: usize = 16;
const ANCHORS_MAX: usize = 64;

pub(super) const LAYOUTS: [(&str, Layout); 2] = [("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)];
pub(super) const CHANNELS: [(&str, ChannelOrder); 3] =
    [("rgb", ChannelOrder::Rgb), ("bgr", ChannelOrder::Bgr), ("gray", ChannelOrder::Gray)];
pub(super) const ANCHORS: [(&str, Anchor); 2] = [("center", Anchor::Center), ("top-left", Anchor::TopLeft)];
pub(super) const ACTIVATIONS: [(&str, Activation); 3] =
    [("none", Activation::None), ("sigmoid", Activation::Sigmoid), ("softmax", Activation::Softmax)];
pub(super) const BOX_FORMATS: [(&str, BoxFormat); 4] = [
    ("xyxy", BoxFormat::Xyxy),
    ("xyxy-normalized", BoxFormat::XyxyNormalized),
    ("yxyx", BoxFormat::Yxyx),
    ("yxyx-normalized", BoxFormat::YxyxNormalized),
];

pub(super) fn manifest(
    file: &str,
    text: &str,
    read_labels: impl FnOnce(&str) -> Result<String, String>,
) -> Result<Manifest, Problems> {
    let document = Document::parse(file, text)?;
    let root = document.root();
    if let Some(version) = root.required().integer::<u32>("version", 1..)
        && version > VERSION
    {
        root.problem(
            "version",
            format!("this manifest is of version {version}, this program reads up to version {VERSION}: update it"),
        );
        // What a later version says by its keys cannot be known here.
        root.ignore_rest();
        return Err(document.finish().expect_err("a problem was recorded just now"));
    }
    let manifest = table(&root, read_labels);
    document.finish()?;
    Ok(manifest)
}

/// All of a manifest but its version.
pub(super) fn table(root: &Table<'_>, read_labels: impl FnOnce(&str) -> Result<String, String>) -> Manifest {
    Manifest {
        name: root.string("name"),
        licence: root.string("licence"),
        source: root.string("source"),
        input: root.table("input").map(|table| input(&table)).unwrap_or_default(),
        output: root.table("output").map(|table| output(&table)).unwrap_or_default(),
        labels: labels(root, read_labels),
    }
}

fn labels(root: &Table<'_>, read_labels: impl FnOnce(&str) -> Result<String, String>) -> Vec<String> {
    if root.is_array("labels") {
        let labels = root.strings("labels").unwrap_or_default();
        if labels.len() > LABELS_MAX {
            root.problem("labels", format!("has {} labels, at most {LABELS_MAX} are read", labels.len()));
        }
        return labels;
    }
    if root.has("labels") && !root.is_string("labels") {
        root.problem("labels", "expected the name of a labels file or an array of strings");
        return Vec::new();
    }
    let Some(name) = root.string("labels") else { return Vec::new() };
    let parsed = read_labels(&name)
        .and_then(|text| parse_labels(&text).map_err(|reason| format!("labels file `{name}` {reason}")));
    parsed.unwrap_or_else(|message| {
        root.problem("labels", message);
        Vec::new()
    })
}

/// Reads a labels file's text: one label a line, blanks at both ends removed, empty lines at the end
/// ignored. An empty line in between is a class without a name, so that the ones below keep their index.
pub fn parse_labels(text: &str) -> Result<Vec<String>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let labels: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_owned()).collect();
    match labels.len() {
        0 => Err("has no labels".to_owned()),
        count if count > LABELS_MAX => Err(format!("has {count} labels, at most {LABELS_MAX} are read")),
        _ if text.contains('\0') => Err("is not a text".to_owned()),
        _ => Ok(labels),
    }
}

fn input(table: &Table<'_>) -> InputManifest {
    let default = InputManifest::default();
    let scale = per_channel(table, "scale").unwrap_or(default.scale);
    if scale.contains(&0.0) {
        table.problem("scale", "0 makes every picture black");
    }
    InputManifest {
        name: table.string("name"),
        size: size(table),
        layout: table.choice("layout", &LAYOUTS),
        channels: table.choice("channels", &CHANNELS).unwrap_or(default.channels),
        fit: fit(table),
        mean: per_channel(table, "mean").unwrap_or(default.mean),
        scale,
    }
}

fn size(table: &Table<'_>) -> Option<Size> {
    let sides = table.integers("size", 1..=SIDE_MAX)?;
    match sides.as_slice() {
        [width, height] => Some(Size::new(*width, *height)),
        _ => {
            table.problem("size", format!("expected `[width, height]`, got {} numbers", sides.len()));
            None
        }
    }
}

fn fit(table: &Table<'_>) -> Fit {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Stretch,
        Letterbox,
        CenterCrop,
    }
    let kinds = [("stretch", Kind::Stretch), ("letterbox", Kind::Letterbox), ("center-crop", Kind::CenterCrop)];
    let kind = table.choice("fit", &kinds);
    let anchor = table.choice("anchor", &ANCHORS).unwrap_or(Anchor::Center);
    let fill = table.float("fill", 0.0..=255.0).unwrap_or(114.0) as f32;
    // Where `fit` itself is wrong, nobody can say whether these fit it.
    if kind != Some(Kind::Letterbox) && (kind.is_some() || !table.has("fit")) {
        for key in ["anchor", "fill"].into_iter().filter(|key| table.has(key)) {
            table.problem(key, "has a meaning only with `fit = \"letterbox\"`");
        }
    }
    match kind {
        Some(Kind::Letterbox) => Fit::Letterbox { anchor, fill },
        Some(Kind::CenterCrop) => Fit::CenterCrop,
        Some(Kind::Stretch) | None => Fit::Stretch,
    }
}

/// One number for all channels, or one for each; a gray picture has its one channel first.
fn per_channel(table: &Table<'_>, key: &str) -> Option<[f32; 3]> {
    let range = -f64::from(f32::MAX)..=f64::from(f32::MAX);
    if !table.is_array(key) {
        return table.float(key, range).map(|number| [number as f32; 3]);
    }
    let numbers = table.floats(key, range)?;
    match numbers.as_slice() {
        [a] => Some([*a as f32; 3]),
        [a, b, c] => Some([*a as f32, *b as f32, *c as f32]),
        _ => {
            table.problem(key, format!("expected a number or an array of 3, got {}", numbers.len()));
            None
        }
    }
}

fn output(table: &Table<'_>) -> OutputManifest {
    let strides: Vec<u32> = table.integers("strides", 1..=1024).unwrap_or_default();
    let anchors = anchors(table).unwrap_or_default();
    if strides.len() > LEVELS_MAX {
        table.problem("strides", format!("has {} levels, at most {LEVELS_MAX} are read", strides.len()));
    }
    if !strides.is_empty() && !anchors.is_empty() && strides.len() != anchors.len() {
        let message = format!("has {} levels, but `strides` has {}", anchors.len(), strides.len());
        table.problem("anchors", message);
    }
    let fraction = |key| table.float(key, 0.0..=1.0).map(|number| number as f32);
    OutputManifest {
        decoder: table.string("decoder"),
        tensors: table.string_map("tensors").unwrap_or_default(),
        score_min: fraction("score_min"),
        nms_iou_max: fraction("nms_iou_max"),
        results_max: table.integer("results_max", 1..=100_000),
        activation: table.choice("activation", &ACTIVATIONS),
        box_format: table.choice("box_format", &BOX_FORMATS),
        strides,
        anchors,
        background: table.boolean("background").unwrap_or_default(),
    }
}

/// Per stride, widths and heights in turn: `[[10, 13, 16, 30], …]`.
fn anchors(table: &Table<'_>) -> Option<Vec<Vec<[f32; 2]>>> {
    let levels = table.float_lists("anchors", 0.0..=SIDE_MAX as f64)?;
    if levels.len() > LEVELS_MAX || levels.iter().any(|level| level.len() > 2 * ANCHORS_MAX) {
        table.problem("anchors", format!("at most {LEVELS_MAX} levels of {ANCHORS_MAX} anchors are read"));
        return None;
    }
    if let Some(index) = levels.iter().position(|level| level.is_empty() || level.len() % 2 != 0) {
        let count = levels[index].len();
        table.problem("anchors", format!("level {index} needs widths and heights in pairs, got {count} numbers"));
        return None;
    }
    let pairs = |level: &Vec<f64>| level.as_chunks::<2>().0.iter().map(|[w, h]| [*w as f32, *h as f32]).collect();
    Some(levels.iter().map(pairs).collect())
}
