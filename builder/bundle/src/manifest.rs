//! The manifest: how pictures enter a model and how its answers are read. A TOML file beside a bare
//! ONNX (`model.onnx` → `model.toml`).

use std::collections::BTreeMap;

use revoada_core::{ChannelOrder, Fit, Layout, Size};

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
    /// `None`: guess the decoder from the outputs.
    pub output: Option<OutputManifest>,
    /// Names of the classes, by index; may be empty.
    pub labels: Vec<String>,
}

/// How a picture is staged into the model.
#[derive(Clone, Debug, PartialEq)]
pub struct InputManifest {
    /// The picture input; `None`: the only (or first) four-dimensional one.
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
#[derive(Clone, Debug, PartialEq)]
pub struct OutputManifest {
    /// A registered decoder: `classification`, `yolo-v5`, `yolo-v8`, `yolo-x`, `yolo-nms`, `ssd`,
    /// `centerface`, `segmentation`, or one that the program registered.
    pub decoder: String,
    /// Roles of outputs, where names differ from what the decoder expects: `heatmap = "537"`.
    pub tensors: BTreeMap<String, String>,
    /// Least score before suppression.
    pub score_min: f32,
    /// Boxes of one class that overlap a better one by more are dropped.
    pub nms_iou_max: f32,
    /// Most detections (or classes) of one picture.
    pub results_max: usize,
    /// Whether scores still need a softmax (classification) or sigmoid (YOLO); `None`: decide by
    /// looking at the values' declared meaning, as the decoder documents.
    pub activation: Option<Activation>,
    /// Strides of the pyramid, for raw YOLO heads.
    pub strides: Vec<u32>,
    /// Anchor widths and heights in pixels, per stride, for v5/v7 heads without decoding in the graph.
    pub anchors: Vec<Vec<[f32; 2]>>,
    /// Class 0 is "background" and is not a result (SSD).
    pub background: bool,
}

impl Default for OutputManifest {
    fn default() -> Self {
        Self {
            decoder: String::new(),
            tensors: BTreeMap::new(),
            score_min: 0.25,
            nms_iou_max: 0.45,
            results_max: 300,
            activation: None,
            strides: Vec::new(),
            anchors: Vec::new(),
            background: false,
        }
    }
}

/// What is still to be applied to raw scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Sigmoid,
    Softmax,
}
