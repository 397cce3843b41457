//! Events of a running pipeline delivered over real sockets, to servers that fail, hang, die and come back.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use fakes::{DEADLINE, FILE, Script, Step};
use revoada_pipeline::run::{Parts, RunSummary, StopFlag, run};
use revoada_pipeline::sink::{self, DeliverySummary};
use serde_json::Value;

const RULES: &str = r#"
[tracker]
algorithm = "bytetrack"
[analytics]
margin = 0
forget_s = 0.2
[[analytics.line]]
name = "door"
points = [[0, 8], [16, 8]]
[[analytics.region]]
name = "hall"
points = [[0, 3.5], [16, 3.5], [16, 12.5], [0, 12.5]]
dwell_s = 0.2
"#;

/// What the 64 frames of a stream tell: four objects come in, cross the line, stay and leave.
const EVENTS: usize = 16;
const FRAMES: &[&[Step]] = &[&[Step::Frames(64)]];
/// Quick to try again, patient at the end.
const EAGER: &str = "delay_ms_min = 10\ndelay_ms_max = 50\nflush_ms = 30000\n";

/// A stream's events into a file and into one more sink.
fn script(folder: &Path, frames: &[&[Step]], sink: &str) -> Script {
    let path = folder.join("events.jsonl");
    Script::described(
        &[("front", FILE, frames)],
        &format!("{RULES}[[sink]]\ntype = \"events\"\npath = {path:?}\n{sink}"),
    )
    .set("model.decoder", "walker")
}

fn start(script: &Script, stop: &StopFlag) -> JoinHandle<RunSummary> {
    let mut config = script.config();
    // The detections have their tracks already.
    (config.tracker, config.model.score_low) = (None, None);
    let (parts, _) = script.parts();
    let (parts, stop) = (Parts { open_sink: Box::new(sink::open), ..parts }, stop.clone());
    thread::spawn(move || run(config, parts, &stop).unwrap())
}

fn finished(script: &Script) -> RunSummary {
    start(script, &StopFlag::new()).join().unwrap()
}

fn outcome(summary: &RunSummary) -> &DeliverySummary {
    let [delivery] = &summary.deliveries[..] else { panic!("one sink delivers: {:?}", summary.deliveries) };
    delivery
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    events.into_iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

/// The events that the file tells.
fn told(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A list that threads add to and the test waits for.
struct Log<T>(Arc<(Mutex<Vec<T>>, Condvar)>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Log<T> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn add(&self, item: T) {
        self.0.0.lock().unwrap().push(item);
        self.0.1.notify_all();
    }

    fn all(&self) -> Vec<T> {
        self.0.0.lock().unwrap().clone()
    }

    fn wait_for(&self, count: usize) {
        let short = |items: &mut Vec<T>| items.len() < count;
        let (items, timeout) = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), DEADLINE, short).unwrap();
        assert!(!timeout.timed_out(), "{} of {count} came", items.len());
    }
}

/// What an HTTP server does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Answer(u16),
    /// Keeps the connection and says nothing.
    Hang,
    Close,
}

#[derive(Clone, Debug)]
struct Request {
    act: Act,
    head: String,
    event: Value,
}

/// Serves until the process ends; does as told with the first requests, and answers the rest with the last.
fn http_server(acts: &[Act]) -> (SocketAddr, Log<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Log::new());
    let (acts, log) = (Mutex::new(acts.iter().copied().collect::<VecDeque<_>>()), requests.clone());
    thread::spawn(move || {
        let mut hanging = Vec::new();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Some((head, event)) = request(&mut reader) {
                let mut acts = acts.lock().unwrap();
                let act = if acts.len() > 1 { acts.pop_front().unwrap() } else { acts[0] };
                log.add(Request { act, head, event });
                match act {
                    Act::Answer(status) => {
                        let answer = format!("HTTP/1.1 {status} x\r\nretry-after: 0\r\ncontent-length: 2\r\n\r\nok");
                        (&stream).write_all(answer.as_bytes()).unwrap();
                    }
                    Act::Hang => {
                        hanging.push(stream);
                        break;
                    }
                    Act::Close => break,
                }
            }
        }
    });
    (address, requests)
}

/// `None` where the client has closed the connection.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap()))
}

#[test]
fn a_server_that_fails_hangs_and_closes_gets_every_event_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "open sesame\n").unwrap();
    let acts = [Act::Answer(500), Act::Hang, Act::Close, Act::Answer(429), Act::Answer(200)];
    let (address, requests) = http_server(&acts);
    let sink = format!(
        "[[sink]]\ntype = \"webhook\"\nurl = \"http://{address}/events\"\ntoken_file = {token:?}\ntimeout_ms = 500\n{EAGER}"
    );
    let summary = finished(&script(folder.path(), FRAMES, &sink));
    assert_eq!(summary.frames_out, 64);
    let expected =
        DeliverySummary { sink: "webhook".into(), delivered: EVENTS as u64, retried: 4, ..DeliverySummary::default() };
    assert_eq!(*outcome(&summary), expected);
    let requests = requests.all();
    assert_eq!(requests.iter().map(|request| request.act).take(5).collect::<Vec<_>>(), acts);
    let taken: Vec<_> = requests.iter().filter(|request| request.act == Act::Answer(200)).collect();
    let events: Vec<_> = taken.iter().map(|request| request.event.clone()).collect();
    assert_eq!(events, told(folder.path()), "each once, whole and in order");
    for Request { head, .. } in &requests {
        assert!(head.starts_with("post /events http/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: bearer open sesame\r\n"), "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
    }
}

