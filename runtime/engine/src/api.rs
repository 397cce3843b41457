//! The three traits, and what passes through them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use revoada_bundle::bundle::BundleError;
use revoada_bundle::onnx::OnnxError;
use revoada_bundle::plan::{Plan, PlanError};
use revoada_bundle::sign::PublicKey;
use revoada_core::{
    DType, DeviceClass, Dim, Frame, ImageTransform, MemoryKind, Placement, Rect, Size, Tensor, TensorError, TensorRef,
    TensorSpec,
};
pub use revoada_tensorrt::{InspectedLayer as Layer, LayerTime};
use thiserror::Error;

use crate::cuda::{CandidateLayout, Candidates, CudaSurface};

/// Loads engines. One instance per process and kind.
pub trait Backend: Send + Sync {
    /// As typed after `--backend`.
    fn name(&self) -> &'static str;

    /// What it loads; nobody asks it for anything else by himself.
    fn format(&self) -> ModelFormat {
        ModelFormat::Onnx
    }

    /// What plans must have been built for so that they run here; `None` where models are no plans.
    fn device_class(&self) -> Result<Option<DeviceClass>, EngineError> {
        Ok(None)
    }

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
    /// What the model declares; the same whichever backend loaded it.
    fn inputs(&self) -> &[TensorSpec];
    fn outputs(&self) -> &[TensorSpec];

    /// Opens a session with buffers for `shapes`; refuses shapes that the inputs do not accept,
    /// inputs that do not exist and dimensions left open. The session keeps the model alive after
    /// the engine is dropped.
    fn session(&self, shapes: &Shapes) -> Result<Box<dyn Session>, EngineError>;

    /// What a compiler made of the model, in the order in which it runs; `None` where none has, or it does not tell.
    fn layers(&self) -> Result<Option<Vec<Layer>>, EngineError> {
        Ok(None)
    }

    /// How many bytes fewer are free on the device now than before the engine was loaded: those of the engine and its
    /// sessions, and whatever anybody else has taken or given back there since. `None` where models run on the CPU.
    fn device_bytes(&self) -> Result<Option<usize>, EngineError> {
        Ok(None)
    }
}

/// One thread's execution state: buffers for every input, and the latest answers.
///
/// An input is filled row by row, dimension 0 being the batch, or whole:
/// - where dimension 0 is open, a session is opened with its largest batch and each `submit` runs as
///   many rows as it is told, or the fewest that its plan runs, those that are not filled holding zeros;
/// - where no dimension 0 is open, four-dimensional inputs have a fixed batch: all its rows run,
///   those that are not filled hold zeros;
/// - every other input (a threshold, a size) has no batch and is always run whole.
pub trait Session: Send {
    /// Records that `region` of a picture, cut at its borders, goes into `row` of input `input`; the
    /// pixels move in `submit`, which also forgets the record. Recording a row again replaces it.
    /// Returns where the region will lie, for decoding. The input must have a picture's shape: four
    /// dimensions, the transform's layout, size and channels, and f32, f16 or u8.
    fn stage(
        &mut self,
        input: usize,
        row: usize,
        surface: &Surface,
        region: Rect,
        transform: &ImageTransform,
    ) -> Result<Placement, EngineError>;

