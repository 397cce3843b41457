//! A service and its devices, each a process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use revoada_bundle::sign::SecretKey;
use revoada_emulator::{Emulated, Profile};
use revoada_tests::{Finished, Running, finish, revoada, revoada_fleet, wait_for};
use serde_json::Value;

use crate::models::{self, Model};
use crate::pictures;

/// Thirty frames a second of a ball that touches the right edge every seven seconds.
const PIPELINE: &str = "[[stream]]\nid = \"door\"\nuri = \"test://ball?width=320&height=240&fps=30&live=true\"\n\n\
    [model]\npath = \"deployed\"\nbackend = \"rten\"\n";

/// Patient enough for one machine, and impatient enough for a test.
const AGENT: &str = "heartbeat = \"1s\"\n\n[default]\npipeline = \"cameras.toml\"\nmodel = \"factory.bundle\"\n\n[limits]\ndisk_reserve_mib = 1\n\n[update]\nshadow_for = \"2s\"\nlabelled = \"../labelled\"\n\n\
    [learning]\ndata = \"pictures\"\n\n\
    [policy]\nhealthy_for = \"8s\"\ntrial_time_max = \"60s\"\nretry_max = \"2s\"\nreport_time_max = \"3s\"\n";

/// The same with a plan, where there is one; its own build of one is out of the way, and a plan has to run batches.
const PIPELINE_OF_PLANS: &str = "[[stream]]\nid = \"door\"\nuri = \"test://ball?width=320&height=240&fps=30&live=true\"\n\n\
    [model]\npath = \"deployed\"\nrebuild = false\n\n[batch]\nframes_max = 2\n";

/// The same, with what moves in it followed.
const PIPELINE_OF_TRACKS: &str = "[[stream]]\nid = \"door\"\nuri = \"test://ball?width=320&height=240&fps=30&live=true\"\n\n\
    [model]\npath = \"deployed\"\nbackend = \"rten\"\n\n[tracker]\nalgorithm = \"sort\"\n";

pub(crate) struct Stage {
    folder: tempfile::TempDir,
    pipeline: &'static str,
    /// What devices come with.
    factory: Model,
    emulated: Option<Emulated>,
    owner: SecretKey,
    addresses: Addresses,
    service: Running,
    agents: Vec<Running>,
}

impl Stage {
    /// Starts a service and so many enrolled agents.
    pub(crate) fn set(devices: usize) -> Self {
        Self::set_on(devices, PIPELINE, models::good("factory"), None)
    }

    /// One device that follows the ball as it comes.
    pub(crate) fn set_watching() -> Self {
        Self::set_on(1, PIPELINE_OF_TRACKS, models::watching("factory"), None)
    }

    /// The same on emulated devices, whose pipelines run plans.
    pub(crate) fn set_emulated(devices: usize, profile: Profile) -> Self {
        Self::set_on(devices, PIPELINE_OF_PLANS, models::good("factory"), Some(Emulated::new(profile)))
    }

    fn set_on(devices: usize, pipeline: &'static str, factory: Model, emulated: Option<Emulated>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let owner = SecretKey::generate().unwrap();
        owner.save(&folder.path().join("owner.pem")).unwrap();
        // Made by the owner for what devices learn, and trusted as his own is.
        let learning = SecretKey::generate().unwrap();
        learning.save(&folder.path().join("learning.pem")).unwrap();
        fs::write(folder.path().join("owner.pub"), format!("{}\n{}\n", owner.public(), learning.public())).unwrap();
        pictures::label(&folder.path().join("labelled"));

        let (service, addresses) = serve(folder.path(), &Addresses::any());
        let mut stage = Self { folder, pipeline, factory, emulated, owner, addresses, service, agents: Vec::new() };
        for index in 1..=devices {
            let device = format!("door-{index}");
            stage.enrol(&device);
            let agent = stage.start_agent(&device);
            stage.agents.push(agent);
        }
        stage
    }

    fn enrol(&self, device: &str) {
        let home = self.path(device);
        fs::create_dir(&home).unwrap();
        let (trust, port) = (self.path("owner.pub"), self.addresses.devices.rsplit(':').next().unwrap());
        let config =
            format!("server = \"localhost:{port}\"\nfolder = \"state\"\ntrust = \"{}\"\n{AGENT}", trust.display());
        fs::write(home.join("agent.toml"), config).unwrap();
        // What it comes with, and runs before anybody says anything.
        fs::write(home.join("cameras.toml"), self.pipeline).unwrap();
        self.factory.seal(&home.join("factory.bundle"), &self.owner);
        let token = self.fleet(&["enrolment", "add", device]).expect_code(0).stdout;
        let mut enrol = revoada();
        enrol.args(["agent", "enrol", "--device", device, "--token", token.trim(), "--config"]);
        finish(enrol.arg(home.join("agent.toml"))).expect_code(0);
    }

