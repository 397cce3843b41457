//! The GPU: memory, streams and our own kernels, over the driver's C library.
//!
//! A [`CudaContext`] is a device in use. [`SurfacePool::import`] uploads a frame once, to be read by every model;
//! a [`CudaStager`] turns regions of surfaces into rows of a network's input, a whole batch in one launch, and a
//! [`CandidateFilter`] picks out of a network's output what the CPU needs to see. Both kernels are `.cu` files
//! beside the Rust that launches them, compiled on the device by its own NVRTC and kept in a [`KernelCache`].
//!
//! The driver and NVRTC are opened at run time: a program starts without them, and [`Device::all`] says in one
//! sentence what is missing. Written for CUDA 10.2 (Jetson Nano) and later; 10.2 itself has not been tried.
//!
//! How a session stages a picture into the third row of its input:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use revoada_core::{DType, Frame, ImageTransform, Placement, Rect, Size};
//! use revoada_engine::cuda::{
//!     Compiler, CudaContext, CudaError, KernelCache, Kernels, SharedBuffer, StageRow, Stream, SurfacePool,
//!     compiler_candidates,
//! };
//!
//! # fn run(frame: &Frame) -> Result<(), CudaError> {
//! let context = CudaContext::open(0)?;
//! let compiler = Compiler::open(&compiler_candidates())?;
//! let kernels = Kernels::load(&context, &compiler, &KernelCache::new(Path::new("/var/cache/revoada/kernels")))?;
//! let pool = SurfacePool::new(&context, 4)?;
//!
//! // Each session has these.
//! let stream = Stream::new(&context)?;
//! let mut stager = kernels.stager(8)?;
//! let transform = ImageTransform::stretch(Size::new(640, 640));
//! let row_bytes = 3 * 640 * 640 * DType::F16.size();
//! let mut input = SharedBuffer::new(&context, 8 * row_bytes)?;
//!
//! // Once for each frame, however many models read it.
//! let surface = pool.import(frame)?;
//!
//! // Once for each batch.
//! input.upload(&stream, 0..8 * row_bytes)?;
//! let row = StageRow {
//!     surface: &surface,
//!     placement: Placement::new(Rect::of(frame.size()), &transform),
//!     transform: &transform,
//!     dtype: DType::F16,
//!     target: input.device().slice(2 * row_bytes..3 * row_bytes)?,
//! };
//! stager.launch(&stream, &[row])?;
//! // Inference goes onto `stream.handle()` and reads from `input.address()`.
//! input.download(&stream, 0..0)?;
//! # Ok(())
//! # }
//! ```
//!
//! It is *not* a general layer over CUDA: what no session needs is not here.
//!
//! Three levels: the driver's functions, called through [`CudaContext`] alone (`driver`, `context`), owners with
//! `Drop` that hold an `Arc` of what they live in, and what callers see, where nothing is unsafe.

mod cache;
mod candidates;
mod context;
mod device;
mod driver;
mod error;
mod execution;
mod memory;
mod module;
mod nvml;
mod nvrtc;
mod shared;
mod stage;
mod stream;
mod surface;

use std::sync::Arc;

pub use cache::KernelCache;
pub use candidates::{CANDIDATES, Candidate, CandidateFilter, CandidateLayout, CandidateSpec, Candidates};
pub use context::{CudaContext, MemoryUse};
pub use device::{Device, MemoryPolicy, MemoryTraits};
pub use error::{CudaError, Fault};
pub(crate) use execution::{Binding, Execution, ExecutionError, Workspace};
pub use memory::{DeviceBuffer, DeviceSlice};
pub use nvml::CardPower;
pub use nvrtc::{Compiler, Image, KernelSource, KernelTarget, compiler_candidates};
pub use shared::SharedBuffer;
pub use stage::{CudaStager, STAGE, StageRow};
pub use stream::{Event, Graph, Stream};
pub use surface::{CudaSurface, SurfacePool};

use module::{Kernel, Module};

/// Our kernels, loaded into a device.
#[derive(Clone, Debug)]
pub struct Kernels {
    context: Arc<CudaContext>,
    stage: Kernel,
    candidates: Kernel,
}

impl Kernels {
    /// Takes the kernels from the cache, or compiles them.
    pub fn load(context: &Arc<CudaContext>, compiler: &Compiler, cache: &KernelCache) -> Result<Self, CudaError> {
        Self::from_images(context, |source| cache.image(compiler, source, context.device().architecture))
    }

    /// Compiles the kernels, and keeps nothing.
    pub fn compile(context: &Arc<CudaContext>, compiler: &Compiler) -> Result<Self, CudaError> {
        let target = compiler.target(context.device().architecture)?;
        Self::from_images(context, |source| compiler.compile(source, target))
    }

    fn from_images(
        context: &Arc<CudaContext>,
        image: impl Fn(&KernelSource) -> Result<Image, CudaError>,
    ) -> Result<Self, CudaError> {
        let kernel = |source: &KernelSource| Module::load(context, &image(source)?)?.kernel(source.entry);
        Ok(Self { context: Arc::clone(context), stage: kernel(&STAGE)?, candidates: kernel(&CANDIDATES)? })
    }

    /// For batches of up to `rows_max` rows, at most 65535.
    pub fn stager(&self, rows_max: usize) -> Result<CudaStager, CudaError> {
        CudaStager::new(&self.context, self.stage.clone(), rows_max)
    }

    /// For batches of up to `rows_max` rows, at most 65535, with room for `candidates_max` candidates each.
    pub fn candidate_filter(&self, rows_max: usize, candidates_max: usize) -> Result<CandidateFilter, CudaError> {
        CandidateFilter::new(&self.context, self.candidates.clone(), rows_max, candidates_max)
    }
}
