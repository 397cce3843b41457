//! A device of which all is real but the engines: the agent on its thread, its disk, and children.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use revoada_agent::shell::{self, AgentConfig, Ending, Identity, Notify, Options, Status};
use revoada_bundle::sign::PublicKey;
use revoada_proto::control::{Client, Command};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::fleet::{DEVICE, Fleet, PATIENCE};

type Running = (oneshot::Sender<()>, JoinHandle<Ending>);

pub(crate) struct TestDevice {
    folder: TempDir,
    pub(crate) config: AgentConfig,
    program: PathBuf,
    running: Option<Running>,
}

/// What stands in for `revoada`; `cargo test` builds it with the tests.
pub(crate) fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let path = here.parent().unwrap().parent().unwrap().join("examples/pretend_revoada");
    assert!(path.is_file(), "`{}` is missing: cargo build -p revoada-agent --examples", path.display());
    path
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl TestDevice {
    /// Enrolled, with a pipeline and a model that it came with, and not started.
    pub(crate) fn new(fleet: &Fleet, trusted: &[PublicKey]) -> Self {
        let device = Self::stranger(fleet, trusted);
        device.enrol(fleet).save(&shell::identity_path(&device.config.folder)).unwrap();
        device
    }

    pub(crate) fn stranger(fleet: &Fleet, trusted: &[PublicKey]) -> Self {
        // Sockets have short paths.
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let keys: String = trusted.iter().map(|key| format!("{key}\n")).collect();
        std::fs::write(folder.path().join("trust"), keys).unwrap();
        std::fs::write(folder.path().join("came-with.toml"), "# came with the device\n").unwrap();
        std::fs::write(folder.path().join("came-with.onnx"), "came with the device").unwrap();
        let text = format!(
            "folder = 'agent'\nserver = 'localhost:{}'\ntrust = 'trust'\nheartbeat = '1s'\n\
             [default]\npipeline = 'came-with.toml'\nmodel = 'came-with.onnx'\n\
             [update]\nshadow_for = '2s'\n[limits]\ndisk_reserve_mib = 1\n\
             [policy]\nretry_min = '20ms'\nretry_max = '1s'\nhealthy_for = '3s'\nhealth_silence_max = '5s'\n\
             trial_time_max = '20s'\nreport_time_max = '2s'\n",
            fleet.port.port()
        );
        let config = AgentConfig::parse("agent.toml", &text, folder.path()).unwrap();
        std::fs::create_dir(&config.folder).unwrap();
        Self { folder, config, program: program(), running: None }
    }

    pub(crate) fn enrol(&self, fleet: &Fleet) -> Identity {
        let device = DEVICE.parse().unwrap();
        runtime().block_on(shell::enrol(&self.config.server, &fleet.token(), &device)).unwrap()
    }

    /// From its next start on it has a GPU of this class, as JSON, that runs plans.
    pub(crate) fn add_gpu(&mut self, class: &str) {
        let path = self.folder.path().join("revoada");
        let facts = format!("{{\"class\": {class}, \"facts\": {{}}}}");
        let pretended = self.program.display();
        let script = format!("#!/bin/sh\n[ \"$1\" = device-facts ] && exec echo '{facts}'\nexec {pretended} \"$@\"\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.program = path;
    }

    /// Starts the agent as this program.
    pub(crate) fn start_as(&mut self, program: &Path) {
        assert!(self.running.is_none());
        let (stop, stopped) = oneshot::channel();
        let (config, program) = (self.config.clone(), program.to_owned());
        let run = move || {
            let options = Options { config, program, notify: Notify::new(None).unwrap() };
            runtime().block_on(shell::run(options, async { drop(stopped.await) })).unwrap()
        };
        self.running = Some((stop, thread::spawn(run)));
    }

    pub(crate) fn start(&mut self) {
        self.start_as(&self.program.clone());
    }

    /// Asks the agent to end.
    pub(crate) fn stop(&mut self) {
        let (stop, thread) = self.running.take().unwrap();
        drop(stop);
        assert_eq!(thread.join().unwrap(), Ending::Stopped);
    }

    /// Waits until the agent ends by itself.
    pub(crate) fn wait_for_end(&mut self) -> Ending {
        let (_stop, thread) = self.running.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "the agent does not end");
            thread::yield_now();
        }
        thread.join().unwrap()
    }

    /// What the pipeline says of itself, where one runs.
    pub(crate) fn stats(&self) -> Option<Value> {
        Client::connect(&self.config.folder.join("pipeline.sock")).ok()?.request(Command::Stats).ok()
    }

    /// Waits until the pipeline is so.
    pub(crate) fn wait<T>(&self, what: &str, look: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.stats().and_then(|stats| look(&stats)) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}; the pipeline says {:#?}", self.stats());
            thread::yield_now();
        }
    }

    /// Waits until a model with this in its text runs; the process that runs it.
    pub(crate) fn wait_for_model(&self, text: &str) -> u64 {
        self.wait(text, |stats| stats["model"].as_str()?.contains(text).then(|| stats["pid"].as_u64())?)
    }

    /// What the agent says, once it is up.
    pub(crate) fn status(&self) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match shell::ask(&self.config.folder) {
                Ok(status) => return status,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::yield_now();
        }
    }
}

impl Drop for TestDevice {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            drop(thread.join());
        }
        // Pipelines outlive their agents.
        if let Ok(mut pipeline) = Client::connect(&self.config.folder.join("pipeline.sock")) {
            drop(pipeline.request(Command::Drain));
        }
    }
}
