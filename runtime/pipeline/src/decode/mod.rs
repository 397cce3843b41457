//! From a network's outputs to what it found.
//!
//! A [`Decoder`] is built once per model by a factory of the [`Decoders`] registry, which looks at
//! the declared outputs and refuses what it cannot read; then it reads one row of a batch at a time.
//! The standard ones:
//!
//! | name | outputs it reads |
//! |---|---|
//! | `classification` | `[N,classes]`, also with dimensions of 1 |
//! | `yolo-v5` | v5, v7 decoded in the graph `[N,anchors,5+classes]`, or raw heads `[N,a,h,w,5+classes]`, `[N,a·(5+classes),h,w]` |
//! | `yolo-v8` | v8, v9, v11 `[N,4+classes,cells]` and its transpose |
//! | `yolo-x` | YOLOX `[N,cells,5+classes]` before its grid is decoded |
//! | `yolo-nms` | suppressed in the graph: `[N,K,6]`, `[K,7]`, or the four outputs of TensorRT's EfficientNMS |
//! | `ssd` | boxes, classes and scores (and their number), or boxes and scores per class |
//! | `detectnet` | DetectNet_v2: coverage `[N,classes,h,w]` and boxes `[N,4·classes,h,w]` |
//! | `centerface` | heat map, log size, offset and landmarks at stride 4 |
//! | `segmentation` | `[N,classes,H,W]`, `[N,H,W,classes]`, or class ids `[N,H,W]`, `[N,1,H,W]` |
//!
//! All of them read f32 and f16, give boxes in the source picture's pixels, and suppress with
//! [`nms::suppress`]. A score or box that is NaN or infinite is never a result; it is counted in
//! [`Decoder::non_finite`].

mod activation;
mod boxes;
mod centerface;
mod classification;
mod detectnet;
mod guess;
pub mod nms;
mod outputs;
mod registry;
mod segmentation;
mod ssd;
mod yolo_nms;
mod yolo_v5;
mod yolo_v8;
mod yolo_x;

use revoada_bundle::manifest::OutputManifest;
use revoada_core::{Placement, Prediction, Size, TensorRef, TensorSpec};
use revoada_engine::{Candidates, Readback};
use thiserror::Error;

pub(crate) use boxes::SCORE_MIN;
pub use registry::{Built, Decoders};

/// Reads one row of a network's outputs. Built once per model by a factory that looks at the
/// declared outputs; shared by threads.
pub trait Decoder: Send + Sync {
    /// As in the manifest.
    fn name(&self) -> &str;

    /// What [`decode`](Self::decode) reads of output `output`, so that the rest can stay where the network ran.
    fn reads(&self, output: usize) -> Readback {
        let _ = output;
        Readback::Whole
    }

    /// What picture `row` of the batch shows, in the coordinates of its source picture. `outputs`
    /// come in the order of the specs that the decoder was built from.
    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError>;

    /// As [`decode`](Self::decode), from what one picture has of the output that [`reads`](Self::reads) wants the
    /// candidates of. It is asked where they came in place of the output.
    fn decode_candidates(&self, candidates: &Candidates, placement: &Placement) -> Result<Prediction, DecodeError> {
        let _ = (candidates, placement);
        Err(boxes::unreadable(self.name(), "it reads outputs as a whole"))
    }

    /// Whether detections are among what it finds.
    fn finds_boxes(&self) -> bool {
        true
    }

    /// How many scores or boxes were NaN or infinite since the decoder was built. They are not
    /// among the results; a count that grows is how a network that broke in FP16 shows itself.
    fn non_finite(&self) -> u64 {
        0
    }
}

/// Why outputs cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("there is no decoder `{name}`; choose one of {known}")]
    Unknown { name: String, known: String },
    #[error("decoder `{decoder}` cannot read these outputs: {reason}")]
    Outputs { decoder: String, reason: String },
    #[error("cannot guess a decoder from the outputs ({outputs}); name one in the manifest, as `[output] decoder = …`")]
    NoGuess { outputs: String },
    #[error("the model has {classes} classes but there are {labels} labels")]
    Labels { classes: usize, labels: usize },
}

/// What a decoder is built from.
#[derive(Clone, Debug)]
pub struct DecoderContext<'a> {
    pub outputs: &'a [TensorSpec],
    pub manifest: &'a OutputManifest,
    /// How many labels there are; 0 where there are none.
    pub labels: usize,
    /// Width and height of the network's input.
    pub input: Size,
}
