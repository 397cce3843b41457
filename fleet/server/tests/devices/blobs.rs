//! Downloads, whole and in parts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use revoada_bundle::sign::Signature;
use revoada_fleet::device_port::DevicePortLimits;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::port::{Blobs, PIECE_BYTES, Running, start};
use super::world::{World, connect, until, within};

struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

async fn open(config: &Arc<ClientConfig>, running: &Running, request: &str) -> TlsStream<TcpStream> {
    let mut stream = within(connect(config, running.address)).await.unwrap();
    let request = format!("{request}\r\nHost: fleet.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

async fn head(stream: &mut TlsStream<TcpStream>) -> Response {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(within(stream.read_u8()).await.unwrap());
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Response { status, headers: headers.collect(), body: Vec::new() }
}

async fn ask(config: &Arc<ClientConfig>, running: &Running, request: &str) -> Response {
    let mut stream = open(config, running, request).await;
    let mut response = head(&mut stream).await;
    // A connection that is cut in the body leaves what came before.
    let _ = within(stream.read_to_end(&mut response.body)).await;
    response
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_downloaded_whole_and_in_parts() {
    let world = World::new();
    let blob = noise(3 * PIECE_BYTES + 17);
    let mut blobs = Blobs::default();
    let (digest, empty) = (blobs.add(blob.clone()), blobs.add(Vec::new()));
    let running = start(&world, blobs, DevicePortLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), Some("http/1.1"));
    let get = format!("GET /v1/blobs/{} HTTP/1.1", digest.hex());
    let size = blob.len();
    let whole = ask(&config, &running, &get).await;
    assert_eq!((whole.status, whole.body == blob), (200, true));
    assert_eq!(whole.header("content-length"), Some(size.to_string().as_str()));
    assert_eq!(whole.header("etag"), Some(format!("\"{}\"", digest.hex()).as_str()));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("cache-control"), Some("private, max-age=31536000, immutable"));
    assert_eq!(whole.header("content-range"), None);
    for (range, expected) in [
        ("0-0", 0..1),
        ("100-299999", 100..300_000),
        ("786432-", 786_432..size),
        ("-5", size - 5..size),
        ("5-999999999", 5..size),
    ] {
        let part = ask(&config, &running, &format!("{get}\r\nRange: bytes={range}")).await;
        assert_eq!(part.status, 206, "{range}");
        let said = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert_eq!(part.header("content-range"), Some(said.as_str()));
        assert_eq!(part.header("content-length"), Some(expected.len().to_string().as_str()));
        assert!(part.body == blob[expected], "{range}");
    }
    for range in [format!("{size}-"), "-0".to_owned(), format!("{}-{}", size + 1, size + 2)] {
        let none = ask(&config, &running, &format!("{get}\r\nRange: bytes={range}")).await;
        assert_eq!((none.status, none.body.len()), (416, 0), "{range}");
        assert_eq!(none.header("content-range"), Some(format!("bytes */{size}").as_str()));
    }
    for range in ["bytes=9-2", "bytes=0-1,5-6", "bytes", "lines=1-2", "bytes=a-b"] {
        let whole = ask(&config, &running, &format!("{get}\r\nRange: {range}")).await;
        assert_eq!((whole.status, whole.body.len()), (200, size), "{range}");
    }
    let head = ask(&config, &running, &format!("HEAD /v1/blobs/{digest} HTTP/1.1\r\nRange: bytes=1-2")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    let nothing = ask(&config, &running, &format!("GET /v1/blobs/{} HTTP/1.1", empty.hex())).await;
    assert_eq!((nothing.status, nothing.header("content-length"), nothing.body.len()), (200, Some("0"), 0));
    let sent = running.port.stats();
    until("no download is left", || running.port.stats().downloads == 0).await;
    assert!(sent.downloaded_bytes >= 6 * size as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_off_is_resumed() {
    let world = World::new();
    let blob = noise(20 << 20);
    let mut blobs = Blobs::default();
    let digest = blobs.add(blob.clone());
    let running = start(&world, blobs, DevicePortLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), Some("http/1.1"));
    let get = format!("GET /v1/blobs/{} HTTP/1.1", digest.hex());
    let mut stream = open(&config, &running, &get).await;
    assert_eq!(head(&mut stream).await.status, 200);
    let mut got = vec![0; 1_234_567];
    within(stream.read_exact(&mut got)).await.unwrap();
    drop(stream);
    until("the server has noticed", || running.port.stats().downloads == 0).await;
    assert!(running.port.stats().downloaded_bytes < blob.len() as u64);
    let rest = ask(&config, &running, &format!("{get}\r\nRange: bytes={}-", got.len())).await;
    assert_eq!(rest.status, 206);
    got.extend(rest.body);
    assert!(got == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_and_what_ends_early_is_not_whole() {
    let world = World::new();
    let mut blobs = Blobs::default();
    let digest = blobs.add(noise(100_000));
    blobs.short.insert(digest, 60_000);
    let running = start(&world, blobs, DevicePortLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), Some("http/1.1"));
    for path in ["blobs/12", "blobs/..%2f..%2fetc", "signatures/12", "blobs/", "nothing"] {
        assert_eq!(ask(&config, &running, &format!("GET /v1/{path} HTTP/1.1")).await.status / 100, 4, "{path}");
    }
    let other = revoada_bundle::hash(b"other").hex();
    for path in [format!("blobs/{other}"), format!("signatures/{other}"), format!("signatures/{}", digest.hex())] {
        assert_eq!(ask(&config, &running, &format!("GET /v1/{path} HTTP/1.1")).await.status, 404, "{path}");
    }
    let posted = ask(&config, &running, &format!("POST /v1/blobs/{} HTTP/1.1", digest.hex())).await;
    assert_eq!(posted.status, 405);
    let mut short = open(&config, &running, &format!("GET /v1/blobs/{} HTTP/1.1", digest.hex())).await;
    let mut bytes = Vec::new();
    let ended = within(short.read_to_end(&mut bytes)).await;
    assert!(ended.is_err() && bytes.len() < 100_000, "a client sees that bytes are missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_downloaded_beside_its_blob() {
    let world = World::new();
    let mut blobs = Blobs::default();
    let digest = blobs.add(noise(10));
    let signature = blobs.sign(digest);
    let running = start(&world, blobs, DevicePortLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), Some("http/1.1"));
    let response = ask(&config, &running, &format!("GET /v1/signatures/{} HTTP/1.1", digest.hex())).await;
    assert_eq!(response.status, 200);
    assert_eq!(serde_json::from_slice::<Signature>(&response.body).unwrap(), signature);
    let head = ask(&config, &running, &format!("HEAD /v1/signatures/{} HTTP/1.1", digest.hex())).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_not_for_strangers() {
    let world = World::new();
    let mut blobs = Blobs::default();
    let digest = blobs.add(noise(10));
    blobs.sign(digest);
    let running = start(&world, blobs, DevicePortLimits::default()).await;
    let credentials = world.device("gate-7");
    world.revoked.add(credentials.serial.unwrap());
    for credentials in [None, Some(&credentials)] {
        let config = world.client(credentials, Some("http/1.1"));
        for kind in ["blobs", "signatures"] {
            let response = ask(&config, &running, &format!("GET /v1/{kind}/{} HTTP/1.1", digest.hex())).await;
            assert_eq!((response.status, response.body.len()), (403, 0));
        }
    }
    assert_eq!(running.port.stats().refused_peers, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_ends_when_its_device_is_revoked() {
    let world = World::new();
    let mut blobs = Blobs::default();
    let digest = blobs.add(noise(64 << 20));
    let running = start(&world, blobs, DevicePortLimits::default()).await;
    let credentials = world.device("gate-7");
    let config = world.client(Some(&credentials), Some("http/1.1"));
    let mut stream = open(&config, &running, &format!("GET /v1/blobs/{} HTTP/1.1", digest.hex())).await;
    assert_eq!(head(&mut stream).await.status, 200);
    world.revoked.add(credentials.serial.unwrap());
    let mut body = Vec::new();
    assert!(within(stream.read_to_end(&mut body)).await.is_err());
    assert!(body.len() < 64 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_have_bounds_for_one_device_and_for_all() {
    let world = World::new();
    let mut blobs = Blobs::default();
    let digest = blobs.add(noise(64 << 20));
    let limits = DevicePortLimits { downloads_per_device_max: 2, downloads_max: 3, ..DevicePortLimits::default() };
    let running = start(&world, blobs, limits).await;
    let get = format!("GET /v1/blobs/{} HTTP/1.1", digest.hex());
    let [first, second] = ["gate-1", "gate-2"].map(|name| world.client(Some(&world.device(name)), Some("http/1.1")));
    // Nobody reads on, so that all of them stay under way.
    let mut slow = Vec::new();
    for (config, expected) in [(&first, 200), (&first, 200), (&first, 429), (&second, 200), (&second, 503)] {
        let mut stream = open(config, &running, &get).await;
        let response = head(&mut stream).await;
        assert_eq!(response.status, expected);
        assert_eq!(response.header("retry-after").is_some(), expected != 200);
        slow.push(stream);
    }
    let stats = running.port.stats();
    assert_eq!((stats.downloads, stats.refused_downloads), (3, 2));
    let head = ask(&second, &running, &get.replace("GET", "HEAD")).await;
    assert_eq!(head.status, 200, "what has no body is no download");
    drop(slow);
    until("all have ended", || running.port.stats().downloads == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_device_takes_the_connections_of_the_others() {
    let world = World::new();
    let limits = DevicePortLimits { connections_per_device_max: 2, ..DevicePortLimits::default() };
    let running = start(&world, Blobs::default(), limits).await;
    let [greedy, other] = ["gate-1", "gate-2"].map(|name| world.client(Some(&world.device(name)), Some("http/1.1")));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(within(connect(&greedy, running.address)).await.unwrap());
    }
    until("the third is closed", || running.port.stats().refused_connections == 1).await;
    assert_eq!(ask(&other, &running, "GET /v1/nothing HTTP/1.1").await.status, 404);
    drop(held);
    until("there is room", || running.port.stats().acceptor.open == 0).await;
    assert_eq!(ask(&greedy, &running, "GET /v1/nothing HTTP/1.1").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_downloads_together_keep_to_the_rate() {
    let world = World::new();
    let mut blobs = Blobs::default();
    let blob = noise(2 << 20);
    let digest = blobs.add(blob.clone());
    // The idle time is shorter than what a download waits for the others.
    let limits = DevicePortLimits {
        download_bytes_per_second: Some(2 << 20),
        idle_max: Duration::from_secs(1),
        ..DevicePortLimits::default()
    };
    let running = start(&world, blobs, limits).await;
    let config = world.client(Some(&world.device("gate-7")), Some("http/1.1"));
    let get = format!("GET /v1/blobs/{} HTTP/1.1", digest.hex());
    let start = Instant::now();
    let responses = futures_util::future::join_all((0..4).map(|_| ask(&config, &running, &get))).await;
    assert!(responses.iter().all(|response| response.body == blob));
    // Of 8 MiB, one second's worth goes at once, and the last piece of each does not wait for itself.
    assert!(start.elapsed() >= Duration::from_millis(2500), "{:?}", start.elapsed());
    assert_eq!(running.port.stats().idle, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_do_nothing_are_cut() {
    let world = World::new();
    let mut blobs = Blobs::default();
    let digest = blobs.add(noise(64 << 20));
    let limits = DevicePortLimits { idle_max: Duration::from_millis(400), ..DevicePortLimits::default() };
    let running = start(&world, blobs, limits).await;
    let config = world.client(Some(&world.device("gate-7")), Some("http/1.1"));
    let silent = within(connect(&config, running.address)).await.unwrap();
    let stranger = within(connect(&world.client(None, Some("h2")), running.address)).await.unwrap();
    let mut slow = open(&config, &running, &format!("GET /v1/blobs/{} HTTP/1.1", digest.hex())).await;
    assert_eq!(head(&mut slow).await.status, 200);
    let mut half = within(connect(&config, running.address)).await.unwrap();
    half.write_all(b"GET /v1/blobs/").await.unwrap();
    until("all four are cut", || running.port.stats().idle == 4).await;
    until("and gone", || running.port.stats().acceptor.open == 0).await;
    assert_eq!(running.port.stats().downloads, 0);
    drop((silent, stranger, slow, half));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded() {
    let world = World::new();
    let running = start(&world, Blobs::default(), DevicePortLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), Some("http/1.1"));
    let long = format!("GET /v1/nothing HTTP/1.1\r\nX: {}", "x".repeat(100 << 10));
    assert_eq!(ask(&config, &running, &long).await.status, 431);
    let many = format!("GET /v1/nothing HTTP/1.1{}", "\r\nX: x".repeat(200));
    assert_eq!(ask(&config, &running, &many).await.status, 431);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_downloads_end_and_cuts_those_that_do_not() {
    let world = World::new();
    let blob = noise(32 << 20);
    for (is_read, cut) in [(true, 0), (false, 1)] {
        let mut blobs = Blobs::default();
        let digest = blobs.add(blob.clone());
        let running = start(&world, blobs, DevicePortLimits::default()).await;
        let config = world.client(Some(&world.device("gate-7")), Some("http/1.1"));
        let mut stream = open(&config, &running, &format!("GET /v1/blobs/{} HTTP/1.1", digest.hex())).await;
        assert_eq!(head(&mut stream).await.status, 200);
        let reading = async {
            let mut body = Vec::new();
            if is_read {
                stream.read_to_end(&mut body).await.unwrap();
            }
            body.len()
        };
        let time = if is_read { Duration::from_secs(20) } else { Duration::from_millis(200) };
        let (left, read) = within(async { tokio::join!(running.port.shutdown(time), reading) }).await;
        assert_eq!((left, read), (cut, if is_read { blob.len() } else { 0 }));
    }
}
