//! How old a camera's picture is when its results are told, beside how old it is when plain GStreamer has decoded it.
//!
//!     latency_bench ONNXRUNTIME MODEL [ROUNDS]
//!
//! An RTSP server on the same machine encodes pictures of 640×360 at 25 a second that have their number written in black
//! and white. Whoever shows one tells the number, and how long ago that picture was given to the encoder. Both readers take
//! turns: `rtspsrc ! rtph264depay ! h264parse ! avdec_h264 ! appsink`, and a whole pipeline with that model up to its sinks,
//! where events are told. Standard output gets one JSON object.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use gst::prelude::*;
use gst_video::prelude::*;
use revoada_core::{ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp};
use revoada_engine::BackendOptions;
use revoada_pipeline::config::Draft;
use revoada_pipeline::media::{self, RtspServer};
use revoada_pipeline::run::{Parts, RunSummary, StopFlag, run};
use revoada_pipeline::{FrameResult, Sink, SinkError, SinkReport};

const SIZE: Size = Size::new(640, 360);
/// Of a bit of the number.
const SIDE: usize = 40;
const PERIOD: Duration = Duration::from_millis(40);
/// While a viewer joins, pictures wait for it.
const FRAMES_SKIPPED: usize = 50;
const FRAMES: usize = 500;

/// When each picture was given to the encoder, by its number.
#[derive(Default)]
struct Film {
    given: Mutex<Vec<Instant>>,
    is_over: AtomicBool,
}

impl Film {
    fn show(&self, server: &RtspServer) -> Result<(), SinkError> {
        let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), SIZE);
        let bytes = layout.bytes().expect("the size is small");
        let mut next = Instant::now();
        for sequence in 0u16.. {
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
            let mut pixels = vec![128; bytes];
            for (y, row) in pixels[..SIZE.width * SIZE.height].chunks_exact_mut(SIZE.width).enumerate() {
                for (x, pixel) in row.iter_mut().enumerate() {
                    let bit = sequence >> (x / SIDE) & 1 == 1;
                    // Below the number something moves, as in front of a camera.
                    let scene = ((x + y + usize::from(sequence) * 3) % 200 + 20) as u8;
                    *pixel = if y >= SIDE {
                        scene
                    } else if bit {
                        235
                    } else {
                        16
                    };
                }
            }
            let pts = Timestamp::ZERO + PERIOD * u32::from(sequence);
            let id = StreamId::new("camera");
            let frame = Frame::new(id, sequence.into(), pts, pts, layout, MemoryKind::Host, Box::new(pixels));
            let frame = Arc::new(frame.expect("it has as many bytes as its layout"));
            self.given.lock().expect("nobody panics").push(Instant::now());
            server.push(&frame)?;
            next += PERIOD;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// How long ago the picture with this luma was given.
    fn age(&self, luma: &[u8], stride: usize) -> Option<Duration> {
        let now = Instant::now();
        let row = luma.get(SIDE / 2 * stride..)?;
        let bit = |index: usize| Some(u16::from(*row.get(index * SIDE + SIDE / 2)? > 128) << index);
        let sequence = (0..16).map(bit).sum::<Option<u16>>()?;
        let given = self.given.lock().expect("nobody panics");
        Some(now.duration_since(*given.get(usize::from(sequence))?))
    }
}

/// Keeps the age of each frame that comes to it.
struct Ages {
    film: Arc<Film>,
    ages: Arc<Mutex<Vec<Duration>>>,
}

impl Sink for Ages {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let view = result.frame.view();
        let (luma, stride) = (view.bytes(), view.layout().planes[0].stride);
        self.ages.lock().expect("nobody panics").extend(self.film.age(luma, stride));
        Ok(())
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        Ok(SinkReport::default())
    }
}

