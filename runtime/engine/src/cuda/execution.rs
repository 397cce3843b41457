//! TensorRT on a stream: what makes running a plan safe to call.

use std::sync::{Arc, Mutex, PoisonError};

use revoada_core::DType;
use revoada_tensorrt::{Context, ContextMemory, Engine, LayerTime, RunError};
use thiserror::Error;

use super::context::CudaContext;
use super::error::CudaError;
use super::memory::{DeviceBuffer, DeviceSlice};
use super::stream::{Event, Graph, Stream};

#[derive(Debug, Error)]
pub(crate) enum ExecutionError {
    #[error(transparent)]
    Cuda(#[from] CudaError),
    #[error(transparent)]
    TensorRt(#[from] RunError),
    /// What is bound is not what the plan reads and writes.
    #[error("tensor `{tensor}` takes {needed} bytes, and {bound} were bound to it")]
    Unbound { tensor: String, needed: String, bound: usize },
}

/// Memory for what lies between a plan's layers. Runs that share it follow each other on the device, so that no CPU
/// waits for it.
pub(crate) struct Workspace {
    buffer: DeviceBuffer,
    /// The end of the latest run.
    last: Mutex<Event>,
}

impl Workspace {
    pub(crate) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, CudaError> {
        Ok(Self { buffer: DeviceBuffer::new(context, bytes)?, last: Mutex::new(Event::new(context)?) })
    }
}

/// The memory of one input or output, by its place among the plan's tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'a> {
    pub(crate) tensor: usize,
    pub(crate) memory: DeviceSlice<'a>,
}

/// One way of running a plan, on a stream of its own.
pub(crate) struct Execution {
    replay: Replay,
    context: Context,
    workspace: Arc<Workspace>,
    stream: Arc<Stream>,
}

/// Whether runs are launched as a whole.
enum Replay {
    Never,
    /// TensorRT prepares itself in its first run, which must not be captured.
    AfterFirst,
    Next,
    Captured {
        graph: Graph,
        addresses: Vec<u64>,
    },
}

impl Execution {
    /// `workspace` has at least the engine's `device_memory_bytes`; with `replay`, where no shape ever changes, runs are
    /// captured once and then launched as a whole. `profile` is
    /// the one to take, where it is not the one that a new context has.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        stream: &Arc<Stream>,
        workspace: &Arc<Workspace>,
        profile: Option<usize>,
        replay: bool,
    ) -> Result<Self, ExecutionError> {
        stream.context().make_current()?;
        let mut context = engine.context(ContextMemory::Given)?;
        let memory = workspace.buffer.device();
        context.set_memory(memory.pointer(), memory.bytes() as u64)?;
        if let Some(profile) = profile {
            let number = u32::try_from(profile).expect("plans have few profiles");
            // SAFETY: the stream is alive and of the context that was made current.
            unsafe { context.set_profile(number, handle(stream)) }?;
        }
        let replay = if replay { Replay::AfterFirst } else { Replay::Never };
        Ok(Self { replay, context, workspace: Arc::clone(workspace), stream: Arc::clone(stream) })
    }

    pub(crate) fn set_shape(&mut self, tensor: usize, shape: &[usize]) -> Result<(), ExecutionError> {
        self.stream.context().make_current()?;
        let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        Ok(self.context.set_shape(tensor, &shape)?)
    }

    /// Under the shapes that are set; `None` where it is known only after the run.
    pub(crate) fn shape(&self, tensor: usize) -> Result<Option<Vec<usize>>, ExecutionError> {
        let dims = self.context.shape(tensor)?;
        Ok(dims.into_iter().map(|size| size.and_then(|size| usize::try_from(size).ok())).collect())
    }

