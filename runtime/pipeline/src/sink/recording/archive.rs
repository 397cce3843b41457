//! The folder of recordings, and the thread that completes them: nobody else waits for the disk.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use revoada_bundle::partial::replace;
use revoada_core::Clock;
use tracing::warn;

use super::super::folder::check_writable;
use super::super::kept::Kept;
use super::super::record::RecordingRecord;
use super::tally::Tally;
use crate::SinkError;
use crate::config::{RecordingConfig, STREAMS_MAX};
use crate::media::UnitWriter;

/// By these names recordings are told from other files.
const SUFFIXES: [&str; 3] = [".recording.mp4", ".recording.mkv", ABOUT];
const ABOUT: &str = ".recording.json";

/// Films that wait to be completed: those of all streams, which may end at once. One more is given up, since the disk does
/// not catch up.
const FILMS_MAX: usize = STREAMS_MAX;

/// How often it is looked for recordings that are too old.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// A film whose last unit was written.
pub(super) struct Film {
    pub(super) writer: UnitWriter,
    pub(super) name: String,
    pub(super) about: RecordingRecord,
}

/// Dropping one without [`Archive::finish`] gives up the films that wait.
pub(super) struct Archive {
    folder: PathBuf,
    films: Option<SyncSender<Box<Film>>>,
    given_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    tally: Arc<Tally>,
    /// Held for as long as the folder is ours; `None` where the file system knows no locks.
    lock: Option<File>,
}

/// The thread.
struct Worker {
    films: Receiver<Box<Film>>,
    given_up: Arc<AtomicBool>,
    kept: Kept,
    keep: Option<Duration>,
    wall_clock: Arc<dyn Clock>,
    tally: Arc<Tally>,
}

impl Archive {
    /// Refuses a folder that is not there, that cannot be written, or into which another pipeline records. What such a
    /// one left unfinished when it was killed is deleted, and so is what is too much or too old.
    pub(super) fn open(
        config: &RecordingConfig,
        tally: Arc<Tally>,
        wall_clock: Arc<dyn Clock>,
    ) -> Result<Self, SinkError> {
        let folder = &config.folder;
        let opened = File::open(folder).map_err(where_missing).and_then(|file| {
            check_writable(folder)?;
            let lock = lock(file)?;
            if lock.is_some() {
                sweep(folder)?;
            }
            Ok((lock, Kept::open(folder, &SUFFIXES, config.bytes_max())?))
        });
        let (lock, kept) = opened.map_err(|source| SinkError::Write { path: folder.clone(), source })?;
        let (films, waiting) = sync_channel(FILMS_MAX);
        let given_up = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            films: waiting,
            given_up: Arc::clone(&given_up),
            kept,
            keep: config.keep_days.map(|days| Duration::from_secs(u64::from(days) * 86_400)),
            wall_clock,
            tally: Arc::clone(&tally),
        };
        worker.tidy(0);
        let thread = thread::Builder::new().name(tally.summary().sink).spawn(move || worker.run());
        let thread = Some(thread.map_err(|source| SinkError::Write { path: folder.clone(), source })?);
        Ok(Self { folder: folder.clone(), films: Some(films), given_up, thread, tally, lock })
    }

    /// A name for a film that nothing in the folder has: `name`, or `name-2` and so on.
    pub(super) fn claim(&self, name: &str) -> String {
        let is_taken = |name: &str| {
            let suffixes = SUFFIXES.iter();
            suffixes.flat_map(|suffix| [format!("{name}{suffix}"), format!(".{name}{suffix}.partial")]).any(|file| {
                // Whatever it is, and wherever a link leads.
                self.folder.join(file).symlink_metadata().is_ok()
            })
        };
        let numbered = (2u64..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names.find(|name| !is_taken(name)).expect("a folder holds fewer than 2⁶⁴ files")
    }

    /// Has a film completed; never waits.
    pub(super) fn complete(&self, film: Film) {
        let sent = self.films.as_ref().map(|films| films.try_send(Box::new(film)));
        if let Some(Err(TrySendError::Full(film) | TrySendError::Disconnected(film))) = sent {
            self.tally.count(|count| count.open -= 1);
            fail(&self.tally, &film.name, "too many recordings wait to be completed");
        }
    }

    /// Completes what waits.
    pub(super) fn finish(&mut self) {
        self.films = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!(folder = %self.folder.display(), "the thread that completes recordings has panicked");
        }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::SeqCst);
        self.finish();
        // A child process that is just being started holds whatever is open here, and a lock that is only closed with it.
        if let Some(Err(error)) = self.lock.as_ref().map(File::unlock) {
            warn!(folder = %self.folder.display(), %error, "cannot unlock the folder of recordings");
        }
    }
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.films.recv_timeout(EXPIRY_INTERVAL) {
                // What is given up is removed when it is dropped.
                Ok(_) if self.given_up.load(Ordering::SeqCst) => {}
                Ok(film) => self.complete(*film),
                Err(RecvTimeoutError::Timeout) => self.tidy(0),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn complete(&mut self, Film { writer, name, about }: Film) {
        let completed = writer.finish().and_then(|path| {
            let cannot = |source| SinkError::Write { path: path.clone(), source };
            let bytes = fs::metadata(&path).map_err(cannot)?.len();
            let mut text = serde_json::to_vec_pretty(&about).expect("a record has string keys");
            text.push(b'\n');
            self.tidy(bytes + text.len() as u64);
            // The film is there, and counts, whatever becomes of the rest.
            let beside = self.kept.folder().join(format!("{name}{ABOUT}"));
            let told = replace(&beside, &text);
            self.kept.add(&name).map_err(cannot)?;
            told.map_err(|source| SinkError::Write { path: beside, source })?;
            Ok(bytes)
        });
        self.tally.count(|count| count.open -= 1);
        match completed {
            Ok(bytes) => self.tally.count(|count| {
                (count.recordings, count.bytes, count.error) = (count.recordings + 1, count.bytes + bytes, None);
            }),
            Err(error) => fail(&self.tally, &name, &revoada_core::sentence_of(revoada_core::causes(&error))),
        }
    }

    /// Deletes what is too old, and the oldest where `bytes` more would be too much.
    fn tidy(&mut self, bytes: u64) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.wall_clock.now().as_nanos());
        let earliest = self.keep.and_then(|keep| now.checked_sub(keep));
        let expired = earliest.map_or(0, |earliest| self.kept.expire(earliest));
        let deleted = expired + self.kept.make_room(bytes);
        if deleted > 0 {
            self.tally.count(|count| count.deleted += deleted);
        }
    }
}

/// Counts a recording that is not there, and tells it once until one succeeds.
pub(super) fn fail(tally: &Tally, name: &str, reason: &str) {
    let mut told = true;
    tally.count(|count| {
        count.failed += 1;
        told = count.error.replace(reason.to_owned()).is_some();
    });
    if !told {
        warn!(recording = name, reason, "a recording failed; the pipeline goes on");
    }
}

/// A folder that is made here could be one on the wrong disk, where another was to be mounted.
fn where_missing(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "there is no such folder; create it, or mount its disk")
        }
        _ => error,
    }
}

fn lock(folder: File) -> io::Result<Option<File>> {
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "another pipeline records into this folder"))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Removes what a pipeline that was killed left unfinished.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let unfinished = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial"));
        let unfinished = unfinished.map(|name| name.strip_suffix(".media").unwrap_or(name));
        if unfinished.is_some_and(|name| SUFFIXES.iter().any(|suffix| name.ends_with(suffix))) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
