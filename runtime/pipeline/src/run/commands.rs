//! What the control socket's commands do to a run.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use revoada_bundle::partial::replace;
use revoada_core::{StreamId, TrackId, causes, sentence_of};
use serde_json::{Value, json};

use super::labelling::Wish;
use super::output::{OutputControls, Snapshot};
use super::stats::RunStats;
use super::summary::StreamState;
use super::supervisor::{Change, Event};
use super::swap::{Swapper, To};
use crate::control::Command;
use crate::lock::lock;
use crate::sink::{Recordings, jpeg, png};

/// A live stream that shows nothing for so long shows nothing.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(5);
/// A changed configuration is read and starts threads.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Good enough to look closely at.
const JPEG_QUALITY: u8 = 90;

/// Answers on the control clients' threads.
pub(super) struct Commands {
    pub(super) stats: Arc<RunStats>,
    pub(super) controls: Arc<OutputControls>,
    pub(super) recordings: Recordings,
    pub(super) swapper: Arc<Swapper>,
    pub(super) events: SyncSender<Event>,
}

impl Commands {
    pub(super) fn answer(&self, command: Command) -> Result<Value, String> {
        match command {
            Command::Stats => serde_json::to_value(self.stats.summary(Vec::new())).map_err(|error| error.to_string()),
            Command::Drain => {
                self.events.try_send(Event::Drain).map_err(|_| "the pipeline is ending")?;
                Ok(json!({ "draining": true }))
            }
            Command::Reload => self.change(Change::Reload),
            Command::AddStream { stream } => self.change(Change::AddStream(stream)),
            Command::RemoveStream { stream } => self.change(Change::RemoveStream(stream)),
            Command::Swap { model } => match self.swapper.swap(To::Model(&model)) {
                Ok(swapped) => serde_json::to_value(swapped).map_err(|error| error.to_string()),
                Err(error) => Err(sentence_of(causes(&error))),
            },
            Command::Shadow { model } => self.shadow(&model),
            Command::EndShadow => {
                let seen = self.controls.shadow.end().ok_or("no model follows as a shadow")?;
                serde_json::to_value(seen).map_err(|error| error.to_string())
            }
            Command::Snapshot { stream, path } => self.snapshot(&stream, &path),
            Command::Label { stream, track, label, folder, count, every_ms } => {
                let (track, every) = (TrackId(track), Duration::from_millis(every_ms.into()));
                self.label(Wish { stream: self.shown(&stream)?, track, label, folder, count, every })
            }
            Command::EndLabels => Ok(json!({ "ended": self.controls.labelling.end_all() })),
            Command::Record { stream, seconds } => self.record(&stream, seconds.map(Duration::from_secs)),
        }
    }

    fn shadow(&self, model: &Path) -> Result<Value, String> {
        let Swapper { loader, sessions, clock, config, .. } = &*self.swapper;
        let first = sessions.model().ok_or("the pipeline is ending")?;
        let config = lock(config).clone();
        let started = self.controls.shadow.start(model, &config, loader, &first, clock)?;
        serde_json::to_value(started).map_err(|error| error.to_string())
    }

    fn change(&self, change: Change) -> Result<Value, String> {
        let (reply, answer) = sync_channel(1);
        self.events.try_send(Event::Change { change, reply }).map_err(|_| "the pipeline is ending")?;
        answer.recv_timeout(CHANGE_TIMEOUT).map_err(|_| "the pipeline is ending")?
    }

    fn snapshot(&self, stream: &str, path: &Path) -> Result<Value, String> {
        let stream = self.shown(stream)?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !matches!(extension, Some("jpg" | "jpeg" | "png")) {
            return Err(format!("cannot write `{}`: expected `.jpg`, `.jpeg` or `.png`", path.display()));
        }
        let (reply, picture) = sync_channel(1);
        self.controls.snapshots().request(stream.clone(), reply);
        let Snapshot { frame, tracks } = picture.recv_timeout(PICTURE_TIMEOUT).map_err(|_| no_picture(&stream))?;
        let encoded = match extension {
            Some("png") => png(&frame.view()),
            _ => jpeg(&frame.view(), JPEG_QUALITY),
        };
        let bytes = encoded.and_then(|bytes| replace(path, &bytes).map(|()| bytes.len()));
        let bytes = bytes.map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
        let size = frame.size();
        let tracks: Vec<Value> =
            tracks.into_iter().map(|(track, label)| json!({ "track": track.0, "label": label })).collect();
        Ok(json!({
            "path": path, "bytes": bytes, "width": size.width, "height": size.height,
            "sequence": frame.sequence, "pts_s": frame.pts.as_secs_f64(), "tracks": tracks,
        }))
    }

    /// Answers once the first picture is kept.
    fn label(&self, wish: Wish) -> Result<Value, String> {
        let Wish { stream, track, label, count, .. } = wish.clone();
        if !self.controls.tracks() {
            return Err("nothing is tracked here: the pipeline's file needs a table `[tracker]`".to_owned());
        }
        let streams = self.stats.streams();
        let newest = streams.iter().find(|known| known.id == stream).map_or(0, |known| known.tracks());
        if !(1..=newest).contains(&track.0) {
            return Err(match newest {
                0 => format!("stream `{stream}` has shown no track yet"),
                newest => format!("stream `{stream}` has no track {track}: the newest is {newest}"),
            });
        }
        let first = self.controls.labelling.request(wish)?;
        let file = first.recv_timeout(PICTURE_TIMEOUT).map_err(|_| {
            self.controls.labelling.give_up(&stream, track);
            format!("there was no picture of track {track} of stream `{stream}` for {} s", PICTURE_TIMEOUT.as_secs())
        })??;
        Ok(json!({ "stream": stream.as_str(), "track": track.0, "label": label, "count": count, "file": file }))
    }

    fn record(&self, stream: &str, after: Option<Duration>) -> Result<Value, String> {
        let stream = self.shown(stream)?;
        let answers = self.recordings.request(&stream, after);
        if answers.is_empty() {
            return Err(format!(
                "no sink records stream `{stream}`: add a `[[sink]]` of type `recording`, or the stream to its `streams`"
            ));
        }
        let files = answers.into_iter().map(|answer| {
            let file = answer.recv_timeout(PICTURE_TIMEOUT).map_err(|_| no_picture(&stream))?;
            let file = file.map_err(|reason| format!("cannot record stream `{stream}`: {reason}"))?;
            // Whoever asks may be in another folder than the pipeline.
            Ok::<_, String>(std::path::absolute(&file).unwrap_or(file))
        });
        let files = files.collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "stream": stream.as_str(), "files": files }))
    }

    /// The stream of this name, where a picture of it may still come.
    fn shown(&self, stream: &str) -> Result<StreamId, String> {
        let streams = self.stats.streams();
        let known = streams.iter().find(|known| known.id.as_str() == stream).ok_or_else(|| {
            let known = streams.iter().map(|stream| format!("`{}`", stream.id)).collect::<Vec<_>>().join(", ");
            format!("there is no stream `{stream}`; choose one of {known}")
        })?;
        match known.state() {
            state @ (StreamState::Ended | StreamState::Failed) => {
                Err(format!("stream `{stream}` shows no more pictures: it has {}", state.name()))
            }
            StreamState::Connecting | StreamState::Running | StreamState::Reconnecting => Ok(known.id.clone()),
        }
    }
}

fn no_picture(stream: &StreamId) -> String {
    format!("stream `{stream}` showed no picture for {} s", PICTURE_TIMEOUT.as_secs())
}