#[test]
fn what_a_server_refuses_is_counted_and_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (address, requests) = http_server(&[Act::Answer(404), Act::Answer(302), Act::Answer(200)]);
    let sink = format!("[[sink]]\ntype = \"webhook\"\nurl = \"http://{address}/\"\n{EAGER}");
    let summary = finished(&script(folder.path(), FRAMES, &sink));
    let outcome = outcome(&summary);
    assert_eq!((outcome.delivered, outcome.failed, outcome.retried), (EVENTS as u64 - 2, 2, 0));
    assert_eq!(requests.all().len(), EVENTS);
}

#[test]
fn a_server_that_is_not_there_costs_events_and_no_frames() {
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (kind, url) in [("webhook", format!("http://{address}/")), ("mqtt", format!("mqtt://{address}"))] {
        let sink = format!("[[sink]]\ntype = {kind:?}\nurl = {url:?}\nqueue_events_max = 4\nflush_ms = 50\n");
        let summary = finished(&script(folder.path(), FRAMES, &sink));
        assert_eq!((summary.frames_out, told(folder.path()).len()), (64, EVENTS));
        let outcome = outcome(&summary);
        assert_eq!((outcome.delivered, outcome.dropped, outcome.waiting), (0, EVENTS as u64, 0), "{kind}");
        assert!(outcome.error.is_some());
    }
}

/// An MQTT 3.1.1 broker, as much of one as a client that only publishes can tell from a whole one.
struct Broker {
    address: SocketAddr,
    thread: JoinHandle<()>,
}

/// A publication, and what was said when its client connected.
#[derive(Clone, Debug)]
struct Published {
    connect: Vec<u8>,
    topic: String,
    /// Of the fixed header.
    flags: u8,
    event: Value,
    acknowledged: bool,
}

/// Nothing is acknowledged after so many publications; at the next, the connection is closed.
type DiesAfter = Option<usize>;

impl Broker {
    /// Takes one connection after another until it dies or is stopped.
    fn start(address: SocketAddr, log: Log<Published>, dies_after: DiesAfter) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut publications = 0;
            for stream in listener.incoming() {
                if serve(stream.unwrap(), &log, dies_after, &mut publications) == Ended::Broker {
                    return;
                }
            }
        });
        Self { address, thread }
    }

    /// Waits for a broker that dies by itself.
    fn died(self) {
        self.thread.join().unwrap();
    }
}

#[derive(PartialEq)]
enum Ended {
    Client,
    Broker,
}

fn serve(stream: TcpStream, log: &Log<Published>, dies_after: DiesAfter, publications: &mut usize) -> Ended {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut connect = Vec::new();
    while let Some((first, body)) = packet(&mut reader) {
        let answer = match first >> 4 {
            1 => {
                connect = body;
                vec![0x20, 2, 0, 0]
            }
            3 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
                let (id, payload) = match first & 0b0110 {
                    0 => (None, &body[2 + length..]),
                    _ => (Some([body[2 + length], body[3 + length]]), &body[4 + length..]),
                };
                let dies = dies_after.is_some_and(|after| *publications >= after);
                *publications += 1;
                log.add(Published {
                    connect: connect.clone(),
                    topic,
                    flags: first & 0x0f,
                    event: serde_json::from_slice(payload).unwrap(),
                    acknowledged: !dies,
                });
                if dies {
                    return Ended::Broker;
                }
                id.map(|[high, low]| vec![0x40, 2, high, low]).unwrap_or_default()
            }
            12 => vec![0xd0, 0],
            14 => return Ended::Client,
            other => panic!("a client that publishes sends no packet of type {other}"),
        };
        if (&stream).write_all(&answer).is_err() {
            break;
        }
    }
    Ended::Client
}

fn packet(reader: &mut impl std::io::Read) -> Option<(u8, Vec<u8>)> {
    let mut byte = || {
        let mut byte = [0];
        reader.read_exact(&mut byte).ok().map(|()| byte[0])
    };
    let first = byte()?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let digit = byte()?;
        length |= usize::from(digit & 0x7f) << shift;
        shift += 7;
        if digit & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, body))
}

