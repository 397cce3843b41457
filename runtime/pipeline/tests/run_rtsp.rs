//! A real RTSP camera that dies and returns.

#![cfg(feature = "rtsp-server")]
#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fakes::draft;
use revoada_core::{ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp};
use revoada_engine::BackendOptions;
use revoada_pipeline::control::{Client, Command};
use revoada_pipeline::media::RtspServer;
use revoada_pipeline::run::{Parts, RunSummary, StopFlag, StreamState, run};

/// A camera that is plugged in until it is dropped.
struct Camera {
    address: SocketAddr,
    unplugged: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    fn plug_in(address: SocketAddr) -> Self {
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
        let stopping = Arc::clone(&unplugged);
        let film = move || {
            let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), Size::new(160, 120));
            for sequence in 0.. {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let pixels = vec![sequence as u8; layout.bytes().unwrap()];
                let pts = Timestamp::from_nanos(sequence * 40_000_000);
                let id = StreamId::new("cam");
                let frame = Frame::new(id, sequence, pts, pts, layout, MemoryKind::Host, Box::new(pixels)).unwrap();
                server.push(&Arc::new(frame)).unwrap();
                std::thread::sleep(Duration::from_millis(40));
            }
        };
        Self { address, unplugged, thread: Some(std::thread::spawn(film)) }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.unplugged.store(true, Ordering::SeqCst);
        drop(self.thread.take().unwrap().join());
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
    let (fake, _) = fakes::Script::new(&[]).parts();
    let parts = Parts { loader: fake.loader, ..Parts::new(&BackendOptions::default()) };
    let (config, stop) = (draft(&text).check().unwrap(), StopFlag::new());
    let stopping = stop.clone();
    let thread = std::thread::spawn(move || run(config, parts, &stopping));
    let wait = |what: &str, holds: &dyn Fn(&RunSummary) -> bool| {
        let started = Instant::now();
        loop {
            let stats = Client::connect(&socket).and_then(|mut client| client.request(Command::Stats));
            let stats: Option<RunSummary> = stats.ok().and_then(|stats| serde_json::from_value(stats).ok());
            if let Some(stats) = stats.as_ref().filter(|stats| holds(stats)) {
                return stats.clone();
            }
            assert!(started.elapsed() < fakes::DEADLINE, "{what}: {stats:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait("the camera shows pictures", &|stats| stats.streams[0].frames_out >= 10);
    drop(camera);
    let dead = wait("the camera is missed", &|stats| stats.streams[0].state == StreamState::Reconnecting);
    let other = dead.streams[1].frames_out;
    wait("the other stream goes on", &|stats| stats.streams[1].frames_out > other + 30);
    let _camera = Camera::plug_in(address);
    let frames = dead.streams[0].frames_out;
    wait("the camera is back", &|stats| stats.streams[0].frames_out > frames + 10);
    stop.request();
    let summary = thread.join().unwrap().unwrap();
    assert!(summary.streams[0].reconnects >= 1 && summary.failures().count() == 0);
    assert_eq!(summary.streams[1].reconnects, 0);
}
