//! Unmodified SuperNodes of Flower at our door: they run where `REVOADA_FLOWER_VENV` names a Python environment with `flwr`.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use revoada_fleet::flower::{Allowed, MemoryNodes, NodeKey, NodeLimits};
use revoada_fleet::learning::{App, Config, Reply, Value, Work};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;

use crate::node_server::{PATIENCE, Server, app, fit, layout, sheet, values};

const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/python/flower_app");

/// A folder for a test, and the environment that its SuperNodes run in.
struct Lab {
    venv: PathBuf,
    folder: TempDir,
}

impl Lab {
    /// Where there is none, says so.
    fn new(test: &str) -> Option<Self> {
        let Some(venv) = std::env::var_os("REVOADA_FLOWER_VENV") else {
            eprintln!("skipped: {test}: `REVOADA_FLOWER_VENV` names no Python environment with `flwr`");
            return None;
        };
        Some(Self { venv: venv.into(), folder: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let bin = self.venv.join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(bin.join(program));
        command
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("FLWR_HOME", self.path("home"))
            .env("FLWR_TELEMETRY_ENABLED", "0")
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1");
        command
    }

    /// Our own program for clients, as Flower packs it.
    fn app(&self) -> Arc<App> {
        copy(Path::new(APP), &self.path("steps"));
        let built = self.command("flwr").args(["build", "--app", "steps"]).output().unwrap();
        assert!(built.status.success(), "{built:?}");
        let entries = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let fab =
            entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "fab")).unwrap();
        app(&fs::read(fab).unwrap())
    }

    /// Writes a private key as `ssh-keygen` does.
    fn key(&self, name: &str) -> NodeKey {
        let script = "
import sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP384R1())
private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.OpenSSH, s.NoEncryption())
open(sys.argv[1], 'wb').write(private)
print(key.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH).decode())
";
        let made = self.command("python").args(["-c", script, name]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        NodeKey::from_openssh(&String::from_utf8(made.stdout).unwrap()).unwrap()
    }

    fn start(&self, server: SocketAddr, name: &str, config: &str, more: &[&str]) -> Supernode {
        // Its own port is for its client programs; nobody else takes it in so short a time.
        let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = self.path(&format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let child = self
            .command("flower-supernode")
            .args(["--superlink", &server.to_string(), "--port", &own.to_string(), "--node-config", config])
            .args(more)
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn();
        Supernode { child: child.unwrap(), log }
    }
}

fn copy(source: &Path, target: &Path) {
    fs::create_dir_all(target).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let target = target.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A process of Flower's, killed with all that it has started once it is dropped.
struct Supernode {
    child: Child,
    log: PathBuf,
}

impl Supernode {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn ended(&mut self) -> ExitStatus {
        let Self { child, log } = self;
        wait(|| child.try_wait().unwrap(), || fs::read_to_string(&*log).unwrap())
    }

    /// As Ctrl-C does.
    fn interrupt(mut self) {
        kill_process(self.pid(), Signal::INT).unwrap();
        self.ended();
    }
}

impl Drop for Supernode {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        self.child.wait().unwrap();
    }
}

/// Waits until there is something.
fn wait<T>(mut what: impl FnMut() -> Option<T>, why: impl Fn() -> String) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {}", why());
        thread::sleep(Duration::from_millis(50));
    }
}

/// By how much all weights differ from those of the start; each of them by the same.
fn moved(values: &[f32]) -> f32 {
    let by = values[0] - start()[0];
    assert!(values.iter().zip(start()).all(|(value, start)| *value == start + by), "not all moved by {by}");
    by
}

fn anybody() -> Arc<MemoryNodes> {
    Arc::new(MemoryNodes::new(Allowed::Any, 100))
}

fn start() -> Vec<f32> {
    (0..layout().0.count()).map(|index| (index % 7) as f32).collect()
}

/// The mean of what they have learnt, each by its examples.
fn average(replies: impl IntoIterator<Item = Option<Reply>>) -> Vec<f32> {
    let (mut sums, mut examples) = (vec![0.0; layout().0.count()], 0);
    for reply in replies {
        let Some(Reply::Fit { tensors, reported }) = reply else { panic!("{reply:?}") };
        examples += reported.examples;
        for (sum, value) in sums.iter_mut().zip(values(&tensors)) {
            *sum += f64::from(value) * reported.examples as f64;
        }
    }
    sums.into_iter().map(|sum| (sum / examples as f64) as f32).collect()
}

