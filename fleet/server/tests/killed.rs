//! The service as a process that is killed again and again while a thousand devices speak with it.
//! `REVOADA_SEED=7` kills it at other moments.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use revoada_bundle::sign::SecretKey;
use revoada_fleet::simulate::{Faults, Options, Progress, Target, run};

const SEED: u64 = 20_260_504;
const KILLS: usize = 4;
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_mins(3);

/// A service that is killed where a test ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody listens on at the moment of asking.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts the service in a folder, and waits until it says that it serves.
fn serve(config: &Path) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_revoada-fleet"));
    command.args(["--log", "error", "serve", "--config"]).arg(config).stdout(Stdio::piped());
    let mut server = Server(command.spawn().unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let line = lines.next().expect("the service says where it serves").unwrap();
    assert!(line.starts_with("operators: "), "{line}");
    server
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_service_that_is_killed_again_and_again_loses_nothing_and_does_nothing_twice() {
    let devices = if std::env::var_os("REVOADA_FULL").is_some() { 1_000 } else { 200 };
    let seed = std::env::var("REVOADA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    println!("REVOADA_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let key = SecretKey::generate().unwrap();
    let key_file = folder.path().join("owner.key");
    key.save(&key_file).unwrap();
    let [mqtt, port, operators] = [free_port(), free_port(), free_port()];
    let config = folder.path().join("fleet.toml");
    let text = format!(
        "folder = \"state\"\nnames = [\"127.0.0.1\"]\nmqtt = \"127.0.0.1:{mqtt}\"\ndevices = \"127.0.0.1:{port}\"\n\
         trusted = [\"{}\"]\n[operators]\naddress = \"127.0.0.1:{operators}\"\n\
         [connections]\nenrolments_per_second_max = 1000\n",
        key.public()
    );
    std::fs::write(&config, text).unwrap();

    let mut server = serve(&config);
    let options = Options {
        devices,
        seed,
        faults: Faults::Mild,
        rollouts: 3,
        commands: devices,
        commands_per_second: 40,
        target: Target::There {
            devices: ("127.0.0.1".to_owned(), port),
            operators: format!("http://127.0.0.1:{operators}/").parse().unwrap(),
            token: folder.path().join("state/admin.token"),
            key: key_file,
        },
        patience: PATIENCE,
        ..Options::default()
    };
    let progress = Arc::new(Progress::default());
    let simulated = thread::spawn({
        let progress = Arc::clone(&progress);
        move || run(&options, &progress)
    });
    wait_until("everybody is connected", || progress.connected() == devices || simulated.is_finished());

    let mut random = Rng::with_seed(seed);
    let (mut kills, mut at) = (0, 0);
    // Three rollouts and the commands are four things for each device.
    let step = devices as u64 * 3 / (KILLS as u64 + 1);
    while kills < KILLS && !simulated.is_finished() {
        at += random.u64(step / 2..step);
        wait_until("devices do what they are told", || progress.carried_out() >= at || simulated.is_finished());
        thread::sleep(Duration::from_millis(random.u64(0..200)));
        // SIGKILL.
        server.0.kill().unwrap();
        server.0.wait().unwrap();
        kills += 1;
        server = serve(&config);
    }
    let summary = simulated.join().unwrap().unwrap();
    println!("{summary}");
    assert_eq!(summary.failures, Vec::<String>::new());
    assert_eq!((summary.failures_count, kills), (0, KILLS));
    assert!(summary.reconnects as usize >= devices * KILLS / 2, "the service was not there: {summary}");
}
