//! rten: pure Rust, compiled in, for machines without ONNX Runtime.
//!
//! One copy of the weights serves all sessions; an engine has a thread pool for each inference that
//! may run at once. Inputs of f32, i32, i8 and u8 are read in place. rten computes f16 in f32, and
//! i64 and bool in i32: such inputs are converted into a buffer of the session before each
//! inference, and such outputs after it, so that a model looks the same on every backend.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use half::f16;
use half::slice::HalfFloatSliceExt;
use revoada_bundle::onnx::proto::ValueInfoProto;
use revoada_bundle::onnx::{OnnxError, OnnxErrorKind};
use revoada_core::{DType, Frame, Tensor, TensorData, TensorRef, TensorSlice, TensorSpec};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueView};
use rten_tensor::{Layout as _, TensorView};

use super::host::HostInputs;
use super::lending::Lending;
use super::session::{Inference, InferenceSession};
use super::{OnnxSource, read_onnx, threads_each};
use crate::{
    Backend, Engine, EngineError, LoadOptions, ModelSource, Outputs, Session, Shapes, Stager, Surface, Timings,
};

const NAME: &str = "rten";

/// rten does not say it; a test holds it against the lock file.
const VERSION: &str = "0.27.0";

/// The backend; always there.
pub struct Rten;

impl Backend for Rten {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> Result<String, EngineError> {
        Ok(format!("rten {VERSION}"))
    }

    fn check(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn load(&self, source: ModelSource<'_>, options: &LoadOptions) -> Result<Arc<dyn Engine>, EngineError> {
        let source = OnnxSource::of(source, NAME)?;
        let declared = read_onnx(source)?;
        let model = load_model(source)?;
        let inputs = ports(&model, model.input_ids(), &declared.graph().input)?;
        let outputs = ports(&model, model.output_ids(), &declared.graph().output)?;
        let threads = threads_each(options);
        let pools = (0..options.concurrent_max.max(1)).map(|_| Arc::new(ThreadPool::with_num_threads(threads)));
        let specs = |ports: &[Port]| ports.iter().map(|port| port.spec.clone()).collect();
        Ok(Arc::new(RtenEngine {
            inputs: specs(&inputs),
            outputs: specs(&outputs),
            loaded: Arc::new(Loaded {
                model,
                input_ids: inputs.iter().map(|port| port.id).collect(),
                outputs,
                pools: Lending::new(pools.collect()),
            }),
        }))
    }

    fn import(&self, frame: &Arc<Frame>) -> Result<Surface, EngineError> {
        super::import_host(NAME, frame)
    }
}

fn load_model(source: OnnxSource<'_>) -> Result<Model, EngineError> {
    let options = ModelOptions::with_all_ops();
    match source {
        // Told by its name alone rten would not know another file for ONNX; this one may have
        // external weights, which rten looks for beside it.
        OnnxSource::File(path) if has_onnx_extension(path) => options.load_file(path),
        OnnxSource::File(path) => {
            let unreadable = |error| OnnxError { path: Some(path.to_owned()), kind: OnnxErrorKind::Read(error) };
            options.load(fs::read(path).map_err(unreadable)?)
        }
        OnnxSource::Bytes(bytes) => options.load(bytes.to_vec()),
    }
    .map_err(|error| explain(source.name(), &error))
}

fn has_onnx_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(OsStr::new("onnx")))
}

/// rten has a kind for operators it cannot read and a sentence for those it does not have.
fn explain(model: String, error: &rten::LoadError) -> EngineError {
    let message = error.to_string();
    let missing = message.split_once("operator error: ").and_then(|(_, rest)| {
        let (operator, why) = rest.split_once(" operator not ")?;
        (why.starts_with("supported") || why.starts_with("enabled")).then(|| operator.to_owned())
    });
    match missing {
        Some(operator) => {
            EngineError::UnsupportedOperator { backend: NAME, model, operator, node: error.node().map(str::to_owned) }
        }
        None => EngineError::Load { backend: NAME, model, reason: message },
    }
}