#[test]
fn supernodes_learn_together_though_one_is_killed_in_the_middle() {
    let Some(lab) = Lab::new("supernodes") else { return };
    let app = lab.app();
    let mut server = Server::start(anybody(), NodeLimits::default(), Some(tls(&lab.path("root.pem"))));
    let address = server.address;
    lab.key("key");
    let hold = lab.path("hold");
    fs::create_dir(&hold).unwrap();
    let (begun, go) = (hold.join("begun"), hold.join("go"));
    File::create(&go).unwrap();
    let config = format!("step=4 hold=\"{}\"", hold.display());
    // Flower has nodes bring a key of their own over TLS alone.
    let own = ["--root-certificates", "root.pem", "--auth-supernode-private-key", "key"];
    let third = lab.start(address, "third", &config, &own);
    let known = server.wait_for(1).remove(0);
    let first = lab.start(address, "first", "step=1", &own[..2]);
    let second = lab.start(address, "second", "step=3", &own[..2]);
    let all = server.wait_for(3);

    // Ten examples for each one of a step: (1 · 10 + 3 · 30 + 4 · 40) / 80.
    let by = 3.25;
    let averaged = average(server.ask(&all, 1, fit(&sheet(start(), Some(&app)))).into_values());
    assert_eq!(moved(&averaged), by);

    fs::remove_file(&go).unwrap();
    fs::remove_file(&begun).unwrap();
    let number = server.post(&all, 2, fit(&sheet(averaged, Some(&app))));
    wait(|| begun.exists().then_some(()), || third.log());
    drop(third);
    File::create(&go).unwrap();
    let third = lab.start(address, "third", &config, &own);
    let averaged = average(server.replies(&all, number).into_values());
    assert_eq!(moved(&averaged), 2.0 * by);
    assert!(server.wait_for(3).contains(&known), "it has the name that it had");

    let weights = sheet(averaged, Some(&app));
    let averaged = average(server.ask(&all, 3, fit(&weights)).into_values());
    assert_eq!(moved(&averaged), 3.0 * by);

    let work = Work::Evaluate { weights: sheet(averaged, Some(&app)), config: Config::new() };
    let tried = server.ask(&all, 3, work);
    let losses = tried.values().map(|reply| match reply {
        Some(Reply::Evaluate { loss, reported }) => {
            assert_eq!(reported.metrics["accuracy"], Value::Double(0.5));
            loss.unwrap()
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(losses.collect::<Vec<_>>(), [6.0 + 3.0 * f64::from(by); 3]);

    third.interrupt();
    server.wait_for_gone(&known);
    drop((first, second));
    server.stop();
}

#[test]
fn a_supernode_without_tls_says_that_its_program_failed_and_learns_on() {
    let Some(lab) = Lab::new("a supernode without TLS") else { return };
    let app = lab.app();
    let mut server = Server::start(anybody(), NodeLimits::default(), None);
    let node = lab.start(server.address, "node", "step=2", &["--insecure"]);
    let there = server.wait_for(1);
    let weights = sheet(start(), Some(&app));
    let config: Config = [("fail".to_owned(), Value::Bool(true))].into();
    let failed = server.ask(&there, 1, Work::Fit { weights: Arc::clone(&weights), config });
    assert!(failed.values().all(|reply| matches!(reply, Some(Reply::Failed(_)))), "{failed:?}");
    assert_eq!(moved(&average(server.ask(&there, 2, fit(&weights)).into_values())), 2.0);
    node.interrupt();
    server.wait_for_gone(&there[0]);
    server.stop();
}

#[test]
fn listed_supernodes_come_in_over_tls_and_others_do_not() {
    let Some(lab) = Lab::new("supernodes over TLS") else { return };
    let app = lab.app();
    let listed = lab.key("listed");
    lab.key("stranger");
    let tls = tls(&lab.path("root.pem"));
    let nodes = Arc::new(MemoryNodes::new(Allowed::Listed([listed].into()), 100));
    let mut server = Server::start(nodes, NodeLimits::default(), Some(tls));
    let address = server.address;
    let start_with = |key| {
        let more = ["--root-certificates", "root.pem", "--auth-supernode-private-key", key];
        lab.start(address, key, "step=2", &more)
    };
    let mut stranger = start_with("stranger");
    assert!(!stranger.ended().success());
    assert!(stranger.log().contains("not listed"), "{}", stranger.log());
    let mut nobody = lab.start(address, "nobody", "step=2", &["--root-certificates", "root.pem"]);
    assert!(!nobody.ended().success(), "one that makes its own key is not listed either");

    let node = start_with("listed");
    let there = server.wait_for(1);
    let averaged = average(server.ask(&there, 1, fit(&sheet(start(), Some(&app)))).into_values());
    assert_eq!(moved(&averaged), 2.0);
    node.interrupt();
    server.wait_for_gone(&there[0]);
    server.stop();
}

/// A certificate for this machine, whose root is written to a file.
fn tls(root: &Path) -> Arc<ServerConfig> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // One that is named as what it signs would be taken for that.
    params.distinguished_name.push(DnType::CommonName, "a root");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(root, authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    Arc::new(config.unwrap())
}
