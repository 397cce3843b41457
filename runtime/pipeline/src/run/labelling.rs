//! Pictures of single tracks, kept as examples of what they show.
//!
//! Whoever knows what a track is says so while it is in the picture. From then on the output thread hands every now and then
//! a frame that shows it to a thread of its own, which cuts the track out and writes it into the folder of its label. A frame
//! that comes while the one before is still written passes by: a slow disk costs pictures, and no frames.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use revoada_bundle::partial::{check_folder, replace};
use revoada_core::{Detection, Frame, Prediction, Rect, StreamId, Timestamp, TrackId};
use revoada_proto::Label;
use tracing::{info, warn};

use crate::draw::Painter;
use crate::lock::lock;
use crate::sink::{file_name, jpeg};

/// Tracks of which pictures are kept at once, each by a thread; one more is refused.
const AT_ONCE_MAX: usize = 8;
/// Of one label: more teach a head little, and would fill a disk in time.
pub(crate) const PICTURES_MAX: usize = 2_000;
/// On every side, of the box's: a classifier is shown some of what is around an object, and boxes are not exact.
const MARGIN: f32 = 0.1;
/// A track that is not shown for so long of its stream's time is not there, or not any more: trackers forget sooner.
const ABSENT_MAX: Duration = Duration::from_secs(3);
/// Whoever learns from it should not learn what JPEG does.
const JPEG_QUALITY: u8 = 95;
/// Tracks that are named to whoever asks for one that is not there.
const NAMED_MAX: usize = 16;

/// What is to be kept.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) stream: StreamId,
    pub(crate) track: TrackId,
    pub(crate) label: Label,
    /// Holds a folder for each label.
    pub(crate) folder: PathBuf,
    pub(crate) count: u32,
    /// From one picture to the next, by the stream's time.
    pub(crate) every: Duration,
}

/// Hears of the first picture: where it lies, or a sentence that says why there is none.
pub(crate) type First = Receiver<Result<PathBuf, String>>;

/// The tracks of which pictures are kept.
#[derive(Default)]
pub(crate) struct Labelling {
    following: Mutex<Vec<Following>>,
    any: AtomicBool,
    /// Those that still write among them.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Following {
    stream: StreamId,
    track: TrackId,
    every: Duration,
    /// Of the stream's source, of which the first frame is that was looked at.
    opening: Option<u64>,
    /// When it was shown last, or first looked for.
    since: Timestamp,
    /// When its next picture is due.
    due: Timestamp,
    was_shown: bool,
    /// That were shown while it was not.
    others: BTreeSet<TrackId>,
    shots: SyncSender<Shot>,
    first: SyncSender<Result<PathBuf, String>>,
}

/// A frame that shows the track.
struct Shot {
    frame: Arc<Frame>,
    bbox: Rect,
    /// The time of day when it was captured, where it is live.
    wall: Option<Timestamp>,
}

/// A frame and what was found in it.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) frame: &'a Arc<Frame>,
    pub(crate) prediction: &'a Prediction,
    pub(crate) opening: u64,
    pub(crate) wall: Option<Timestamp>,
}

impl Labelling {
    /// Keeps pictures from the next frame on that shows the track. The first makes the label's folder where it is missing.
    pub(crate) fn request(&self, wish: Wish) -> Result<First, String> {
        let folder = wish.folder.join(wish.label.as_str());
        let room = match room(&folder).map_err(|error| cannot_keep(&folder, &error))? {
            0 => {
                let folder = folder.display();
                return Err(format!("`{folder}` holds {PICTURES_MAX} pictures, and no more are kept of one label"));
            }
            room => room,
        };
        let mut following = lock(&self.following);
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        if threads.len() >= AT_ONCE_MAX {
            return Err(format!("pictures of {AT_ONCE_MAX} tracks are kept already: wait, or end them"));
        }
        let (say_first, first) = sync_channel(1);
        // One frame waits while another is written, and no more of the decoder's memory is held.
        let (shots, taken) = sync_channel(1);
        let Wish { stream, track, every, .. } = wish.clone();
        let (said, count) = (say_first.clone(), room.min(wish.count as usize));
        let work = move || keep(&wish, &folder, count, &taken, &said);
        let thread = thread::Builder::new().name("labelling".to_owned()).spawn(work);
        threads.push(thread.map_err(|error| format!("cannot start a thread for the pictures: {error}"))?);
        following.push(Following {
            stream,
            track,
            every,
            opening: None,
            since: Timestamp::ZERO,
            due: Timestamp::ZERO,
            was_shown: false,
            others: BTreeSet::new(),
            shots,
            first: say_first,
        });
        self.any.store(true, Ordering::SeqCst);
        Ok(first)
    }

