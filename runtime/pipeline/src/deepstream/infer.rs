//! An nvinfer file: a model, how pictures enter it, and what is kept of its answers.

use std::path::Path;

use revoada_bundle::manifest::{Manifest, parse_labels};
use revoada_core::{Anchor, ChannelOrder, Fit, Layout, Size};
use toml_edit::{ArrayOfTables, Item, Table, value};

use super::Files;
use super::keys::{Kind, PARSERS};
use super::section::{Report, Section, texts};

/// What an nvinfer file says, with the application's own words over it.
pub(super) struct Infer {
    /// The keys of `[model]`, or of `[[secondary]]` but those of `objects`.
    pub(super) model: Table,
    /// Empty where there are none, or where they could not be read.
    pub(super) labels: Vec<String>,
    pub(super) batch_size: Option<u32>,
    /// Frames that are skipped after each that is inferred.
    pub(super) interval: u32,
    pub(super) unique_id: Option<i64>,
    pub(super) on_id: Option<i64>,
    pub(super) on_classes: Vec<i64>,
    pub(super) process_mode: i64,
    /// Least and most width and height of an object; 0 is no bound.
    pub(super) object_min: [u32; 2],
    pub(super) object_max: [u32; 2],
    pub(super) again_after: Option<u32>,
    pub(super) name: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Task {
    Detect,
    Classify,
    Segment,
}

/// DeepStream's defaults.
const SCORE_MIN: f64 = 0.2;
const IOU_MAX: f64 = 0.3;

/// Reads the file that a `[primary-gie]` or `[secondary-gieN]` names. `None` where there is no model in it.
pub(super) fn read(gie: &Section<'_>, files: &Files<'_>, report: &Report) -> Option<Infer> {
    let named = gie.text("config-file").or(gie.text("config-file-path"));
    let Some(named) = named else {
        gie.problem("config-file", "this key is missing: it names the nvinfer file");
        return None;
    };
    let path = files.resolve(Path::new(""), named);
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let source = match files.load(Kind::Infer, &path, report) {
        Ok(source) => source,
        Err(error) => {
            gie.problem("config-file", error);
            return None;
        }
    };
    let mut sections = source.sections(report);
    let Some(place) = sections.iter().position(|section| section.name() == "property") else {
        gie.problem("config-file", "the file has no group `property`: it is no nvinfer file");
        return None;
    };
    let property = sections.remove(place);
    let infer = model(gie, &property, &sections, &folder, files);
    property.finish();
    sections.into_iter().for_each(Section::finish);
    infer
}

fn model(
    gie: &Section<'_>,
    property: &Section<'_>,
    classes: &[Section<'_>],
    folder: &Path,
    files: &Files<'_>,
) -> Option<Infer> {
    let task = task(property);
    let mut manifest = Manifest::default();
    staging(property, &mut manifest);
    let (labels_path, labels) = labels(gie, property, folder, files);
    if let Labels::Listed(listed) = &labels {
        manifest.labels.clone_from(listed);
    }
    let mut rules = ArrayOfTables::new();
    match task {
        Task::Detect => {
            decoder(property, &mut manifest);
            let names = labels.names();
            rules = thresholds(property, classes, names.len(), &mut manifest);
        }
        Task::Classify => {
            manifest.output.decoder = Some("classification".into());
            // DeepStream tells the best class only.
            manifest.output.results_max = Some(1);
            manifest.output.score_min = property.fraction("classifier-threshold").map(|score| score as f32);
        }
        Task::Segment => {
            manifest.output.decoder = Some("segmentation".into());
            manifest.output.score_min = property.fraction("segmentation-threshold").map(|score| score as f32);
        }
    }
    if task != Task::Detect {
        ask_detection(property);
        for section in classes {
            Attributes::read(section);
            section.note("", "has no effect: the network is no detector");
        }
    }
    for (key, of) in [("classifier-threshold", Task::Classify), ("segmentation-threshold", Task::Segment)] {
        if task != of && property.number_of(key).is_some() {
            property.note(key, "has no effect: the network is of another type");
        }
    }
    let path = property.text("onnx-file");
    if path.is_none()
        && !["model-file", "uff-file", "tlt-encoded-model"].iter().any(|key| property.group.entry(key).is_some())
    {
        let message = match property.group.entry("model-engine-file") {
            Some(_) => {
                "this key is missing: engines of DeepStream are not read; name the ONNX model that it was built from"
            }
            None => "this key is missing: it names the model",
        };
        property.problem("onnx-file", message);
    }
    let mut model = Table::new();
    if let Some(path) = path {
        model.insert("path", value(files.shown(&files.resolve(folder, path))));
    }
    if let (Some(path), Labels::File(_)) = (labels_path, &labels) {
        model.insert("labels", value(path));
    }
    let mut manifest = manifest.to_table();
    manifest.set_implicit(true);
    model.insert("manifest", Item::Table(manifest));
    if !rules.is_empty() {
        model.insert("class", Item::ArrayOfTables(rules));
    }
    let either = |key: &'static str| (gie.count(key), property.count(key));
    let (own_batch, file_batch) = either("batch-size");
    let (own_interval, file_interval) = either("interval");
    let ids = |key: &'static str| gie.integer(key).or(property.integer(key));
    let on_classes = (gie.integers("operate-on-class-ids"), property.integers("operate-on-class-ids"));
    let side = |key: &'static str| property.count(key).unwrap_or(0);
    Some(Infer {
        model,
        labels: labels.names().to_vec(),
        batch_size: own_batch.or(file_batch),
        interval: own_interval.or(file_interval).unwrap_or(0),
        unique_id: ids("gie-unique-id"),
        on_id: ids("operate-on-gie-id").filter(|id| *id >= 0),
        on_classes: on_classes.0.or(on_classes.1).unwrap_or_default(),
        process_mode: property.integer("process-mode").unwrap_or(1),
        object_min: [side("input-object-min-width"), side("input-object-min-height")],
        object_max: [side("input-object-max-width"), side("input-object-max-height")],
        again_after: property.count("secondary-reinfer-interval"),
        name: property.text("classifier-type").map(str::to_owned),
    })
}

fn task(property: &Section<'_>) -> Task {
    let legacy = property.switch("is-classifier").unwrap_or(false);
    match property.integer("network-type") {
        None if legacy => Task::Classify,
        None | Some(0) => Task::Detect,
        Some(1) => Task::Classify,
        Some(2) => Task::Segment,
        Some(other) => {
            let message = match other {
                3 => "instance segmentation (3) has no decoder; take a model of boxes".to_owned(),
                100 => "outputs that are read by a program of one's own (100) need a decoder: give `--decoder`, or register one"
                    .to_owned(),
                _ => format!("expected 0, 1, 2, 3 or 100, got {other}"),
            };
            property.problem("network-type", message);
            Task::Detect
        }
    }
}

fn staging(property: &Section<'_>, manifest: &mut Manifest) {
    let input = &mut manifest.input;
    match property.integer("model-color-format") {
        None | Some(0) => {}
        Some(1) => input.channels = ChannelOrder::Bgr,
        Some(2) => input.channels = ChannelOrder::Gray,
        Some(other) => {
            property.problem("model-color-format", format!("expected 0 (RGB), 1 (BGR) or 2 (gray), got {other}"))
        }
    }
    match property.integer("network-input-order") {
        None => {}
        Some(0) => input.layout = Some(Layout::Nchw),
        Some(1) => input.layout = Some(Layout::Nhwc),
        Some(other) => property.problem("network-input-order", format!("expected 0 (NCHW) or 1 (NHWC), got {other}")),
    }
    if let Some(scale) = property.number_of("net-scale-factor") {
        match scale == 0.0 {
            true => property.problem("net-scale-factor", "0 makes every picture black"),
            false => input.scale = [scale as f32; 3],
        }
    }
    match property.numbers("offsets").as_deref() {
        None | Some([]) => {}
        Some([mean]) => input.mean = [*mean as f32; 3],
        Some([a, b, c]) => input.mean = [*a as f32, *b as f32, *c as f32],
        Some(other) => property.problem("offsets", format!("expected one number per channel, got {}", other.len())),
    }
    match property.integers("infer-dims").as_deref() {
        None => {}
        Some([1..=4, height @ 1..=16_384, width @ 1..=16_384]) => {
            input.size = Some(Size::new(*width as usize, *height as usize));
        }
        Some(_) => property.problem("infer-dims", "expected channels, height and width such as `3;544;960`"),
    }
    let symmetric = property.switch("symmetric-padding");
    match property.switch("maintain-aspect-ratio") {
        Some(true) => {
            let anchor = if symmetric == Some(true) { Anchor::Center } else { Anchor::TopLeft };
            input.fit = Fit::Letterbox { anchor, fill: 0.0 };
        }
        _ if symmetric == Some(true) => {
            property.note("symmetric-padding", "has no effect: without `maintain-aspect-ratio=1` nothing is padded");
        }
        _ => {}
    }
}

/// The labels of a model.
enum Labels {
    None,
    /// One a line, as our own files have them.
    File(Vec<String>),
    /// As classifiers of DeepStream have them, with `;` between them.
    Listed(Vec<String>),
}

impl Labels {
    fn names(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::File(names) | Self::Listed(names) => names,
        }
    }
}

/// The path to print, and the labels.
fn labels(gie: &Section<'_>, property: &Section<'_>, folder: &Path, files: &Files<'_>) -> (Option<String>, Labels) {
    let (own, in_file) = (gie.text("labelfile-path"), property.text("labelfile-path"));
    let (section, path) = match (own, in_file) {
        (Some(own), _) => (gie, files.resolve(Path::new(""), own)),
        (None, Some(named)) => (property, files.resolve(folder, named)),
        (None, None) => return (None, Labels::None),
    };
    let parsed = files.text(&path).and_then(|text| match text.lines().next().is_some_and(|line| line.contains(';')) {
        true => Ok(Labels::Listed(text.lines().flat_map(texts).collect())),
        false => {
            parse_labels(&text).map(Labels::File).map_err(|reason| format!("labels file `{}` {reason}", path.display()))
        }
    });
    match parsed {
        Ok(labels) => (Some(files.shown(&path)), labels),
        Err(message) => {
            section.problem("labelfile-path", message);
            (None, Labels::None)
        }
    }
}

fn decoder(property: &Section<'_>, manifest: &mut Manifest) {
    let name = property.text("parse-bbox-func-name");
    let known = name.map(|name| PARSERS.iter().find(|(known, _)| *known == name).map(|(_, decoder)| *decoder));
    let decoder = match known {
        // The parser that nvinfer has built in.
        None => Some("detectnet"),
        Some(Some(Some(decoder))) => Some(decoder),
        Some(Some(None) | None) => {
            property.note(
                "parse-bbox-func-name",
                "has no counterpart here: the decoder is guessed from the outputs; `--decoder` names one",
            );
            None
        }
    };
    manifest.output.decoder = decoder.map(str::to_owned);
    if let (Some("detectnet"), Some([a, b])) = (decoder, property.texts("output-blob-names").as_deref()) {
        // DeepStream tells them apart by these words, too.
        let is_boxes = |name: &str| name.contains("bbox");
        if is_boxes(a) != is_boxes(b) {
            let (boxes, coverage) = if is_boxes(a) { (a, b) } else { (b, a) };
            manifest.output.tensors =
                [("boxes".to_owned(), boxes.clone()), ("coverage".to_owned(), coverage.clone())].into();
        }
    }
}

/// Asks for what only detectors have, so that it is known.
fn ask_detection(property: &Section<'_>) {
    for key in ["cluster-mode", "enable-dbscan", "parse-bbox-func-name", "filter-out-class-ids", "output-blob-names"] {
        if property.has(key) {
            property.note(key, "has no effect: the network is no detector");
        }
    }
}

/// What holds for one class, or for all.
#[derive(Clone, Default)]
struct Attributes {
    score_min: Option<f64>,
    iou_max: Option<f64>,
    results_max: Option<u32>,
    sides: [Option<u32>; 4],
}

const SIDES: [(&str, &str); 4] = [
    ("detected-min-w", "width_min"),
    ("detected-min-h", "height_min"),
    ("detected-max-w", "width_max"),
    ("detected-max-h", "height_max"),
];

impl Attributes {
    fn read(section: &Section<'_>) -> Self {
        // More than 1 is how a class is left out.
        let threshold = |key| {
            let number = section.number_of(key)?;
            if number < 0.0 {
                section.problem(key, format!("expected a number that is not negative, got {number}"));
            }
            Some(number)
        };
        let before = (threshold("pre-cluster-threshold"), threshold("threshold"));
        let before = before.0.or(before.1);
        let after = threshold("post-cluster-threshold");
        let score_min = match (before, after) {
            (Some(before), Some(after)) => Some(before.max(after)),
            (before, after) => before.or(after.filter(|after| *after > SCORE_MIN)),
        };
        Self {
            score_min,
            iou_max: section.fraction("nms-iou-threshold"),
            // -1 and 0 are no bound.
            results_max: section.integer("topk").and_then(|most| u32::try_from(most).ok()).filter(|most| *most > 0),
            sides: SIDES.map(|(key, _)| section.count(key).filter(|side| *side > 0)),
        }
    }

