//! TensorRT: runs plans on an NVIDIA GPU.
//!
//! A plan is checked before TensorRT sees a byte of it: whole, unchanged, trusted, and built for this very device. An
//! engine is shared; each session has a stream, a context and buffers of its own. `concurrent_max` is how many memories
//! for what lies between layers an engine has: sessions that share one follow each other on the device.
//!
//! TensorRT keeps no names of dimensions: the plan's envelope has them. Outputs whose shape depends on the data, and
//! inputs whose values are a shape, are refused.
//!
//! Outputs come back as [`Session::read_back`] asks: candidates are picked on the device, and what nobody reads stays there.
//!
//! Before TensorRT 10 a profile of open shapes belongs to one context at a time: such a plan has as many sessions at once as
//! it has profiles. The builder gives it two, which is what a pipeline has.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use revoada_bundle::bundle::Trust;
use revoada_bundle::plan::Plan;
use revoada_core::{DeviceClass, Dim, Frame, TensorSpec};
use revoada_tensorrt::{
    Engine as OpenPlan, IoTensor, Library, LibraryPaths, Message, PlanFault, RunError, Runtime, RuntimeOptions,
    inspected_layers,
};

use self::profiles::Profiles;
use self::session::TensorRtInference;
use super::OnnxSource;
use crate::cuda::{Compiler, CudaContext, CudaError, ExecutionError, KernelCache, Kernels, SurfacePool, Workspace};
use crate::{Backend, Engine, EngineError, Layer, LoadOptions, ModelFormat, ModelSource, Session, Shapes, Surface};

mod memory;
mod profiles;
mod session;

const NAME: &str = "tensorrt";

/// Frames whose memory is kept for those that come: a few per model in flight.
const SURFACES_IDLE_MAX: usize = 8;

/// What the backend needs to know that only the program knows. By default it looks nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorRtOptions {
    /// Where to look for TensorRT, best first; see [`LibraryPaths::usual`].
    pub libraries: Vec<LibraryPaths>,
    /// Where to look for NVRTC, best first; see [`crate::cuda::compiler_candidates`].
    pub compilers: Vec<PathBuf>,
    /// Keeps compiled kernels; without it every start compiles them.
    pub kernels: Option<PathBuf>,
    /// The device's number, counted from 0.
    pub device: usize,
}

/// The backend; cheap until it is used.
pub struct TensorRt {
    options: TensorRtOptions,
    /// Kept once all of it could be opened.
    opened: Mutex<Option<Arc<Opened>>>,
}

/// A device and what runs on it.
struct Opened {
    runtime: Arc<Runtime>,
    class: DeviceClass,
    kernels: Kernels,
    surfaces: SurfacePool,
    context: Arc<CudaContext>,
}

impl TensorRt {
    pub fn new(options: TensorRtOptions) -> Self {
        Self { options, opened: Mutex::default() }
    }

    fn opened(&self) -> Result<Arc<Opened>, EngineError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*opened {
            return Ok(Arc::clone(opened));
        }
        let new =
            Arc::new(Opened::open(&self.options).map_err(|reason| EngineError::Unavailable { backend: NAME, reason })?);
        *opened = Some(Arc::clone(&new));
        Ok(new)
    }
}

impl Opened {
    fn open(options: &TensorRtOptions) -> Result<Self, String> {
        let said = |error: &dyn std::error::Error| error.to_string();
        let context = CudaContext::open(options.device).map_err(|error| said(&error))?;
        let library = Library::open(&options.libraries).map_err(|error| said(&error))?;
        context.make_current().map_err(|error| said(&error))?;
        let runtime = Runtime::new(&library, RuntimeOptions::default()).map_err(|error| said(&error))?;
        let compiler = Compiler::open(&options.compilers).map_err(|error| said(&error))?;
        let kernels = match &options.kernels {
            Some(folder) => Kernels::load(&context, &compiler, &KernelCache::new(folder)),
            None => Kernels::compile(&context, &compiler),
        };
        let kernels = kernels.map_err(|error| said(&error))?;
        let surfaces = SurfacePool::new(&context, SURFACES_IDLE_MAX).map_err(|error| said(&error))?;
        let class = context.device().class(library.version());
        Ok(Self { runtime, class, kernels, surfaces, context })
    }

    /// Says what there was no memory for.
    fn cuda_error(&self, needed: impl FnOnce() -> String, error: CudaError) -> EngineError {
        match error {
            CudaError::OutOfMemory { .. } => self.out_of_memory(needed()),
            CudaError::Memory { kind } => EngineError::Memory { backend: NAME, kind },
            other => EngineError::Run { backend: NAME, reason: other.to_string() },
        }
    }

