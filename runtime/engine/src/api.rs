//! The three traits, and what passes through them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use revoada_core::{DType, Frame, FrameError, ImageTransform, Placement, Rect, TensorError, TensorRef, TensorSpec};
use thiserror::Error;

/// Loads engines. One instance per process and kind.
pub trait Backend: Send + Sync {
    /// As typed after `--backend`.
    fn name(&self) -> &'static str;

    /// What it is and which version, for people: `ONNX Runtime 1.23.2`.
    fn version(&self) -> Result<String, EngineError>;

    /// Whether it can be used on this machine; if not, the error says why and what to do.
    fn check(&self) -> Result<(), EngineError>;

    fn load(&self, source: ModelSource<'_>, options: &LoadOptions) -> Result<Arc<dyn Engine>, EngineError>;

    /// Makes a frame readable to this backend: once per frame, shared by every model that reads it.
    fn import(&self, frame: &Arc<Frame>) -> Result<Surface, EngineError>;
}

/// A loaded model: immutable, shared, from which every thread opens its own session.
pub trait Engine: Send + Sync {
    fn inputs(&self) -> &[TensorSpec];
    fn outputs(&self) -> &[TensorSpec];

    /// Opens a session with buffers for `shapes`; refuses shapes that the inputs do not accept,
    /// inputs that do not exist and dimensions left open.
    fn session(&self, shapes: &Shapes) -> Result<Box<dyn Session>, EngineError>;
}

/// One thread's execution state. Dimension 0 of every input is the batch: a session is opened with
/// its largest batch, and each `submit` says how many rows are filled.
pub trait Session: Send {
    /// Records that `region` of a picture goes into `row` of input `input`; the pixels move in
    /// `submit`. Returns where the region will lie, for decoding. The input must have a picture's
    /// shape: four dimensions, the transform's layout, size and channels, and f32, f16 or u8.
    fn stage(
        &mut self,
        input: usize,
        row: usize,
        surface: &Surface,
        region: Rect,
        transform: &ImageTransform,
    ) -> Result<Placement, EngineError>;

    /// Copies a whole tensor into an input; it may have fewer rows than the session's largest batch.
    fn set_input(&mut self, input: usize, tensor: TensorRef<'_>) -> Result<(), EngineError>;

    /// One staging pass over the recorded pictures, then inference over the first `rows` rows.
    /// Where the model's batch is fixed, all its rows run and the outputs hold all of them.
    fn submit(&mut self, rows: usize) -> Result<(), EngineError>;

    /// The answers to the latest `submit`; refused where there was none.
    fn wait(&mut self) -> Result<Outputs<'_>, EngineError>;
}

/// What an engine is loaded from.
#[derive(Clone, Copy, Debug)]
pub enum ModelSource<'a> {
    /// An ONNX file; external weights are looked for beside it.
    File(&'a Path),
    /// An ONNX model in memory.
    Bytes(&'a [u8]),
}

#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Threads inside one inference; `None` is one per core, as the backend counts them.
    pub threads: Option<usize>,
}

/// The shape of every input of a session, by name, largest batch included. Inputs left out take
/// their declared shape with every dynamic leading dimension set to `rows_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// The largest batch.
    pub rows_max: usize,
    pub inputs: BTreeMap<String, Vec<usize>>,
}

impl Shapes {
    pub fn rows(rows_max: usize) -> Self {
        Self { rows_max, inputs: BTreeMap::new() }
    }

    pub fn with(mut self, input: &str, shape: &[usize]) -> Self {
        self.inputs.insert(input.to_owned(), shape.to_vec());
        self
    }
}

/// A frame made readable to a backend. On the CPU that is the frame itself.
#[derive(Clone, Debug)]
pub struct Surface {
    frame: Arc<Frame>,
}

impl Surface {
    pub fn host(frame: Arc<Frame>) -> Self {
        Self { frame }
    }

    pub fn frame(&self) -> &Arc<Frame> {
        &self.frame
    }
}

/// How long the parts of the latest `submit` took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    pub staging: Duration,
    pub inference: Duration,
}

/// The outputs of one inference, in the order of [`Engine::outputs`], borrowed from the session.
#[derive(Debug)]
pub struct Outputs<'a> {
    pub tensors: Vec<TensorRef<'a>>,
    pub timings: Timings,
}

/// Why an engine could not be loaded or run.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error("backend `{backend}` cannot be used here: {reason}")]
    Unavailable { backend: &'static str, reason: String },
    #[error("there is no backend `{name}`; choose one of {known}")]
    UnknownBackend { name: String, known: String },
    #[error("cannot read model `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The backend refused the model; `reason` names the node where there is one.
    #[error("{backend} cannot load {model}: {reason}")]
    Load { backend: &'static str, model: String, reason: String },
    #[error("input `{input}` is {dtype}, which {backend} does not take")]
    DType { backend: &'static str, input: String, dtype: String },
    #[error("there is no input {input}; the model has {count}")]
    NoSuchInput { input: String, count: usize },
    #[error("input `{spec}` cannot take a tensor of shape {shape:?}")]
    Shape { spec: String, shape: Vec<usize> },
    #[error("input `{input}` takes {expected}, not {got}")]
    InputType { input: String, expected: DType, got: DType },
    #[error("input `{spec}` is not a picture for this transform: {reason}")]
    NotAPicture { spec: String, reason: String },
    #[error("row {row} is outside the session's batch of {rows_max}")]
    Row { row: usize, rows_max: usize },
    #[error("input `{input}` was not filled before inference")]
    Unfilled { input: String },
    #[error("region {region} does not meet the {size} picture")]
    Region { region: String, size: String },
    #[error("nothing was submitted to this session")]
    NothingSubmitted,
    #[error("{backend} failed during inference: {reason}")]
    Run { backend: &'static str, reason: String },
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}
