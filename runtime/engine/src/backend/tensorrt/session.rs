//! The inference of one session: a stream, a context, and buffers for the largest batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use revoada_core::{TensorRef, TensorSpec};
use revoada_tensorrt::Range;

use super::memory::{DeviceTensor, Upload};
use super::{NAME, Opened, TensorRtEngine};
use crate::backend::inputs::{Inputs, Recorded};
use crate::backend::session::{Inference, InferenceSession};
use crate::cuda::{Binding, CudaError, CudaStager, Event, Execution, ExecutionError, StageRow, Stream};
use crate::{DeviceTimings, EngineError, LayerTime, Outputs, Shapes, Surface, Timings};

/// Fields are dropped in this order: first what waits for the device.
pub(super) struct TensorRtInference {
    execution: Execution,
    /// `None` where no input takes pictures.
    stager: Option<CudaStager>,
    input_tensors: Vec<usize>,
    outputs: Vec<Output>,
    /// Whether no shape of the plan is open.
    fixed: bool,
    marks: Marks,
    /// Of tensors that were set before the latest submit.
    uploads: Vec<Arc<Upload>>,
    /// The CPU's time in the latest submit.
    enqueue: Duration,
    stream: Arc<Stream>,
    opened: Arc<Opened>,
}

struct Output {
    tensor: usize,
    /// Of the latest run.
    shape: Vec<usize>,
    data: DeviceTensor,
}

/// When the latest submit started, had staged its pictures, had run, and had given its outputs back.
struct Marks {
    started: Event,
    staged: Event,
    done: Event,
    downloaded: Event,
}

impl TensorRtInference {
    pub(super) fn open(engine: &TensorRtEngine, shapes: &Shapes) -> Result<InferenceSession<Self>, EngineError> {
        let opened = Arc::clone(&engine.opened);
        let context = &opened.context;
        let plain = |error| opened.cuda_error(|| "a session".to_owned(), error);
        let stream = Arc::new(Stream::new(context).map_err(plain)?);
        let inputs = Inputs::new(&engine.inputs, shapes, |dtype, elements| {
            let needed = || format!("an input of {} bytes", elements * dtype.size());
            DeviceTensor::new(context, &stream, dtype, elements)
                .and_then(|tensor| tensor.timed(context))
                .map_err(|error| opened.cuda_error(needed, error))
        })?;

        let fixed = engine.inputs.iter().all(|spec| spec.dims.iter().all(|dim| dim.fixed().is_some()));
        let profile = profile(&inputs, &engine.plan.profiles())?;
        let failed = |error| opened.run_error(|| format!("a context of {}", engine.model), error);
        let mut execution =
            Execution::new(&engine.plan, &stream, engine.workspace(), profile, fixed).map_err(failed)?;
        for ((_, shape, _), tensor) in inputs.filled().zip(&engine.input_tensors) {
            execution.set_shape(*tensor, shape).map_err(failed)?;
        }

        let mut outputs = Vec::new();
        for (spec, tensor) in engine.outputs.iter().zip(&engine.output_tensors) {
            let shape = execution.shape(*tensor).map_err(failed)?.ok_or_else(|| {
                let reason =
                    format!("the shape of output `{}` depends on the data, which cannot be read back", spec.name);
                EngineError::Load { backend: NAME, model: engine.model.clone(), reason }
            })?;
            let elements = shape.iter().try_fold(1usize, |elements, size| elements.checked_mul(*size));
            let bytes = elements.and_then(|elements| elements.checked_mul(spec.dtype.size()));
            let needed = || match bytes {
                Some(bytes) => format!("output `{}` of {bytes} bytes", spec.name),
                None => format!("output `{}` of shape {shape:?}", spec.name),
            };
            let Some((elements, _)) = elements.zip(bytes) else { return Err(opened.out_of_memory(needed())) };
            let data = DeviceTensor::new(context, &stream, spec.dtype, elements)
                .map_err(|error| opened.cuda_error(needed, error))?;
            outputs.push(Output { tensor: *tensor, shape, data });
        }

        let rows = inputs.picture_rows();
        let stager = if rows > 0 { Some(opened.kernels.stager(rows).map_err(plain)?) } else { None };
        let mark = || Event::timed(context).map_err(plain);
        let marks = Marks { started: mark()?, staged: mark()?, done: mark()?, downloaded: mark()? };
        let inference = Self {
            execution,
            stager,
            input_tensors: engine.input_tensors.clone(),
            outputs,
            fixed,
            marks,
            uploads: Vec::new(),
            enqueue: Duration::ZERO,
            stream,
            opened: Arc::clone(&engine.opened),
        };
        Ok(InferenceSession::new(inputs, inference))
    }
}

