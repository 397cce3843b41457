//! What went wrong in a pipeline, in words for the person who started it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;

/// The kinds of failure that are answered differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// There is no such file, page or device.
    NotFound,
    /// A wrong or missing password.
    NotAuthorized,
    /// It is no video, or in no codec that the machine decodes.
    Unreadable,
    /// The disk is full.
    NoSpace,
    Other,
}

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) reason: String,
    /// The hardware codec whose fault it is.
    pub(super) hardware: Option<gst::ElementFactory>,
}

impl Failure {
    pub(super) fn other(reason: String) -> Self {
        Self { cause: Cause::Other, reason, hardware: None }
    }

    fn of(error: &gst::message::Error) -> Self {
        let text = error.error();
        let cause = if text.matches(gst::ResourceError::NotFound) {
            Cause::NotFound
        } else if text.matches(gst::ResourceError::NotAuthorized) {
            Cause::NotAuthorized
        } else if text.matches(gst::ResourceError::NoSpaceLeft)
            || error.debug().is_some_and(|debug| debug.contains("No space left on device"))
        {
            Cause::NoSpace
        } else if text.matches(gst::StreamError::TypeNotFound)
            || text.matches(gst::StreamError::WrongType)
            || text.matches(gst::StreamError::CodecNotFound)
            || text.matches(gst::StreamError::Format)
            || text.matches(gst::CoreError::MissingPlugin)
        {
            Cause::Unreadable
        } else {
            Cause::Other
        };
        let factory = error.src().and_then(|source| source.downcast_ref::<gst::Element>()?.factory());
        let hardware = factory.filter(is_hardware_codec);
        Self { cause, reason: sentence(text.message(), error.debug().as_deref()), hardware }
    }
}

/// Vendors' codecs do not all say that they are hardware; their names do.
fn is_hardware_codec(factory: &gst::ElementFactory) -> bool {
    let klass = factory.metadata("klass").unwrap_or_default().to_owned();
    let named = ["nv", "omx", "vaapi", "v4l2"].iter().any(|vendor| factory.name().starts_with(vendor));
    klass.contains("Hardware") || klass.contains("Codec/") && named
}

/// GStreamer's message as part of a sentence; the last line of its debug text often has the fact.
fn sentence(message: &str, debug: Option<&str>) -> String {
    let message = message.trim().trim_end_matches('.');
    let mut letters = message.chars();
    let second_is_small = message.chars().nth(1).is_some_and(char::is_lowercase);
    let mut text = match letters.next() {
        Some(first) if second_is_small => first.to_lowercase().chain(letters).collect(),
        _ => message.to_owned(),
    };
    let detail = debug.and_then(|debug| debug.split_once('\n')).map(|(_, detail)| detail.trim());
    if let Some(detail) = detail.and_then(|detail| detail.lines().next()).filter(|detail| !detail.is_empty()) {
        text.push_str(": ");
        text.push_str(detail.trim_end_matches(" (Generic error)").trim_end_matches('.'));
    }
    text
}

#[derive(Default)]
struct State {
    failure: Option<Failure>,
    ended: bool,
    /// Set by an `appsrc` that wants more.
    hungry: bool,
}

/// What a running pipeline tells the thread that owns it. GStreamer's bus would queue every message
/// until somebody reads it, without a bound; this keeps the first error and the end, and forgets the rest.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<(Mutex<State>, Condvar)>);

impl Watch {
    /// Takes over the bus of `pipeline`.
    pub(super) fn on(pipeline: &gst::Pipeline) -> Self {
        let watch = Self::default();
        let Some(bus) = pipeline.bus() else { return watch };
        let told = watch.clone();
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Error(error) => told.fail(Failure::of(error)),
                gst::MessageView::Eos(_) => told.update(|state| state.ended = true),
                gst::MessageView::Warning(warning) => {
                    tracing::debug!(element = ?message.src().map(|source| source.name()), "{}", warning.error().message());
                }
                _ => {}
            }
            gst::BusSyncReply::Drop
        });
        watch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    /// Records a failure; the first one counts, those after it are its consequences.
    pub(super) fn fail(&self, failure: Failure) {
        self.update(|state| {
            state.failure.get_or_insert(failure);
        });
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    /// What an `appsrc` says through its callbacks.
    pub(super) fn set_hungry(&self, hungry: bool) {
        self.update(|state| state.hungry = hungry);
    }

    /// Waits until the `appsrc` wants more; `false` where it did not in time.
    pub(super) fn wait_hungry(&self, timeout: Duration) -> Result<bool, Failure> {
        self.wait(timeout, |state| state.hungry)
    }

    /// Waits for the end of the stream; `false` where it did not come in time.
    pub(super) fn wait_end(&self, timeout: Duration) -> Result<bool, Failure> {
        self.wait(timeout, |state| state.ended)
    }

    fn wait(&self, timeout: Duration, reached: impl Fn(&State) -> bool) -> Result<bool, Failure> {
        let waiting = |state: &mut State| state.failure.is_none() && !reached(state);
        let waited = self.0.1.wait_timeout_while(self.lock(), timeout, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(reached(&state)),
        }
    }
}

impl From<super::MediaError> for Failure {
    fn from(error: super::MediaError) -> Self {
        Self { cause: Cause::Unreadable, reason: error.to_string(), hardware: None }
    }
}
