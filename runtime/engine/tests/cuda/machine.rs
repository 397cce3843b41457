//! Where a test runs: on an emulated device, in a process of its own, or on the real GPU.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use revoada_emulator::{Emulated, Log};
use revoada_engine::cuda::{Compiler, CudaContext, Device, KernelCache, Kernels, compiler_candidates};

/// A device, and what was kept of its calls.
pub(crate) struct Machine {
    log: Option<PathBuf>,
    folder: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn context(&self) -> Arc<CudaContext> {
        CudaContext::open(0).unwrap()
    }

    pub(crate) fn compiler(&self) -> Compiler {
        let candidates = if self.log.is_some() { vec![revoada_emulator::nvrtc()] } else { real_compilers() };
        Compiler::open(&candidates).unwrap()
    }

    pub(crate) fn kernels(&self, context: &Arc<CudaContext>) -> Kernels {
        Kernels::load(context, &self.compiler(), &KernelCache::new(self.folder())).unwrap()
    }

    /// A folder that goes away with the test.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The emulator's log; a real GPU keeps none.
    pub(crate) fn log(&self) -> Option<Log> {
        self.log.as_deref().map(Log::read)
    }
}

/// NVIDIA's own compiler: the machine's, or the cached one.
pub(crate) fn real_compilers() -> Vec<PathBuf> {
    compiler_candidates().into_iter().chain([cached_compiler()]).collect()
}

/// What `cargo xtask setup` puts into the cache.
pub(crate) fn cached_compiler() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/lib/libnvrtc.so.12")
}

/// Runs `body` in a process that finds the emulator where the driver would be, and sees that all was given back.
pub(crate) fn on_emulator(test: &str, emulated: &Emulated, body: fn(&Machine)) {
    in_child(test, emulated, |machine| {
        body(machine);
        let log = machine.log().unwrap();
        assert!(log.alive().is_empty(), "not given back: {:?}", log.alive());
    });
}

/// As [`on_emulator`], for a body after which the driver takes nothing back, because its context is lost.
pub(crate) fn on_breaking_emulator(test: &str, emulated: &Emulated, body: fn(&Machine)) {
    in_child(test, emulated, body);
}

fn in_child(test: &str, emulated: &Emulated, body: impl FnOnce(&Machine)) {
    const CHILD: &str = "REVOADA_TEST_IN_CHILD";
    let folder = tempfile::tempdir().unwrap();
    if std::env::var_os(CHILD).is_some() {
        let log = std::env::var_os("REVOADA_EMULATOR_LOG").unwrap();
        return body(&Machine { log: Some(log.into()), folder });
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    emulated.present(&mut command, &folder.path().join("log"));
    let output = command.args([test, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(said.contains("test result: ok. 1 passed"), "`{test}` is no test's name:\n{said}");
    said.lines().filter(|line| line.starts_with("skipped: ")).for_each(|line| println!("{line}"));
}

/// Runs `body` on the machine's first GPU.
pub(crate) fn on_gpu(body: fn(&Machine)) {
    if let Err(error) = Device::all() {
        println!("skipped: gpu: {error}");
        return;
    }
    body(&Machine { log: None, folder: tempfile::tempdir().unwrap() });
}