/// One input or output: what the model declares, and where it is in rten's graph.
struct Port {
    id: NodeId,
    spec: TensorSpec,
}

/// rten remembers the types it computes in, not those that the model declares; and of an output that is a
/// constant not even its name, only its place.
fn ports(model: &Model, ids: &[NodeId], declared: &[ValueInfoProto]) -> Result<Vec<Port>, EngineError> {
    let port = |(index, id): (usize, &NodeId)| {
        let name = model.node_info(*id).and_then(|info| info.name()).unwrap_or_default();
        let named = declared.iter().find(|info| info.name() == name);
        let info = named.or(declared.get(index)).ok_or_else(|| refuse(name, "not declared".to_owned()))?;
        Ok(Port { id: *id, spec: spec(info)? })
    };
    ids.iter().enumerate().map(port).collect()
}

/// An output may leave its shape out; then it looks like a scalar until it is computed.
fn spec(info: &ValueInfoProto) -> Result<TensorSpec, EngineError> {
    let tensor = info.tensor_type().ok_or_else(|| refuse(info.name(), "no tensor".to_owned()))?;
    let element = tensor.element_type();
    let dtype = element.dtype().ok_or_else(|| refuse(info.name(), element.to_string()))?;
    Ok(TensorSpec { name: info.name().to_owned(), dtype, dims: tensor.dims().unwrap_or_default() })
}

fn refuse(tensor: &str, dtype: String) -> EngineError {
    EngineError::DType { backend: NAME, tensor: tensor.to_owned(), dtype }
}

struct RtenEngine {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    loaded: Arc<Loaded>,
}

/// What sessions share.
struct Loaded {
    model: Model,
    input_ids: Vec<NodeId>,
    outputs: Vec<Port>,
    pools: Lending<Arc<ThreadPool>>,
}

impl Engine for RtenEngine {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn session(&self, shapes: &Shapes) -> Result<Box<dyn Session>, EngineError> {
        let inference = RtenInference {
            stager: Stager::new(),
            widened: self.inputs.iter().map(|spec| Widened::of(spec.dtype)).collect(),
            loaded: Arc::clone(&self.loaded),
            answer: Vec::new(),
            timings: Timings::default(),
        };
        Ok(Box::new(InferenceSession::new(HostInputs::on_host(&self.inputs, shapes)?, inference)))
    }
}

struct RtenInference {
    stager: Stager,
    /// One per input.
    widened: Vec<Widened>,
    loaded: Arc<Loaded>,
    answer: Vec<Tensor>,
    timings: Timings,
}

impl Inference for RtenInference {
    type Memory = TensorData;

    fn submit(&mut self, inputs: &mut HostInputs, rows: usize) -> Result<(), EngineError> {
        self.answer.clear();
        let staging = inputs.prepare_with(&mut self.stager, rows)?;
        let Loaded { model, input_ids, outputs, pools } = &*self.loaded;
        let pool = pools.lend();
        let started = Instant::now();
        let mut feed = Vec::with_capacity(input_ids.len());
        for ((input, widened), id) in inputs.tensors().zip(&mut self.widened).zip(input_ids) {
            feed.push((*id, widened.view(input?.1)?.into()));
        }
        let ids: Vec<NodeId> = outputs.iter().map(|port| port.id).collect();
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&pool)));
        let values = model.run(feed, &ids, Some(options)).map_err(|error| run_error(error.to_string()))?;
        let tensors = values.into_iter().zip(outputs).map(|(value, port)| narrow(value, &port.spec));
        self.answer = tensors.collect::<Result<_, _>>()?;
        self.timings = Timings { staging, inference: started.elapsed(), device: None };
        Ok(())
    }

    fn wait(&mut self) -> Result<Outputs<'_>, EngineError> {
        let tensors = self.answer.iter().map(Tensor::as_ref).collect();
        Ok(Outputs { tensors, candidates: BTreeMap::new(), timings: self.timings })
    }
}

