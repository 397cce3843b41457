//! The seconds around an event, in a file.
//!
//! The pictures of each stream are encoded all the time, as drawn, and their access units held in a [`Ring`]. At an event
//! those of the seconds before it go into a file, and what follows until the seconds behind it are over; nothing is
//! encoded twice. A thread of its own completes files and keeps the folder within its bounds.
//!
//! What a sink takes: for each stream `buffer_mb_max` of units, at most twice as much again of units that wait for the
//! disk, and the pictures that its encoder holds. A disk that is full, slow or gone costs recordings and no frames.

mod archive;
mod cut;
mod ring;
mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use revoada_core::{Size, StreamId, Timestamp, causes, sentence_of};
use tracing::info;

use super::SinkContext;
use super::output::file_name;
use super::record::{EventRecord, RecordingRecord, rfc3339};
use crate::config::RecordingConfig;
use crate::media::{AccessUnit, Backlog, UnitEncoder, UnitFormat, UnitWriter};
use crate::{FrameResult, Sink, SinkError, SinkReport};

use archive::{Archive, Film, fail};
use cut::{Cause, Cutter, Limits, Step};
use ring::{Ring, UNIT_BYTES};
use tally::{Answer, Tally};
pub use tally::{RecordingSummary, Recordings};

/// An encoder may round times; frames are no less apart.
const TIME_MARGIN: Duration = Duration::from_millis(1);

/// For so long a frame of a live stream may be on its way.
const LATE: Duration = Duration::from_secs(2);

/// What a film begins with, where that is no event.
const MANUAL: &str = "manual";
const CONTINUED: &str = "continued";

pub(super) struct RecordingSink {
    shared: Shared,
    streams: BTreeMap<StreamId, Recorder>,
}

/// What all streams have in common.
struct Shared {
    config: RecordingConfig,
    tally: Arc<Tally>,
    archive: Archive,
}

/// One stream, for as long as its pictures have one size.
struct Recorder {
    encoder: UnitEncoder,
    size: Size,
    reel: Reel,
}

/// What was encoded of a stream, and the film that is being made of it.
struct Reel {
    stream: StreamId,
    ring: Ring,
    cutter: Cutter,
    /// What happened in frames that are still being encoded.
    happened: VecDeque<(Timestamp, Cause<Happening>)>,
    film: Option<OpenFilm>,
    /// Of this film and those that are being completed.
    backlog: Arc<Backlog>,
    /// The time of day when the stream began; `None` where it is played.
    wall_start: Option<Timestamp>,
    /// When the latest frame is shown and was captured.
    latest: (Timestamp, Timestamp),
}

struct OpenFilm {
    film: Film,
    path: PathBuf,
    bytes: u64,
}

/// An event, or somebody who asked.
struct Happening {
    kind: String,
    events: Vec<EventRecord>,
    answer: Option<SyncSender<Answer>>,
}

impl RecordingSink {
    pub(super) fn open(config: &RecordingConfig, context: &SinkContext) -> Result<Self, SinkError> {
        let tally = context.recordings.open(&config.streams);
        let archive = Archive::open(config, Arc::clone(&tally), Arc::clone(&context.wall_clock))?;
        // What is missing is told now, and not at the first event.
        UnitEncoder::new(config.bitrate_kbps, &config.folder)?;
        UnitWriter::require(config.container.extension())
            .map_err(|error| SinkError::Encode { path: config.folder.clone(), reason: error.to_string() })?;
        Ok(Self { shared: Shared { config: config.clone(), tally, archive }, streams: BTreeMap::new() })
    }
}

impl Sink for RecordingSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let (Self { shared, streams }, frame) = (self, result.picture());
        if !shared.tally.records(&frame.stream) {
            return Ok(());
        }
        let before = streams.remove(&frame.stream);
        let mut recorder = match before {
            Some(recorder) if recorder.size == frame.size() => recorder,
            before => {
                let mut recorder = shared.recorder(&frame.stream, frame.size())?;
                // Players do not cope with a film that changes its size.
                if let Some(mut before) = before {
                    before.complete(shared)?;
                    recorder.reel.follow(before.reel);
                }
                recorder
            }
        };
        recorder.take(result, shared)?;
        streams.insert(frame.stream.clone(), recorder);
        Ok(())
    }

    /// Nothing waits for the next frame: neither what is encoded, nor a recording whose stream falls silent.
    fn idle(&mut self, now: Timestamp) -> Result<(), SinkError> {
        let Self { shared, streams } = self;
        streams.values_mut().for_each(|recorder| recorder.idle(now, shared));
        Ok(())
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.streams.remove(stream).map_or(Ok(()), |mut recorder| recorder.complete(&self.shared))
    }

    /// Names the folder: there may be very many recordings.
    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        let mut failed = None;
        for (_, mut recorder) in std::mem::take(&mut self.streams) {
            // One that cannot be completed does not cost the others.
            if let Err(error) = recorder.complete(&self.shared) {
                failed.get_or_insert(error);
            }
        }
        self.shared.archive.finish();
        let any = self.shared.tally.summary().recordings > 0;
        let files = any.then(|| self.shared.config.folder.clone()).into_iter().collect();
        failed.map_or(Ok(SinkReport { files }), Err)
    }
}

