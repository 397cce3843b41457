//! A pipeline that ends where we take pictures out.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use gst::prelude::*;

use super::MediaError;
use super::elements::{self, make, set_if_present};
use super::failure::{Cause, Failure, Watch};
use super::frames::FORMATS;
use super::fronts::NETWORK_TIMEOUT;

/// Frames that wait in `appsink`. One is enough to let the decoder work while the last frame is
/// fetched; the pipeline's own queue is where frames are meant to wait.
const READY_FRAMES_MAX: u32 = 1;

/// Most threads of one software decoder; it gets half the cores, since inference wants the others. Each
/// thread holds pictures: on 1080p H.264 a second one costs 20 MB and saves no work.
const DECODER_THREADS_MAX: usize = 4;

/// What decoding has found, as its threads report it.
#[derive(Default)]
struct Findings {
    video: AtomicBool,
    undecodable: Mutex<Option<String>>,
}

/// A pipeline whose last part converts, turns upright and hands out. Both steps do nothing where the
/// decoder's pictures are as they should be. Dropping it stops its threads and closes its files.
pub(super) struct Chain {
    pub(super) pipeline: gst::Pipeline,
    /// Raw video is linked here.
    pub(super) entry: gst::Pad,
    sink: gst_app::AppSink,
    pub(super) watch: Watch,
    findings: Arc<Findings>,
}

/// What [`Chain::next`] has.
pub(super) enum Step {
    Sample(gst::Sample),
    Idle,
    End,
    Failed(Failure),
}

impl Chain {
    pub(super) fn new() -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::new();
        let watch = Watch::on(&pipeline);
        let sink = appsink();
        let convert = make("videoconvert")?;
        pipeline.add_many([&convert, sink.upcast_ref()]).expect("the elements are new and have no other parent");
        let entry = convert.static_pad("sink").expect("`videoconvert` always has this pad");
        match make("videoflip") {
            Ok(flip) => {
                set_if_present(&flip, "video-direction", "auto");
                pipeline.add(&flip).expect("the element is new and has no other parent");
                gst::Element::link_many([&convert, &flip, sink.upcast_ref()])
            }
            Err(error) => {
                tracing::debug!(%error, "videos that lie on their side stay so");
                convert.link(&sink)
            }
        }
        .expect("each of these elements takes raw video");
        pipeline.connect_deep_element_added(|_, _, element| configure(element));
        Ok(Self { pipeline, entry, sink, watch, findings: Arc::default() })
    }

    pub(super) fn add(&self, element: &str) -> Result<gst::Element, MediaError> {
        let element = make(element)?;
        self.pipeline.add(&element).expect("the element is new and has no other parent");
        Ok(element)
    }

    /// Starts to play.
    pub(super) fn start(self) -> Result<Self, Failure> {
        match self.pipeline.set_state(gst::State::Playing) {
            Ok(_) => Ok(self),
            Err(_) => {
                let unknown =
                    || Failure { cause: Cause::Other, reason: "it does not start".to_owned(), hardware: None };
                Err(self.failure().unwrap_or_else(unknown))
            }
        }
    }

    /// The next picture, waiting at most `timeout`.
    pub(super) fn next(&self, timeout: Duration) -> Step {
        // An error wakes nobody who waits in `appsink`, so waiting is cut in slices.
        const SLICE: Duration = Duration::from_millis(20);
        let mut left = timeout;
        loop {
            let slice = left.min(SLICE);
            if let Some(sample) = self.sink.try_pull_sample(gst::ClockTime::try_from(slice).ok()) {
                return Step::Sample(sample);
            }
            if let Some(failure) = self.failure() {
                // What was decoded before the failure comes first.
                let last = self.sink.try_pull_sample(gst::ClockTime::ZERO);
                return last.map_or(Step::Failed(failure), Step::Sample);
            }
            if self.sink.is_eos() {
                return Step::End;
            }
            left = left.saturating_sub(slice);
            if left.is_zero() {
                return Step::Idle;
            }
        }
    }

    fn failure(&self) -> Option<Failure> {
        let mut failure = self.watch.failure()?;
        let undecodable = self.findings.undecodable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(reason) = undecodable.filter(|_| !self.findings.video.load(Ordering::Acquire)) {
            failure = Failure { cause: Cause::Unreadable, reason, ..failure };
        }
        Some(failure)
    }

    pub(super) fn knows_its_duration(&self) -> bool {
        self.pipeline.query_duration::<gst::ClockTime>().is_some()
    }

    /// Whether the pictures that come out are copies of the decoder's.
    pub(super) fn converts(&self) -> bool {
        let decoded = self.entry.current_caps();
        let taken = self.sink.static_pad("sink").and_then(|pad| pad.current_caps());
        match (decoded, taken) {
            (Some(decoded), Some(taken)) => !decoded.is_strictly_equal(&taken),
            _ => false,
        }
    }

    /// Lets `decoder` (a `decodebin` or `uridecodebin`) find the first video stream, decode it and
    /// nothing else.
    pub(super) fn take_video_of(&self, decoder: &gst::Element) {
        // Sound and subtitles are left as they are, and go nowhere.
        decoder.connect("autoplug-continue", false, |values| {
            const OTHERS: [&str; 5] = ["audio/", "text/", "subpicture/", "closedcaption/", "application/x-subtitle"];
            let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let name = caps.as_ref().and_then(|caps| caps.structure(0)).map(|structure| structure.name());
            let other = name.is_some_and(|name| OTHERS.iter().any(|kind| name.starts_with(kind)));
            Some((!other).to_value())
        });
        let findings = Arc::clone(&self.findings);
        decoder.connect("unknown-type", false, move |values| {
            let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok())?;
            let name = caps.structure(0)?.name();
            if name.starts_with("video/") || name.starts_with("image/") {
                let (codec, package) = elements::codec(&caps);
                let reason = format!("there is no decoder for {codec} here; install `{package}`");
                *findings.undecodable.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
            None
        });
        let (findings, entry, pipeline) = (Arc::clone(&self.findings), self.entry.clone(), self.pipeline.downgrade());
        let watch = self.watch.clone();
        decoder.connect_pad_added(move |_, pad| {
            let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let raw = caps.structure(0).is_some_and(|structure| structure.name() == "video/x-raw");
            if !raw || findings.video.swap(true, Ordering::AcqRel) {
                return;
            }
            let on_device = caps.features(0).is_some_and(|features| features.contains("memory:NVMM"));
            let linked = match pipeline.upgrade().filter(|_| on_device) {
                Some(pipeline) => link_from_device(&pipeline, pad, &entry),
                None => pad.link(&entry).map(|_| ()).map_err(|error| error.to_string()),
            };
            if let Err(reason) = linked {
                watch.fail(Failure { cause: Cause::Other, reason, hardware: None });
            }
        });
        let (findings, watch) = (Arc::clone(&self.findings), self.watch.clone());
        decoder.connect_no_more_pads(move |_| {
            if !findings.video.load(Ordering::Acquire) {
                let reason = "it has no video stream".to_owned();
                watch.fail(Failure { cause: Cause::Unreadable, reason, hardware: None });
            }
        });
    }
}