    fn run_error(&self, needed: impl FnOnce() -> String, error: ExecutionError) -> EngineError {
        match error {
            ExecutionError::Cuda(error) => self.cuda_error(needed, error),
            ExecutionError::TensorRt(error) if is_out_of_memory(&error) => self.out_of_memory(needed()),
            other => EngineError::Run { backend: NAME, reason: other.to_string() },
        }
    }

    fn out_of_memory(&self, needed: String) -> EngineError {
        match self.context.memory() {
            Ok(memory) => EngineError::OutOfMemory { needed, free: memory.free, total: memory.total },
            Err(error) => EngineError::Run { backend: NAME, reason: error.to_string() },
        }
    }
}

impl Backend for TensorRt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn format(&self) -> ModelFormat {
        ModelFormat::Plan
    }

    fn device_class(&self) -> Result<Option<DeviceClass>, EngineError> {
        Ok(Some(self.opened()?.class.clone()))
    }

    fn version(&self) -> Result<String, EngineError> {
        let opened = self.opened()?;
        Ok(format!("{} on {}", opened.class.tensorrt, opened.context.device().name))
    }

    fn check(&self) -> Result<(), EngineError> {
        self.opened().map(drop)
    }

    fn load(&self, source: ModelSource<'_>, options: &LoadOptions) -> Result<Arc<dyn Engine>, EngineError> {
        let path = match source {
            ModelSource::Plan(path) => path,
            ModelSource::File(_) | ModelSource::Bytes(_) => {
                let model = OnnxSource::of(source, NAME)?.name();
                let reason = "it runs plans, and this is an ONNX model: build a plan with `revoada build`".to_owned();
                return Err(EngineError::Load { backend: NAME, model, reason });
            }
        };
        let opened = self.opened()?;
        let plan = read(path, options, &opened.class)?;
        Ok(Arc::new(TensorRtEngine::open(opened, path, &plan, options)?))
    }

    fn import(&self, frame: &Arc<Frame>) -> Result<Surface, EngineError> {
        let opened = self.opened()?;
        let needed = || format!("a frame of {}", frame.size());
        Ok(Surface::Cuda(opened.surfaces.import(frame).map_err(|error| opened.cuda_error(needed, error))?))
    }
}

/// A plan that may and can be run here.
fn read(path: &Path, options: &LoadOptions, class: &DeviceClass) -> Result<Plan, EngineError> {
    let plan = Plan::read(path)?;
    let trust = options.trusted.as_deref().map_or(Trust::Anybody, Trust::OneOf);
    plan.check(trust, class).map_err(|mut error| {
        error.path = Some(path.to_owned());
        error
    })?;
    Ok(plan)
}

struct TensorRtEngine {
    model: String,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Where each of them is among the plan's tensors.
    input_tensors: Vec<usize>,
    output_tensors: Vec<usize>,
    /// Whether no shape is open.
    fixed: bool,
    profiles: Arc<Profiles>,
    workspaces: Vec<Arc<Workspace>>,
    /// Sessions take them in turn.
    next_workspace: AtomicUsize,
    /// Free on the device before anything of it was there.
    free_before: usize,
    plan: Arc<OpenPlan>,
    opened: Arc<Opened>,
}