    /// Shows a frame to whoever waits for it. Never waits.
    pub(crate) fn offer(&self, seen: Seen<'_>, painter: &Mutex<Painter>) {
        if self.any.load(Ordering::Relaxed) {
            self.retain(|following| following.stream != seen.frame.stream || following.look(seen, painter));
        }
    }

    /// No frame of the stream will come.
    pub(crate) fn end_stream(&self, stream: &StreamId) {
        self.retain(|following| {
            if following.stream == *stream && !following.was_shown {
                following.refuse(format!("stream `{stream}` ended before it showed track {}", following.track));
            }
            following.stream != *stream
        });
    }

    /// Nobody waits for the first picture any more: what was not shown so far is not looked for any longer.
    pub(crate) fn give_up(&self, stream: &StreamId, track: TrackId) {
        self.retain(|following| following.was_shown || (&following.stream, following.track) != (stream, track));
    }

    /// Keeps no more pictures, and waits for what is being written; returns of how many tracks.
    pub(crate) fn end_all(&self) -> usize {
        let mut ended = 0;
        self.retain(|following| {
            following.refuse("pictures of tracks are not kept any more".to_owned());
            ended += 1;
            false
        });
        let threads = std::mem::take(&mut *lock(&self.threads));
        // A panic has written its message to standard error.
        threads.into_iter().for_each(|thread| drop(thread.join()));
        ended
    }

    fn retain(&self, stays: impl FnMut(&mut Following) -> bool) {
        let mut following = lock(&self.following);
        following.retain_mut(stays);
        self.any.store(!following.is_empty(), Ordering::SeqCst);
    }
}

impl Drop for Labelling {
    fn drop(&mut self) {
        self.end_all();
    }
}

impl Following {
    /// Looks at a frame of the stream; whether to look at the next one.
    fn look(&mut self, seen: Seen<'_>, painter: &Mutex<Painter>) -> bool {
        let Seen { frame, prediction, opening, wall } = seen;
        if self.opening.is_none() {
            (self.opening, self.since) = (Some(opening), frame.pts);
        }
        // Another opening of the source has tracks of its own.
        let is_same = self.opening == Some(opening);
        let found = prediction.detections.iter().find(|found| found.track == Some(self.track)).filter(|_| is_same);
        match found {
            Some(found) => {
                self.since = frame.pts;
                let is_due = !self.was_shown || frame.pts >= self.due;
                !is_due || self.take(frame, prediction, found, wall, painter)
            }
            None => {
                self.others.extend(prediction.detections.iter().filter_map(|found| found.track));
                while self.others.len() > NAMED_MAX {
                    self.others.pop_first();
                }
                let stays = is_same && frame.pts.since(self.since) <= ABSENT_MAX;
                if !stays && !self.was_shown {
                    self.refuse(self.absence());
                }
                stays
            }
        }
    }

