//! Opening plans and running them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::building::Range;
use crate::error::{RunError, fault_in};
use crate::host::{Bytes, Cancel, Host, LayerTimes};
use crate::library::Library;
use crate::sys::{self, call};
use crate::tensor::{DataType, IoTensor, dims_of, text, to_dims};

/// How a runtime opens plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The core on which plans that were built for a DLA run.
    pub dla_core: Option<u32>,
    /// Lets version-compatible plans run what they carry for the host.
    pub host_code: bool,
}

/// What opens plans on this machine's GPU.
pub struct Runtime {
    raw: NonNull<sys::TrtRuntime>,
    host: Box<Host<'static>>,
    library: Arc<Library>,
}

// SAFETY: TensorRT allows a runtime to be used from any thread, and its own threads only read ours. Opening plans
// at once is allowed; `host` is `Sync`.
unsafe impl Send for Runtime {}
// SAFETY: as above.
unsafe impl Sync for Runtime {}

impl Runtime {
    /// TensorRT for RTX needs no GPU for it yet, TensorRT does.
    pub fn new(library: &Arc<Library>, options: RuntimeOptions) -> Result<Arc<Self>, RunError> {
        let host = Box::new(Host::new(&(), &Cancel::default()));
        let version = library.version();
        // SAFETY: the function is that of the library whose version this is, and the table is of its dialect. The
        // host is on the heap and outlives the runtime: `drop` closes that first.
        let raw = unsafe {
            call!(library.api, runtime_open(Some(library.create_runtime), crate::version::number(version), &host.raw()))
        };
        let Some(raw) = NonNull::new(raw) else {
            return Err(RunError::Start { version, messages: host.take_messages() });
        };
        let runtime = Self { raw, host, library: Arc::clone(library) };
        if let Some(core) = options.dla_core {
            // SAFETY: the runtime is open.
            let status = unsafe { call!(library.api, runtime_dla(raw.as_ptr(), i32::try_from(core).unwrap_or(-1))) };
            if status != sys::TRT_DONE {
                return Err(RunError::Unavailable { version, what: format!("DLA core {core} here") });
            }
        }
        if options.host_code {
            // SAFETY: the runtime is open.
            let status = unsafe { call!(library.api, runtime_host_code(raw.as_ptr())) };
            if status != sys::TRT_DONE {
                return Err(RunError::Unavailable { version, what: "plans with code for the host".to_owned() });
            }
        }
        Ok(Arc::new(runtime))
    }

    /// Opens a plan, which the caller trusts: a plan is code.
    pub fn engine(self: &Arc<Self>, plan: &[u8]) -> Result<Arc<Engine>, RunError> {
        let version = self.library.version();
        self.host.take_messages();
        // SAFETY: the runtime is open, and the plan is `len` readable bytes, which TensorRT copies.
        let raw = unsafe { call!(self.library.api, engine_open(self.raw.as_ptr(), plan.as_ptr().cast(), plan.len())) };
        let Some(raw) = NonNull::new(raw) else {
            let fault = fault_in(self.host.take_messages());
            return Err(RunError::Plan { version, fault });
        };
        let handle = EngineHandle { raw, runtime: Arc::clone(self) };
        let (tensors, names) = handle.tensors();
        Ok(Arc::new(Engine { handle, tensors, names }))
    }

    /// The library that it is made by.
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // SAFETY: the runtime came from `runtime_open` and is closed only here; every engine holds an `Arc` of this,
        // so none is left.
        unsafe { call!(self.library.api, runtime_close(self.raw.as_ptr())) };
    }
}

/// A plan that is open; any number of contexts run it.
pub struct Engine {
    handle: EngineHandle,
    tensors: Vec<IoTensor>,
    /// Their names as TensorRT wants them.
    names: Vec<CString>,
}

struct EngineHandle {
    raw: NonNull<sys::TrtEngine>,
    runtime: Arc<Runtime>,
}

