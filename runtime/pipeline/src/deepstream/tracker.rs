//! `[tracker]`, and the file of NvMultiObjectTracker that it names.

use std::path::Path;

use toml_edit::{Table, value};

use super::Files;
use super::keys::Kind;
use super::section::{Report, Section};
use crate::config::LOST_FRAMES_MAX;

/// DeepStream's trackers.
#[derive(Clone, Copy, PartialEq)]
enum Algorithm {
    Iou,
    NvSort,
    NvDeepSort,
    NvDcf,
}

/// The `[tracker]` of ours. What each of DeepStream's becomes: NvSORT and the IOU tracker are `sort`; NvDCF and NvDeepSORT,
/// which go on where an object is hidden, are `ocsort`, which does so by its motion.
pub(super) fn tracker(section: &Section<'_>, files: &Files<'_>, report: &Report) -> Table {
    section.switch("enable");
    let library = section.text("ll-lib-file");
    let named = section.text("ll-config-file").filter(|named| !named.is_empty());
    // Some give a file for each of several parts of a batch.
    let source = named.and_then(|named| {
        let first = named.split(';').next().unwrap_or(named);
        let loaded = files.load(Kind::Tracker, &files.resolve(Path::new(""), first), report);
        loaded.map_err(|message| section.problem("ll-config-file", message)).ok()
    });
    let mut keys = Keys::default();
    let mut algorithm = match library {
        Some(library) if library.contains("iou") => Algorithm::Iou,
        Some(library) if library.contains("deepsort") => Algorithm::NvDeepSort,
        _ => Algorithm::NvDcf,
    };
    if let Some(source) = &source {
        let sections = source.sections(report);
        sections.iter().for_each(|section| keys.read(section));
        sections.into_iter().for_each(Section::finish);
        algorithm = keys.algorithm();
    }
    let (name, theirs) = match algorithm {
        Algorithm::Iou => ("sort", "the IOU tracker"),
        Algorithm::NvSort => ("sort", "NvSORT"),
        Algorithm::NvDeepSort => ("ocsort", "NvDeepSORT"),
        Algorithm::NvDcf => ("ocsort", "NvDCF"),
    };
    let key = if source.is_some() { "ll-config-file" } else { "ll-lib-file" };
    section.note(key, format!("{theirs} becomes `{name}`"));
    keys.table(name)
}

#[derive(Default)]
struct Keys {
    state: i64,
    visual: i64,
    reid: i64,
    match_classes: Option<bool>,
    hits_min: Option<u32>,
    lost_frames_max: Option<u32>,
    iou_min: Option<f64>,
}

impl Keys {
    fn read(&mut self, section: &Section<'_>) {
        match section.name() {
            "BaseConfig" => self.match_classes = section.switch("checkClassMatch").or(self.match_classes),
            "TargetManagement" => {
                self.hits_min = bounded(section, "probationAge", 0);
                self.lost_frames_max = bounded(section, "maxShadowTrackingAge", 1);
            }
            "DataAssociator" => {
                self.match_classes = section.switch("checkClassMatch").or(self.match_classes);
                self.iou_min = section.fraction("minMatchingScore4Iou");
            }
            "StateEstimator" => self.state = section.integer("stateEstimatorType").unwrap_or(0),
            "VisualTracker" => self.visual = section.integer("visualTrackerType").unwrap_or(0),
            "ReID" => self.reid = section.integer("reidType").unwrap_or(0),
            _ => {}
        }
    }

    fn algorithm(&self) -> Algorithm {
        match (self.visual, self.reid, self.state) {
            (1.., _, _) => Algorithm::NvDcf,
            (_, 1.., _) => Algorithm::NvDeepSort,
            (_, _, 0) => Algorithm::Iou,
            _ => Algorithm::NvSort,
        }
    }

    fn table(&self, algorithm: &str) -> Table {
        let mut out = Table::new();
        out.insert("algorithm", value(algorithm));
        if let Some(match_classes) = self.match_classes {
            out.insert("across_classes", value(!match_classes));
        }
        if let Some(hits_min) = self.hits_min {
            out.insert("hits_min", value(i64::from(hits_min)));
        }
        if let Some(lost) = self.lost_frames_max {
            out.insert("lost_frames_max", value(i64::from(lost)));
        }
        if let Some(iou_min) = self.iou_min {
            out.insert("iou_min", value(iou_min));
        }
        out
    }
}

/// A number of frames, as far as ours are counted.
fn bounded(section: &Section<'_>, key: &'static str, least: u32) -> Option<u32> {
    let typed = section.count(key)?;
    let frames = typed.clamp(least, LOST_FRAMES_MAX);
    if frames != typed {
        section.note(key, format!("becomes {frames}"));
    }
    Some(frames)
}
