//! Serving frames by RTSP.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as gst_rtsp_server;
use gstreamer_video as gst_video;
use revoada_core::{Frame, ImageLayout, StreamId};

use gst::glib;
use gst_rtsp_server::prelude::*;

use super::elements;
use super::encoder::{self, FrameRate, Purpose, Target};
use super::raw;
use crate::SinkError;
use crate::lock::lock;

/// Streams at `rtsp://address/<stream>`, each from its first frame on, as H.264.
///
/// A stream is encoded once, whatever the number of its viewers, and not at all while there is none.
/// Nobody waits for a viewer or for the encoder: of the frames that come while it is busy, the newest is
/// kept and the others are dropped and counted. A viewer who comes late gets a key frame at once. Frames of
/// another size than the first are scaled to it. Dropping the server disconnects its viewers and joins its thread.
pub struct RtspServer {
    address: SocketAddr,
    bitrate_kbps: Option<u32>,
    server: gst_rtsp_server::RTSPServer,
    mount_points: gst_rtsp_server::RTSPMountPoints,
    listening: glib::Source,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
    streams: Mutex<BTreeMap<StreamId, Arc<Outgoing>>>,
    /// A viewer has asked to play since the last frame of any stream.
    joined: Arc<AtomicU64>,
}

/// One stream that is served.
struct Outgoing {
    rate: FrameRate,
    feed: Mutex<Feed>,
    dropped: AtomicU64,
    /// The value of `RtspServer::joined` for which a key frame was sent.
    key_framed: AtomicU64,
    failed: AtomicBool,
}

#[derive(Default)]
struct Feed {
    /// There while somebody watches.
    source: Option<gst_app::AppSrc>,
    hungry: bool,
    newest: Option<Arc<Frame>>,
    /// Shown to who comes when the stream stands still.
    last: Option<Arc<Frame>>,
    caps: Option<(ImageLayout, gst::Caps)>,
}

impl RtspServer {
    /// Listens on `address`; port 0 takes any free one.
    pub fn start(address: SocketAddr, bitrate_kbps: Option<u32>) -> Result<Self, SinkError> {
        super::init().map_err(|error| SinkError::Rtsp { reason: error.to_string() })?;
        for element in ["rtph264pay", "h264parse", "videoscale"] {
            elements::require(element).map_err(|error| SinkError::Rtsp { reason: error.to_string() })?;
        }
        // The server's own error does not say whether the port is taken.
        let free = TcpListener::bind(address);
        drop(free.map_err(|source| SinkError::Serve { address: address.to_string(), source })?);
        let server = gst_rtsp_server::RTSPServer::new();
        server.set_address(&address.ip().to_string());
        server.set_service(&address.port().to_string());
        let mount_points = gst_rtsp_server::RTSPMountPoints::new();
        server.set_mount_points(Some(&mount_points));
        let joined = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&joined);
        server.connect_client_connected(move |_, client| {
            let count = Arc::clone(&count);
            client.connect_play_request(move |_, _| {
                count.fetch_add(1, Ordering::AcqRel);
            });
        });
        let context = glib::MainContext::new();
        let listening = server.create_source(gst_rtsp_server::gio::Cancellable::NONE).map_err(|error| {
            SinkError::Serve { address: address.to_string(), source: std::io::Error::other(error.message().to_owned()) }
        })?;
        listening.attach(Some(&context));
        let port = u16::try_from(server.bound_port()).unwrap_or(address.port());
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let running = main_loop.clone();
        let serve = move || {
            if context.with_thread_default(|| running.run()).is_err() {
                tracing::error!("the RTSP server's loop belongs to another thread");
            }
        };
        let thread = std::thread::Builder::new().name("rtsp-server".to_owned()).spawn(serve);
        let thread = thread.map_err(|source| SinkError::Serve { address: address.to_string(), source })?;
        Ok(Self {
            address: SocketAddr::new(address.ip(), port),
            bitrate_kbps,
            server,
            mount_points,
            listening,
            main_loop,
            thread: Some(thread),
            streams: Mutex::default(),
            joined,
        })
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows a frame to who watches its stream; the first one of a stream makes it known. Never waits.
    pub fn push(&self, frame: &Arc<Frame>) -> Result<(), SinkError> {
        let stream = self.stream(frame)?;
        let joined = self.joined.load(Ordering::Acquire);
        stream.show(frame, joined).map_err(|reason| SinkError::Rtsp { reason })
    }

    /// Frames of `stream` that were not shown because the encoder was busy; those that came while
    /// nobody watched do not count.
    pub fn dropped(&self, stream: &StreamId) -> u64 {
        lock(&self.streams).get(stream).map_or(0, |stream| stream.dropped.load(Ordering::Relaxed))
    }

    /// Tells the viewers of a stream that it has ended, and forgets it; its next frame makes it known again.
    pub fn end_stream(&self, stream: &StreamId) {
        let Some(outgoing) = lock(&self.streams).remove(stream) else { return };
        self.mount_points.remove_factory(&format!("/{stream}"));
        if let Some(source) = lock(&outgoing.feed).source.take() {
            // It refuses only while the last viewer leaves.
            let _ = source.end_of_stream();
        }
        tracing::info!(%stream, "no longer served by RTSP");
    }

