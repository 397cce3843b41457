//! `FlowerService/Join`, spoken by Flower's own `start_client`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use revoada_federated::Participant;
use revoada_fleet::flower::{JoinDoor, JoinDoorLimits, JoinDoorOptions};
use revoada_fleet::identity::Authority;
use revoada_fleet::learning::{Config, Metrics, Reply, Reported, Sheet, Value, Work};
use revoada_fleet::tls;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::hall::{Hall, average, parameters, read, sheet, within};
use super::join::open;

/// The folder of an environment of Python's in which `flwr` is; the test that needs it says that it was skipped.
fn python() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("REVOADA_FLOWER_VENV") else {
        println!("skipped: flower: REVOADA_FLOWER_VENV names no environment with `flwr`");
        return None;
    };
    Some(Path::new(&folder).join("bin/python"))
}

struct Client {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Client {
    /// One that adds so much to each weight, and says that it has so many examples.
    fn start(python: &Path, address: SocketAddr, add: u32, examples: u32, more: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/flower_client.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(address.to_string())
            .args(["--add", &add.to_string(), "--examples", &examples.to_string()])
            .args(more)
            .env("FLWR_TELEMETRY_ENABLED", "0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::unbounded_channel();
        // Ends with the client's output.
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines }
    }

    /// Waits until it says something that begins so.
    async fn says(&mut self, start: &str) -> String {
        loop {
            let line = within(self.lines.recv()).await.expect("the client has ended");
            if line.starts_with(start) {
                return line;
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn ends_well(mut self) {
        self.says("done").await;
        // Its output ends with it.
        assert!(within(self.lines.recv()).await.is_none());
        assert!(self.child.wait().unwrap().success());
    }
}

/// No test leaves one behind.
impl Drop for Client {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}

fn fit(weights: &Arc<Sheet>, round: i64) -> Work {
    let config = Config::from([("round".to_owned(), Value::Integer(round)), ("rate".to_owned(), Value::Double(0.1))]);
    Work::Fit { weights: Arc::clone(weights), config }
}

async fn fitted(hall: &mut Hall, count: usize) -> Arc<Sheet> {
    let mut replies = Vec::new();
    for _ in 0..count {
        replies.push(hall.said().await.2);
    }
    average(&replies)
}

fn assert_all(sheet: &Sheet, expected: f32) {
    assert_eq!(sheet.weights().values(), [expected; 11]);
}

async fn send_away(hall: &mut Hall, clients: Vec<(Participant, Client)>) {
    for (participant, client) in clients {
        hall.post(&participant, Work::Leave);
        client.ends_well().await;
        assert_eq!(hall.gone().await, participant);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_rounds_of_which_one_loses_a_client_and_gains_another_give_the_expected_weights() {
    let Some(python) = python() else { return };
    let mut hall = Hall::new(10);
    let (_door, address) = open(&hall, None, JoinDoorLimits::default()).await;
    let first = Client::start(&python, address, 1, 3, &[]);
    let one = hall.came().await;
    let second = Client::start(&python, address, 5, 1, &[]);
    let two = hall.came().await;
    let mut third = Client::start(&python, address, 8, 4, &["--stall-in", "2"]);
    let three = hall.came().await;

    hall.post(&one, parameters());
    let Reply::Parameters(tensors) = hall.said().await.2 else { panic!("it has weights") };
    let weights = read(&tensors);
    let elements = weights.tensors().map(|(_, element, shape)| (element.name(), shape.to_vec())).collect::<Vec<_>>();
    assert_eq!(elements, [("float32", vec![3, 2]), ("float64", vec![4]), ("int64", vec![])]);
    assert_all(&weights, 0.0);

    for participant in [&one, &two, &three] {
        hall.post(participant, fit(&weights, 1));
    }
    let weights = fitted(&mut hall, 3).await;
    assert_all(&weights, 5.0);

    for participant in [&one, &two, &three] {
        hall.post(participant, fit(&weights, 2));
    }
    let mut replies = vec![hall.said().await.2, hall.said().await.2];
    third.says("fit [('rate', 0.1), ('round', 2)]").await;
    third.kill();
    assert_eq!(hall.gone().await, three);
    let fourth = Client::start(&python, address, 6, 4, &[]);
    let four = hall.came().await;
    let weights = average(&replies);
    assert_all(&weights, 7.0);

    for participant in [&one, &two, &four] {
        hall.post(participant, fit(&weights, 3));
    }
    replies.clear();
    for _ in 0..3 {
        replies.push(hall.said().await.2);
    }
    let metrics = replies.iter().map(|reply| match reply {
        Reply::Fit { reported, .. } => reported.metrics.clone(),
        other => panic!("{other:?}"),
    });
    for metrics in metrics {
        assert_eq!(metrics["bool"], Value::Bool(true));
        assert_eq!(metrics["bytes"], Value::Bytes(vec![0, 255]));
        assert_eq!(metrics["double"], Value::Double(0.5));
        assert!(matches!(metrics["integer"], Value::Integer(-3 | -1)));
        assert_eq!(metrics["text"], Value::Text("ä".to_owned()));
    }
    let weights = average(&replies);
    assert_all(&weights, 11.0);

    hall.post(&one, Work::Evaluate { weights, config: Config::new() });
    let metrics = Metrics::from([("add".to_owned(), Value::Integer(1))]);
    let (_, _, reply) = hall.said().await;
    assert_eq!(reply, Reply::Evaluate { loss: Some(11.0), reported: Reported { examples: 3, metrics } });
    send_away(&mut hall, vec![(one, first), (two, second), (four, fourth)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_given_the_root_certificate_comes_by_tls() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let identity = authority.issue_server(&["127.0.0.1".to_owned()]).unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, authority.root_pem()).unwrap();
    let mut hall = Hall::new(10);
    let tls = tls::flower_config(&identity).unwrap();
    let (_door, address) = open(&hall, Some(tls), JoinDoorLimits::default()).await;
    let client = Client::start(&python, address, 2, 1, &["--root-certificates", root.to_str().unwrap()]);
    let participant = hall.came().await;
    hall.post(&participant, parameters());
    let Reply::Parameters(tensors) = hall.said().await.2 else { panic!("it has weights") };
    let mut weights = read(&tensors);
    for round in 1..=3 {
        hall.post(&participant, fit(&weights, round));
        weights = fitted(&mut hall, 1).await;
    }
    assert_all(&weights, 6.0);
    send_away(&mut hall, vec![(participant, client)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_while_the_service_starts_again_goes_on() {
    let Some(python) = python() else { return };
    let mut hall = Hall::new(10);
    let limits = JoinDoorLimits { come_again_after: Duration::from_secs(1), ..JoinDoorLimits::default() };
    let (door, address) = open(&hall, None, limits.clone()).await;
    let client = Client::start(&python, address, 2, 1, &[]);
    let before = hall.came().await;
    assert_eq!(within(door.shutdown(Duration::from_secs(60))).await, 0);
    assert_eq!(hall.gone().await, before);
    let listener = TcpListener::bind(address).await.unwrap();
    let board = Arc::clone(&hall.board);
    let _door = JoinDoor::start(JoinDoorOptions { listener, tls: None, board, limits });
    let after = hall.came().await;
    hall.post(&after, fit(&sheet(&[1.0]), 1));
    assert_eq!(fitted(&mut hall, 1).await.weights().values(), [3.0]);
    send_away(&mut hall, vec![(after, client)]).await;
}
