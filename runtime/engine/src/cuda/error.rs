//! Why something on the GPU failed, and whether anything after it can succeed.

use thiserror::Error;

#[derive(Debug, Error)]
pub enum CudaError {
    /// No driver, no device, or a driver that is too old or does not match its kernel module.
    #[error("CUDA cannot be used here: {reason}")]
    Unavailable { reason: String },
    /// Recoverable: what was there before is still there.
    #[error("the GPU is out of memory: `{call}` was refused {}", amount(.bytes))]
    OutOfMemory { call: &'static str, bytes: Option<usize> },
    /// An earlier call broke the context; nothing in this process can use the device any more.
    #[error("the GPU's context is lost since {fault}; only a new process can use the device again")]
    ContextLost { fault: Fault },
    #[error("{fault}")]
    Driver { fault: Fault },
    #[error("no compiler for CUDA kernels: {reason}")]
    NoCompiler { reason: String },
    #[error("the card does not tell its power: {reason}")]
    NoPower { reason: String },
    #[error("cannot compile `{source_name}` for {architecture}: {log}")]
    Compile { source_name: &'static str, architecture: String, log: String },
    #[error("{start}..{end} lies outside a buffer of {bytes} bytes")]
    Range { start: usize, end: usize, bytes: usize },
    #[error("a batch of {rows} rows does not fit; this one takes up to {rows_max}")]
    Batch { rows: usize, rows_max: usize },
    #[error("row {row} cannot be staged: {reason}")]
    Row { row: usize, reason: String },
    #[error("an output of {got} bytes does not hold {expected}")]
    Output { expected: String, got: usize },
    #[error("pictures in {kind:?} memory cannot be read")]
    Memory { kind: revoada_core::MemoryKind },
    #[error("CUDA graphs need a driver of CUDA 10.1 or later")]
    NoGraphs,
}

/// What the driver answered to a call.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{call}` failed with {name} ({code}): {text}")]
pub struct Fault {
    pub call: &'static str,
    pub code: u32,
    /// The driver's own name of the code, `CUDA_ERROR_ILLEGAL_ADDRESS`.
    pub name: String,
    pub text: String,
}

fn amount(bytes: &Option<usize>) -> String {
    bytes.map_or_else(|| "more".to_owned(), |bytes| format!("{bytes} bytes"))
}

/// Codes after which a context answers every call with an error: the device trapped, or was taken away. From the
/// descriptions of `CUresult` in NVIDIA's documentation of the driver API.
const STICKY: &[u32] = &[
    214, // ECC_UNCORRECTABLE
    220, // NVLINK_UNCORRECTABLE
    700, // ILLEGAL_ADDRESS
    702, // LAUNCH_TIMEOUT
    709, // CONTEXT_IS_DESTROYED
    710, // ASSERT
    714, // HARDWARE_STACK_ERROR
    715, // ILLEGAL_INSTRUCTION
    716, // MISALIGNED_ADDRESS
    717, // INVALID_ADDRESS_SPACE
    718, // INVALID_PC
    719, // LAUNCH_FAILED
];

pub(super) const OUT_OF_MEMORY: u32 = 2;

impl Fault {
    pub(super) fn is_sticky(&self) -> bool {
        STICKY.contains(&self.code)
    }
}