// SAFETY: TensorRT allows an engine to be used from any thread, several at once.
unsafe impl Send for EngineHandle {}
// SAFETY: as above.
unsafe impl Sync for EngineHandle {}

impl Engine {
    /// The inputs and outputs, in the plan's order. Other calls name a tensor by its place here.
    pub fn tensors(&self) -> &[IoTensor] {
        &self.tensors
    }

    /// The ranges of the inputs' shapes, profile by profile; inputs of fixed shape are among them.
    pub fn profiles(&self) -> Vec<BTreeMap<String, Range>> {
        // SAFETY: the engine is open.
        let count = unsafe { call!(self.handle.api(), engine_profile_count(self.handle.raw.as_ptr())) };
        let ranges = |profile| {
            let inputs = self.tensors.iter().enumerate().filter(|(_, tensor)| tensor.is_input && !tensor.on_host);
            inputs.filter_map(|(index, tensor)| Some((tensor.name.clone(), self.range(index, profile)?))).collect()
        };
        (0..count).map(ranges).collect()
    }

    fn range(&self, tensor: usize, profile: i32) -> Option<Range> {
        let shape = |selector| -> Option<Vec<u64>> {
            let mut dims = sys::TrtDims::default();
            // SAFETY: the engine is open, and the name ends with a zero byte.
            let status = unsafe {
                call!(
                    self.handle.api(),
                    engine_profile(
                        self.handle.raw.as_ptr(),
                        self.names[tensor].as_ptr(),
                        profile,
                        selector,
                        &raw mut dims
                    )
                )
            };
            (status == sys::TRT_DONE).then(|| dims_of(&dims).into_iter().collect())?
        };
        Some(Range {
            min: shape(sys::TRT_PROFILE_MIN)?,
            opt: shape(sys::TRT_PROFILE_OPT)?,
            max: shape(sys::TRT_PROFILE_MAX)?,
        })
    }

    /// How many bytes of device memory a context needs for what lies between layers, over all profiles.
    pub fn device_memory_bytes(&self) -> u64 {
        // SAFETY: the engine is open.
        let bytes = unsafe { call!(self.handle.api(), engine_memory(self.handle.raw.as_ptr())) };
        u64::try_from(bytes).unwrap_or(0)
    }

    /// How many layers are left after fusing.
    pub fn layer_count(&self) -> usize {
        // SAFETY: the engine is open.
        let count = unsafe { call!(self.handle.api(), engine_layer_count(self.handle.raw.as_ptr())) };
        usize::try_from(count).unwrap_or(0)
    }

    /// What the inspector says of each layer, in TensorRT's JSON, which [`inspected_layers`](crate::inspected_layers)
    /// reads.
    pub fn inspect(&self) -> Result<String, RunError> {
        let mut json = Bytes::default();
        // SAFETY: the engine is open, and the sink's bytes outlive the call.
        let status = unsafe { call!(self.handle.api(), engine_inspect(self.handle.raw.as_ptr(), &json.sink())) };
        if status != sys::TRT_DONE {
            let messages = self.handle.runtime.host.take_messages();
            return Err(RunError::Refused { doing: "inspect the engine".to_owned(), messages });
        }
        Ok(String::from_utf8_lossy(&json.0).into_owned())
    }

    /// Makes room to run it on one thread at a time.
    pub fn context(self: &Arc<Self>, memory: ContextMemory) -> Result<Context, RunError> {
        let host = Box::new(Host::new(&(), &Cancel::default()));
        let own = i32::from(memory == ContextMemory::Own);
        // SAFETY: the engine is open. The host is on the heap and outlives the context: `drop` closes that first.
        let raw = unsafe { call!(self.handle.api(), context_open(self.handle.raw.as_ptr(), own, &host.raw())) };
        let Some(raw) = NonNull::new(raw) else {
            let mut messages = host.take_messages();
            messages.extend(self.handle.runtime.host.take_messages());
            return Err(RunError::Refused { doing: "make an execution context".to_owned(), messages });
        };
        Ok(Context { raw, host, engine: Arc::clone(self) })
    }
}