    /// Hands on a frame of which a picture is due; whether another will be.
    fn take(
        &mut self,
        frame: &Arc<Frame>,
        prediction: &Prediction,
        found: &Detection,
        wall: Option<Timestamp>,
        painter: &Mutex<Painter>,
    ) -> bool {
        let mut painter = lock(painter);
        if painter.hides(found) {
            self.refuse(format!("track {} is of a class that this pipeline anonymizes: it is not kept", self.track));
            return false;
        }
        let frame = painter.hide(frame, prediction).map_or_else(|| Arc::clone(frame), Arc::new);
        drop(painter);
        self.was_shown = true;
        match self.shots.try_send(Shot { frame: Arc::clone(&frame), bbox: found.bbox, wall }) {
            Ok(()) => {
                self.due = frame.pts + self.every;
                true
            }
            Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    fn absence(&self) -> String {
        let Self { stream, track, others, .. } = self;
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        match others.is_empty() {
            true => format!("stream `{stream}` does not show track {track}, nor any other"),
            false => format!("stream `{stream}` does not show track {track}; it shows {}", others.join(", ")),
        }
    }

    /// Says why there is no picture, where that is still waited for.
    fn refuse(&self, reason: String) {
        drop(self.first.try_send(Err(reason)));
    }
}

/// How many more pictures a label's folder may hold.
fn room(folder: &Path) -> io::Result<usize> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_folder(folder).map(|()| PICTURES_MAX),
        entries => Ok(PICTURES_MAX - entries?.take(PICTURES_MAX).count()),
    }
}

fn cannot_keep(folder: &Path, error: &io::Error) -> String {
    format!("cannot keep pictures in `{}`: {error}", folder.display())
}

/// Writes pictures until there are enough, or no more frames.
fn keep(wish: &Wish, folder: &Path, count: usize, shots: &Receiver<Shot>, first: &SyncSender<Result<PathBuf, String>>) {
    let Wish { stream, track, label, .. } = wish;
    let mut kept = 0;
    for shot in shots {
        match shot.write(stream, *track, folder) {
            Ok(None) => continue,
            Ok(Some(path)) => {
                kept += 1;
                // Only the first is waited for.
                drop(first.try_send(Ok(path)));
            }
            Err(error) => {
                let reason = cannot_keep(folder, &error);
                warn!(%stream, %track, reason, "no more pictures of a track are kept");
                drop(first.try_send(Err(reason)));
                break;
            }
        }
        if kept == count {
            break;
        }
    }
    if kept > 0 {
        info!(%stream, %track, %label, kept, "pictures of a track were kept");
    }
}

impl Shot {
    /// Whole or not at all; `None` where the box is outside of the picture.
    fn write(&self, stream: &StreamId, track: TrackId, folder: &Path) -> io::Result<Option<PathBuf>> {
        let Some(part) = self.frame.view().part(grown(self.bbox)) else { return Ok(None) };
        let epoch = SystemTime::UNIX_EPOCH;
        let time = self.wall.and_then(|wall| epoch.checked_add(wall.since(Timestamp::ZERO)));
        let time = humantime::format_rfc3339_millis(time.unwrap_or_else(SystemTime::now)).to_string();
        let time = time.replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let name = format!("{}-{track}-{time}-{:06}.jpg", file_name(stream), self.frame.sequence);
        let path = folder.join(name);
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        replace(&path, &jpeg(&part, JPEG_QUALITY)?)?;
        Ok(Some(path))
    }
}

fn grown(bbox: Rect) -> Rect {
    let (x, y) = (bbox.width * MARGIN, bbox.height * MARGIN);
    Rect::new(bbox.x - x, bbox.y - y, bbox.width + 2.0 * x, bbox.height + 2.0 * y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_room_for_so_many_pictures() {
        let set = tempfile::tempdir().unwrap();
        let folder = set.path().join("parcel");
        assert_eq!(room(&folder).unwrap(), PICTURES_MAX);
        assert!(!folder.exists(), "nothing was kept yet");
        fs::create_dir(&folder).unwrap();
        for index in 0..=PICTURES_MAX {
            fs::write(folder.join(index.to_string()), "").unwrap();
        }
        assert_eq!(room(&folder).unwrap(), 0);
        let wish = Wish {
            stream: StreamId::new("door"),
            track: TrackId(1),
            label: "parcel".parse().unwrap(),
            folder: set.path().to_owned(),
            count: 1,
            every: Duration::ZERO,
        };
        let refused = Labelling::default().request(wish.clone()).unwrap_err();
        assert!(refused.contains("holds 2000 pictures"), "{refused}");
        let refused = Labelling::default().request(Wish { folder: "/no/such".into(), ..wish }).unwrap_err();
        assert_eq!(refused, "cannot keep pictures in `/no/such/parcel`: there is no folder `/no/such`");
    }
}
