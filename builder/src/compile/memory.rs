//! Whether there is memory for a build, before it and while it runs.

use std::fs;

use super::CompileError;

/// What a compiler takes apart from the model: its libraries, kernels and tables. TensorRT for RTX 1.7 took
/// 200 MiB where it compiled for a GPU elsewhere; on a device CUDA comes on top, which nobody has measured yet.
const COMPILER_BYTES: u64 = 700 << 20;
/// The graph, parsed and optimised, beside the file it came from.
const COPIES_OF_MODEL: u64 = 4;

/// Bounds on what a build may leave of the machine's memory. On a Jetson that is the GPU's memory too, which no
/// limit on a process counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryGuard {
    /// A build that leaves less is ended; 0 lets it have everything.
    pub left_bytes_min: u64,
}

impl Default for MemoryGuard {
    /// Enough that the system and a running pipeline are not driven out.
    fn default() -> Self {
        Self { left_bytes_min: 256 << 20 }
    }
}

impl MemoryGuard {
    /// Refuses a build that cannot end well.
    pub(super) fn check(&self, model_bytes: u64) -> Result<(), CompileError> {
        let needed = COMPILER_BYTES + model_bytes.saturating_mul(COPIES_OF_MODEL) + self.left_bytes_min;
        match available_bytes() {
            Some(available) if available < needed => {
                Err(CompileError::TooLittleMemory { needed_mib: needed >> 20, available_mib: available >> 20 })
            }
            _ => Ok(()),
        }
    }

    /// How much is left, where that is too little.
    pub(super) fn exhausted(&self) -> Option<u64> {
        available_bytes().filter(|left| *left < self.left_bytes_min)
    }
}

/// Memory that can be had without swapping: `MemAvailable` of Linux; `None` where the system does not tell.
pub fn available_bytes() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")
}

/// The most memory that this process has had resident: `VmHWM` of Linux; `None` where the system does not tell.
pub fn peak_bytes() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// The bytes of a line `name:   123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:  100 kB\nMemAvailable:   7 kB\nMemAvailableX: 9 kB\nBroken: x kB\n";
        assert_eq!(field(text, "MemAvailable"), Some(7 * 1024));
        assert_eq!((field(text, "Mem"), field(text, "Broken"), field(text, "Absent")), (None, None, None));
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }
}
