//! Real RTSP cameras that die, stall, talk nonsense, change their picture, and return.

#![cfg(feature = "rtsp-server")]
#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fakes::draft;
use revoada_core::{ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp};
use revoada_engine::BackendOptions;
use revoada_pipeline::control::{Client, Command};
use revoada_pipeline::media::RtspServer;
use revoada_pipeline::run::{Parts, RunError, RunSummary, StopFlag, StreamState, run};

/// A camera that is plugged in until it is dropped.
struct Camera {
    address: SocketAddr,
    unplugged: Arc<AtomicBool>,
    /// It is there and shows nothing.
    is_frozen: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    fn plug_in(address: SocketAddr) -> Self {
        Self::of(address, "cam", Size::new(160, 120))
    }

    fn of(address: SocketAddr, id: &str, size: Size) -> Self {
        let started = Instant::now();
        // The port of the camera before may still be closing.
        let server = loop {
            match RtspServer::start(address, None) {
                Ok(server) => break server,
                Err(error) => assert!(started.elapsed() < fakes::DEADLINE, "{error:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let (address, unplugged) = (server.address(), Arc::new(AtomicBool::new(false)));
        let (stopping, is_frozen, id) = (Arc::clone(&unplugged), Arc::new(AtomicBool::new(false)), StreamId::new(id));
        let frozen = Arc::clone(&is_frozen);
        let film = move || {
            let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), size);
            for sequence in 0.. {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(40));
                if frozen.load(Ordering::SeqCst) {
                    continue;
                }
                let pixels = vec![sequence as u8; layout.bytes().unwrap()];
                let pts = Timestamp::from_nanos(sequence * 40_000_000);
                let frame =
                    Frame::new(id.clone(), sequence, pts, pts, layout, MemoryKind::Host, Box::new(pixels)).unwrap();
                server.push(&Arc::new(frame)).unwrap();
            }
        };
        Self { address, unplugged, is_frozen, thread: Some(std::thread::spawn(film)) }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.unplugged.store(true, Ordering::SeqCst);
        drop(self.thread.take().unwrap().join());
    }
}

/// A run that is asked over its control socket how it does.
struct Watched {
    socket: PathBuf,
    stop: StopFlag,
    thread: JoinHandle<Result<RunSummary, RunError>>,
}

impl Watched {
    fn start(text: &str, socket: PathBuf) -> Self {
        let (fake, _) = fakes::Script::new(&[]).parts();
        let parts = Parts { loader: fake.loader, ..Parts::new(&BackendOptions::default()) };
        let (config, stop) = (draft(text).check().unwrap(), StopFlag::new());
        let stopping = stop.clone();
        Self { socket, stop, thread: std::thread::spawn(move || run(config, parts, &stopping)) }
    }

    fn wait(&self, what: &str, holds: &dyn Fn(&RunSummary) -> bool) -> RunSummary {
        let started = Instant::now();
        loop {
            let stats = Client::connect(&self.socket).and_then(|mut client| client.request(Command::Stats));
            let stats: Option<RunSummary> = stats.ok().and_then(|stats| serde_json::from_value(stats).ok());
            if let Some(stats) = stats.as_ref().filter(|stats| holds(stats)) {
                return stats.clone();
            }
            assert!(started.elapsed() < fakes::DEADLINE, "{what}: {stats:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(self) -> RunSummary {
        self.stop.request();
        self.thread.join().unwrap().unwrap()
    }
}

#[test]
fn an_rtsp_camera_that_dies_and_returns_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let camera = Camera::plug_in("127.0.0.1:0".parse().unwrap());
    let address = camera.address;
    let text = format!(
        "[model]\npath = \"fake.onnx\"\ndecoder = \"brightness\"\n[[stream]]\nid = \"cam\"\nuri = \"rtsp://{address}/cam\"\n\
         reconnect = {{ delay_ms_min = 50, delay_ms_max = 200, stall_ms = 2000 }}\n\
         [[stream]]\nid = \"other\"\nuri = \"test://smpte?width=64&height=48&fps=30&live=true\"\n\
         [[sink]]\ntype = \"jsonl\"\npath = \"{}\"\n[control]\nsocket = \"{}\"\n",
        folder.path().join("out.jsonl").display(),
        socket.display()
    );
    let run = Watched::start(&text, socket);
    let wait = |what: &str, holds: &dyn Fn(&RunSummary) -> bool| run.wait(what, holds);
    wait("the camera shows pictures", &|stats| stats.streams[0].frames_out >= 10);
    drop(camera);
    let dead = wait("the camera is missed", &|stats| stats.streams[0].state == StreamState::Reconnecting);
    let other = dead.streams[1].frames_out;
    wait("the other stream goes on", &|stats| stats.streams[1].frames_out > other + 30);
    let _camera = Camera::plug_in(address);
    let frames = dead.streams[0].frames_out;
    wait("the camera is back", &|stats| stats.streams[0].frames_out > frames + 10);
    let summary = run.stop();
    assert!(summary.streams[0].reconnects >= 1 && summary.failures().count() == 0);
    assert_eq!(summary.streams[1].reconnects, 0);
}

/// What stands where a camera was.
struct Impostor {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Takes connections and says nothing.
    Silence,
    /// Bytes that are no RTSP, for as long as somebody listens.
    Noise,
}

impl Impostor {
    fn at(address: SocketAddr, answer: Answer) -> Self {
        let started = Instant::now();
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) => assert!(started.elapsed() < fakes::DEADLINE, "{error:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let serve = move || {
            let mut silent = Vec::new();
            let mut noise = fastrand::Rng::with_seed(7);
            for mut connection in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                match answer {
                    Answer::Silence => silent.push(connection),
                    Answer::Noise => {
                        let mut bytes = vec![0; 4096];
                        // A client that understood enough hangs up.
                        drop(connection.read(&mut bytes));
                        noise.fill(&mut bytes);
                        drop(connection.write_all(&bytes));
                    }
                }
            }
        };
        Self { address, is_over, thread: Some(std::thread::spawn(serve)) }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes it.
        drop(std::net::TcpStream::connect(self.address));
        drop(self.thread.take().unwrap().join());
    }
}

