//! Which backends there are, and which one to take.

use std::sync::Arc;

use crate::{Backend, EngineError};

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    #[default]
    Auto,
    Named(String),
}

/// The backend taken, and why.
pub struct Selected {
    pub backend: Arc<dyn Backend>,
    /// One sentence for the log: `auto took onnxruntime (ONNX Runtime 1.23.2)`.
    pub reason: String,
}

/// Every backend of this build, best first.
pub fn backends() -> Vec<Arc<dyn Backend>> {
    Vec::new()
}

/// The named backend, or the first usable one.
pub fn select(_choice: &BackendChoice) -> Result<Selected, EngineError> {
    Err(EngineError::UnknownBackend { name: String::new(), known: String::new() })
}