    fn start_agent(&self, device: &str) -> Running {
        let home = self.path(device);
        let log = log(&home.join("agent.log"));
        let mut run = revoada();
        run.args(["agent", "run", "--config"]).arg(home.join("agent.toml"));
        at_home(&mut run, &home);
        if let Some(emulated) = &self.emulated {
            emulated.present(&mut run, &home.join("emulator.log"));
        }
        Running(run.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Kills the service as a loss of power does, and starts it again.
    pub(crate) fn kill_service(&mut self) {
        self.service.0.kill().unwrap();
        self.service.0.wait().unwrap();
        (self.service, self.addresses) = serve(self.folder.path(), &self.addresses);
    }

    /// The same with an agent; what it has started goes on alone.
    pub(crate) fn kill_agent(&mut self, index: usize) {
        self.agents[index].0.kill().unwrap();
        self.agents[index].0.wait().unwrap();
        self.agents[index] = self.start_agent(&format!("door-{}", index + 1));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Asks the service as its administrator.
    pub(crate) fn fleet(&self, arguments: &[&str]) -> Finished {
        let mut command: Command = revoada_fleet();
        command
            .args(["--server", &self.addresses.operators, "--token-file"])
            .arg(self.path("fleet/admin.token"))
            .args(arguments);
        finish(&mut command)
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.fleet(&[arguments, &["--json"]].concat()).expect_code(0);
        serde_json::from_str(&finished.stdout).unwrap()
    }

    fn devices(&self) -> Vec<Value> {
        self.json(&["devices", "list"])["devices"].as_array().unwrap().clone()
    }

    pub(crate) fn wait_for_devices(&self, count: usize) {
        wait_for("every device is there", || {
            let devices = self.devices();
            (devices.iter().filter(|device| device["is_connected"] == true).count() == count).then_some(())
        });
    }

    /// Signs the pipeline, registers it, and gives its digest.
    pub(crate) fn register_pipeline(&self) -> String {
        let path = self.path("cameras.toml");
        fs::write(&path, self.pipeline).unwrap();
        let (path, key) = (path.to_str().unwrap(), self.path("owner.pem"));
        self.fleet(&["models", "sign", path, "--kind", "pipeline", "--key", key.to_str().unwrap()]).expect_code(0);
        let added = self.fleet(&["models", "add", path, "--kind", "pipeline", "--name", "cameras", "--version", "1"]);
        digest(added.expect_code(0))
    }

    /// Signs a model, registers it, and gives its digest.
    pub(crate) fn register(&self, model: Model, version: &str) -> String {
        let path = self.path(&format!("faces-{version}.bundle"));
        model.seal(&path, &self.owner);
        digest(self.fleet(&["models", "add", path.to_str().unwrap(), "--version", version]).expect_code(0))
    }

    /// Converts and signs a model as its owner does, away from every device, registers it, and gives its digest.
    pub(crate) fn register_converted(&self, model: &Model, version: &str) -> String {
        let source = self.path("brightest.onnx");
        model.write(&source);
        let (bundle, key) = (self.path(&format!("brightest-{version}.bundle")), self.path("owner.pem"));
        let mut build = revoada();
        at_home(&mut build, self.folder.path());
        build.arg("build").arg(source).args(["--precision", "fp32", "--target", "none", "--output"]).arg(&bundle);
        finish(build.arg("--key").arg(key)).expect_code(0);
        digest(self.fleet(&["models", "add", bundle.to_str().unwrap(), "--version", version]).expect_code(0))
    }

    /// Rolls out and waits for the end.
    pub(crate) fn roll_out(&self, arguments: &[&str]) -> Finished {
        let finished = self.fleet(&[&["rollouts", "start", "--watch"], arguments].concat());
        println!("{}", finished.stdout);
        finished
    }

    /// Every device runs this, and says that it is well.
    pub(crate) fn expect_running(&self, digest: &str) {
        wait_for(&format!("every device runs {digest}"), || {
            let devices = self.devices();
            (!devices.is_empty() && devices.iter().all(|device| runs(device, digest))).then_some(())
        });
    }

    pub(crate) fn expect_running_on(&self, device: &str, digest: &str) {
        wait_for(&format!("{device} runs {digest}"), || {
            self.devices().iter().any(|it| it["device"] == device && runs(it, digest)).then_some(())
        });
    }

    /// The processes of all pipelines.
    pub(crate) fn pipeline_starts(&self) -> BTreeSet<u32> {
        wait_for("every device has one pipeline", || {
            let pids: BTreeSet<u32> = pipelines(self.folder.path()).into_iter().collect();
            (pids.len() == self.agents.len()).then_some(pids)
        })
    }

    /// What every device says of its model and the labelled pictures.
    pub(crate) fn expect_accuracy(&self, accuracy: f64) {
        for device in self.devices() {
            assert_eq!(device["figures"]["accuracy"], accuracy, "{device:#}");
        }
    }

    pub(crate) fn expect_no_frame_lost(&self) {
        for device in self.devices() {
            let details = self.json(&["devices", "show", device["device"].as_str().unwrap()]);
            for stream in details["streams"].as_array().unwrap() {
                assert_eq!(stream["dropped"], 0, "{details:#}");
                assert!(stream["frames"].as_u64() > Some(0), "{details:#}");
            }
        }
    }

    /// Ends everything in order, and nothing is left behind.
    pub(crate) fn end(mut self) {
        for agent in &self.agents {
            terminate(agent);
        }
        terminate(&self.service);
        for agent in &mut self.agents {
            agent.0.wait().unwrap();
        }
        assert!(self.service.0.wait().unwrap().success(), "the service ends in order");
    }
}

/// Where the service listens.
struct Addresses {
    mqtt: String,
    devices: String,
    /// With its scheme.
    operators: String,
}

impl Addresses {
    /// Wherever there is a port.
    fn any() -> Self {
        let any = || "127.0.0.1:0".to_owned();
        Self { mqtt: any(), devices: any(), operators: format!("http://{}", any()) }
    }
}

/// Starts the service, and waits until it says where it listens.
fn serve(folder: &Path, addresses: &Addresses) -> (Running, Addresses) {
    let mut command = revoada_fleet();
    command.args(["serve", "--name", "localhost", "--mqtt", &addresses.mqtt, "--devices", &addresses.devices]);
    command.args(["--operators", addresses.operators.strip_prefix("http://").unwrap()]);
    command.arg("--learning-key").arg(folder.join("learning.pem"));
    // What the devices have to judge a deployment by is a set of pictures for the service, too.
    command.arg("--learning-pictures").arg(folder);
    command.arg("--folder").arg(folder.join("fleet")).arg("--trust").arg(folder.join("owner.pub"));
    let mut service = Running(command.stdout(Stdio::piped()).stderr(log(&folder.join("fleet.log"))).spawn().unwrap());
    let mut said = BufReader::new(service.0.stdout.take().unwrap()).lines();
    let mut line = || said.next().expect("the service says where it listens").unwrap();
    let operators = line().strip_prefix("operators: ").unwrap().to_owned();
    let ports = line();
    let (devices, mqtt) = ports.strip_prefix("devices: ").unwrap().split_once(", MQTT: ").unwrap();
    let addresses = Addresses { mqtt: mqtt.to_owned(), devices: devices.to_owned(), operators };
    // Whatever it says later is read, so that it never waits for a reader.
    thread::spawn(move || said.for_each(drop));
    (service, addresses)
}

/// What a process says is put behind what the one before it has said.
fn log(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

impl Drop for Stage {
    /// Pipelines outlive their agents, so that video goes on; not the test.
    fn drop(&mut self) {
        self.agents.clear();
        for pid in pipelines(self.folder.path()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if thread::panicking() {
            for name in ["fleet.log", "door-1/agent.log", "door-1/state/pipeline.log", "door-2/agent.log"] {
                let text = fs::read_to_string(self.path(name)).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(40).collect();
                println!("== {name}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

fn runs(device: &Value, digest: &str) -> bool {
    device["running"].as_object().is_some_and(|running| running.values().any(|it| it == digest))
}

/// Keys and caches are those of a home, whatever home the test has.
fn at_home(command: &mut Command, home: &Path) {
    command.env("HOME", home);
    for variable in ["XDG_DATA_HOME", "XDG_CACHE_HOME", "REVOADA_TENSORRT"] {
        command.env_remove(variable);
    }
}

fn terminate(running: &Running) {
    let pid = rustix::process::Pid::from_raw(running.0.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

/// Processes that run a pipeline with something below a folder.
fn pipelines(folder: &Path) -> Vec<u32> {
    let below = folder.to_str().unwrap().as_bytes();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let runs = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&&b"--control"[..]) && words.iter().any(|word| word.starts_with(below))
    };
    pids.filter(runs).collect()
}

fn digest(finished: Finished) -> String {
    let text = finished.stdout.trim();
    text.rsplit(' ').next().unwrap().to_owned()
}