fn plain(address: SocketAddr, film: &Film) -> Result<Vec<Duration>, Box<dyn Error>> {
    let pipeline = gst::parse::launch(&format!(
        "rtspsrc location=rtsp://{address}/camera protocols=tcp latency=0 ! rtph264depay ! h264parse ! avdec_h264 ! \
         video/x-raw,format=I420 ! appsink name=out sync=false"
    ))?;
    let bin = pipeline.downcast_ref::<gst::Bin>().ok_or("several elements are a bin")?;
    let sink = bin.by_name("out").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok()).ok_or("it has a sink")?;
    pipeline.set_state(gst::State::Playing)?;
    let mut ages = Vec::new();
    while ages.len() < FRAMES_SKIPPED + FRAMES {
        let sample = sink.pull_sample()?;
        let info = gst_video::VideoInfo::from_caps(sample.caps().ok_or("raw video has caps")?)?;
        let buffer = sample.buffer().ok_or("a sample of video has a buffer")?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
        ages.extend(film.age(frame.plane_data(0)?, frame.plane_stride()[0] as usize));
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(ages)
}

fn whole(
    address: SocketAddr,
    film: &Arc<Film>,
    (library, model): (&str, &str),
) -> Result<(Vec<Duration>, RunSummary), Box<dyn Error>> {
    let text = format!(
        "[model]\npath = {model:?}\n[[stream]]\nuri = \"rtsp://{address}/camera\"\nframes_max = {}\n\
         rtsp = {{ latency_ms = 0 }}\n[[sink]]\ntype = \"none\"\n",
        FRAMES_SKIPPED + FRAMES
    );
    let config = Draft::from_file("latency".as_ref(), &text, "".as_ref()).check()?;
    let (film, ages) = (Arc::clone(film), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&ages);
    let options = BackendOptions { onnxruntime: vec![PathBuf::from(library)], ..BackendOptions::default() };
    let parts = Parts {
        open_sink: Box::new(move |_, _| Ok(Box::new(Ages { film: Arc::clone(&film), ages: Arc::clone(&kept) }))),
        ..Parts::new(&options)
    };
    let summary = run(config, parts, &StopFlag::new())?;
    let ages = std::mem::take(&mut *ages.lock().expect("nobody panics"));
    Ok((ages, summary))
}

/// The median and the 99th percentile in milliseconds, without the first frames.
fn figures(ages: &[Duration]) -> Result<(f64, f64), Box<dyn Error>> {
    let mut ages: Vec<f64> = ages.iter().skip(FRAMES_SKIPPED).map(|age| age.as_secs_f64() * 1e3).collect();
    ages.sort_by(f64::total_cmp);
    let at = |share: f64| ages.get(((ages.len() as f64 - 1.0) * share) as usize).copied().ok_or("there was no frame");
    Ok((at(0.5)?, at(0.99)?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (library, model, rounds) = match arguments.as_slice() {
        [library, model] => (library, model, 3),
        [library, model, rounds] => (library, model, rounds.parse()?),
        _ => return Err("usage: latency_bench ONNXRUNTIME MODEL [ROUNDS]".into()),
    };
    media::init()?;
    let mut rows = Vec::new();
    for _ in 0..rounds {
        for reader in ["gstreamer", "revoada"] {
            let film = Arc::new(Film::default());
            let server = RtspServer::start("127.0.0.1:0".parse()?, None)?;
            let address = server.address();
            let shown = Arc::clone(&film);
            let camera = thread::spawn(move || shown.show(&server));
            // The server knows a stream from its first picture on.
            while film.given.lock().expect("nobody panics").len() < 2 {
                thread::sleep(Duration::from_millis(1));
            }
            let row = if reader == "gstreamer" {
                let (p50, p99) = figures(&plain(address, &film)?)?;
                serde_json::json!({ "reader": reader, "p50_ms": p50, "p99_ms": p99 })
            } else {
                let (ages, summary) = whole(address, &film, (library, model))?;
                let (p50, p99) = figures(&ages)?;
                serde_json::json!({
                    "reader": reader, "p50_ms": p50, "p99_ms": p99, "dropped": summary.frames_dropped,
                    "inference_p50_ms": summary.latency.inference.p50_ms, "staging_p50_ms": summary.latency.staging.p50_ms,
                })
            };
            rows.push(row);
            film.is_over.store(true, Ordering::SeqCst);
            camera.join().map_err(|_| "the camera panicked")??;
        }
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}