    /// These, and those of all classes where they say nothing.
    fn over(&self, all: &Self) -> Self {
        let mut sides = self.sides;
        for (side, of_all) in sides.iter_mut().zip(all.sides) {
            *side = side.or(of_all);
        }
        Self {
            score_min: self.score_min.or(all.score_min),
            iou_max: self.iou_max.or(all.iou_max),
            results_max: self.results_max.or(all.results_max),
            sides,
        }
    }

    fn table(&self, class: Option<i64>, score_min: f64, drop: bool) -> Table {
        let mut out = Table::new();
        if let Some(class) = class {
            out.insert("class", value(class));
        }
        let own = self.score_min.unwrap_or(SCORE_MIN);
        if drop || own > 1.0 {
            out.insert("drop", value(true));
            return out;
        }
        if own > score_min {
            out.insert("score_min", value(own));
        }
        if let Some(most) = self.results_max {
            out.insert("results_max", value(i64::from(most)));
        }
        for ((_, key), side) in SIDES.iter().zip(self.sides) {
            if let Some(side) = side {
                out.insert(key, value(i64::from(side)));
            }
        }
        out
    }
}

/// Thresholds of all classes into the manifest, those of single ones into rules.
fn thresholds(
    property: &Section<'_>,
    sections: &[Section<'_>],
    labels: usize,
    manifest: &mut Manifest,
) -> ArrayOfTables {
    let (mut all, mut single) = (Attributes::default(), Vec::new());
    for section in sections {
        let attributes = Attributes::read(section);
        match section.number() {
            None => all = attributes,
            Some(class) if labels > 0 && class >= labels => {
                section.note("", format!("has no effect: the model has {labels} labels"));
            }
            Some(class) => {
                if attributes.iou_max.is_some() {
                    section.note("nms-iou-threshold", "has no effect: one threshold holds for all classes");
                }
                single.push((class as i64, attributes));
            }
        }
    }
    let single: Vec<_> = single.into_iter().map(|(class, own)| (class, own.over(&all))).collect();
    let scores = single.iter().map(|(_, own)| own.score_min).chain([all.score_min]);
    let score_min = scores.map(|score| score.unwrap_or(SCORE_MIN)).fold(1.0, f64::min);
    manifest.output.score_min = Some(score_min as f32);
    suppression(property, &all, manifest);
    let dropped = property.integers("filter-out-class-ids").unwrap_or_default();
    if dropped.iter().any(|class| *class < 0) {
        property.problem("filter-out-class-ids", "expected numbers of classes, which are not negative");
    }
    let mut rules = ArrayOfTables::new();
    let mut push = |table: Table, of_all: bool| {
        if !table.is_empty() && (of_all || table.len() > 1) {
            rules.push(table);
        }
    };
    push(all.table(None, score_min, false), true);
    for (class, own) in single.iter().filter(|(class, _)| !dropped.contains(class)) {
        // A rule of its own replaces the one of all, and so has to say everything.
        push(own.table(Some(*class), score_min, false), !all.table(None, score_min, false).is_empty());
    }
    for class in dropped.iter().filter(|class| **class >= 0) {
        push(Attributes::default().table(Some(*class), score_min, true), false);
    }
    rules
}

fn suppression(property: &Section<'_>, all: &Attributes, manifest: &mut Manifest) {
    let iou_max = all.iou_max.unwrap_or(IOU_MAX) as f32;
    let dbscan = property.switch("enable-dbscan") == Some(true);
    let mode = property.integer("cluster-mode").unwrap_or(i64::from(dbscan));
    match mode {
        0 | 1 | 3 => {
            let key = if property.group.entry("cluster-mode").is_some() { "cluster-mode" } else { "" };
            property.note(
                key,
                "boxes are not clustered (modes 0, 1 and 3): of those that overlap the best one stays, as in mode 2",
            );
        }
        2 | 4 => {}
        other => property.problem("cluster-mode", format!("expected a mode from 0 to 4, got {other}")),
    }
    manifest.output.nms_iou_max = match mode {
        // This decoder suppresses only where it is told to.
        4 if manifest.output.decoder.as_deref() == Some("yolo-nms") => None,
        4 => Some(1.0),
        _ => Some(iou_max),
    };
}