impl EngineHandle {
    fn api(&self) -> &'static sys::TrtApi {
        self.runtime.library.api
    }

    fn tensors(&self) -> (Vec<IoTensor>, Vec<CString>) {
        // SAFETY: the engine is open.
        let count = unsafe { call!(self.api(), engine_tensor_count(self.raw.as_ptr())) };
        let tensor = |index| {
            let mut tensor = sys::TrtTensor::default();
            // SAFETY: the engine is open, and the tensor's name lives until it closes.
            unsafe {
                let status = call!(self.api(), engine_tensor(self.raw.as_ptr(), index, &raw mut tensor));
                (status == sys::TRT_DONE).then(|| {
                    let name = std::ffi::CStr::from_ptr(tensor.name).to_owned();
                    let tensor = IoTensor {
                        name: text(tensor.name),
                        data_type: DataType::of(tensor.type_),
                        is_input: tensor.is_input != 0,
                        on_host: tensor.on_host != 0,
                        dims: dims_of(&tensor.dims),
                    };
                    (tensor, name)
                })
            }
        };
        (0..count).filter_map(tensor).unzip()
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        // SAFETY: the engine came from `engine_open` and is closed only here; every context holds an `Arc` of it,
        // so none is left.
        unsafe { call!(self.api(), engine_close(self.raw.as_ptr())) };
    }
}

/// Where a context keeps what lies between layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextMemory {
    /// In device memory that it allocates.
    Own,
    /// In memory that [`Context::set_memory`] gives it before it runs, which contexts that never run at once may
    /// share.
    Given,
}

/// How long a layer took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerTime {
    /// As [`InspectedLayer`](crate::InspectedLayer) has it.
    pub name: String,
    pub time: Duration,
}

/// One thread's way of running an engine. Tensors are named by their place in [`Engine::tensors`].
pub struct Context {
    raw: NonNull<sys::TrtContext>,
    host: Box<Host<'static>>,
    engine: Arc<Engine>,
}

// SAFETY: TensorRT allows a context to be used from any thread, one at a time, which `&mut self` sees to.
unsafe impl Send for Context {}

impl Context {
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Takes a profile's ranges from now on; a new context has those of the first. Shapes must be set anew.
    ///
    /// # Safety
    /// `stream` is a live CUDA stream of the current CUDA context, or 0.
    pub unsafe fn set_profile(&mut self, profile: u32, stream: u64) -> Result<(), RunError> {
        let number = i32::try_from(profile).unwrap_or(-1);
        // SAFETY: the context is open, and the caller vouches for the stream.
        let status = unsafe { call!(self.api(), context_profile(self.raw.as_ptr(), number, stream)) };
        self.done(status, || format!("take profile {profile}"))
    }

    /// Sets the shape of an input, within the profile's range.
    pub fn set_shape(&mut self, tensor: usize, shape: &[u64]) -> Result<(), RunError> {
        let doing = || format!("give input `{}` the shape {shape:?}", self.name(tensor));
        let Some(dims) = to_dims(shape) else {
            return Err(RunError::Refused { doing: doing(), messages: Vec::new() });
        };
        // SAFETY: the context is open, and the name ends with a zero byte.
        let status = unsafe {
            call!(self.api(), context_shape(self.raw.as_ptr(), self.engine.names[tensor].as_ptr(), &raw const dims))
        };
        self.done(status, doing)
    }

    /// The shape of an input or output under the shapes that are set; `None` is a dimension that still depends on
    /// one that is not.
    pub fn shape(&self, tensor: usize) -> Result<Vec<Option<u64>>, RunError> {
        let mut dims = sys::TrtDims::default();
        // SAFETY: the context is open, and the name ends with a zero byte.
        let status = unsafe {
            call!(self.api(), context_tensor_dims(self.raw.as_ptr(), self.engine.names[tensor].as_ptr(), &raw mut dims))
        };
        self.done(status, || format!("tell the shape of `{}`", self.name(tensor)))?;
        Ok(dims_of(&dims))
    }

