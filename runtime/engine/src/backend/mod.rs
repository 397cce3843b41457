//! Which backends there are, and which one to take.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use revoada_bundle::onnx::{OnnxError, OnnxModel};
use revoada_core::{Frame, MemoryKind};

use crate::{Backend, EngineError, LoadOptions, ModelFormat, ModelSource, Surface};

mod host;
mod inputs;
mod lending;
mod onnxruntime;
mod rten;
mod session;
mod tensorrt;

pub use onnxruntime::{OnnxRuntime, library_candidates};
pub use rten::Rten;
pub use tensorrt::{TensorRt, TensorRtOptions};

/// What backends need to know that only the program knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendOptions {
    /// Where to look for ONNX Runtime's library, best first: one path where the user named it, else
    /// [`library_candidates`].
    pub onnxruntime: Vec<PathBuf>,
    pub tensorrt: TensorRtOptions,
}

/// Every backend of this build, best first. Nothing is opened yet.
pub fn backends(options: &BackendOptions) -> Vec<Arc<dyn Backend>> {
    vec![
        Arc::new(TensorRt::new(options.tensorrt.clone())),
        Arc::new(OnnxRuntime::new(options.onnxruntime.clone())),
        Arc::new(Rten),
    ]
}

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The first that can be used here.
    #[default]
    Auto,
    Named(String),
}

impl BackendChoice {
    /// As typed after `--backend`; whether the name exists is `select`'s to say.
    pub fn parse(text: &str) -> Self {
        match text {
            "auto" => Self::Auto,
            name => Self::Named(name.to_owned()),
        }
    }
}

/// The backend taken, and why.
pub struct Selected {
    pub backend: Arc<dyn Backend>,
    /// One sentence for the log, with the reason why better ones were passed over:
    /// `auto took rten (rten 0.27.0): backend `onnxruntime` cannot be used here: …`.
    pub reason: String,
}

/// The named backend, where it can be used, or the first usable one of those that load models of `format`.
pub fn select(
    choice: &BackendChoice,
    backends: &[Arc<dyn Backend>],
    format: ModelFormat,
) -> Result<Selected, EngineError> {
    match choice {
        BackendChoice::Auto => first_usable(backends.iter().filter(|backend| backend.format() == format)),
        BackendChoice::Named(name) => {
            let backend = backends.iter().find(|backend| backend.name() == name).ok_or_else(|| {
                let known = backends.iter().map(|backend| format!("`{}`", backend.name()));
                let known = std::iter::once("`auto`".to_owned()).chain(known).collect::<Vec<_>>().join(", ");
                EngineError::UnknownBackend { name: name.clone(), known }
            })?;
            backend.check()?;
            let reason = format!("took {name} ({}), as asked", backend.version()?);
            Ok(Selected { backend: Arc::clone(backend), reason })
        }
    }
}

fn first_usable<'a>(backends: impl Iterator<Item = &'a Arc<dyn Backend>>) -> Result<Selected, EngineError> {
    let mut passed_over = Vec::new();
    for backend in backends {
        match backend.check() {
            Ok(()) => {
                let mut reason = format!("auto took {} ({})", backend.name(), backend.version()?);
                if !passed_over.is_empty() {
                    reason = format!("{reason}: {}", passed_over.join("; "));
                }
                return Ok(Selected { backend: Arc::clone(backend), reason });
            }
            Err(error) => passed_over.push(error.to_string()),
        }
    }
    Err(EngineError::Unavailable { backend: "auto", reason: passed_over.join("; ") })
}

/// Threads of one inference.
fn threads_each(options: &LoadOptions) -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    options.threads.unwrap_or_else(|| cores() / options.concurrent_max.max(1)).max(1)
}

/// What backends that run ONNX models are given.
#[derive(Clone, Copy)]
enum OnnxSource<'a> {
    File(&'a Path),
    Bytes(&'a [u8]),
}

impl<'a> OnnxSource<'a> {
    fn of(source: ModelSource<'a>, backend: &'static str) -> Result<Self, EngineError> {
        match source {
            ModelSource::File(path) => Ok(Self::File(path)),
            ModelSource::Bytes(bytes) => Ok(Self::Bytes(bytes)),
            ModelSource::Plan(path) => Err(EngineError::Load {
                backend,
                model: format!("`{}`", path.display()),
                reason: "it runs ONNX models, and this is a plan for TensorRT".to_owned(),
            }),
        }
    }

    /// How it is called in errors.
    fn name(self) -> String {
        match self {
            Self::File(path) => format!("`{}`", path.display()),
            Self::Bytes(bytes) => format!("a model of {} bytes", bytes.len()),
        }
    }
}

/// The model as it declares itself. Reading it first, or after a backend failed, says in one sentence
/// what is wrong with a damaged file.
fn read_onnx(source: OnnxSource<'_>) -> Result<OnnxModel, OnnxError> {
    match source {
        OnnxSource::File(path) => OnnxModel::read(path),
        OnnxSource::Bytes(bytes) => OnnxModel::parse(bytes.to_vec()),
    }
}

/// On the CPU a frame is its own surface, unless its memory is a descriptor of pixels elsewhere.
fn import_host(backend: &'static str, frame: &Arc<Frame>) -> Result<Surface, EngineError> {
    match frame.memory_kind() {
        MemoryKind::Host | MemoryKind::Managed | MemoryKind::Pinned => Ok(Surface::Host(Arc::clone(frame))),
        kind @ MemoryKind::NvBufSurface => Err(EngineError::Memory { backend, kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_library() -> Vec<Arc<dyn Backend>> {
        backends(&BackendOptions {
            onnxruntime: vec![PathBuf::from("/nowhere/libonnxruntime.so")],
            ..BackendOptions::default()
        })
    }

    #[test]
    fn auto_says_which_it_took_and_why_the_better_one_was_passed_over() {
        let selected = select(&BackendChoice::parse("auto"), &without_library(), ModelFormat::Onnx).unwrap();
        assert_eq!(selected.backend.name(), "rten");
        assert!(selected.reason.starts_with("auto took rten (rten 0."), "{}", selected.reason);
        assert!(selected.reason.contains("`/nowhere/libonnxruntime.so`"), "{}", selected.reason);
    }

    #[test]
    fn a_named_backend_that_cannot_be_used_is_an_error_and_not_another_backend() {
        let error = select(&BackendChoice::parse("onnxruntime"), &without_library(), ModelFormat::Onnx).err().unwrap();
        assert!(matches!(error, EngineError::Unavailable { backend: "onnxruntime", .. }), "{error}");
    }

    #[test]
    fn an_unknown_backend_is_refused_with_the_known_ones() {
        let error = select(&BackendChoice::parse("tensorflow"), &without_library(), ModelFormat::Onnx).err().unwrap();
        assert_eq!(
            error.to_string(),
            "there is no backend `tensorflow`; choose one of `auto`, `tensorrt`, `onnxruntime`, `rten`"
        );
    }
}