/// How a camera fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Dies,
    Freezes,
    Imposed(Answer),
    /// Returns at once, with a larger picture.
    Grows,
}

#[test]
fn ten_cameras_that_fail_at_once_disturb_no_other_and_all_return() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, lines) = (folder.path().join("s"), folder.path().join("out.jsonl"));
    let kinds =
        [Fault::Dies, Fault::Freezes, Fault::Imposed(Answer::Silence), Fault::Imposed(Answer::Noise), Fault::Grows];
    let faults: Vec<Fault> = kinds.into_iter().cycle().take(10).chain([Fault::None; 2]).collect();
    let (small, large) = (Size::new(160, 120), Size::new(320, 240));
    let any = "127.0.0.1:0".parse().unwrap();
    let id = |index: usize| format!("cam{index}");
    let mut cameras: Vec<_> = (0..faults.len()).map(|index| Some(Camera::of(any, &id(index), small))).collect();
    let addresses: Vec<_> = cameras.iter().flatten().map(|camera| camera.address).collect();
    let mut text = "[model]\npath = \"fake.onnx\"\ndecoder = \"brightness\"\n".to_owned();
    for (index, address) in addresses.iter().enumerate() {
        let id = id(index);
        text += &format!(
            "[[stream]]\nid = \"{id}\"\nuri = \"rtsp://{address}/{id}\"\n\
             reconnect = {{ delay_ms_min = 100, delay_ms_max = 1000, stall_ms = 2000 }}\n"
        );
    }
    text += &format!(
        "[batch]\nframes_max = 4\n[[sink]]\ntype = \"jsonl\"\npath = \"{}\"\n[control]\nsocket = \"{}\"\n",
        lines.display(),
        socket.display()
    );
    let run = Watched::start(&text, socket);
    // A camera that is asked before its first picture is tried again.
    let at_first = run.wait("all show pictures", &|stats| stats.streams.iter().all(|stream| stream.frames_out > 0));

    let mut impostors = Vec::new();
    for (index, fault) in faults.iter().enumerate() {
        match fault {
            Fault::None => {}
            Fault::Freezes => cameras[index].as_ref().unwrap().is_frozen.store(true, Ordering::SeqCst),
            Fault::Dies => cameras[index] = None,
            Fault::Imposed(answer) => {
                cameras[index] = None;
                impostors.push(Impostor::at(addresses[index], *answer));
            }
            Fault::Grows => {
                cameras[index] = None;
                cameras[index] = Some(Camera::of(addresses[index], &id(index), large));
            }
        }
    }
    let failing = |index: &usize| faults[*index] != Fault::None;
    let lost = run.wait("all that failed are missed", &|stats| {
        let reconnects = |stats: &RunSummary, index: usize| stats.streams[index].reconnects;
        (0..faults.len()).filter(failing).all(|index| reconnects(stats, index) > reconnects(&at_first, index))
    });
    let good = |stats: &RunSummary| (10..12).map(|index| stats.streams[index].frames_out).min().unwrap();
    run.wait("the others go on meanwhile", &|stats| good(stats) > good(&lost) + 25);

    drop(impostors);
    for (index, fault) in faults.iter().enumerate() {
        match fault {
            Fault::Dies | Fault::Imposed(_) => cameras[index] = Some(Camera::of(addresses[index], &id(index), small)),
            Fault::Freezes => cameras[index].as_ref().unwrap().is_frozen.store(false, Ordering::SeqCst),
            Fault::None | Fault::Grows => {}
        }
    }
    let begun = Instant::now();
    let before = run.wait("it can be asked", &|_| true);
    for index in (0..faults.len()).filter(failing) {
        let seen = before.streams[index].frames_out;
        let shows = |stats: &RunSummary| stats.streams[index].frames_out > seen + 10;
        run.wait(&format!("camera {index}, which {:?}, is back", faults[index]), &shows);
        println!("camera {index}, {:?}: back within {:.1} s", faults[index], begun.elapsed().as_secs_f64());
    }

    let summary = run.stop();
    assert_eq!(summary.failures().count(), 0);
    for (stream, at_first) in summary.streams.iter().zip(&at_first.streams).skip(10) {
        assert_eq!(stream.reconnects, at_first.reconnects, "{stream:?}");
        // A live queue drops what a busy machine does not get to, and that is not the failing cameras' doing.
        assert!(stream.frames_dropped.queue * 10 <= stream.frames_in, "{stream:?}");
    }
    let text = std::fs::read_to_string(lines).unwrap();
    let records = text.lines().skip(1).map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut latest = vec![None; faults.len()];
    for record in records {
        let index = (0..faults.len()).find(|&index| record["stream"] == id(index)).unwrap();
        let now = (record["frame"].as_u64().unwrap(), record["pts_ms"].as_f64().unwrap(), record["width"].as_u64());
        let is_next = |before: &(u64, f64, Option<u64>)| before.0 < now.0 && before.1 < now.1;
        assert!(latest[index].as_ref().is_none_or(is_next), "{:?}, then {now:?}", latest[index]);
        latest[index] = Some(now);
    }
    for (latest, fault) in latest.iter().zip(faults) {
        let width = if fault == Fault::Grows { large.width } else { small.width };
        assert_eq!(latest.unwrap().2, Some(width as u64), "{fault:?}");
    }
}