impl Chain {
    /// Lets go of everything that the pipeline holds; it yields nothing after that.
    pub(super) fn stop(&self) {
        // Failing to stop cannot be answered by anything but stopping.
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.stop();
    }
}

fn appsink() -> gst_app::AppSink {
    let caps = format!("video/x-raw, format = (string) {FORMATS}");
    let caps = gst::Caps::from_str(&caps).expect("the caps are written correctly");
    let sink = gst_app::AppSink::builder().caps(&caps).sync(false).max_buffers(READY_FRAMES_MAX).drop(false).build();
    sink.set_property("enable-last-sample", false);
    let pad = sink.static_pad("sink").expect("`appsink` always has this pad");
    // Decoders write straight into our buffers only for a reader that understands strides.
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Allocation(allocation) = query.view_mut()
        {
            allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    sink
}

/// On a Jetson the decoder's pictures lie in device memory until `nvvidconv` brings them out.
pub(super) fn link_from_device(pipeline: &gst::Pipeline, pad: &gst::Pad, entry: &gst::Pad) -> Result<(), String> {
    let bring = make("nvvidconv").map_err(|error| error.to_string())?;
    let inner = || -> Result<(), gst::glib::BoolError> {
        pipeline.add(&bring)?;
        let (input, output) = (bring.static_pad("sink"), bring.static_pad("src"));
        let (Some(input), Some(output)) = (input, output) else {
            return Err(gst::glib::bool_error!("`nvvidconv` has no pads"));
        };
        output.link(entry).map_err(|error| gst::glib::bool_error!("{error}"))?;
        bring.sync_state_with_parent()?;
        pad.link(&input).map_err(|error| gst::glib::bool_error!("{error}"))?;
        Ok(())
    };
    inner().map_err(|error| format!("cannot bring pictures from the decoder: {error}"))
}

/// Sets up the elements that GStreamer chose by itself.
fn configure(element: &gst::Element) {
    let Some(factory) = element.factory() else { return };
    match factory.name().as_str() {
        name if name.starts_with("avdec_") && element.find_property("max-threads").is_some() => {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
            let threads = (cores / 2).clamp(1, DECODER_THREADS_MAX) as i32;
            element.set_property("max-threads", threads);
        }
        "souphttpsrc" => {
            set_if_present(element, "timeout", &NETWORK_TIMEOUT.as_secs().to_string());
            set_if_present(element, "user-agent", concat!("revoada/", env!("CARGO_PKG_VERSION")));
        }
        // Otherwise it waits for further streams, and what it has is shown when its queues are full.
        "multipartdemux" => set_if_present(element, "single-stream", "true"),
        _ => {}
    }
}
