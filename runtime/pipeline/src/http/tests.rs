use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use revoada_core::{ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn server(streams: &[&str]) -> (Server, Arc<Hub>) {
    let hub = Hub::new();
    for id in streams {
        hub.open_stream(&StreamId::new(id), StreamOptions { quality: 80, fps_max: 0 });
    }
    (Server::bind("127.0.0.1:0".parse().unwrap(), hub.clone()).unwrap(), hub)
}

/// A grey picture of this brightness.
fn frame(stream: &str, sequence: u64, luma: u8, size: Size) -> Arc<Frame> {
    let layout = ImageLayout::packed(PixelFormat::Gray, ColorSpec::default(), size);
    let frame = Frame::new(
        StreamId::new(stream),
        sequence,
        Timestamp::ZERO,
        Timestamp::ZERO,
        layout,
        MemoryKind::Host,
        Box::new(vec![luma; layout.bytes().unwrap()]),
    );
    Arc::new(frame.unwrap())
}

fn small(stream: &str, sequence: u64, luma: u8) -> Arc<Frame> {
    frame(stream, sequence, luma, Size::new(32, 24))
}

fn connect(server: &Server, path: &str) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    BufReader::new(socket)
}

/// Lines up to the empty one.
fn head(reader: &mut impl BufRead) -> String {
    let mut text = String::new();
    loop {
        let start = text.len();
        if reader.read_line(&mut text).unwrap() == 0 || text[start..].trim().is_empty() {
            return text.to_lowercase();
        }
    }
}

/// Status line with headers, and the body of a response that ends.
fn get(server: &Server, path: &str) -> (String, Vec<u8>) {
    let mut reader = connect(server, path);
    let head = head(&mut reader);
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    (head, body)
}

/// The bytes of a chunked body, without its framing.
struct Chunked<R>(R, usize);

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1 == 0 {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            if line.trim().is_empty() {
                line.clear();
                self.0.read_line(&mut line)?;
            }
            self.1 = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            if self.1 == 0 {
                return Ok(0);
            }
        }
        let length = buffer.len().min(self.1);
        let read = self.0.read(&mut buffer[..length])?;
        self.1 -= read;
        Ok(read)
    }
}

type LiveStream = BufReader<Chunked<BufReader<TcpStream>>>;

fn watch_live(server: &Server, path: &str) -> LiveStream {
    let mut reader = connect(server, path);
    let head = head(&mut reader);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: multipart/x-mixed-replace; boundary=frame"), "{head}");
    BufReader::new(Chunked(reader, 0))
}

/// The brightness of the next picture of a live stream.
fn next_luma(live: &mut LiveStream) -> u8 {
    let head = head(live);
    let length = head.split("content-length:").nth(1).and_then(|rest| rest.trim().parse().ok());
    let mut jpeg = vec![0; length.unwrap_or_else(|| panic!("a part has its length: {head}"))];
    live.read_exact(&mut jpeg).unwrap();
    let mut line = String::new();
    live.read_line(&mut line).unwrap();
    let picture = image::load_from_memory(&jpeg).unwrap().to_luma8();
    picture.get_pixel(5, 5)[0]
}

/// Publishes until `seen` says so.
fn publish_until(hub: &Hub, frame: &Arc<Frame>, seen: impl Fn() -> bool) {
    let started = Instant::now();
    while !seen() {
        assert!(started.elapsed() < DEADLINE, "the condition was never met");
        hub.publish(frame);
        std::thread::yield_now();
    }
}

#[test]
fn a_watcher_sees_each_new_picture() {
    let (server, hub) = server(&["front door"]);
    hub.publish(&small("front door", 0, 40));
    let mut live = watch_live(&server, "/streams/front%20door.mjpeg");
    let mut line = String::new();
    live.read_line(&mut line).unwrap();
    assert_eq!(line, "--frame\r\n");
    assert!(next_luma(&mut live).abs_diff(40) <= 2);
    line.clear();
    live.read_line(&mut line).unwrap();
    hub.publish(&small("front door", 1, 200));
    assert!(next_luma(&mut live).abs_diff(200) <= 2);
}

#[test]
fn a_second_watcher_after_all_have_left_sees_the_present() {
    let (server, hub) = server(&["a"]);
    for luma in [30, 90, 220] {
        hub.publish(&small("a", 0, luma));
        let mut live = watch_live(&server, "/streams/a.mjpeg");
        let mut line = String::new();
        live.read_line(&mut line).unwrap();
        // The picture of those who watched before may come first, the present one follows.
        let mut seen = next_luma(&mut live);
        while seen.abs_diff(luma) > 2 {
            line.clear();
            live.read_line(&mut line).unwrap();
            seen = next_luma(&mut live);
        }
    }
}

