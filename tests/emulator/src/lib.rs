//! An emulator of the CUDA driver for tests: a `libcuda.so.1` over the CPU's memory that runs our `.cu` kernels thread
//! by thread, a `libnvrtc.so.12` whose images only it can load, a `libnvidia-ml.so.1` that tells what power it is told to, and
//! a `libnvinfer.so.10` whose plans are a few lines of text.
//!
//! It proves our logic, never the GPU: nothing that it runs says how fast or how exact a device is. It is strict where
//! a device is merely unpredictable:
//!
//! - work runs as late as it may, when somebody waits for it, so that who forgets to wait reads old bytes;
//! - memory of the device cannot be touched by the CPU, nor managed memory while the device has it;
//! - bytes behind a buffer are watched, and a handle that is not alive is refused.
//!
//! A process is told what it presents by the environment, see [`Emulated`]; it appends every call to a log.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the libraries, for `LD_LIBRARY_PATH`.
pub fn libraries() -> &'static Path {
    Path::new(env!("EMULATOR_LIBRARIES"))
}

/// The emulated compiler.
pub fn nvrtc() -> PathBuf {
    libraries().join("libnvrtc.so.12")
}

/// The emulated TensorRT 10.16, whose plans are described in `tensorrt/plan.h`; `None` where the headers that it is
/// built from were not there.
pub fn tensorrt() -> Option<PathBuf> {
    Some(libraries().join("libnvinfer.so.10")).filter(|library| library.exists())
}

/// The device that is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// 5.3, integrated, without I/O coherency or concurrent access to managed memory.
    Nano,
    /// 8.7, integrated, with I/O coherency.
    Orin,
    /// 9.0, with memory of its own.
    Discrete,
    /// A driver that sees no device.
    None,
}

/// What a process is to see.
#[derive(Clone, Debug)]
pub struct Emulated {
    pub profile: Profile,
    /// Calls that fail: name of the function, which of its calls (from 1), code of `CUresult`. A kernel whose launch
    /// is to fail with a code that breaks the context fails when it runs, as it would on a device.
    pub failures: Vec<(&'static str, u32, u32)>,
    /// All memory that there is to allocate.
    pub memory_bytes: usize,
    /// What the card says that it takes; `None`: it does not say it, as on a Jetson.
    pub power: Option<Power>,
}

/// What a card is said to take: a number like any other, which nothing was measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    Milliwatts(u32),
    /// As cards since Volta say it: so many millijoules more whenever somebody asks.
    Millijoules(u32),
}

impl Emulated {
    pub fn new(profile: Profile) -> Self {
        Self { profile, failures: Vec::new(), memory_bytes: 1 << 30, power: None }
    }

    /// Makes `command` see it, with the log in `log`.
    pub fn present(&self, command: &mut Command, log: &Path) {
        let failures: Vec<String> =
            self.failures.iter().map(|(call, nth, code)| format!("{call}:{nth}:{code}")).collect();
        let profile = match self.profile {
            Profile::Nano => "nano",
            Profile::Orin => "orin",
            Profile::Discrete => "discrete",
            Profile::None => "none",
        };
        command
            .env("LD_LIBRARY_PATH", libraries())
            .env("REVOADA_EMULATOR_DEVICE", profile)
            .env("REVOADA_EMULATOR_FAIL", failures.join(","))
            .env("REVOADA_EMULATOR_MEMORY", self.memory_bytes.to_string())
            .env("REVOADA_EMULATOR_LOG", log);
        match self.power {
            Some(Power::Milliwatts(power)) => command.env("REVOADA_EMULATOR_MILLIWATTS", power.to_string()),
            Some(Power::Millijoules(energy)) => command.env("REVOADA_EMULATOR_MILLIJOULES", energy.to_string()),
            None => command,
        };
    }
}

/// What the emulator has written so far.
#[derive(Clone, Debug)]
pub struct Log(Vec<String>);

impl Log {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self(text.lines().map(str::to_owned).collect())
    }

    /// How often a function was called.
    pub fn calls(&self, function: &str) -> usize {
        self.0.iter().filter(|line| line.split(' ').next() == Some(function)).count()
    }

    /// How often a line was written.
    pub fn noted(&self, line: &str) -> usize {
        self.0.iter().filter(|written| *written == line).count()
    }

    /// What was made or allocated and not given back, as `stream 0x…`.
    pub fn alive(&self) -> BTreeSet<&str> {
        let mut alive = BTreeSet::new();
        for line in &self.0 {
            if let Some(made) = line.strip_prefix('+') {
                alive.insert(made);
            } else if let Some(gone) = line.strip_prefix('-') {
                alive.remove(gone);
            }
        }
        alive
    }
}
