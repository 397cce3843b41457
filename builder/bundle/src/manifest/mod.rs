//! The manifest: how pictures enter a model and how its answers are read. A TOML file beside a bare
//! ONNX (`model.onnx` → `model.toml`):
//!
//! ```toml
//! version = 1
//! name = "YOLOX-Nano"
//! licence = "Apache-2.0"
//! labels = "coco.txt"                # beside this file, a label a line; or a list
//!
//! [input]
//! size = [416, 416]                  # where the model leaves it open
//! channels = "bgr"                   # rgb, bgr, gray
//! fit = "letterbox"                  # stretch, letterbox, center-crop
//! anchor = "top-left"                # of a letterbox: center, top-left
//! fill = 114                         # of a letterbox
//! mean = 0                           # one number, or one a channel, in 0..=255
//! scale = 1                          # pixels become (x − mean) · scale
//!
//! [output]
//! decoder = "yolo-x"                 # left out: guessed from the outputs
//! score_min = 0.25
//! nms_iou_max = 0.45
//! ```
//!
//! Every key but `version` may be left out.

mod read;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use revoada_core::{ChannelOrder, Fit, Layout, Size};
use thiserror::Error;

pub use read::parse_labels;

use crate::strict::{Problems, TEXT_BYTES_MAX, Table};

/// The version of the format that this program writes, and the latest that it reads.
pub const VERSION: u32 = 1;

/// What the manifest of a model says. Everything has a default, so that a model without a manifest
/// is a model with an empty one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// What people call the model.
    pub name: Option<String>,
    /// SPDX identifier of the model's licence.
    pub licence: Option<String>,
    /// Where the model comes from, one line.
    pub source: Option<String>,
    pub input: InputManifest,
    pub output: OutputManifest,
    /// Names of the classes, by index; may be empty.
    pub labels: Vec<String>,
}

/// How a picture is staged into the model.
#[derive(Clone, Debug, PartialEq)]
pub struct InputManifest {
    /// The picture input; `None`: the first four-dimensional one.
    pub name: Option<String>,
    /// Width and height to use where the model leaves them open.
    pub size: Option<Size>,
    /// `None`: from the dimensions (the one of 1 or 3 is the channels).
    pub layout: Option<Layout>,
    pub channels: ChannelOrder,
    pub fit: Fit,
    /// In 0..=255, per channel of the network's order.
    pub mean: [f32; 3],
    pub scale: [f32; 3],
}

impl Default for InputManifest {
    fn default() -> Self {
        Self {
            name: None,
            size: None,
            layout: None,
            channels: ChannelOrder::Rgb,
            fit: Fit::Stretch,
            mean: [0.0; 3],
            scale: [1.0; 3],
        }
    }
}

/// How the model's outputs become detections, classes or masks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputManifest {
    /// A registered decoder: `classification`, `yolo-v5`, `yolo-v8`, `yolo-x`, `yolo-nms`, `ssd`,
    /// `detectnet`, `centerface`, `segmentation`, or one that the program registered. `None`: guess it from the
    /// outputs.
    pub decoder: Option<String>,
    /// Roles of outputs, where names differ from what the decoder expects: `heatmap = "537"`.
    pub tensors: BTreeMap<String, String>,
    /// Least score before suppression; `None` here and below: as the decoder documents.
    pub score_min: Option<f32>,
    /// Boxes of one class that overlap a better one by more are dropped.
    pub nms_iou_max: Option<f32>,
    /// Most detections (or classes) of one picture.
    pub results_max: Option<usize>,
    /// Whether scores still need a softmax (classification) or sigmoid (YOLO).
    pub activation: Option<Activation>,
    /// What four numbers of a box mean, where the decoder can read several.
    pub box_format: Option<BoxFormat>,
    /// Strides of the pyramid, for raw YOLO heads.
    pub strides: Vec<u32>,
    /// Anchor widths and heights in pixels, per stride, for v5/v7 heads without decoding in the graph.
    pub anchors: Vec<Vec<[f32; 2]>>,
    /// Class 0 is "background" and is not a result (SSD).
    pub background: bool,
}

/// What is still to be applied to raw scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Sigmoid,
    Softmax,
}

/// The order of a box's corners, and whether they are in the network's pixels or in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxFormat {
    Xyxy,
    XyxyNormalized,
    Yxyx,
    YxyxNormalized,
}

impl Manifest {
    /// Reads a manifest's text; `file` is only for messages. `read_labels` is called with the name of
    /// the labels file, where one is named, and returns its text or why it cannot.
    pub fn parse(
        file: &str,
        text: &str,
        read_labels: impl FnOnce(&str) -> Result<String, String>,
    ) -> Result<Self, Problems> {
        read::manifest(file, text, read_labels)
    }

    /// Reads a manifest that is a table of another file, which has a version of its own; its labels are a list.
    pub fn from_table(table: &Table<'_>) -> Self {
        read::table(table, |name| Err(format!("expected a list of labels here, got the file `{name}`")))
    }

    /// Reads a manifest file, and the labels file that it names beside itself.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        let text = read_text(path).map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let read_labels = |name: &str| {
            let path = folder.join(name);
            read_text(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))
        };
        Ok(Self::parse(&path.display().to_string(), &text, read_labels)?)
    }

    /// Where the manifest of a model is looked for: `model.onnx` → `model.toml`.
    pub fn path_beside(model: &Path) -> PathBuf {
        model.with_extension("toml")
    }

    /// Reads the manifest beside a model, where there is one.
    pub fn beside(model: &Path) -> Result<Option<Self>, ManifestError> {
        match Self::load(&Self::path_beside(model)) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(ManifestError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The manifest as TOML, with its labels in a list, that [`parse`](Self::parse) reads back as
    /// the same. What has its default is left out.
    pub fn to_toml(&self) -> String {
        write::toml(self)
    }

    /// The manifest as a table that [`from_table`](Self::from_table) reads back as the same.
    pub fn to_table(&self) -> toml_edit::Table {
        write::table(self)
    }
}

/// Reads a labels file: one label a line.
pub fn read_labels(path: &Path) -> Result<Vec<String>, ManifestError> {
    let text = read_text(path).map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
    parse_labels(&text).map_err(|reason| ManifestError::Labels { path: path.to_owned(), reason })
}

/// Reads a text of at most [`TEXT_BYTES_MAX`].
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Why a manifest or a labels file could not be read.
#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("labels file `{}` {reason}", path.display())]
    Labels { path: PathBuf, reason: String },
    #[error(transparent)]
    Invalid(#[from] Problems),
}
