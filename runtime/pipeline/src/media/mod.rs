//! Video in and out: the only module that knows GStreamer.
//!
//! [`open`] makes one attempt to open a stream and hands back a [`Source`]; whoever holds it decides
//! when a lost stream is tried again. [`VideoWriter`] encodes frames into a file, [`UnitEncoder`]
//! and [`UnitWriter`] do so in two steps, [`RtspServer`] serves them, [`load_picture`] reads a single image and [`probe`] tells what the machine has.
//!
//! Frames are the decoder's own buffers, mapped and kept alive by the [`Frame`](revoada_core::Frame):
//! no pixel is copied between the decoder and staging, unless the decoder's format is one that
//! staging does not read (10 bits, 4:2:2, 4:4:4 …) or the video is to be rotated. Elements are found
//! at run time, so that the same program serves a Jetson, a PC with VA-API and a bare container; it
//! asks for nothing newer than GStreamer 1.14.
//!
//! What is *not* done: interlaced video is not deinterlaced, non-square pixels are not stretched, and
//! BT.2020 is read as BT.709.

mod chain;
mod container;
mod elements;
mod encoder;
mod encoding;
mod failure;
mod file;
mod frames;
mod fronts;
mod pictures;
mod probe;
mod raw;
#[cfg(feature = "rtsp-server")]
mod rtsp_server;
mod source;
mod units;
mod writer;

use std::sync::{Arc, OnceLock};

use revoada_core::Clock;
use thiserror::Error;

pub use pictures::load_picture;
pub use probe::{ElementReport, MediaReport, MediaRole, known_elements, probe};
#[cfg(feature = "rtsp-server")]
pub use rtsp_server::RtspServer;
pub use units::{AccessUnit, Backlog, KEY_INTERVAL_MAX, UnitEncoder, UnitFormat, UnitWriter};
pub use writer::VideoWriter;

use crate::config::{SourceConfig, StreamConfig};
use crate::{Source, SourceError};

/// Why nothing can be read or written at all, or why a picture cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MediaError {
    #[error("cannot start GStreamer: {reason}")]
    Init { reason: String },
    #[error("GStreamer has no element `{element}`; install `{package}`")]
    Missing { element: String, package: &'static str },
    #[error("cannot read picture `{path}`: {reason}")]
    Picture { path: String, reason: String },
}

/// Starts GStreamer once per process and checks that its core plugins are there; every other
/// function here calls it, so that a program need not.
pub fn init() -> Result<(), MediaError> {
    static STARTED: OnceLock<Result<(), MediaError>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            start()?;
            elements::CORE.into_iter().try_for_each(elements::require)
        })
        .clone()
}

/// The library alone, which may find no elements at all.
fn start() -> Result<(), MediaError> {
    gstreamer::init().map_err(|error| MediaError::Init { reason: error.message().to_owned() })
}

/// Makes one attempt to open a stream.
///
/// It waits up to two seconds for the first frame or for the reason why there is none, so that a
/// missing file, a file that is no video and a server that refuses are errors here. What takes longer
/// goes on in the background: [`Source::pull`] then says `Idle` until there is a frame or an error.
/// Dropping the source closes it, whatever it is doing.
///
/// `sequence` counts from 0 and `pts` starts at the stream's beginning in every source that is opened;
/// both go on when a file repeats.
pub fn open(stream: &StreamConfig, clock: Arc<dyn Clock>) -> Result<Box<dyn Source>, SourceError> {
    if let SourceConfig::Images(path) = &stream.source {
        return Ok(Box::new(pictures::PictureSource::open(path, stream, clock)?));
    }
    init().map_err(|error| SourceError::Open { uri: source::name(&stream.source), reason: error.to_string() })?;
    Ok(Box::new(source::VideoSource::open(stream, clock)?))
}
