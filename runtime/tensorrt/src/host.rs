//! What TensorRT calls back while it works: its log, its errors, its progress.

use std::any::Any;
use std::collections::HashSet;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Message;
use crate::running::LayerTime;
use crate::sys;
use crate::tensor::text;

/// Asks a build to end early; clones ask the same build. TensorRT from 10 on listens during a build, before that
/// only between its steps.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Hears how far a build is. TensorRT's threads call it, several at once. A phase may lie within another. A panic
/// ends the build and goes on from [`Library::build`](crate::Library::build).
pub trait Progress: Sync {
    /// `steps` is how many steps the phase will have.
    fn started(&self, phase: &str, parent: Option<&str>, steps: u32) {
        let _ = (phase, parent, steps);
    }

    /// Step `step`, counted from zero, is done.
    fn step(&self, phase: &str, step: u32) {
        let _ = (phase, step);
    }

    fn finished(&self, phase: &str) {
        let _ = phase;
    }
}

/// Hears nothing.
impl Progress for () {}

/// TensorRT repeats itself; what is past this many is in the log.
const MESSAGES_MAX: usize = 64;

/// The receiver of all that TensorRT says; it stays where it is while TensorRT knows its address.
pub(crate) struct Host<'a> {
    progress: &'a dyn Progress,
    cancel: Cancel,
    /// Whether a call-back has panicked, which ends a build as cancelling does.
    panicked: AtomicBool,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// Warnings that were logged: TensorRT says the same of every layer.
    warned: HashSet<String>,
    /// From the error recorder.
    errors: Vec<Message>,
    /// The log's lines of an error's severity, which say what the recorder may not.
    logged: Vec<Message>,
    panic: Option<Box<dyn Any + Send>>,
}

impl<'a> Host<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, cancel: &Cancel) -> Self {
        Self { progress, cancel: cancel.clone(), panicked: AtomicBool::new(false), heard: Mutex::default() }
    }

    /// What the shim is given. It holds this host's address.
    pub(crate) fn raw(&self) -> sys::TrtHost {
        sys::TrtHost {
            user: (&raw const *self).cast_mut().cast(),
            log: Some(log),
            error: Some(error),
            phase_started: Some(phase_started),
            step_done: Some(step_done),
            phase_finished: Some(phase_finished),
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled() || self.panicked.load(Ordering::Relaxed)
    }

    /// Takes what was said to have gone wrong since it was last asked.
    pub(crate) fn take_messages(&self) -> Vec<Message> {
        let mut heard = self.heard();
        let logged = std::mem::take(&mut heard.logged);
        let errors = std::mem::take(&mut heard.errors);
        drop(heard);
        // The log repeats the recorder, and an error its causes, each with words of its own around the text.
        let mut messages: Vec<Message> = Vec::new();
        for message in errors.into_iter().chain(logged) {
            if !message.text.is_empty() && !messages.iter().any(|known| message.text.contains(&known.text)) {
                messages.push(message);
            }
        }
        messages
    }

    /// Goes on with a panic of the caller's own code that was held back.
    pub(crate) fn resume_panic(&self) {
        let panic = self.heard().panic.take();
        if let Some(panic) = panic {
            std::panic::resume_unwind(panic);
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call-back's body; a panic is kept, and asks the build to end.
    fn hold<T>(&self, body: impl FnOnce(&Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| body(self))) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.panicked.store(true, Ordering::Relaxed);
                self.heard().panic.get_or_insert(panic);
                None
            }
        }
    }
}

/// The host that a call-back belongs to.
///
/// # Safety
/// `user` is what [`Host::raw`] gave to the shim, and that host is still there.
unsafe fn host<'a>(user: *mut c_void) -> &'a Host<'a> {
    // SAFETY: the caller vouches for it. The host is only shared, and is `Sync` in all its parts.
    unsafe { &*user.cast::<Host<'a>>() }
}

