//! Streams from real servers over the loopback: RTSP that is absent, dies and returns; HTTP; what we
//! serve ourselves.
#![cfg(feature = "rtsp-server")]
#![allow(clippy::unwrap_used)] // Helpers of tests fail as tests do.

mod media_clips;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_rtsp_server as gst_rtsp_server;

use gst_rtsp_server::prelude::*;
use media_clips::{DEADLINE, assert_step, clock, drain, next, skipped, step, steps, stream};
use revoada_core::{ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp};
use revoada_pipeline::config::{RtspTransport, SourceConfig};
use revoada_pipeline::media::{self, RtspServer};
use revoada_pipeline::{Pull, SinkError, Source, SourceError};

const NEEDED: [&str; 5] = ["x264enc", "rtspsrc", "rtph264pay", "rtph264depay", "avdec_h264"];

/// A camera: GStreamer's own RTSP server with a test pattern and, like cameras have, sound.
struct Camera {
    address: SocketAddr,
    server: gst_rtsp_server::RTSPServer,
    listening: gst::glib::Source,
    main_loop: gst::glib::MainLoop,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    fn start(port: u16) -> Self {
        media::init().unwrap();
        let server = gst_rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&port.to_string());
        let factory = gst_rtsp_server::RTSPMediaFactory::new();
        // Who does not ask for the sound leaves its branch unlinked. A source that nothing takes from is an error, and an
        // error puts all of the server's media, pictures included, into its error state: the tee takes.
        factory.set_launch(
            "( videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=180,framerate=25/1 ! \
             x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 \
             audiotestsrc is-live=true ! tee allow-not-linked=true ! alawenc ! rtppcmapay name=pay1 pt=8 )",
        );
        // Each viewer has its own: a shared one ends for whoever joins while the last viewer is leaving.
        factory.set_shared(false);
        server.mount_points().unwrap().add_factory("/camera", factory);
        let context = gst::glib::MainContext::new();
        let listening = server.create_source(gst_rtsp_server::gio::Cancellable::NONE).unwrap();
        listening.attach(Some(&context));
        let main_loop = gst::glib::MainLoop::new(Some(&context), false);
        let running = main_loop.clone();
        let thread = std::thread::spawn(move || context.with_thread_default(|| running.run()).unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.bound_port() as u16));
        Self { address, server, listening, main_loop, thread: Some(thread) }
    }

    fn source(&self, transport: RtspTransport) -> SourceConfig {
        source(self.address, "camera", transport)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.listening.destroy();
        self.server.client_filter(Some(&mut |_, _| gst_rtsp_server::RTSPFilterResult::Remove));
        self.main_loop.quit();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn source(address: SocketAddr, path: &str, transport: RtspTransport) -> SourceConfig {
    SourceConfig::Rtsp { url: format!("rtsp://{address}/{path}"), transport, latency: Duration::from_millis(100) }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Pulls until the stream is lost; the error.
fn until_lost(source: &mut dyn Source) -> SourceError {
    let begun = Instant::now();
    loop {
        match next(source) {
            Err(error) => return error,
            Ok(None) => panic!("a live stream has no end"),
            Ok(Some(_)) => assert!(begun.elapsed() < DEADLINE, "the stream goes on without its server"),
        }
    }
}

#[test]
fn a_camera_is_watched_over_tcp_and_udp() {
    if skipped("a_camera_is_watched_over_tcp_and_udp", &NEEDED) {
        return;
    }
    let camera = Camera::start(0);
    for transport in [RtspTransport::Tcp, RtspTransport::Udp, RtspTransport::Auto] {
        let begun = Instant::now();
        let mut source = media::open(&stream(camera.source(transport)), clock()).unwrap();
        let first = next(&mut *source).unwrap().unwrap();
        println!("{transport:?}: first frame after {:?}", begun.elapsed());
        assert_eq!((first.pts, first.sequence, first.size()), (Timestamp::ZERO, 0, Size::new(320, 180)));
        let last = (0..25).map(|_| next(&mut *source).unwrap().unwrap()).last().unwrap();
        assert_eq!(last.sequence, 25);
        assert!((last.pts.as_secs_f64() - 1.0).abs() < 0.3, "{transport:?}: frame 25 at {}", last.pts);
    }
}

#[test]
fn an_absent_camera_is_lost_and_may_return() {
    if skipped("an_absent_camera_is_lost_and_may_return", &NEEDED) {
        return;
    }
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let config = stream(source(address, "camera", RtspTransport::Tcp));
    let error = media::open(&config, clock()).err().expect("nobody listens");
    assert!(matches!(&error, SourceError::Lost { uri, .. } if uri.contains(&port.to_string())), "{error:?}");
    println!("{error}");
    let camera = Camera::start(port);
    let mut source = media::open(&config, clock()).unwrap();
    next(&mut *source).unwrap().unwrap();
    drop(camera);
    let error = until_lost(&mut *source);
    assert!(matches!(error, SourceError::Lost { .. }), "{error:?}");
    println!("{error}");
    drop(source);
    let _camera = Camera::start(port);
    let mut source = media::open(&config, clock()).unwrap();
    assert_eq!(next(&mut *source).unwrap().unwrap().sequence, 0);
}

#[test]
fn a_camera_that_says_nothing_does_not_hold_its_reader() {
    if skipped("a_camera_that_says_nothing_does_not_hold_its_reader", &NEEDED) {
        return;
    }
    // It accepts connections and never answers.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let config = stream(source(mute.local_addr().unwrap(), "camera", RtspTransport::Tcp));
    let begun = Instant::now();
    match media::open(&config, clock()) {
        Ok(mut source) => assert!(matches!(source.pull(Duration::from_millis(50)), Ok(Pull::Idle))),
        Err(error) => assert!(matches!(error, SourceError::Lost { .. }), "{error:?}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?} to give up", begun.elapsed());
}

/// A small web server: `/clip.mp4`, `/live.mjpeg` until it is told to stop, and 404.
struct Web {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Web {
    fn start(clip: Vec<u8>, jpeg: Vec<u8>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        std::thread::spawn(move || {
            let (clip, jpeg) = (Arc::new(clip), Arc::new(jpeg));
            for connection in listener.incoming().flatten() {
                if told.load(Ordering::Acquire) {
                    return;
                }
                let (clip, jpeg, told) = (Arc::clone(&clip), Arc::clone(&jpeg), Arc::clone(&told));
                std::thread::spawn(move || serve(connection, &clip, &jpeg, &told));
            }
        });
        Self { address, stop }
    }

    fn open(&self, path: &str) -> Result<Box<dyn Source>, SourceError> {
        media::open(&stream(SourceConfig::Http(format!("http://{}/{path}", self.address))), clock())
    }
}

/// Errors end the connection, as a browser that leaves does.
fn serve(mut connection: TcpStream, clip: &[u8], jpeg: &[u8], stop: &AtomicBool) -> Option<()> {
    let mut lines = BufReader::new(connection.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    lines.by_ref().take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
    if request.contains("/clip.mp4") {
        let length = clip.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).ok()?;
        return connection.write_all(clip).ok();
    }
    if request.contains("/live.mjpeg") {
        let kind = "multipart/x-mixed-replace; boundary=frame";
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).ok()?;
        while !stop.load(Ordering::Acquire) {
            let part = format!("--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
            connection.write_all(part.as_bytes()).ok()?;
            connection.write_all(jpeg).ok()?;
            connection.write_all(b"\r\n").ok()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        return None;
    }
    connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()
}

#[test]
fn videos_and_cameras_are_watched_over_http() {
    let test = "videos_and_cameras_are_watched_over_http";
    if skipped(test, &["souphttpsrc", "x264enc", "mp4mux", "avdec_h264", "multipartdemux", "jpegdec"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mp4");
    steps(&path, 40, (320, 180), 25, "x264enc speed-preset=ultrafast ! mp4mux faststart=true");
    let jpeg = folder.path().join("a.jpg");
    image::RgbImage::from_pixel(160, 120, image::Rgb([90, 90, 90])).save(&jpeg).unwrap();
    let web = Web::start(std::fs::read(path).unwrap(), std::fs::read(jpeg).unwrap());
    let (frames, error) = drain(&mut *web.open("clip.mp4").unwrap());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames.len(), 40);
    (0..).zip(&frames).for_each(|(index, frame)| assert_step(frame, index));
    let error = web.open("absent.mp4").err().expect("there is no such page");
    assert!(matches!(error, SourceError::Open { .. }), "{error:?}");
    println!("{error}");
    let mut camera = web.open("live.mjpeg").unwrap();
    for index in 0..10 {
        let frame = next(&mut *camera).unwrap().unwrap();
        assert_eq!((frame.sequence, frame.size()), (index, Size::new(160, 120)));
    }
    web.stop.store(true, Ordering::Release);
    let error = until_lost(&mut *camera);
    assert!(matches!(error, SourceError::Lost { .. }), "{error:?}");
    println!("{error}");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let error = media::open(&stream(SourceConfig::Http(format!("http://{address}/a.mp4"))), clock()).err().unwrap();
    assert!(matches!(error, SourceError::Lost { .. }), "{error:?}");
    println!("{error}");
}

fn plain(name: &str, index: u64, size: Size) -> Arc<Frame> {
    let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), size);
    let mut memory = vec![128u8; layout.bytes().unwrap()];
    memory[..size.width * size.height].fill(step(index % 3));
    let pts = Timestamp::from_nanos(index * 40_000_000);
    Arc::new(Frame::new(StreamId::new(name), index, pts, pts, layout, MemoryKind::Host, Box::new(memory)).unwrap())
}

/// Pushes 25 frames a second of two streams until dropped.
struct Pushing(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Pushing {
    fn into(server: &Arc<RtspServer>) -> Self {
        let (stop, server) = (Arc::new(AtomicBool::new(false)), Arc::clone(server));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for index in 0.. {
                if told.load(Ordering::Acquire) {
                    return;
                }
                server.push(&plain("one", index, Size::new(320, 180))).unwrap();
                server.push(&plain("two", index, Size::new(160, 120))).unwrap();
                std::thread::sleep(Duration::from_millis(40));
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.take().unwrap().join().unwrap();
    }
}

#[test]
fn what_we_serve_is_watched_by_several_and_by_who_comes_late() {
    if skipped("what_we_serve_is_watched_by_several_and_by_who_comes_late", &NEEDED) {
        return;
    }
    let server = Arc::new(RtspServer::start((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap());
    server.push(&plain("one", 0, Size::new(320, 180))).unwrap();
    server.push(&plain("two", 0, Size::new(160, 120))).unwrap();
    let pushing = Pushing::into(&server);
    let watch = |name: &str| media::open(&stream(source(server.address(), name, RtspTransport::Tcp)), clock()).unwrap();
    let mut one = watch("one");
    let frames: Vec<Frame> = (0..15).map(|_| next(&mut *one).unwrap().unwrap()).collect();
    assert_eq!(frames[0].size(), Size::new(320, 180));
    let known = |frame: &Frame| (0..3).any(|index| (media_clips::luma(frame) - f64::from(step(index))).abs() < 4.0);
    assert!(frames.iter().all(known), "these are not the frames that were pushed");
    let mut two = watch("two");
    assert_eq!(next(&mut *two).unwrap().unwrap().size(), Size::new(160, 120));
    let begun = Instant::now();
    let mut late = watch("one");
    assert!(known(&next(&mut *late).unwrap().unwrap()));
    println!("a late viewer waited {:?}", begun.elapsed());
    drop((one, late));
    // The last viewer has left and the next one comes.
    let mut again = watch("one");
    assert!(known(&next(&mut *again).unwrap().unwrap()));
    let error = media::open(&stream(source(server.address(), "three", RtspTransport::Tcp)), clock()).err();
    assert!(matches!(error, Some(SourceError::Lost { .. })), "{error:?}");
    drop(pushing);
    drop(Arc::into_inner(server).expect("the pusher has gone"));
    let error = until_lost(&mut *again);
    assert!(matches!(error, SourceError::Lost { .. }), "{error:?}");
}

#[test]
fn the_end_of_a_stream_is_told_to_who_watches_it_and_to_no_one_else() {
    if skipped("the_end_of_a_stream_is_told_to_who_watches_it_and_to_no_one_else", &NEEDED) {
        return;
    }
    let server = Arc::new(RtspServer::start((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap());
    server.push(&plain("ending", 0, Size::new(64, 48))).unwrap();
    server.push(&plain("one", 0, Size::new(320, 180))).unwrap();
    let pushing = Pushing::into(&server);
    let at = |name: &str| stream(source(server.address(), name, RtspTransport::Tcp));
    let mut ending = media::open(&at("ending"), clock()).unwrap();
    let mut one = media::open(&at("one"), clock()).unwrap();
    next(&mut *ending).unwrap().unwrap();
    next(&mut *one).unwrap().unwrap();
    server.end_stream(&StreamId::new("ending"));
    let error = until_lost(&mut *ending);
    assert!(matches!(error, SourceError::Lost { .. }), "{error:?}");
    let error = media::open(&at("ending"), clock()).err().expect("it is not served any more");
    assert!(matches!(error, SourceError::Lost { .. }), "{error:?}");
    for _ in 0..10 {
        next(&mut *one).unwrap().expect("the other stream goes on");
    }
    drop(pushing);
}

#[test]
fn nobody_who_watches_costs_no_encoding_and_drops_nothing() {
    if skipped("nobody_who_watches_costs_no_encoding_and_drops_nothing", &NEEDED) {
        return;
    }
    let server = RtspServer::start((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
    for index in 0..1000 {
        server.push(&plain("one", index, Size::new(320, 180))).unwrap();
    }
    let id = StreamId::new("one");
    assert_eq!(server.dropped(&id), 0);
    let mut viewer = media::open(&stream(source(server.address(), "one", RtspTransport::Tcp)), clock()).unwrap();
    next(&mut *viewer).unwrap().expect("who comes is shown where the stream stands");
    // Far faster than any encoder.
    for index in 1000..3000 {
        server.push(&plain("one", index, Size::new(320, 180))).unwrap();
    }
    assert!(server.dropped(&id) > 1000, "{}", server.dropped(&id));
}

#[test]
fn a_port_in_use_is_refused() {
    if skipped("a_port_in_use_is_refused", &NEEDED) {
        return;
    }
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = RtspServer::start(address, None).err().expect("the port is taken");
    match error {
        SinkError::Serve { address: told, source } => {
            assert_eq!(told, address.to_string());
            assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_probe_tells_what_is_there_and_what_to_install() {
    let report = media::probe().unwrap();
    let named = |name: &str| report.elements.iter().find(|element| element.name == name).unwrap();
    assert_eq!(named("nvarguscamerasrc").package, "nvidia-l4t-gstreamer");
    assert_eq!(named("x264enc").present, gst::ElementFactory::find("x264enc").is_some());
    if named("x264enc").present {
        assert!(report.encoder.is_some());
    }
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["gstreamer"].as_str().unwrap().starts_with("1."), "{json}");
}