#[test]
fn a_client_that_stops_reading_holds_nobody_up() {
    let (server, hub) = server(&["a"]);
    let size = Size::new(1280, 720);
    let noise = {
        let layout = ImageLayout::packed(PixelFormat::Gray, ColorSpec::default(), size);
        let bytes = (0..layout.bytes().unwrap() as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
        Arc::new(
            Frame::new(
                StreamId::new("a"),
                0,
                Timestamp::ZERO,
                Timestamp::ZERO,
                layout,
                MemoryKind::Host,
                Box::new(bytes.collect::<Vec<_>>()),
            )
            .unwrap(),
        )
    };
    hub.publish(&noise);
    let stuck = watch_live(&server, "/streams/a.mjpeg");
    let mut lively = watch_live(&server, "/streams/a.mjpeg");
    let mut line = String::new();
    lively.read_line(&mut line).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Far more than the sockets' buffers take of pictures of half a megabyte.
            for _ in 0..30 {
                next_luma(&mut lively);
                let mut line = String::new();
                lively.read_line(&mut line).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        publish_until(&hub, &noise, || done.load(Ordering::Relaxed));
    });
    assert_eq!(get(&server, "/healthz").1, b"ok\n");
    let started = Instant::now();
    drop(server);
    assert!(started.elapsed() < SHUTDOWN_DEADLINE * 4, "a stuck client does not keep the server");
    drop(stuck);
}

#[test]
fn nothing_is_encoded_while_nobody_watches() {
    let (server, hub) = server(&["a"]);
    let frame = small("a", 0, 90);
    hub.publish(&frame);
    drop(watch_live(&server, "/streams/a.mjpeg"));
    // Once the watcher is gone and the encoder has noticed, only the hub holds the frame.
    publish_until(&hub, &frame, || !hub.channel("a").unwrap().is_encoding());
    hub.publish(&small("a", 1, 10));
    assert_eq!(Arc::strong_count(&frame), 1);
}

#[test]
fn a_snapshot_is_the_latest_picture() {
    let (server, hub) = server(&["a"]);
    let (head, _) = get(&server, "/streams/a.jpg");
    assert!(head.starts_with("http/1.1 503"), "{head}");
    hub.publish(&small("a", 0, 10));
    hub.publish(&small("a", 1, 77));
    let (head, body) = get(&server, "/streams/a.jpg");
    assert!(head.contains("content-type: image/jpeg"), "{head}");
    assert!(image::load_from_memory(&body).unwrap().to_luma8().get_pixel(3, 3)[0].abs_diff(77) <= 1);
}

#[test]
fn what_does_not_exist_is_not_found() {
    let (server, _hub) = server(&["a"]);
    for path in ["/streams/b.mjpeg", "/streams/b.jpg", "/streams/a", "/streams/a.png", "/nothing"] {
        let (head, _) = get(&server, path);
        assert!(head.starts_with("http/1.1 404"), "{path}: {head}");
    }
    assert_eq!(get(&server, "/streams/b.jpg").1, b"there is no stream `b` to see\n");
}

#[test]
fn callbacks_answer_for_metrics_and_streams() {
    let (server, hub) = server(&["a"]);
    assert!(get(&server, "/metrics").0.starts_with("http/1.1 503"));
    hub.set_metrics(Arc::new(|| "revoada_frames_total 7\n# EOF\n".to_owned()));
    let (head, body) = get(&server, "/metrics");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert_eq!(body, b"revoada_frames_total 7\n# EOF\n");

    hub.publish(&small("a", 0, 10));
    hub.set_streams(Arc::new(|| {
        let status = |id: &str| StreamStatus { id: id.to_owned(), fps: 29.5, frames: 9, ..Default::default() };
        vec![status("b"), status("a")]
    }));
    let (_, body) = get(&server, "/api/streams");
    let listing: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(listing["version"], 1);
    assert_eq!((&listing["streams"][0]["id"], &listing["streams"][0]["preview"]), (&"b".into(), &false.into()));
    let a = &listing["streams"][1];
    assert_eq!((&a["width"], &a["fps"], &a["preview"]), (&32.into(), &29.5.into(), &true.into()));
}