impl TensorRtInference {
    /// Stages, runs and brings the outputs back, all of it enqueued.
    fn enqueue<T>(
        &mut self,
        inputs: &mut Inputs<DeviceTensor>,
        rows: usize,
        run: impl FnOnce(&mut Execution, &[Binding<'_>]) -> Result<T, ExecutionError>,
    ) -> Result<T, EngineError> {
        let Self { execution, stager, input_tensors, outputs, fixed, marks, uploads, stream, opened, .. } = self;
        let opened = &**opened;
        let cuda = |error: CudaError| opened.cuda_error(|| "a batch".to_owned(), error);
        let failed = |error: ExecutionError| opened.run_error(|| "a run".to_owned(), error);
        marks.started.record(stream).map_err(cuda)?;
        inputs.prepare(rows, |data, row_elements, recorded| {
            let stager = stager.as_mut().expect("an input that takes pictures was counted");
            stage(stager, stream, data, row_elements, recorded, &cuda)
        })?;
        marks.staged.record(stream).map_err(cuda)?;

        if !*fixed {
            for ((_, shape, _), tensor) in inputs.filled().zip(&*input_tensors) {
                execution.set_shape(*tensor, shape).map_err(failed)?;
            }
        }
        for output in &mut *outputs {
            let shape = execution.shape(output.tensor).map_err(failed)?;
            output.shape = shape.expect("the shape was known for the largest batch");
            output.data.upload(0..0).map_err(cuda)?;
        }
        let mut bindings = Vec::with_capacity(input_tensors.len() + outputs.len());
        for ((_, _, data), tensor) in inputs.filled().zip(&*input_tensors) {
            bindings.push(Binding { tensor: *tensor, memory: data.device()? });
        }
        for output in &*outputs {
            bindings.push(Binding { tensor: output.tensor, memory: output.data.device()? });
        }
        let ran = run(execution, &bindings).map_err(failed)?;
        marks.done.record(stream).map_err(cuda)?;
        for output in outputs {
            let bytes = output.shape.iter().product::<usize>() * output.data.dtype().size();
            output.data.download(0..bytes).map_err(cuda)?;
        }
        marks.downloaded.record(stream).map_err(cuda)?;
        *uploads = inputs.filled().filter_map(|(_, _, data)| data.new_upload()).collect();
        Ok(ran)
    }

    /// Of a submit that the stream has passed.
    fn timings(&self) -> Result<Timings, CudaError> {
        let Marks { started, staged, done, downloaded } = &self.marks;
        Ok(Timings {
            staging: staged.elapsed_since(started)?,
            inference: done.elapsed_since(staged)?,
            device: Some(DeviceTimings {
                enqueue: self.enqueue,
                upload: self.uploads.iter().map(|upload| upload.time()).sum::<Result<_, _>>()?,
                download: downloaded.elapsed_since(done)?,
            }),
        })
    }
}

impl Inference for TensorRtInference {
    type Memory = DeviceTensor;

    fn submit(&mut self, inputs: &mut Inputs<DeviceTensor>, rows: usize) -> Result<(), EngineError> {
        let started = Instant::now();
        self.enqueue(inputs, rows, Execution::run)?;
        self.enqueue = started.elapsed();
        Ok(())
    }

    fn wait(&mut self) -> Result<Outputs<'_>, EngineError> {
        let failed = |error| self.opened.cuda_error(|| "a batch".to_owned(), error);
        self.stream.synchronize().map_err(failed)?;
        let timings = self.timings().map_err(failed)?;
        let mut tensors = Vec::with_capacity(self.outputs.len());
        for Output { shape, data, .. } in &mut self.outputs {
            tensors.push(TensorRef::new(shape, data.elements(shape.iter().product())?)?);
        }
        Ok(Outputs { tensors, timings })
    }

    fn time_layers(
        &mut self,
        inputs: &mut Inputs<DeviceTensor>,
        rows: usize,
    ) -> Result<Option<Vec<LayerTime>>, EngineError> {
        let layers = self.enqueue(inputs, rows, Execution::time_layers)?;
        self.stream.synchronize().map_err(|error| self.opened.cuda_error(|| "a batch".to_owned(), error))?;
        Ok(Some(layers))
    }
}

/// All recorded pictures of an input in one launch.
fn stage(
    stager: &mut CudaStager,
    stream: &Stream,
    data: &DeviceTensor,
    row_elements: usize,
    recorded: &[Recorded],
    failed: &impl Fn(CudaError) -> EngineError,
) -> Result<(), EngineError> {
    let memory = data.device()?;
    let row_bytes = row_elements * data.dtype().size();
    let mut rows = Vec::with_capacity(recorded.len());
    for picture in recorded {
        let Surface::Cuda(surface) = &picture.surface else { unreachable!("foreign surfaces are refused") };
        let bytes = picture.row * row_bytes..(picture.row + 1) * row_bytes;
        rows.push(StageRow {
            surface,
            placement: picture.placement,
            transform: &picture.transform,
            dtype: data.dtype(),
            target: memory.slice(bytes).map_err(failed)?,
        });
    }
    stager.launch(stream, &rows).map_err(failed)
}

/// Of the profiles that run the session's largest batch, the one with the smallest: the closest to what it is tuned for.
fn profile(inputs: &Inputs<DeviceTensor>, profiles: &[BTreeMap<String, Range>]) -> Result<usize, EngineError> {
    let mut refused: Option<(&TensorSpec, &[usize])> = None;
    let mut fitting: Option<(u128, usize)> = None;
    for (index, profile) in profiles.iter().enumerate() {
        let unfit = inputs.filled().find(|(spec, shape, _)| {
            profile.get(&spec.name).is_some_and(|range| {
                let size = |number: &u64, shape: &usize| number.cmp(&(*shape as u64));
                range.max.iter().zip(*shape).any(|(max, shape)| size(max, shape).is_lt())
                    || range.min.iter().zip(*shape).any(|(min, shape)| size(min, shape).is_gt())
            })
        });
        match unfit {
            None => {
                let elements = |range: &Range| range.max.iter().map(|size| u128::from(*size)).product::<u128>();
                let largest = profile.values().map(elements).sum();
                fitting = fitting.filter(|(smallest, _)| *smallest <= largest).or(Some((largest, index)));
            }
            Some((spec, shape, _)) => refused = refused.or(Some((spec, shape))),
        }
    }
    if let Some((_, index)) = fitting {
        return Ok(index);
    }
    let Some((spec, shape)) = refused else { return Ok(0) };
    let ranges = profiles.iter().filter_map(|profile| profile.get(&spec.name));
    let ranges = ranges.map(|range| format!("{:?} to {:?}", range.min, range.max)).collect::<Vec<_>>().join(" or ");
    Err(EngineError::Profile { spec: spec.to_string(), shape: shape.to_vec(), ranges })
}
