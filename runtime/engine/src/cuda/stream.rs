//! Work in order, marks in it, and work that is recorded once and launched often.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::{self, CUevent, CUgraph, CUgraphExec, CUresult, CUstream};

use super::context::CudaContext;
use super::error::CudaError;

/// What is enqueued here runs in order, beside other streams and not in step with the default one.
#[derive(Debug)]
pub struct Stream {
    context: Arc<CudaContext>,
    raw: CUstream,
}

// SAFETY: the driver's functions may be called from any thread with any stream.
unsafe impl Send for Stream {}
// SAFETY: as above; a stream has no state of ours.
unsafe impl Sync for Stream {}

impl Stream {
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, CudaError> {
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: writes a handle, which is destroyed once, in `Drop`.
        context.call("cuStreamCreate", || unsafe { sys::cuStreamCreate(&mut raw, flags) })?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The driver's handle (`CUstream`, the runtime's `cudaStream_t`), for other libraries to enqueue work on. It
    /// lives as long as `self`.
    pub fn handle(&self) -> *mut c_void {
        self.raw.cast()
    }

    /// Waits for everything that was enqueued; failures of that work come out here.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the stream is alive.
        self.context.call("cuStreamSynchronize", || unsafe { sys::cuStreamSynchronize(self.raw) })
    }

    /// Lets what is enqueued from now on wait for `event`, which may be of another stream.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        // SAFETY: stream and event are alive; the driver keeps what it needs of the event.
        self.context.call("cuStreamWaitEvent", || unsafe { sys::cuStreamWaitEvent(self.raw, event.raw, 0) })
    }

    /// Records what `work` enqueues on this stream instead of running it.
    pub fn capture<E: From<CudaError>>(&self, work: impl FnOnce(&Self) -> Result<(), E>) -> Result<Graph, E> {
        let instantiate = self.context.driver().instantiate().ok_or(CudaError::NoGraphs)?;
        // Other threads go on allocating meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive, and the capture ends below, whatever `work` does.
        self.context.call("cuStreamBeginCapture_v2", || unsafe { sys::cuStreamBeginCapture_v2(self.raw, mode) })?;
        let worked = work(self);
        let mut graph = Captured { context: &self.context, raw: std::ptr::null_mut() };
        // SAFETY: writes a handle, or null where the capture was broken; `Captured` destroys it.
        let ended =
            self.context.call("cuStreamEndCapture", || unsafe { sys::cuStreamEndCapture(self.raw, &mut graph.raw) });
        worked.and(ended.map_err(E::from))?;

        let mut raw = std::ptr::null_mut();
        // SAFETY: the graph is alive until the end of this function.
        self.context.call("cuGraphInstantiate", || unsafe { instantiate.call(graph.raw, &mut raw) })?;
        Ok(Graph { context: Arc::clone(&self.context), raw })
    }

    pub(super) fn raw(&self) -> CUstream {
        self.raw
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made in `new`; work still enqueued is finished by the driver before the stream is gone.
        self.context.release("cuStreamDestroy_v2", || unsafe { sys::cuStreamDestroy_v2(self.raw) });
    }
}

/// A graph that is not yet instantiated.
struct Captured<'a> {
    context: &'a CudaContext,
    raw: CUgraph,
}

impl Drop for Captured<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: not null, so the driver made it, and nobody else destroys it.
            self.context.release("cuGraphDestroy", || unsafe { sys::cuGraphDestroy(self.raw) });
        }
    }
}

/// Work that was captured, to be launched as a whole. It repeats the addresses that were captured: whoever launches
/// it keeps the buffers alive.
#[derive(Debug)]
pub struct Graph {
    context: Arc<CudaContext>,
    raw: CUgraphExec,
}

// SAFETY: the driver's functions may be called from any thread; `launch` takes `&mut self`, because one graph must
// not be launched by two threads at once.
unsafe impl Send for Graph {}

impl Graph {
    pub fn launch(&mut self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: graph and stream are alive.
        self.context.call("cuGraphLaunch", || unsafe { sys::cuGraphLaunch(self.raw, stream.raw) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made in `capture`; the driver defers the end of a graph that still runs.
        self.context.release("cuGraphExecDestroy", || unsafe { sys::cuGraphExecDestroy(self.raw) });
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub struct Event {
    context: Arc<CudaContext>,
    raw: CUevent,
}

// SAFETY: the driver's functions may be called from any thread with any event.
unsafe impl Send for Event {}
// SAFETY: as above; an event has no state of ours.
unsafe impl Sync for Event {}

impl Event {
    /// To wait for; it keeps no time and costs less.
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, CudaError> {
        Self::with_flags(context, sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32)
    }

    /// To measure with.
    pub fn timed(context: &Arc<CudaContext>) -> Result<Self, CudaError> {
        Self::with_flags(context, sys::CUevent_flags_enum::CU_EVENT_DEFAULT as u32)
    }

    fn with_flags(context: &Arc<CudaContext>, flags: u32) -> Result<Self, CudaError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes a handle, which is destroyed once, in `Drop`.
        context.call("cuEventCreate", || unsafe { sys::cuEventCreate(&mut raw, flags) })?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// Marks the point after what `stream` holds now; replaces an earlier mark.
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: event and stream are alive.
        self.context.call("cuEventRecord", || unsafe { sys::cuEventRecord(self.raw, stream.raw) })
    }

    /// Waits until the mark is reached; at once where none was made.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the event is alive.
        self.context.call("cuEventSynchronize", || unsafe { sys::cuEventSynchronize(self.raw) })
    }

    /// Whether the mark is reached.
    pub fn is_reached(&self) -> Result<bool, CudaError> {
        let mut ready = true;
        self.context.call("cuEventQuery", || {
            // SAFETY: the event is alive.
            let result = unsafe { sys::cuEventQuery(self.raw) };
            ready = result != CUresult::CUDA_ERROR_NOT_READY;
            if ready { result } else { CUresult::CUDA_SUCCESS }
        })?;
        Ok(ready)
    }

    /// The device's time from `start` to this mark; both are [`Self::timed`] and reached.
    pub fn elapsed_since(&self, start: &Self) -> Result<Duration, CudaError> {
        let mut milliseconds = 0.0;
        let driver = self.context.driver();
        // SAFETY: both events are alive; one of another device is answered with an error.
        let measure = || unsafe { driver.elapsed_time(&mut milliseconds, start.raw, self.raw) };
        self.context.call("cuEventElapsedTime", measure)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1000.0))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made in `with_flags`; the driver defers the end of an event that is still waited for.
        self.context.release("cuEventDestroy_v2", || unsafe { sys::cuEventDestroy_v2(self.raw) });
    }
}
