//! Whole tensors through a model on a backend, and the inputs that come from the caller.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use revoada_bundle::onnx::{OnnxError, OnnxModel};
use revoada_core::{Tensor, TensorRef, TensorSpec};
use revoada_engine::{Backend, Engine, EngineError, LoadOptions, ModelSource, Session, Shapes};
use thiserror::Error;

/// Inputs for inferences, prepared exactly as at run time. They may be made when they are asked for, and are
/// asked for more than once.
pub trait Samples {
    fn count(&self) -> usize;

    /// One tensor for each input of the model, in its order. `index` is below [`count`](Self::count); the same
    /// index gives the same tensors.
    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Box<dyn Error + Send + Sync>>;
}

impl Samples for [Vec<Tensor>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Box<dyn Error + Send + Sync>> {
        Ok(Cow::Borrowed(&self[index]))
    }
}

impl Samples for Vec<Vec<Tensor>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Box<dyn Error + Send + Sync>> {
        self.as_slice().sample(index)
    }
}

/// Why a model could not be converted, compared or calibrated.
#[derive(Debug, Error)]
pub enum BuilderError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot prepare sample {index}")]
    Sample { index: usize, source: Box<dyn Error + Send + Sync> },
    #[error("there are no samples to run the model on")]
    NoSamples,
    #[error("sample {index} has {got} tensors, the model has {expected} inputs")]
    SampleInputs { index: usize, expected: usize, got: usize },
    #[error("output `{output}` is {left} in one model and {right} in the other")]
    Outputs { output: String, left: String, right: String },
    #[error("there is no output {output}; the model has {count}")]
    NoSuchOutput { output: usize, count: usize },
    #[error("the range of `{value}` cannot be told: no sample gave a finite number there")]
    NoRange { value: String },
}

/// A sample, or why there is none.
pub(crate) fn sample(samples: &dyn Samples, index: usize) -> Result<Cow<'_, [Tensor]>, BuilderError> {
    samples.sample(index).map_err(|source| BuilderError::Sample { index, source })
}

/// A loaded model and a session of it that fits the latest inputs.
pub(crate) struct Runner {
    engine: Arc<dyn Engine>,
    open: Option<Open>,
}

/// A session, and the shapes of the inputs that it takes.
struct Open {
    shapes: Shapes,
    session: Box<dyn Session>,
}

impl Runner {
    pub(crate) fn load(backend: &dyn Backend, model: &OnnxModel) -> Result<Self, EngineError> {
        backend.load(ModelSource::Bytes(&model.encode()), &LoadOptions::default()).map(Self::of)
    }

    pub(crate) fn of(engine: Arc<dyn Engine>) -> Self {
        Self { engine, open: None }
    }

    pub(crate) fn outputs(&self) -> &[TensorSpec] {
        self.engine.outputs()
    }

    /// The outputs of one inference.
    pub(crate) fn run(&mut self, index: usize, inputs: &[Tensor]) -> Result<Vec<TensorRef<'_>>, BuilderError> {
        let specs = self.engine.inputs();
        if specs.len() != inputs.len() {
            return Err(BuilderError::SampleInputs { index, expected: specs.len(), got: inputs.len() });
        }
        let shapes = Shapes::of(specs, inputs);
        if self.open.as_ref().is_none_or(|open| open.shapes != shapes) {
            let session = self.engine.session(&shapes)?;
            self.open = Some(Open { shapes, session });
        }
        let Open { session, shapes } = self.open.as_mut().expect("it was opened above");
        for (index, input) in inputs.iter().enumerate() {
            session.set_input(index, input.as_ref())?;
        }
        session.submit(shapes.rows_max)?;
        Ok(session.wait()?.tensors)
    }
}