#[test]
fn a_broker_that_comes_late_and_dies_gets_every_event_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sink = format!("[[sink]]\ntype = \"mqtt\"\nurl = \"mqtt://{address}\"\nqueue_events_max = 100000\n{EAGER}");
    let stop = StopFlag::new();
    let running = start(&script(folder.path(), &[&[Step::FramesWithoutEnd]], &sink), &stop);
    let published = Log::new();
    // Each dies with an event that it has read and not acknowledged.
    for lives in [5, 0, 20] {
        Broker::start(address, published.clone(), Some(lives)).died();
    }
    let before = published.all().len();
    assert_eq!(before, 6 + 1 + 21);
    Broker::start(address, published.clone(), None);
    published.wait_for(before + 50);
    stop.request();
    let summary = running.join().unwrap();
    let outcome = outcome(&summary);
    let told = told(folder.path());
    assert_eq!((outcome.delivered, outcome.dropped, outcome.failed), (told.len() as u64, 0, 0), "{outcome:?}");
    assert!(outcome.retried >= 3, "{outcome:?}");
    let published = published.all();
    let acknowledged: Vec<_> = published.iter().filter(|event| event.acknowledged).map(|event| &event.event).collect();
    assert_eq!(ids(acknowledged.iter().copied()), ids(&told), "nothing is lost");
    assert_eq!(acknowledged.len(), told.len(), "what was acknowledged is not sent again");
}

#[test]
fn topics_retention_and_names_are_those_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    for (qos, flags) in [(0, 0b0001), (1, 0b0011)] {
        let published = Log::new();
        let broker = Broker::start("127.0.0.1:0".parse().unwrap(), published.clone(), None);
        let sink = format!(
            "[[sink]]\ntype = \"mqtt\"\nurl = \"mqtt://porter@{}\"\npassword_file = {password:?}\nclient_id = \"gate-7\"\n\
             topic = \"site/{{stream}}/{{kind}}\"\nqos = {qos}\nretain = true\n{EAGER}",
            broker.address,
        );
        let summary = finished(&script(folder.path(), FRAMES, &sink));
        assert_eq!(outcome(&summary).delivered, EVENTS as u64);
        // Without acknowledgements the broker may still be reading.
        published.wait_for(EVENTS);
        let published = published.all();
        assert_eq!(published.iter().map(|one| one.event.clone()).collect::<Vec<_>>(), told(folder.path()));
        for Published { connect, topic, flags: found, event, .. } in published {
            assert_eq!(topic, format!("site/front/{}", event["event"].as_str().unwrap()));
            assert_eq!(found, flags);
            // Protocol level 4 is MQTT 3.1.1; then the flags of user, password and clean session.
            assert_eq!(&connect[..8], b"\0\x04MQTT\x04\xc2");
            assert!(connect.ends_with(b"\0\x06gate-7\0\x06porter\0\x06s3cret"), "{connect:?}");
        }
    }
}

#[test]
fn messages_of_deepstream_are_delivered_in_the_place_of_events() {
    let folder = tempfile::tempdir().unwrap();
    for (payload, kind, place) in [("full", "object", "/sensor/id"), ("minimal", "frame", "/sensorId")] {
        let published = Log::new();
        let broker = Broker::start("127.0.0.1:0".parse().unwrap(), published.clone(), None);
        let sink = format!(
            "[[sink]]\ntype = \"mqtt\"\nurl = \"mqtt://{}\"\npayload = \"deepstream-{payload}\"\nevery = 16\n\
             topic = \"{{stream}}/{{kind}}\"\n{EAGER}",
            broker.address,
        );
        let summary = finished(&script(folder.path(), FRAMES, &sink));
        assert_eq!(outcome(&summary).delivered, 4, "an object in each of the frames 0, 16, 32 and 48");
        for Published { topic, event, .. } in published.all() {
            assert_eq!(topic, format!("front/{kind}"));
            assert_eq!(event.pointer(place).and_then(Value::as_str), Some("front"), "{event}");
        }
    }
}

#[test]
fn each_event_has_a_picture_of_its_frame_as_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    let (address, requests) = http_server(&[Act::Answer(200)]);
    let sink = format!("[[sink]]\ntype = \"webhook\"\nurl = \"http://{address}/\"\nsnapshots = {pictures:?}\n{EAGER}");
    finished(&script(folder.path(), FRAMES, &sink));
    let requests = requests.all();
    assert_eq!(requests.len(), EVENTS);
    for Request { event, .. } in &requests {
        let path = Path::new(event["snapshot"].as_str().unwrap());
        assert_eq!(path, pictures.join(format!("{}.event.jpg", event["id"].as_str().unwrap())));
        let picture = image::open(path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (16, 16));
        // The frames are of one colour; what is drawn on them is not.
        assert!(picture.pixels().any(|pixel| pixel.0.iter().any(|value| value.abs_diff(picture[(0, 0)].0[0]) > 40)));
    }
    assert_eq!(std::fs::read_dir(&pictures).unwrap().count(), EVENTS);
    // The file of events has none, since its sink keeps none.
    assert!(told(folder.path()).iter().all(|event| event.get("snapshot").is_none()));
}