unsafe extern "C" fn log(user: *mut c_void, severity: i32, line: *const c_char) {
    // SAFETY: the shim passes on what it was given, and a text that ends.
    let (host, line) = unsafe { (host(user), text(line)) };
    host.hold(|host| {
        let line = line.trim_end();
        match severity {
            sys::TRT_LOG_INTERNAL_ERROR | sys::TRT_LOG_ERROR => {
                // The caller gets it as an error, and that is logged where it is handled.
                tracing::debug!(target: "tensorrt", severity = "error", "{line}");
                let mut heard = host.heard();
                if heard.logged.len() < MESSAGES_MAX {
                    heard.logged.push(Message::logged(line));
                }
            }
            sys::TRT_LOG_WARNING => {
                let mut heard = host.heard();
                let first = heard.warned.len() < MESSAGES_MAX && heard.warned.insert(line.to_owned());
                drop(heard);
                if first {
                    tracing::warn!(target: "tensorrt", "{line}");
                } else {
                    tracing::debug!(target: "tensorrt", severity = "warning", "{line}");
                }
            }
            sys::TRT_LOG_INFO => tracing::debug!(target: "tensorrt", "{line}"),
            _ => tracing::trace!(target: "tensorrt", "{line}"),
        }
    });
}

unsafe extern "C" fn error(user: *mut c_void, code: i32, line: *const c_char) {
    // SAFETY: the shim passes on what it was given, and a text that ends.
    let (host, line) = unsafe { (host(user), text(line)) };
    host.hold(|host| {
        tracing::debug!(target: "tensorrt", severity = "error", code, "{line}");
        let mut heard = host.heard();
        if heard.errors.len() < MESSAGES_MAX {
            heard.errors.push(Message::recorded(code, line.trim_end()));
        }
    });
}

unsafe extern "C" fn phase_started(user: *mut c_void, phase: *const c_char, parent: *const c_char, steps: i32) {
    // SAFETY: the shim passes on what it was given, and texts that end; the parent may be null.
    let (host, phase, parent) = unsafe { (host(user), text(phase), (!parent.is_null()).then(|| text(parent))) };
    host.hold(|host| host.progress.started(&phase, parent.as_deref(), u32::try_from(steps).unwrap_or(0)));
}

unsafe extern "C" fn step_done(user: *mut c_void, phase: *const c_char, step: i32) -> i32 {
    // SAFETY: the shim passes on what it was given, and a text that ends.
    let (host, phase) = unsafe { (host(user), text(phase)) };
    host.hold(|host| host.progress.step(&phase, u32::try_from(step).unwrap_or(0)));
    i32::from(!host.is_cancelled())
}

unsafe extern "C" fn phase_finished(user: *mut c_void, phase: *const c_char) {
    // SAFETY: the shim passes on what it was given, and a text that ends.
    let (host, phase) = unsafe { (host(user), text(phase)) };
    host.hold(|host| host.progress.finished(&phase));
}

/// Collects bytes that the shim hands over.
#[derive(Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn sink(&mut self) -> sys::TrtSink {
        sys::TrtSink { user: (&raw mut *self).cast(), write: Some(write) }
    }
}

/// Collects the times of layers.
#[derive(Default)]
pub(crate) struct LayerTimes(pub(crate) Vec<LayerTime>);

impl LayerTimes {
    pub(crate) fn receiver(&mut self) -> sys::TrtLayerTimes {
        sys::TrtLayerTimes { user: (&raw mut *self).cast(), layer: Some(layer) }
    }
}

unsafe extern "C" fn layer(user: *mut c_void, name: *const c_char, milliseconds: f32) {
    // A time that is none, such as NaN, counts as nothing.
    let time = Duration::try_from_secs_f64(f64::from(milliseconds) / 1e3).unwrap_or_default();
    // SAFETY: `user` is the `LayerTimes` whose receiver the shim was given, lent to nobody else during the call, and the
    // text ends. Running out of memory aborts: nothing here unwinds.
    unsafe { (*user.cast::<LayerTimes>()).0.push(LayerTime { name: text(name), time }) };
}

unsafe extern "C" fn write(user: *mut c_void, bytes: *const c_void, size: usize) {
    if size == 0 {
        return;
    }
    // SAFETY: `user` is the `Bytes` whose sink the shim was given, lent to nobody else during the call, and `bytes`
    // are `size` readable bytes. Running out of memory aborts: nothing here unwinds.
    unsafe { (*user.cast::<Bytes>()).0.extend_from_slice(std::slice::from_raw_parts(bytes.cast(), size)) };
}