    /// Copies a tensor into an input, in place of whatever was set or recorded there. It stays until
    /// it is replaced, but for the rows of a fixed batch that a `submit` leaves out: those are zeros from
    /// then on. Where the input has a batch, the tensor may have fewer rows than the session.
    fn set_input(&mut self, input: usize, tensor: TensorRef<'_>) -> Result<(), EngineError>;

    /// Says what will be read of each output, in the order of [`Engine::outputs`]; the rest need not leave the device.
    /// It holds for every `submit` from now on; the answers to the one before are let go. Outputs that are not named, and all of them at first, come whole; so may
    /// those of which less was asked, where bringing less saves nothing.
    fn read_back(&mut self, wanted: &[Readback]) -> Result<(), EngineError> {
        let _ = wanted;
        Ok(())
    }

    /// One staging pass over the recorded pictures, then inference over the first `rows` rows, each
    /// of which must be filled. Where more have to run, as where the model's batch is fixed, the outputs
    /// hold all of them.
    fn submit(&mut self, rows: usize) -> Result<(), EngineError>;

    /// The answers to the latest `submit`; refused where there was none or it failed. May be asked
    /// again, with the same answer.
    fn wait(&mut self) -> Result<Outputs<'_>, EngineError>;

    /// As `submit` and `wait`, without the answers but with the time of each layer, in the order in which they ran;
    /// `None`, and nothing is run, where the backend does not know them. Such a run is slower than others.
    fn time_layers(&mut self, rows: usize) -> Result<Option<Vec<LayerTime>>, EngineError> {
        let _ = rows;
        Ok(None)
    }
}

/// What an engine is loaded from.
#[derive(Clone, Copy, Debug)]
pub enum ModelSource<'a> {
    /// An ONNX file; external weights are looked for beside it.
    File(&'a Path),
    /// An ONNX model in memory.
    Bytes(&'a [u8]),
    /// A plan in its envelope, for the backend that is TensorRT; the others run ONNX models.
    Plan(&'a Path),
}

impl<'a> ModelSource<'a> {
    /// A plan where the file begins like one, else an ONNX file.
    pub fn of(path: &'a Path) -> Self {
        if Plan::is_at(path) { Self::Plan(path) } else { Self::File(path) }
    }

    pub fn format(&self) -> ModelFormat {
        match self {
            Self::File(_) | Self::Bytes(_) => ModelFormat::Onnx,
            Self::Plan(_) => ModelFormat::Plan,
        }
    }
}

/// In what form a backend takes its models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFormat {
    Onnx,
    /// Compiled for one kind of device.
    Plan,
}

/// How an engine is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads inside one inference; `None` shares the cores of this process among the inferences
    /// that may run at once.
    pub threads: Option<usize>,
    /// Inferences of this engine that may run at once, whichever sessions ask for them; the next one
    /// waits. Staging never waits. A backend may hold one copy of the weights for each.
    pub concurrent_max: usize,
    /// Who may have built a plan, which is code; `None` is anybody.
    pub trusted: Option<Vec<PublicKey>>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { threads: None, concurrent_max: 1, trusted: None }
    }
}

/// The shape of every input of a session, by name, largest batch included. Inputs left out take
/// their declared shape, an open dimension 0 being `rows_max`; dimensions of the same name are
/// equal, so that one input given by name can settle the others.
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

    /// Those of these tensors, one for each input. The batch is that of the first input whose batch is open, else that of
    /// the first picture.
    pub fn of(inputs: &[TensorSpec], tensors: &[Tensor]) -> Self {
        let named = || inputs.iter().zip(tensors);
        let batch = |wanted: &dyn Fn(&TensorSpec) -> bool| {
            let (_, tensor) = named().find(|(spec, _)| wanted(spec))?;
            tensor.shape().first().copied()
        };
        let open = batch(&|spec| matches!(spec.dims.first(), Some(Dim::Dynamic(_))));
        let rows = open.or_else(|| batch(&|spec| spec.dims.len() == 4)).unwrap_or(1);
        named().fold(Self::rows(rows), |all, (spec, tensor)| all.with(&spec.name, tensor.shape()))
    }

    pub fn with(mut self, input: &str, shape: &[usize]) -> Self {
        self.inputs.insert(input.to_owned(), shape.to_vec());
        self
    }
}

/// A frame made readable to a backend.
#[derive(Clone, Debug)]
pub enum Surface {
    /// On the CPU, the frame itself.
    Host(Arc<Frame>),
    /// On the GPU, a copy that every model reads.
    Cuda(Arc<CudaSurface>),
}

impl Surface {
    /// Of the picture, in pixels.
    pub fn size(&self) -> Size {
        match self {
            Self::Host(frame) => frame.size(),
            Self::Cuda(surface) => surface.layout().size,
        }
    }

    /// How often each pixel was copied on the way here.
    pub fn copies(&self) -> usize {
        match self {
            Self::Host(_) => 0,
            Self::Cuda(surface) => surface.copies(),
        }
    }
}

/// How long the parts of the latest `submit` took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    pub staging: Duration,
    pub inference: Duration,
    /// Of backends that run on a device of their own, whose time the two above are then.
    pub device: Option<DeviceTimings>,
}

/// What lies around staging and inference where a device does both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceTimings {
    /// The CPU's time in `submit`.
    pub enqueue: Duration,
    /// The device's time for the tensors that were set since the `submit` before: from their copies, where its memory is
    /// not the CPU's. Pictures are copied when they are imported, which is not in here.
    pub upload: Duration,
    /// The device's time to bring the outputs back.
    pub download: Duration,
}

/// What a reader needs of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Readback {
    #[default]
    Whole,
    /// The cells that can become detections: most of them cannot, and there are thousands.
    Candidates(CandidateQuery),
    Nothing,
}

/// Which cells of an output `[rows, …, …]` of boxes and their scores are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CandidateQuery {
    pub layout: CandidateLayout,
    /// On the scale of the output. A cell's score is its best class's, times its objectness where there is one;
    /// neither the objectness nor the product may be below.
    pub score_min: f32,
}