impl TensorRtEngine {
    fn open(opened: Arc<Opened>, path: &Path, plan: &Plan, options: &LoadOptions) -> Result<Self, EngineError> {
        let model = format!("`{}`", path.display());
        let refuse = |reason: String| EngineError::Load { backend: NAME, model: model.clone(), reason };
        opened.context.make_current().map_err(|error| refuse(error.to_string()))?;
        let free_before = opened.context.memory().map_err(|error| refuse(error.to_string()))?.free;
        // A version-compatible plan carries the code that later versions run it with.
        let wanted = RuntimeOptions { dla_core: plan.key().dla_core, host_code: plan.key().compatibility.version };
        let runtime = if wanted != RuntimeOptions::default() {
            Runtime::new(opened.runtime.library(), wanted).map_err(|error| refuse(error.to_string()))?
        } else {
            Arc::clone(&opened.runtime)
        };
        let open = runtime.engine(plan.payload()).map_err(|error| {
            if is_out_of_memory(&error) {
                opened.out_of_memory(format!("plan {model} of {} bytes", plan.payload().len()))
            } else {
                refuse(error.to_string())
            }
        })?;
        let (inputs, input_tensors) = declared(&plan.facts().inputs, open.tensors(), true).map_err(&refuse)?;
        let (outputs, output_tensors) = declared(&plan.facts().outputs, open.tensors(), false).map_err(&refuse)?;
        let bytes = usize::try_from(open.device_memory_bytes()).unwrap_or(usize::MAX);
        let needed = || format!("what lies between the layers of {model}, {bytes} bytes");
        let workspaces = (0..options.concurrent_max.max(1))
            .map(|_| Workspace::new(&opened.context, bytes).map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(|error| opened.cuda_error(needed, error))?;
        let fixed = inputs.iter().all(|spec| spec.dims.iter().all(|dim| dim.fixed().is_some()));
        let exclusive = !fixed && opened.class.tensorrt.has_exclusive_profiles();
        let profiles = Profiles::new(open.profiles(), exclusive);
        Ok(Self {
            model,
            fixed,
            profiles,
            inputs,
            outputs,
            input_tensors,
            output_tensors,
            workspaces,
            next_workspace: AtomicUsize::new(0),
            free_before,
            plan: open,
            opened,
        })
    }

    fn workspace(&self) -> &Arc<Workspace> {
        &self.workspaces[self.next_workspace.fetch_add(1, Ordering::Relaxed) % self.workspaces.len()]
    }
}

impl Engine for TensorRtEngine {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn session(&self, shapes: &Shapes) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(TensorRtInference::open(self, shapes)?))
    }

    fn layers(&self) -> Result<Option<Vec<Layer>>, EngineError> {
        let failed = |error: &dyn std::error::Error| EngineError::Run { backend: NAME, reason: error.to_string() };
        self.opened.context.make_current().map_err(|error| failed(&error))?;
        let json = self.plan.inspect().map_err(|error| failed(&error))?;
        match inspected_layers(&json) {
            Ok(layers) => Ok(Some(layers)),
            Err(error) => {
                tracing::debug!(%error, "what the layers of a plan are is not known");
                Ok(None)
            }
        }
    }

    fn device_bytes(&self) -> Result<Option<usize>, EngineError> {
        let memory = self.opened.context.memory();
        let free = memory.map_err(|error| EngineError::Run { backend: NAME, reason: error.to_string() })?.free;
        Ok(Some(self.free_before.saturating_sub(free)))
    }
}

/// The inputs or the outputs as the graph declares them, and where each of them is among the plan's tensors. What a
/// plan says nothing of is as TensorRT has it. The error continues a sentence about the plan.
fn declared(
    declared: &[TensorSpec],
    tensors: &[IoTensor],
    inputs: bool,
) -> Result<(Vec<TensorSpec>, Vec<usize>), String> {
    let mut found = Vec::new();
    for (index, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| tensor.is_input == inputs) {
        let mut known = spec(tensor)?;
        let place = declared.iter().position(|spec| spec.name == known.name);
        if let Some(spec) = place.map(|place| &declared[place]) {
            let names_it = |(known, spec): (&Dim, &Dim)| known == spec || known.fixed().or(spec.fixed()).is_none();
            let same_dims = known.dims.len() == spec.dims.len() && known.dims.iter().zip(&spec.dims).all(names_it);
            if known.dtype != spec.dtype || !same_dims {
                return Err(format!("it has `{known}` where its envelope says `{spec}`"));
            }
            known = spec.clone();
        }
        found.push((place, known, index));
    }
    found.sort_by_key(|(place, _, index)| (place.unwrap_or(usize::MAX), *index));
    Ok(found.into_iter().map(|(_, spec, index)| (spec, index)).unzip())
}

/// The error continues a sentence about the plan.
fn spec(tensor: &IoTensor) -> Result<TensorSpec, String> {
    let name = &tensor.name;
    if tensor.on_host {
        return Err(format!("the values of `{name}` are a shape, which cannot be passed"));
    }
    let dtype = tensor.data_type.dtype();
    let dtype = dtype.ok_or_else(|| format!("tensor `{name}` is {}, which cannot be passed", tensor.data_type))?;
    let dim = |size: &Option<u64>| match size.map(usize::try_from) {
        Some(Ok(size)) => Dim::Fixed(size),
        _ => Dim::Dynamic("?".to_owned()),
    };
    Ok(TensorSpec { name: name.clone(), dtype, dims: tensor.dims.iter().map(dim).collect() })
}

/// `kFAILED_ALLOCATION` of TensorRT's `ErrorCode`.
const FAILED_ALLOCATION: i32 = 5;

/// TensorRT has several sentences for it.
fn is_out_of_memory(error: &RunError) -> bool {
    let messages = match error {
        RunError::Start { messages, .. }
        | RunError::Refused { messages, .. }
        | RunError::Plan { fault: PlanFault::Other { messages }, .. } => messages,
        RunError::Plan { .. } | RunError::Unavailable { .. } => return false,
    };
    let said = |message: &Message| {
        let words = ["out of memory", "OutOfMemory", "cudaError 2:", "Requested size was"];
        message.code == Some(FAILED_ALLOCATION) || words.iter().any(|word| message.text.contains(word))
    };
    messages.iter().any(said)
}