impl Shared {
    fn recorder(&self, stream: &StreamId, size: Size) -> Result<Recorder, SinkError> {
        let config = &self.config;
        let limits = Limits { before: config.before, after: config.after, length_max: config.length_max };
        let reel = Reel {
            stream: stream.clone(),
            ring: Ring::new(config.before, config.buffer_bytes_max()),
            cutter: Cutter::new(limits),
            happened: VecDeque::new(),
            film: None,
            // All that is held, which goes to the disk at once, and as much of what follows.
            backlog: Backlog::new(2 * config.buffer_bytes_max()),
            wall_start: None,
            latest: (Timestamp::ZERO, Timestamp::ZERO),
        };
        Ok(Recorder { encoder: UnitEncoder::new(config.bitrate_kbps, &config.folder)?, size, reel })
    }

    /// What happened in a frame, as far as it is recorded for.
    fn causes(&self, result: &FrameResult) -> Vec<Cause<Happening>> {
        let RecordingConfig { on, rules, .. } = &self.config;
        let is_wanted = |event: &EventRecord| {
            on.iter().any(|kind| *kind == event.event) && (rules.is_empty() || rules.contains(&event.rule))
        };
        let events: Vec<_> = EventRecord::of(result).filter(is_wanted).collect();
        let told = events.first().map(|first| first.event.clone());
        let told = told.map(|kind| Cause { what: Happening { kind, events, answer: None }, after: None });
        let asked = self.tally.take_requests(&result.frame.stream).into_iter().map(|request| {
            let what = Happening { kind: MANUAL.to_owned(), events: Vec::new(), answer: Some(request.answer) };
            Cause { what, after: request.after }
        });
        told.into_iter().chain(asked).collect()
    }
}

impl Recorder {
    fn take(&mut self, result: &FrameResult, shared: &Shared) -> Result<(), SinkError> {
        let Self { encoder, reel, .. } = self;
        let pts = result.frame.pts;
        reel.latest = (pts, result.frame.captured);
        reel.happened.extend(shared.causes(result).into_iter().map(|cause| (pts, cause)));
        reel.wall_start = result.wall.map(|wall| Timestamp::ZERO + wall.since(pts));
        let units = encoder.push(result.picture())?;
        self.wind(units, shared);
        Ok(())
    }

    fn wind(&mut self, units: Vec<AccessUnit>, shared: &Shared) {
        if let Some(format) = self.encoder.format() {
            units.into_iter().for_each(|unit| self.reel.take(unit, &format, shared));
        }
    }

    fn idle(&mut self, now: Timestamp, shared: &Shared) {
        self.wind(self.encoder.encoded(), shared);
        self.reel.idle(now, shared);
    }

    /// Encodes what is left, and hands over the film that is open.
    fn complete(&mut self, shared: &Shared) -> Result<(), SinkError> {
        let units = self.encoder.finish();
        let ended = units.map(|units| self.wind(units, shared));
        self.reel.complete(shared);
        ended
    }
}

impl Reel {
    /// Goes on with what another one, which is complete, could not.
    fn follow(&mut self, before: Self) {
        (self.cutter, self.happened, self.backlog) = (before.cutter, before.happened, before.backlog);
        self.cutter.cut();
    }

    /// What is played comes when it is read; a live stream's time passes without it. Frames that are late go on in another
    /// film.
    fn idle(&mut self, now: Timestamp, shared: &Shared) {
        let (pts, captured) = self.latest;
        if self.wall_start.is_some()
            && self.cutter.ends().is_some_and(|end| now.since(captured) > end.since(pts) + LATE)
        {
            self.cutter.cut();
            self.complete(shared);
        }
    }