/// The outputs of one inference, borrowed from the session.
#[derive(Debug)]
pub struct Outputs<'a> {
    /// In the order of [`Engine::outputs`]. Those that were not brought whole have no rows.
    pub tensors: Vec<TensorRef<'a>>,
    /// By output, what each submitted row has; without those that came whole instead, as they do where more cells pass
    /// than are kept.
    pub candidates: BTreeMap<usize, Vec<Candidates>>,
    pub timings: Timings,
}

impl Outputs<'_> {
    /// The tensors, to be kept.
    pub fn to_owned(&self) -> Vec<Tensor> {
        self.tensors.iter().map(TensorRef::to_owned).collect()
    }
}

/// Why an engine could not be loaded or run.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error("backend `{backend}` cannot be used here: {reason}")]
    Unavailable { backend: &'static str, reason: String },
    #[error("there is no backend `{name}`; choose one of {known}")]
    UnknownBackend { name: String, known: String },
    /// Unreadable, truncated, no ONNX at all, or declaring what cannot be passed.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// Not whole or not to be trusted.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("bundle `{}` has no plan that runs here: {reason}; build one with `revoada build {0}`", .bundle.display())]
    NoPlan { bundle: PathBuf, reason: String },
    /// Not whole, not to be trusted, or built for another device or version; TensorRT has not seen it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The backend refused the model; `reason` names the node where there is one.
    #[error("{backend} cannot load {model}: {reason}")]
    Load { backend: &'static str, model: String, reason: String },
    #[error("{backend} cannot load {model}: operator `{operator}` is not supported{}", used_by(.node.as_deref()))]
    UnsupportedOperator { backend: &'static str, model: String, operator: String, node: Option<String> },
    #[error("tensor `{tensor}` is {dtype}, which {backend} does not take")]
    DType { backend: &'static str, tensor: String, dtype: String },
    #[error("{backend} cannot read pictures from {kind:?} memory")]
    Memory { backend: &'static str, kind: MemoryKind },
    #[error("there is no input {input}; the model has {count}")]
    NoSuchInput { input: String, count: usize },
    #[error("dimension `{dim}` of input `{spec}` is open; say how large it is")]
    OpenDim { spec: String, dim: String },
    #[error("input `{spec}` cannot take a tensor of shape {shape:?}")]
    Shape { spec: String, shape: Vec<usize> },
    #[error("input `{spec}` of shape {shape:?} is larger than {bytes_max} bytes")]
    TooLarge { spec: String, shape: Vec<usize>, bytes_max: usize },
    #[error("input `{spec}` has a fixed batch, which {rows_max} rows do not fit")]
    FixedBatch { spec: String, rows_max: usize },
    #[error("input `{input}` takes {expected}, not {got}")]
    InputType { input: String, expected: DType, got: DType },
    #[error("input `{spec}` cannot take a picture: {reason}")]
    NotAPicture { spec: String, reason: String },
    #[error("the model has no input for pictures (four dimensions of f32, f16 or u8), only {inputs}")]
    NoPictureInput { inputs: String },
    #[error("row {row} is outside the batch of {rows}")]
    Row { row: usize, rows: usize },
    #[error("a batch of {rows} rows cannot be run; this session takes 1 to {rows_max}")]
    Batch { rows: usize, rows_max: usize },
    #[error("row {row} of input `{input}` was not filled before inference")]
    Unfilled { input: String, row: usize },
    #[error("a region of {}×{} at ({}, {}) does not meet the {size} picture", .region.width, .region.height, .region.x, .region.y)]
    Region { region: Rect, size: Size },
    #[error("nothing was submitted to this session")]
    NothingSubmitted,
    #[error("this session does not read surfaces that another backend imported")]
    ForeignSurface,
    #[error("the plan does not run input `{spec}` in shape {shape:?}, only {ranges}")]
    Profile { spec: String, shape: Vec<usize>, ranges: String },
    #[error(
        "before TensorRT 10 the plan runs {sessions} sessions of such a batch at once, and all of them are open; give the \
         model a fixed batch for more"
    )]
    ProfilesTaken { sessions: usize },
    /// Recoverable: what was there before is still there.
    #[error("the GPU has no memory for {needed}: {free} of its {total} bytes are free")]
    OutOfMemory { needed: String, free: usize, total: usize },
    #[error("{backend} failed during inference: {reason}")]
    Run { backend: &'static str, reason: String },
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

fn used_by(node: Option<&str>) -> String {
    node.map(|node| format!(", used by node `{node}`")).unwrap_or_default()
}
