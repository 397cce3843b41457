//! From what a manifest says to its text.

use revoada_core::Fit;
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::read::{ACTIVATIONS, ANCHORS, BOX_FORMATS, CHANNELS, LAYOUTS};
use super::{InputManifest, Manifest, OutputManifest, VERSION};

pub(super) fn toml(manifest: &Manifest) -> String {
    let mut document = DocumentMut::new();
    document["version"] = value(i64::from(VERSION));
    document.as_table_mut().extend(table(manifest));
    document.to_string()
}

/// All of a manifest but its version.
pub(super) fn table(manifest: &Manifest) -> Table {
    let mut out = Table::new();
    set_some(&mut out, "name", manifest.name.as_deref());
    set_some(&mut out, "licence", manifest.licence.as_deref());
    set_some(&mut out, "source", manifest.source.as_deref());
    if !manifest.labels.is_empty() {
        out["labels"] = value(manifest.labels.iter().collect::<Array>());
    }
    for (key, table) in [("input", input(&manifest.input)), ("output", output(&manifest.output))] {
        if !table.is_empty() {
            out[key] = Item::Table(table);
        }
    }
    out
}

fn input(input: &InputManifest) -> Table {
    let default = InputManifest::default();
    let mut table = Table::new();
    set_some(&mut table, "name", input.name.as_deref());
    if let Some(size) = input.size {
        table["size"] = value([size.width, size.height].iter().map(|side| *side as i64).collect::<Array>());
    }
    set_some(&mut table, "layout", input.layout.map(|layout| word(&LAYOUTS, &layout)));
    if input.channels != default.channels {
        table["channels"] = value(word(&CHANNELS, &input.channels));
    }
    match input.fit {
        Fit::Stretch => {}
        Fit::CenterCrop => table["fit"] = value("center-crop"),
        Fit::Letterbox { anchor, fill } => {
            table["fit"] = value("letterbox");
            table["anchor"] = value(word(&ANCHORS, &anchor));
            table["fill"] = value(decimal(fill));
        }
    }
    if input.mean != default.mean {
        table["mean"] = value(input.mean.map(decimal).into_iter().collect::<Array>());
    }
    if input.scale != default.scale {
        table["scale"] = value(input.scale.map(decimal).into_iter().collect::<Array>());
    }
    table
}

fn output(output: &OutputManifest) -> Table {
    let mut table = Table::new();
    set_some(&mut table, "decoder", output.decoder.as_deref());
    if let Some(score_min) = output.score_min {
        table["score_min"] = value(decimal(score_min));
    }
    if let Some(nms_iou_max) = output.nms_iou_max {
        table["nms_iou_max"] = value(decimal(nms_iou_max));
    }
    if let Some(results_max) = output.results_max {
        table["results_max"] = value(results_max as i64);
    }
    set_some(&mut table, "activation", output.activation.map(|activation| word(&ACTIVATIONS, &activation)));
    set_some(&mut table, "box_format", output.box_format.map(|format| word(&BOX_FORMATS, &format)));
    if !output.strides.is_empty() {
        table["strides"] = value(output.strides.iter().map(|stride| i64::from(*stride)).collect::<Array>());
    }
    if !output.anchors.is_empty() {
        let level = |level: &Vec<[f32; 2]>| level.iter().flatten().map(|side| decimal(*side)).collect::<Array>();
        table["anchors"] = value(output.anchors.iter().map(level).collect::<Array>());
    }
    if output.background {
        table["background"] = value(true);
    }
    if !output.tensors.is_empty() {
        let tensors = output.tensors.iter().map(|(role, name)| (role.as_str(), value(name)));
        table["tensors"] = Item::Table(Table::from_iter(tensors));
    }
    table
}

fn set_some(table: &mut Table, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        table[key] = value(text);
    }
}

fn word<T: PartialEq>(words: &[(&'static str, T)], meaning: &T) -> &'static str {
    let found = words.iter().find(|(_, known)| known == meaning);
    found.expect("the reader knows a word for every meaning").0
}

/// The number with the fewest digits that reads back as the same `f32`.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().expect("a number's text is a number")
}