/// An input in the type that rten computes it in, where that is not the declared one. The memory is
/// used again by each inference.
enum Widened {
    AsDeclared,
    F32(Vec<f32>),
    I32(Vec<i32>),
}

impl Widened {
    fn of(declared: DType) -> Self {
        match declared {
            DType::F32 | DType::I32 | DType::I8 | DType::U8 => Self::AsDeclared,
            DType::F16 => Self::F32(Vec::new()),
            DType::I64 | DType::Bool => Self::I32(Vec::new()),
        }
    }

    /// The tensor as rten takes it. Numbers beyond i32 become its limits, as they do in rten's
    /// constants.
    fn view<'a>(&'a mut self, tensor: TensorRef<'a>) -> Result<ValueView<'a>, EngineError> {
        let shape = tensor.shape();
        match (self, tensor.data()) {
            (Self::F32(wide), TensorSlice::F16(data)) => {
                wide.resize(data.len(), 0.0);
                data.convert_to_f32_slice(wide);
                value(shape, wide)
            }
            (Self::I32(wide), TensorSlice::I64(data)) => {
                wide.clear();
                wide.extend(data.iter().map(|number| saturating(*number)));
                value(shape, wide)
            }
            (Self::I32(wide), TensorSlice::Bool(data)) => {
                wide.clear();
                wide.extend(data.iter().map(|truth| i32::from(*truth)));
                value(shape, wide)
            }
            (_, TensorSlice::F32(data)) => value(shape, data),
            (_, TensorSlice::I32(data)) => value(shape, data),
            (_, TensorSlice::I8(data)) => value(shape, data),
            (_, TensorSlice::U8(data)) => value(shape, data),
            (_, other) => unreachable!("`Widened::of` converts {}", other.dtype()),
        }
    }
}

fn value<'a, T>(shape: &[usize], data: &'a [T]) -> Result<ValueView<'a>, EngineError>
where
    ValueView<'a>: From<TensorView<'a, T>>,
{
    ValueView::from_shape(shape, data).map_err(|error| run_error(error.to_string()))
}

fn saturating(number: i64) -> i32 {
    number.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// An output in its declared type; where that is what rten computed, the elements are not copied.
fn narrow(value: Value, spec: &TensorSpec) -> Result<Tensor, EngineError> {
    let shape = value.shape().to_vec();
    Ok(match (value, spec.dtype) {
        (Value::FloatTensor(tensor), DType::F32) => Tensor::of(shape, tensor.into_data())?,
        (Value::FloatTensor(tensor), DType::F16) => {
            let wide = tensor.into_data();
            let mut data = vec![f16::ZERO; wide.len()];
            data.convert_from_f32_slice(&wide);
            Tensor::of(shape, data)?
        }
        (Value::Int32Tensor(tensor), DType::I32) => Tensor::of(shape, tensor.into_data())?,
        (Value::Int32Tensor(tensor), DType::I64) => {
            Tensor::of(shape, tensor.into_data().into_iter().map(i64::from).collect())?
        }
        (Value::Int32Tensor(tensor), DType::Bool) => {
            Tensor::of(shape, tensor.into_data().into_iter().map(|number| number != 0).collect())?
        }
        (Value::Int8Tensor(tensor), DType::I8) => Tensor::of(shape, tensor.into_data())?,
        (Value::UInt8Tensor(tensor), DType::U8) => Tensor::of(shape, tensor.into_data())?,
        (other, declared) => {
            return Err(run_error(format!("output `{}` is {}, not the {declared} declared", spec.name, other.dtype())));
        }
    })
}

fn run_error(reason: String) -> EngineError {
    EngineError::Run { backend: NAME, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
        assert!(lock.contains(&format!("name = \"rten\"\nversion = \"{VERSION}\"")));
    }
}