    fn take(&mut self, unit: AccessUnit, format: &UnitFormat, shared: &Shared) {
        let due = self.happened.iter().take_while(|(pts, _)| *pts <= unit.pts + TIME_MARGIN).count();
        let causes = self.happened.drain(..due).map(|(_, cause)| cause).collect();
        let dropped = self.ring.push(unit.clone());
        if dropped > 0 {
            shared.tally.count(|count| count.groups_dropped += dropped);
        }
        let bytes = unit.bytes.len() as u64;
        let is_full = self.film.as_ref().is_some_and(|open| open.bytes + bytes > shared.config.bytes_max());
        for step in self.cutter.step(unit.pts, is_full, causes) {
            match step {
                Step::Complete => self.complete(shared),
                Step::Begin { since, cause } => self.begin(since, cause, format, shared),
                Step::Extend(happening) => self.tell(happening),
                Step::Write => self.write(std::slice::from_ref(&unit), shared),
            }
        }
    }

    fn begin(&mut self, since: Timestamp, cause: Option<Happening>, format: &UnitFormat, shared: &Shared) {
        let units: Vec<_> = self.ring.since(since).cloned().collect();
        let kind = cause.as_ref().map_or(CONTINUED, |happening| &happening.kind);
        // It holds nothing where a single group is larger than it may be.
        let (Some(first), Some(last)) = (units.first(), units.last()) else {
            return self.fail(kind.to_owned(), "a second of video does not fit into `buffer_mb_max`", cause, shared);
        };
        let name = shared.archive.claim(&self.name(last.pts, kind));
        let path = shared.config.folder.join(format!("{name}.recording.{}", shared.config.container.extension()));
        match UnitWriter::create(&path, format, first.pts, &self.backlog) {
            Ok(writer) => {
                let about = RecordingRecord::new(&self.stream, &path, kind, (first.pts, self.wall(first.pts)));
                info!(stream = %self.stream, file = %path.display(), "recording");
                shared.tally.count(|count| count.open += 1);
                self.film = Some(OpenFilm { film: Film { writer, name, about }, path, bytes: 0 });
                if let Some(cause) = cause {
                    self.tell(cause);
                }
                self.write(&units, shared);
            }
            Err(error) => self.fail(name, &sentence_of(causes(&error)), cause, shared),
        }
    }

    fn tell(&mut self, Happening { events, answer, .. }: Happening) {
        let file = match &mut self.film {
            Some(OpenFilm { film, path, .. }) => {
                film.about.add_events(events);
                Ok(path.clone())
            }
            None => Err("its file cannot be written".to_owned()),
        };
        if let Some(answer) = answer {
            // Whoever asked may have stopped waiting.
            drop(answer.try_send(file));
        }
    }

    fn write(&mut self, units: &[AccessUnit], shared: &Shared) {
        let Some(OpenFilm { film, bytes, .. }) = &mut self.film else { return };
        for unit in units {
            if let Err(error) = film.writer.push(unit) {
                let name = film.name.clone();
                self.film = None;
                shared.tally.count(|count| count.open -= 1);
                return self.fail(name, &sentence_of(causes(&error)), None, shared);
            }
            film.about.add_frame(unit.pts);
            *bytes += unit.bytes.len() as u64 + UNIT_BYTES;
        }
    }

    fn complete(&mut self, shared: &Shared) {
        if let Some(OpenFilm { film, .. }) = self.film.take() {
            shared.archive.complete(film);
        }
    }

    fn fail(&mut self, name: String, reason: &str, cause: Option<Happening>, shared: &Shared) {
        self.cutter.give_up();
        fail(&shared.tally, &name, reason);
        if let Some(answer) = cause.and_then(|cause| cause.answer) {
            drop(answer.try_send(Err(reason.to_owned())));
        }
    }

    /// The time of day of a frame.
    fn wall(&self, pts: Timestamp) -> Option<Timestamp> {
        self.wall_start.map(|start| start + (pts - Timestamp::ZERO))
    }

    /// Names of a stream sort by time: that of the day, or the seconds since the stream's start.
    fn name(&self, pts: Timestamp, kind: &str) -> String {
        let time = match self.wall(pts) {
            Some(wall) => rfc3339(wall).replace(['-', ':'], ""),
            None => format!("{:011.3}s", pts.as_secs_f64()),
        };
        format!("{}_{time}_{kind}", file_name(&self.stream))
    }
}
