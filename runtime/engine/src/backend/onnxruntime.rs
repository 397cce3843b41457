//! ONNX Runtime, through its shared library.
//!
//! The library is looked for when the backend is first used, so that a program starts without it.
//! An engine holds `concurrent_max` networks (ONNX Runtime's sessions, each with its own copy of the
//! rewritten weights, its memory arena and its threads); all of our sessions share them, so that two
//! sessions may stage and infer at the same time on one network. Inputs are read in place from the
//! session's buffers, and outputs are read in place from the network's arena.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ort::session::{Session as Network, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef as OrtTensorRef, ValueType};
use revoada_core::{DType, Dim, Frame, TensorData, TensorRef, TensorSlice, TensorSpec};

use self::library::Library;
use super::host::HostInputs;
use super::lending::Lending;
use super::session::{Inference, InferenceSession};
use super::{OnnxSource, threads_each};
use crate::{
    Backend, Engine, EngineError, LoadOptions, ModelSource, Outputs, Session, Shapes, Stager, Surface, Timings,
};

mod library;
mod load_error;

pub use library::library_candidates;

const NAME: &str = "onnxruntime";

/// The backend; cheap until it is used.
pub struct OnnxRuntime {
    candidates: Vec<PathBuf>,
}

impl OnnxRuntime {
    /// Will open the first library of `candidates` that can be opened; see [`library_candidates`].
    pub fn new(candidates: Vec<PathBuf>) -> Self {
        Self { candidates }
    }

    fn library(&self) -> Result<Library, EngineError> {
        library::open(&self.candidates)
    }
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> Result<String, EngineError> {
        let library = self.library()?;
        Ok(match library.version() {
            Some(version) => format!("ONNX Runtime {version}"),
            None => format!("ONNX Runtime from `{}`", library.path.display()),
        })
    }

    fn check(&self) -> Result<(), EngineError> {
        self.library().map(drop)
    }

    fn load(&self, source: ModelSource<'_>, options: &LoadOptions) -> Result<Arc<dyn Engine>, EngineError> {
        let source = OnnxSource::of(source, NAME)?;
        let library = self.library()?;
        let threads = threads_each(options);
        let networks = (0..options.concurrent_max.max(1))
            .map(|_| load_network(&library, source, threads))
            .collect::<Result<Vec<_>, _>>()?;
        let specs = |outlets: &[Outlet]| outlets.iter().map(tensor_spec).collect::<Result<Vec<_>, _>>();
        Ok(Arc::new(OrtEngine {
            inputs: specs(networks[0].inputs())?,
            outputs: specs(networks[0].outputs())?,
            networks: Arc::new(Lending::new(networks)),
        }))
    }

    fn import(&self, frame: &Arc<Frame>) -> Result<Surface, EngineError> {
        super::import_host(NAME, frame)
    }
}

fn load_network(library: &Library, source: OnnxSource<'_>, threads: usize) -> Result<Network, EngineError> {
    let refuse = |error: ort::Error| load_error::explain(source, error.message());
    let builder = || -> Result<_, ort::Error> {
        Ok(Network::builder(&library.environment)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            // Threads that wait for work by spinning take the cores that decode the next frames:
            // EfficientNet-Lite0 on two threads of a busy two-core machine took half the time and
            // half the CPU seconds without.
            .with_intra_op_spinning(false)?
            // Initialisers in the arena, and the plan of activations that is made from the first
            // inference, cost a tenth of the memory each and save no time that could be measured.
            .with_device_allocated_initializers()?
            .with_memory_pattern(false)?
            // Quantised nodes are computed as the graph has them, in f32 between the roundings. What ONNX Runtime's INT8
            // kernels make of them depends on the processor's instructions: a cat became a ballpoint on two of them.
            .with_quant_qdq(false)?)
    };
    let mut builder = builder().map_err(refuse)?;
    match source {
        OnnxSource::File(path) => builder.commit_from_file(path),
        OnnxSource::Bytes(bytes) => builder.commit_from_memory(bytes),
    }
    .map_err(refuse)
}

fn tensor_spec(outlet: &Outlet) -> Result<TensorSpec, EngineError> {
    let refuse = |dtype: String| EngineError::DType { backend: NAME, tensor: outlet.name().to_owned(), dtype };
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(refuse(outlet.dtype().to_string()));
    };
    let dtype = match ty {
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Int8 => DType::I8,
        TensorElementType::Int32 => DType::I32,
        TensorElementType::Int64 => DType::I64,
        TensorElementType::Bool => DType::Bool,
        other => return Err(refuse(other.to_string())),
    };
    let dims = shape.iter().zip(dimension_symbols.iter()).map(|(size, symbol)| match usize::try_from(*size) {
        Ok(size) => Dim::Fixed(size),
        Err(_) if symbol.is_empty() => Dim::Dynamic("?".to_owned()),
        Err(_) => Dim::Dynamic(symbol.clone()),
    });
    Ok(TensorSpec { name: outlet.name().to_owned(), dtype, dims: dims.collect() })
}

