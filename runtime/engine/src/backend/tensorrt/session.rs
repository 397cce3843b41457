//! The inference of one session: a stream, a context, and buffers for the largest batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use revoada_core::TensorRef;

use super::memory::{DeviceTensor, Upload, typed};
use super::profiles::TakenProfile;
use super::{NAME, Opened, TensorRtEngine};
use crate::backend::inputs::{Inputs, Recorded};
use crate::backend::session::{Inference, InferenceSession};
use crate::cuda::{
    Binding, CandidateFilter, CandidateSpec, CudaError, CudaStager, Event, Execution, ExecutionError, StageRow, Stream,
};
use crate::{
    CandidateQuery, Candidates, DeviceTimings, EngineError, LayerTime, Outputs, Readback, Shapes, Surface, Timings,
};

/// Fields are dropped in this order: first what waits for the device.
pub(super) struct TensorRtInference {
    execution: Execution,
    _profile: TakenProfile,
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
    /// Of the largest batch.
    rows_max: usize,
    data: DeviceTensor,
    readback: DeviceReadback,
}

/// [`Readback`], with what it takes.
enum DeviceReadback {
    Whole,
    Candidates {
        query: CandidateQuery,
        filter: CandidateFilter,
        /// Whether the latest run was filtered.
        filtered: bool,
    },
    Nothing,
}

/// Candidates kept of a picture, 28 bytes each. Where more pass, the output comes whole, which is right but slower: a
/// score of a quarter leaves a few hundred in a crowd.
const CANDIDATES_MAX: usize = 1024;

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
        let mut inputs = Inputs::new(&engine.inputs, shapes, |dtype, elements| {
            let needed = || format!("an input of {} bytes", elements * dtype.size());
            DeviceTensor::new(context, &stream, dtype, elements)
                .and_then(|tensor| tensor.timed(context))
                .map_err(|error| opened.cuda_error(needed, error))
        })?;

        let shapes: Vec<_> = inputs.filled().map(|(spec, shape, _)| (spec, shape)).collect();
        let profile = engine.profiles.take(&shapes)?;
        inputs.set_rows_min(profile.rows_min(engine.inputs.iter()));
        // A context that shares profiles begins with the first; another may begin with none.
        let profile_to_set = Some(profile.number).filter(|number| *number != 0 || profile.is_exclusive());
        let failed = |error| opened.run_error(|| format!("a context of {}", engine.model), error);
        let mut execution =
            Execution::new(&engine.plan, &stream, engine.workspace(), profile_to_set, engine.fixed).map_err(failed)?;
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
            let rows_max = shape.first().copied().unwrap_or(1);
            outputs.push(Output { tensor: *tensor, shape, rows_max, data, readback: DeviceReadback::Whole });
        }

        let rows = inputs.picture_rows();
        let stager = if rows > 0 { Some(opened.kernels.stager(rows).map_err(plain)?) } else { None };
        let mark = || Event::timed(context).map_err(plain);
        let marks = Marks { started: mark()?, staged: mark()?, done: mark()?, downloaded: mark()? };
        let inference = Self {
            execution,
            _profile: profile,
            stager,
            input_tensors: engine.input_tensors.clone(),
            outputs,
            fixed: engine.fixed,
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
            output.bring_back(stream, rows, &cuda)?;
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

    fn read_back(&mut self, wanted: &[Readback]) -> Result<(), EngineError> {
        let wanted = wanted.iter().copied().chain(std::iter::repeat(Readback::Whole));
        for (output, wanted) in self.outputs.iter_mut().zip(wanted) {
            output.readback = match wanted {
                Readback::Whole => DeviceReadback::Whole,
                Readback::Nothing => DeviceReadback::Nothing,
                Readback::Candidates(query) => {
                    let filter =
                        self.opened.kernels.candidate_filter(output.rows_max, CANDIDATES_MAX).map_err(|error| {
                            self.opened.cuda_error(|| "the candidates of a batch".to_owned(), error)
                        })?;
                    DeviceReadback::Candidates { query, filter, filtered: false }
                }
            };
        }
        Ok(())
    }

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
        let mut candidates = BTreeMap::new();
        for (index, output) in self.outputs.iter_mut().enumerate() {
            if let Some(found) = output.candidates().map_err(failed)? {
                candidates.insert(index, found);
            }
        }
        let tensors = self.outputs.iter_mut().map(Output::tensor).collect::<Result<_, _>>()?;
        Ok(Outputs { tensors, candidates, timings })
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

impl Output {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.data.dtype().size()
    }

    /// Enqueues the way back of what is wanted of the first `rows` rows.
    fn bring_back(
        &mut self,
        stream: &Stream,
        rows: usize,
        failed: &impl Fn(CudaError) -> EngineError,
    ) -> Result<(), EngineError> {
        match &mut self.readback {
            DeviceReadback::Nothing => return Ok(()),
            DeviceReadback::Whole => {}
            DeviceReadback::Candidates { query, filter, filtered } => {
                let spec = CandidateSpec::of(query, self.data.dtype(), &self.shape);
                let spec = spec.filter(|_| rows <= self.shape[0]);
                *filtered = spec.is_some();
                if let Some(spec) = spec {
                    return filter.launch(stream, self.data.device()?, rows, &spec).map_err(failed);
                }
            }
        }
        self.data.download(0..self.bytes()).map_err(failed)
    }

    /// What the filter found, once the stream has come that far; where it found too much, it brings the output whole.
    fn candidates(&mut self) -> Result<Option<Vec<Candidates>>, CudaError> {
        let DeviceReadback::Candidates { filter, filtered: filtered @ true, .. } = &mut self.readback else {
            return Ok(None);
        };
        let found: Option<Vec<_>> = filter.wait()?.into_iter().collect();
        if found.is_none() {
            *filtered = false;
            self.data.download(0..self.bytes())?;
        }
        Ok(found)
    }

    /// What is back with the CPU.
    fn tensor(&mut self) -> Result<TensorRef<'_>, EngineError> {
        if self.data.is_on_device() {
            return Ok(TensorRef::new(&[0], typed(self.data.dtype(), bytemuck::cast_slice(&[0u64; 0]))?)?);
        }
        Ok(TensorRef::new(&self.shape, self.data.elements(self.shape.iter().product())?)?)
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
