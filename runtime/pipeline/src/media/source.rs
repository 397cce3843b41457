//! A stream of video from a file, a network, a camera or a test pattern.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use revoada_core::{Clock, Frame};

use gst::prelude::*;

use super::chain::{Chain, Step};
use super::container;
use super::failure::{Cause, Failure};
use super::frames::{FrameMaker, Origin};
use crate::config::{SourceConfig, StreamConfig};
use crate::{Pull, Source, SourceError};

/// How long opening waits for the first frame, or for the reason why there is none.
const OPEN_WAIT: Duration = Duration::from_secs(2);

/// `decodebin` loses errors that come while it adds an element, and a damaged file can leave a demuxer and
/// a decoder waiting for each other: a file that has yielded nothing for so long will never yield anything.
const FILE_STALL: Duration = Duration::from_secs(10);

pub(super) struct VideoSource {
    source: SourceConfig,
    uri: String,
    chain: Chain,
    frames: FrameMaker,
    /// The frame that opening waited for.
    first: Option<Frame>,
    /// Frames before the file was last started from its beginning.
    played: u64,
    plays_left: Option<u32>,
    ended: bool,
    /// For how long there has been no frame.
    idle: Duration,
    copies: u64,
}

impl VideoSource {
    pub(super) fn open(stream: &StreamConfig, clock: Arc<dyn Clock>) -> Result<Self, SourceError> {
        let source = stream.source.clone();
        let uri = name(&source);
        if let SourceConfig::File(path) = &source {
            check_file(path).map_err(|reason| SourceError::Open { uri: uri.clone(), reason })?;
        }
        let origin = if source.is_live() { Origin::FirstFrame } else { Origin::Media };
        let frames = FrameMaker::new(stream.id.clone(), clock, origin);
        let chain = Chain::for_source(&source).map_err(|failure| describe(&source, &uri, 0, failure))?;
        let plays_left = stream.repeat.map(|plays| plays.saturating_sub(1));
        let mut opened = Self {
            source,
            uri,
            chain,
            frames,
            first: None,
            played: 0,
            plays_left,
            ended: false,
            idle: Duration::ZERO,
            copies: 0,
        };
        if let Pull::Frame(frame) = opened.advance(OPEN_WAIT)? {
            opened.first = Some(frame);
        }
        Ok(opened)
    }

    fn advance(&mut self, timeout: Duration) -> Result<Pull, SourceError> {
        loop {
            match self.chain.next(timeout) {
                Step::Sample(sample) => match self.frames.make(&sample) {
                    Ok(frame) => {
                        self.copies += u64::from(self.chain.converts());
                        self.idle = Duration::ZERO;
                        return Ok(Pull::Frame(frame));
                    }
                    Err(reason) => {
                        return Err(self.failed(Failure { cause: Cause::Unreadable, reason, hardware: None }));
                    }
                },
                Step::Idle => {
                    self.idle += timeout;
                    if self.idle >= FILE_STALL && matches!(self.source, SourceConfig::File(_)) {
                        let reason = format!("decoding has made no progress for {} seconds", FILE_STALL.as_secs());
                        return Err(self.failed(Failure { cause: Cause::Other, reason, hardware: None }));
                    }
                    return Ok(Pull::Idle);
                }
                Step::End => {
                    if !self.replay()? {
                        return Ok(Pull::End);
                    }
                }
                Step::Failed(failure) => {
                    let Some(factory) = failure.hardware.clone().filter(|_| self.frames.count() == self.played) else {
                        return Err(self.failed(failure));
                    };
                    tracing::warn!(
                        decoder = %factory.name(), reason = failure.reason,
                        "a hardware decoder does not start; this process goes on without it"
                    );
                    // With no rank it is not chosen again, so this ends when the last one has failed.
                    factory.set_rank(gst::Rank::NONE);
                    self.restart()?;
                }
            }
        }
    }

    fn restart(&mut self) -> Result<(), SourceError> {
        // A camera has one reader at a time, and a file needs one decoder's memory.
        self.chain.stop();
        self.chain = Chain::for_source(&self.source).map_err(|failure| self.failed(failure))?;
        Ok(())
    }

    /// What the end of the stream means; `true` where it begins anew.
    fn replay(&mut self) -> Result<bool, SourceError> {
        let uri = self.uri.clone();
        match &self.source {
            SourceConfig::File(path) => {
                let frames = self.frames.count();
                let damage = container::damage(path).ok().flatten().map(|damage| damage.to_string());
                // A file that had frames before and has none now would otherwise repeat without an end.
                let empty = || (frames == self.played).then(|| "it has no video frames".to_owned());
                if let Some(reason) = damage.or_else(empty) {
                    return Err(match frames {
                        0 => SourceError::Open { uri, reason },
                        _ => SourceError::Broken { uri, frames, reason },
                    });
                }
                match &mut self.plays_left {
                    Some(0) => return Ok(false),
                    Some(left) => *left -= 1,
                    None => {}
                }
                self.frames.replay();
                self.played = self.frames.count();
                self.restart()?;
                Ok(true)
            }
            SourceConfig::Http(_) if self.chain.knows_its_duration() => match self.frames.count() {
                0 => Err(SourceError::Open { uri, reason: "it has no video frames".to_owned() }),
                _ => Ok(false),
            },
            SourceConfig::Test { .. } => Ok(false),
            _ => Err(SourceError::Lost { uri, reason: "the stream ended".to_owned() }),
        }
    }