fn json(server: &Server, path: &str) -> serde_json::Value {
    let (head, body) = get(server, path);
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: no-store"), "{head}");
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn the_listing_tells_the_run_the_health_of_streams_and_what_is_allowed() {
    let (server, hub) = server(&[]);
    let listing = json(&server, "/api/streams");
    assert_eq!((&listing["control"], &listing["run"]), (&false.into(), &serde_json::Value::Null));
    hub.set_control(Arc::new(|_| Ok(serde_json::Value::Null)));
    hub.set_run(Arc::new(|| RunStatus { model: Some("faces".to_owned()), swaps: 2, frames: 70, ..Default::default() }));
    hub.set_streams(Arc::new(|| {
        let drops = crate::run::FramesDropped { interval: 0, queue: 4, shutdown: 0 };
        let counts = crate::sink::record::CountsRecord {
            regions: vec![crate::sink::record::RegionRecord {
                name: "seat".to_owned(),
                objects: 1,
                entered: 3,
                left: 2,
                dwelt: 1,
                crowded: false,
            }],
            ..Default::default()
        };
        vec![StreamStatus {
            id: "a".to_owned(),
            state: "reconnecting".to_owned(),
            last_frame_ms: Some(7000),
            latency_p99_ms: 40.0,
            dropped: 4,
            drops,
            queue_frames: 3,
            reconnects: 2,
            stalls: 1,
            counts: Some(counts),
            error: Some("no frame for 5.0 s".to_owned()),
            ..Default::default()
        }]
    }));
    let listing = json(&server, "/api/streams");
    assert_eq!(listing["control"], true);
    assert_eq!((&listing["run"]["model"], &listing["run"]["swaps"]), (&"faces".into(), &2.into()));
    let a = &listing["streams"][0];
    for (field, expected) in [
        ("state", "reconnecting".into()),
        ("last_frame_ms", 7000.into()),
        ("latency_p99_ms", 40.0.into()),
        ("drops", serde_json::json!({ "interval": 0, "queue": 4, "shutdown": 0 })),
        ("queue_frames", 3.into()),
        ("reconnects", 2.into()),
        ("stalls", 1.into()),
        ("preview", false.into()),
        ("error", "no frame for 5.0 s".into()),
    ] {
        assert_eq!(a[field], expected, "{field}");
    }
    assert_eq!(a["counts"]["regions"][0]["objects"], 1);
}

#[test]
fn the_latest_events_are_remembered_and_counted() {
    let (server, hub) = server(&[]);
    assert_eq!(json(&server, "/api/events"), serde_json::json!({ "version": 1, "total": 0, "events": [] }));
    let event = |frame: usize| {
        let record = serde_json::json!({
            "version": 1, "id": format!("a-{frame}-0"), "stream": "a", "frame": frame, "pts_ms": 40.0,
            "event": "region-entered", "rule": "seat", "track": 5,
        });
        serde_json::from_value::<crate::sink::record::EventRecord>(record).unwrap()
    };
    let total = hub::EVENTS_MAX + 30;
    hub.tell((0..total).map(event));
    let told = json(&server, "/api/events");
    let events = told["events"].as_array().unwrap();
    assert_eq!((told["total"].as_u64(), events.len()), (Some(total as u64), hub::EVENTS_MAX));
    assert_eq!((&events[0]["frame"], &events[hub::EVENTS_MAX - 1]["frame"]), (&30.into(), &(total - 1).into()));
    assert_eq!(json(&server, "/api/streams")["events"], total);
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let (server, _hub) = server(&[]);
    let (head, body) = get(&server, "/");
    assert!(head.contains("text/html") && head.contains("content-security-policy: default-src 'none'"), "{head}");
    let page = String::from_utf8(body).unwrap();
    for outside in ["http://", "https://", "src=\"//", "href=\"//", "url(//", "@import", "import("] {
        assert!(!page.contains(outside), "{outside}");
    }
    for needed in ["/api/streams", "/api/events", "/metrics"] {
        assert!(page.contains(needed), "the page asks for {needed}");
        assert!(!get(&server, needed).0.starts_with("http/1.1 404"), "{needed} exists");
    }
}

#[test]
fn a_port_in_use_is_refused_in_one_sentence() {
    let (server, hub) = server(&[]);
    let error = Server::bind(server.address(), hub).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot serve on `{}`", server.address()));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "another program uses this port");
}

#[test]
fn a_dropped_server_ends_its_streams_and_frees_its_port() {
    let (server, hub) = server(&["a"]);
    hub.publish(&small("a", 0, 40));
    let mut live = watch_live(&server, "/streams/a.mjpeg");
    let mut line = String::new();
    live.read_line(&mut line).unwrap();
    next_luma(&mut live);
    let address = server.address();
    drop(server);
    let mut rest = Vec::new();
    live.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"--frame\r\n");
    Server::bind(address, hub).unwrap();
}

#[test]
fn a_closed_stream_sends_its_watchers_away() {
    let (server, hub) = server(&["a"]);
    hub.publish(&small("a", 0, 40));
    let mut live = watch_live(&server, "/streams/a.mjpeg");
    let mut line = String::new();
    live.read_line(&mut line).unwrap();
    next_luma(&mut live);
    hub.open_stream(&StreamId::new("a"), StreamOptions { quality: 80, fps_max: 0 });
    hub.publish(&small("a", 1, 90));
    line.clear();
    live.read_line(&mut line).unwrap();
    assert!(next_luma(&mut live).abs_diff(90) <= 2, "opening it again in the same way changes nothing");
    hub.close_stream(&StreamId::new("a"));
    let mut rest = Vec::new();
    live.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"--frame\r\n");
    assert!(get(&server, "/streams/a.jpg").0.starts_with("http/1.1 404"));
}

#[test]
fn watchers_are_bounded() {
    let (server, hub) = server(&["a"]);
    hub.publish(&small("a", 0, 40));
    let watchers: Vec<_> = (0..routes::WATCHERS_MAX).map(|_| watch_live(&server, "/streams/a.mjpeg")).collect();
    let (head, body) = get(&server, "/streams/a.mjpeg");
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert_eq!(body, b"too many are watching\n");
    assert!(get(&server, "/streams/a.jpg").0.starts_with("http/1.1 200"), "snapshots still work");
    drop(watchers);
}