    fn stream(&self, frame: &Arc<Frame>) -> Result<Arc<Outgoing>, SinkError> {
        let mut streams = lock(&self.streams);
        if let Some(stream) = streams.get(&frame.stream) {
            return Ok(Arc::clone(stream));
        }
        let size = raw::even(frame.size());
        let rate = FrameRate::DEFAULT;
        let target = Target { purpose: Purpose::Live, size, rate, bitrate_kbps: self.bitrate_kbps };
        let encoder = encoder::choose(&target).map_err(|error| SinkError::Rtsp { reason: error.to_string() })?;
        let stream = Arc::new(Outgoing {
            rate,
            feed: Mutex::default(),
            dropped: AtomicU64::new(0),
            key_framed: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        });
        let factory = gst_rtsp_server::RTSPMediaFactory::new();
        factory.set_shared(true);
        factory.set_launch(&format!(
            "( appsrc name=source is-live=true do-timestamp=true format=time ! videoscale ! videoconvert ! \
             capsfilter caps=\"video/x-raw, width={}, height={}, pixel-aspect-ratio=1/1, \
             colorimetry=(string){}\" ! {} ! h264parse ! \
             rtph264pay name=pay0 pt=96 config-interval=-1 )",
            size.width,
            size.height,
            raw::video_color(frame.layout()),
            encoder.text
        ));
        let weak = Arc::downgrade(&stream);
        factory.connect_media_configure(move |_, media| connect(&weak, media));
        self.mount_points.add_factory(&format!("/{}", frame.stream), factory);
        streams.insert(frame.stream.clone(), Arc::clone(&stream));
        tracing::info!(stream = %frame.stream, address = %self.address, encoder = encoder.name, "serving RTSP");
        Ok(stream)
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        self.listening.destroy();
        self.server.client_filter(Some(&mut |_, _| gst_rtsp_server::RTSPFilterResult::Remove));
        // From inside the loop: a `quit` before the thread has begun to run it would be lost.
        let main_loop = self.main_loop.clone();
        let quit = glib::idle_source_new(None, glib::Priority::DEFAULT, move || {
            main_loop.quit();
            glib::ControlFlow::Break
        });
        quit.attach(Some(&self.main_loop.context()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the RTSP server's thread panicked");
        }
    }
}

/// Joins a pipeline that the server has made for the first viewer to the stream.
fn connect(stream: &Weak<Outgoing>, media: &gst_rtsp_server::RTSPMedia) {
    let Some(stream) = stream.upgrade() else { return };
    let source = media.element().downcast::<gst::Bin>().ok().and_then(|bin| bin.by_name_recurse_up("source"));
    let Some(source) = source.and_then(|source| source.downcast::<gst_app::AppSrc>().ok()) else {
        tracing::error!("the RTSP server's pipeline has no entrance");
        return;
    };
    let feeding = Arc::downgrade(&stream);
    let callbacks = gst_app::AppSrcCallbacks::builder().need_data(move |_, _| {
        if let Some(stream) = feeding.upgrade() {
            stream.feed();
        }
    });
    source.set_callbacks(callbacks.build());
    let mut feed = lock(&stream.feed);
    feed.newest = feed.last.clone();
    (feed.source, feed.hungry) = (Some(source), false);
    drop(feed);
    let left = Arc::downgrade(&stream);
    media.connect_unprepared(move |_| {
        if let Some(stream) = left.upgrade() {
            let mut feed = lock(&stream.feed);
            (feed.source, feed.newest, feed.hungry) = (None, None, false);
        }
    });
}

impl Outgoing {
    fn show(&self, frame: &Arc<Frame>, joined: u64) -> Result<(), String> {
        let mut feed = lock(&self.feed);
        feed.last = Some(Arc::clone(frame));
        let Some(source) = feed.source.clone() else { return Ok(()) };
        if self.key_framed.swap(joined, Ordering::AcqRel) != joined {
            source.send_event(gst_video::DownstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
        if feed.newest.replace(Arc::clone(frame)).is_some() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if feed.hungry { self.send(&mut feed) } else { Ok(()) }
    }

    /// The encoder wants a frame.
    fn feed(&self) {
        let mut feed = lock(&self.feed);
        feed.hungry = true;
        if feed.newest.is_some()
            && let Err(reason) = self.send(&mut feed)
            && !self.failed.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(reason, "cannot show a frame by RTSP");
        }
    }

    fn send(&self, feed: &mut Feed) -> Result<(), String> {
        let (Some(source), Some(frame)) = (feed.source.clone(), feed.newest.take()) else { return Ok(()) };
        let layout = *frame.layout();
        let caps = match &feed.caps {
            Some((known, caps)) if *known == layout => caps.clone(),
            _ => {
                let caps = raw::caps(&layout, self.rate)?;
                feed.caps = Some((layout, caps.clone()));
                caps
            }
        };
        let buffer = raw::buffer(&frame)?;
        feed.hungry = false;
        // It refuses frames only while the last viewer leaves; the frame is then for nobody.
        let _ = source.push_sample(&gst::Sample::builder().buffer(&buffer).caps(&caps).build());
        Ok(())
    }
}