    fn failed(&self, failure: Failure) -> SourceError {
        describe(&self.source, &self.uri, self.frames.count(), failure)
    }
}

impl Source for VideoSource {
    fn pull(&mut self, timeout: Duration) -> Result<Pull, SourceError> {
        if let Some(frame) = self.first.take() {
            return Ok(Pull::Frame(frame));
        }
        if self.ended {
            return Ok(Pull::End);
        }
        let pulled = self.advance(timeout);
        self.ended = !matches!(pulled, Ok(Pull::Frame(_) | Pull::Idle));
        pulled
    }

    fn copies(&self) -> u64 {
        self.copies + self.frames.copies()
    }
}

/// What GStreamer says late and less clearly.
fn check_file(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    })?;
    if metadata.is_dir() {
        return Err("it is a folder, not a video; for the pictures in it write `images:FOLDER`".to_owned());
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err("the file is empty".to_owned());
    }
    // GStreamer's `decodebin` loses a demuxer's error that comes while the demuxer is being added.
    match container::damage(path) {
        Ok(Some(damage)) if !damage.leaves_frames() => Err(damage.to_string()),
        _ => Ok(()),
    }
}

/// Whether a failure is final, after how many frames it came, and why.
fn describe(source: &SourceConfig, uri: &str, frames: u64, failure: Failure) -> SourceError {
    let uri = uri.to_owned();
    // Before GStreamer 1.20 a name that does not resolve is "not found" as well, and it may resolve tomorrow.
    let page_is_missing = ["404", "410", "Not Found", "Gone"].iter().any(|status| failure.reason.contains(status));
    let cause = match (failure.cause, source) {
        (Cause::NotFound, SourceConfig::Http(_)) if !page_is_missing => Cause::Other,
        (cause, _) => cause,
    };
    let mut reason = match (cause, source) {
        (Cause::NotFound, SourceConfig::Http(_)) => "the server has no such page".to_owned(),
        (Cause::NotFound, SourceConfig::Rtsp { .. }) => "the server has no such stream".to_owned(),
        (Cause::NotAuthorized, _) => "the server refuses this user and password, or asks for them".to_owned(),
        (_, SourceConfig::Http(_)) if failure.reason.starts_with("internal data stream error") => {
            "the connection failed".to_owned()
        }
        _ => failure.reason,
    };
    match source {
        SourceConfig::File(path) => {
            match container::damage(path).ok().flatten() {
                Some(damage) => reason = damage.to_string(),
                None if frames == 0
                    && cause == Cause::Unreadable
                    && !reason.starts_with("it ")
                    && !reason.starts_with("there ") =>
                {
                    reason = format!("it is not a video that this machine reads ({reason})");
                }
                None => {}
            }
            if frames == 0 { SourceError::Open { uri, reason } } else { SourceError::Broken { uri, frames, reason } }
        }
        SourceConfig::Http(_) => match cause {
            Cause::NotFound | Cause::NotAuthorized => SourceError::Open { uri, reason },
            Cause::Unreadable if frames == 0 => SourceError::Open { uri, reason },
            _ => SourceError::Lost { uri, reason },
        },
        // A stream may be announced later at the same address, but no password becomes right by waiting.
        SourceConfig::Rtsp { .. } | SourceConfig::V4l2 { .. } | SourceConfig::Csi { .. } => match cause {
            Cause::NotAuthorized => SourceError::Open { uri, reason },
            Cause::Unreadable if frames == 0 => SourceError::Open { uri, reason },
            _ => SourceError::Lost { uri, reason },
        },
        SourceConfig::Test { .. } | SourceConfig::Images(_) => SourceError::Open { uri, reason },
    }
}

/// What a source is called in messages; passwords are not shown.
pub(super) fn name(source: &SourceConfig) -> String {
    match source {
        SourceConfig::File(path) | SourceConfig::Images(path) => path.display().to_string(),
        SourceConfig::Rtsp { .. } | SourceConfig::Http(_) => source.to_string(),
        SourceConfig::V4l2 { device, .. } => format!("v4l2://{}", device.display()),
        SourceConfig::Csi { sensor, .. } => format!("csi://{sensor}"),
        SourceConfig::Test { pattern, .. } => format!("test://{pattern}"),
    }
}