struct OrtEngine {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// The `ort` crate does not let one network run on two threads at once, though ONNX Runtime says
    /// that it could.
    networks: Arc<Lending<Network>>,
}

impl Engine for OrtEngine {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn session(&self, shapes: &Shapes) -> Result<Box<dyn Session>, EngineError> {
        let inference = OrtInference {
            stager: Stager::new(),
            networks: Arc::clone(&self.networks),
            values: Vec::new(),
            shapes: vec![Vec::new(); self.outputs.len()],
            timings: Timings::default(),
        };
        Ok(Box::new(InferenceSession::new(HostInputs::on_host(&self.inputs, shapes)?, inference)))
    }
}

struct OrtInference {
    stager: Stager,
    networks: Arc<Lending<Network>>,
    /// The latest answer, in the network's arena.
    values: Vec<DynValue>,
    /// Of the answer's tensors; kept apart so that their memory is used again.
    shapes: Vec<Vec<usize>>,
    timings: Timings,
}

impl Inference for OrtInference {
    type Memory = TensorData;

    fn submit(&mut self, inputs: &mut HostInputs, rows: usize) -> Result<(), EngineError> {
        // Its memory can be used again.
        self.values.clear();
        let staging = inputs.prepare_with(&mut self.stager, rows)?;
        let mut feed = Vec::new();
        for input in inputs.tensors() {
            let (spec, tensor) = input?;
            feed.push((spec.name.as_str(), input_value(tensor).map_err(run_error)?));
        }
        let mut network = self.networks.lend();
        let started = Instant::now();
        let outputs = network.run(feed).map_err(run_error)?;
        self.values.extend(outputs.into_iter().map(|(_, value)| value));
        self.timings = Timings { staging, inference: started.elapsed(), device: None };
        drop(network);
        for (shape, value) in self.shapes.iter_mut().zip(&self.values) {
            shape.clear();
            // Sizes of a tensor in memory are never negative.
            shape.extend(value.shape().iter().map(|size| usize::try_from(*size).unwrap_or(0)));
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<Outputs<'_>, EngineError> {
        let tensor = |(value, shape)| Ok(TensorRef::new(shape, output_slice(value).map_err(run_error)?)?);
        let shapes = self.shapes.iter().map(Vec::as_slice);
        let tensors = self.values.iter().zip(shapes).map(tensor).collect::<Result<_, EngineError>>()?;
        Ok(Outputs { tensors, candidates: BTreeMap::new(), timings: self.timings })
    }
}

fn input_value<'a>(tensor: TensorRef<'a>) -> Result<SessionInputValue<'a>, ort::Error> {
    let shape = tensor.shape();
    Ok(match tensor.data() {
        TensorSlice::F32(data) => OrtTensorRef::from_array_view((shape, data))?.into(),
        TensorSlice::F16(data) => OrtTensorRef::from_array_view((shape, data))?.into(),
        TensorSlice::U8(data) => OrtTensorRef::from_array_view((shape, data))?.into(),
        TensorSlice::I8(data) => OrtTensorRef::from_array_view((shape, data))?.into(),
        TensorSlice::I32(data) => OrtTensorRef::from_array_view((shape, data))?.into(),
        TensorSlice::I64(data) => OrtTensorRef::from_array_view((shape, data))?.into(),
        TensorSlice::Bool(data) => OrtTensorRef::from_array_view((shape, data))?.into(),
    })
}

fn output_slice(value: &DynValue) -> Result<TensorSlice<'_>, ort::Error> {
    Ok(match value.data_type() {
        TensorElementType::Float16 => TensorSlice::F16(value.try_extract_tensor()?.1),
        TensorElementType::Uint8 => TensorSlice::U8(value.try_extract_tensor()?.1),
        TensorElementType::Int8 => TensorSlice::I8(value.try_extract_tensor()?.1),
        TensorElementType::Int32 => TensorSlice::I32(value.try_extract_tensor()?.1),
        TensorElementType::Int64 => TensorSlice::I64(value.try_extract_tensor()?.1),
        TensorElementType::Bool => TensorSlice::Bool(value.try_extract_tensor()?.1),
        // Whatever else it is, the crate says so in its error.
        _ => TensorSlice::F32(value.try_extract_tensor()?.1),
    })
}

fn run_error(error: ort::Error) -> EngineError {
    EngineError::Run { backend: NAME, reason: error.message().to_owned() }
}
