//! The control socket, with real sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use revoada_pipeline::control::{Client, ClientError, Command, MESSAGE_BYTES_MAX, Server, ServerError};
use serde_json::{Value, json};

fn socket() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    (folder, path)
}

fn serve(path: &Path) -> Server {
    Server::bind(
        path,
        Box::new(|command| match command {
            Command::Stats => Ok(json!({ "frames": 7 })),
            other => Err(format!("no {}", other.name())),
        }),
    )
    .unwrap()
}

/// Sends bytes and reads one line.
fn raw(path: &Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(bytes).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn commands_are_answered_in_order_on_one_connection() {
    let (_folder, path) = socket();
    let _server = serve(&path);
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(client.request(Command::Stats).unwrap(), json!({ "frames": 7 }));
    assert!(matches!(client.request(Command::Drain), Err(ClientError::Refused(reason)) if reason == "no drain"));
    assert_eq!(client.request(Command::Stats).unwrap()["frames"], 7);
}

#[test]
fn a_message_that_cannot_be_read_is_answered_and_the_next_is_read() {
    let (_folder, path) = socket();
    let _server = serve(&path);
    let stream = UnixStream::connect(&path).unwrap();
    (&stream).write_all(b"nonsense\n{\"version\":1,\"id\":5,\"command\":\"stats\"}\n").unwrap();
    let mut lines = BufReader::new(&stream).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["id"], 0);
    assert_eq!(next(), json!({ "version": 1, "id": 5, "result": { "frames": 7 } }));
}

#[test]
fn a_message_without_end_is_refused_and_hung_up_on() {
    let (_folder, path) = socket();
    let _server = serve(&path);
    let answer = raw(&path, &vec![b' '; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(answer["error"], format!("a message has at most {MESSAGE_BYTES_MAX} bytes"));
}

#[test]
fn clients_are_bounded_and_one_that_leaves_makes_room() {
    let (_folder, path) = socket();
    let _server = serve(&path);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&path).unwrap()).collect();
    // Answered, so surely counted.
    clients.iter_mut().for_each(|client| drop(client.request(Command::Stats).unwrap()));
    let refused = Client::connect(&path).unwrap().request(Command::Stats);
    assert!(matches!(&refused, Err(ClientError::Refused(reason)) if reason.contains("8 clients")), "{refused:?}");
    drop(clients);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while Client::connect(&path).unwrap().request(Command::Stats).is_err() {
        assert!(std::time::Instant::now() < deadline, "the clients that left are still counted");
        std::thread::yield_now();
    }
}

#[test]
fn the_socket_is_its_users_alone_and_is_removed_at_the_end() {
    let (folder, path) = socket();
    let server = serve(&path);
    assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(matches!(Client::connect(&path), Err(ClientError::Connect { .. })));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let (_folder, path) = socket();
    drop(UnixListener::bind(&path).unwrap());
    let server = serve(&path);
    let second = Server::bind(&path, Box::new(|_| Ok(Value::Null)));
    assert!(matches!(second, Err(ServerError::InUse { .. })));
    assert_eq!(Client::connect(&path).unwrap().request(Command::Stats).unwrap()["frames"], 7);
    drop(server);
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(Server::bind(&path, Box::new(|_| Ok(Value::Null))), Err(ServerError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let missing = path.with_file_name("no/such/folder.sock");
    assert!(matches!(Server::bind(&missing, Box::new(|_| Ok(Value::Null))), Err(ServerError::Listen { .. })));
}

#[test]
fn ending_hangs_up_on_idle_clients_and_waits_for_answers() {
    let (_folder, path) = socket();
    let answered = Arc::new(AtomicU64::new(0));
    let (counting, (inside, entered)) = (Arc::clone(&answered), std::sync::mpsc::channel());
    let inside = std::sync::Mutex::new(inside);
    let handler = move |_: Command| {
        inside.lock().unwrap().send(()).unwrap();
        std::thread::yield_now();
        counting.fetch_add(1, Ordering::SeqCst);
        Ok(json!(true))
    };
    let server = Server::bind(&path, Box::new(handler)).unwrap();
    let mut idle = UnixStream::connect(&path).unwrap();
    let asking = {
        let path = path.clone();
        std::thread::spawn(move || Client::connect(&path).unwrap().request(Command::Stats))
    };
    entered.recv().unwrap();
    drop(server);
    assert_eq!(answered.load(Ordering::SeqCst), 1);
    assert_eq!(asking.join().unwrap().unwrap(), json!(true));
    assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0, "hung up");
}