    /// Enqueues one run, after the run before it in the same workspace. The bound memory is the device's until the
    /// stream has come this far.
    pub(crate) fn run(&mut self, bindings: &[Binding<'_>]) -> Result<(), ExecutionError> {
        self.in_turn(bindings, Self::launch)
    }

    /// As [`Self::run`], layer by layer, with the time of each; waits for the run.
    pub(crate) fn time_layers(&mut self, bindings: &[Binding<'_>]) -> Result<Vec<LayerTime>, ExecutionError> {
        self.in_turn(bindings, |execution, bindings| {
            execution.bind(bindings)?;
            // What was captured before TensorRT was told to look at layers is not what it runs after.
            if !matches!(execution.replay, Replay::Never) {
                execution.replay = Replay::AfterFirst;
            }
            time_layers(&mut execution.context, &execution.stream)
        })
    }

    fn in_turn<T>(
        &mut self,
        bindings: &[Binding<'_>],
        launch: impl FnOnce(&mut Self, &[Binding<'_>]) -> Result<T, ExecutionError>,
    ) -> Result<T, ExecutionError> {
        self.check(bindings)?;
        let workspace = Arc::clone(&self.workspace);
        let last = workspace.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.stream.wait(&last)?;
        let ran = launch(self, bindings);
        // Also after a failure: what was enqueued before it may still use the workspace.
        let marked = last.record(&self.stream);
        match ran {
            // TensorRT says little of a device that trapped; CUDA does.
            Err(ExecutionError::TensorRt(error)) => match self.stream.synchronize() {
                Err(lost @ CudaError::ContextLost { .. }) => Err(lost.into()),
                _ => Err(error.into()),
            },
            ran => ran.and_then(|answer| Ok(marked.map(|()| answer)?)),
        }
    }

    /// Every tensor has memory of its size under the shapes that are set.
    fn check(&self, bindings: &[Binding<'_>]) -> Result<(), ExecutionError> {
        let engine = Arc::clone(self.context.engine());
        for (index, tensor) in engine.tensors().iter().enumerate() {
            let bytes = self
                .shape(index)?
                .zip(tensor.data_type.dtype().map(DType::size))
                .and_then(|(shape, size)| shape.iter().try_fold(size, |bytes, length| bytes.checked_mul(*length)));
            let bound = bindings.iter().find(|binding| binding.tensor == index).map(|binding| binding.memory.bytes());
            if bytes.is_none_or(|bytes| bound.is_none_or(|bound| bound < bytes)) {
                let needed = bytes.map_or_else(|| "an unknown number of".to_owned(), |bytes| bytes.to_string());
                let bound = bound.unwrap_or(0);
                return Err(ExecutionError::Unbound { tensor: tensor.name.clone(), needed, bound });
            }
        }
        Ok(())
    }

    /// Makes the context current and tells TensorRT where everything lies.
    fn bind(&mut self, bindings: &[Binding<'_>]) -> Result<(), ExecutionError> {
        self.stream.context().make_current()?;
        for binding in bindings {
            self.context.set_address(binding.tensor, binding.memory.pointer())?;
        }
        Ok(())
    }

    fn launch(&mut self, bindings: &[Binding<'_>]) -> Result<(), ExecutionError> {
        let bound = || bindings.iter().map(|binding| binding.memory.pointer());
        match &mut self.replay {
            Replay::Captured { graph, addresses } if addresses.iter().copied().eq(bound()) => {
                return Ok(graph.launch(&self.stream)?);
            }
            Replay::Never | Replay::AfterFirst | Replay::Next | Replay::Captured { .. } => {}
        }
        self.bind(bindings)?;
        if !matches!(self.replay, Replay::Next) {
            enqueue(&mut self.context, &self.stream)?;
            if matches!(self.replay, Replay::AfterFirst) {
                self.replay = Replay::Next;
            }
            return Ok(());
        }
        match self.stream.capture(|stream| enqueue(&mut self.context, stream)) {
            Ok(mut graph) => {
                let launched = graph.launch(&self.stream);
                self.replay = Replay::Captured { graph, addresses: bound().collect() };
                Ok(launched?)
            }
            Err(error) => {
                tracing::debug!(%error, "a plan is run layer by layer, because it cannot be captured");
                self.replay = Replay::Never;
                enqueue(&mut self.context, &self.stream)
            }
        }
    }
}

/// Called by [`Execution::in_turn`]'s callers alone.
fn enqueue(context: &mut Context, stream: &Stream) -> Result<(), ExecutionError> {
    // SAFETY: the stream is alive and of the CUDA context that was made current. `Execution::check` has seen that every
    // tensor has memory of its size, the addresses are those, and freeing memory waits for the device. Nobody else
    // reaches what the device has. The workspace is as large as the engine asks, held by the `Execution`, and its runs
    // wait for each other. The context is dropped after the stream has come to its end.
    Ok(unsafe { context.enqueue(handle(stream)) }?)
}

/// Called by [`Execution::time_layers`] alone.
fn time_layers(context: &mut Context, stream: &Stream) -> Result<Vec<LayerTime>, ExecutionError> {
    // SAFETY: as in `enqueue`.
    Ok(unsafe { context.time_layers(handle(stream)) }?)
}

fn handle(stream: &Stream) -> u64 {
    stream.handle() as u64
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let Err(error) = self.stream.synchronize() {
            tracing::debug!(%error, "a session ends with work that failed");
        }
    }
}