    /// Says where an input lies or an output goes. It is looked at by [`enqueue`](Self::enqueue) only.
    pub fn set_address(&mut self, tensor: usize, address: u64) -> Result<(), RunError> {
        if self.engine.tensors[tensor].on_host {
            let what = format!("way to feed `{}`, whose values are a shape, through this program", self.name(tensor));
            return Err(RunError::Unavailable { version: self.engine.handle.runtime.library.version(), what });
        }
        // SAFETY: the context is open, and the name ends with a zero byte. The address is only noted.
        let status = unsafe {
            call!(self.api(), context_address(self.raw.as_ptr(), self.engine.names[tensor].as_ptr(), address))
        };
        self.done(status, || format!("give `{}` its address", self.name(tensor)))
    }

    /// The inputs whose shape is still missing.
    pub fn missing(&self) -> Result<Vec<String>, RunError> {
        let mut names = Bytes::default();
        // SAFETY: the context is open, and the sink's bytes outlive the call.
        let status = unsafe { call!(self.api(), context_missing(self.raw.as_ptr(), &names.sink())) };
        self.done(status, || "work out shapes".to_owned())?;
        let names = names.0.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// Gives it memory of at least [`Engine::device_memory_bytes`]; only for [`ContextMemory::Given`]. It is
    /// looked at by [`enqueue`](Self::enqueue) only.
    pub fn set_memory(&mut self, address: u64, bytes: u64) -> Result<(), RunError> {
        let size = i64::try_from(bytes).unwrap_or(i64::MAX);
        // SAFETY: the context is open. The address is only noted.
        let status = unsafe { call!(self.api(), context_memory(self.raw.as_ptr(), address, size)) };
        self.done(status, || "give the context memory".to_owned())
    }

    /// Puts one run at the end of a stream.
    ///
    /// # Safety
    /// `stream` is a live CUDA stream of the current CUDA context, or 0. Until it has passed this run, every address
    /// that was set is device memory of the tensor's size under the shapes that are set, outputs are used by
    /// nothing else, inputs and given memory are written by nothing else, and this context is not dropped.
    pub unsafe fn enqueue(&mut self, stream: u64) -> Result<(), RunError> {
        // SAFETY: the context is open, and the caller vouches for the rest.
        let status = unsafe { call!(self.api(), context_enqueue(self.raw.as_ptr(), stream)) };
        self.done(status, || "run the engine".to_owned())
    }

    /// Runs once, waits for it, and says how long each layer took, in the order in which they ran. A run that is
    /// timed takes longer than others, and cannot be captured.
    ///
    /// # Safety
    /// As for [`enqueue`](Self::enqueue).
    pub unsafe fn time_layers(&mut self, stream: u64) -> Result<Vec<LayerTime>, RunError> {
        let mut times = LayerTimes::default();
        // SAFETY: the context is open, the caller vouches for the rest, and the receiver of times outlives the call,
        // after which the shim has forgotten it.
        let status = unsafe { call!(self.api(), context_time_layers(self.raw.as_ptr(), stream, &times.receiver())) };
        self.done(status, || "run the engine layer by layer".to_owned())?;
        Ok(times.0)
    }

    fn api(&self) -> &'static sys::TrtApi {
        self.engine.handle.api()
    }

    fn name(&self, tensor: usize) -> &str {
        &self.engine.tensors[tensor].name
    }

    fn done(&self, status: i32, doing: impl FnOnce() -> String) -> Result<(), RunError> {
        match status {
            sys::TRT_DONE => Ok(()),
            _ => Err(RunError::Refused { doing: doing(), messages: self.host.take_messages() }),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context came from `context_open` and is closed only here; its engine is still open.
        unsafe { call!(self.api(), context_close(self.raw.as_ptr())) };
    }
}
