//! A reply as it comes in, object by object.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::bytes::Bytes;
use revoada_core::Digest;

use crate::flower::incoming::Contents;
use crate::learning::Task;

/// What all replies that are coming in may have together.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicU64,
    max: u64,
}

impl Room {
    pub(super) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), max })
    }

    fn take(&self, bytes: u64) -> bool {
        let more = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.max);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// Others are still to come.
    Kept,
    /// It was the last.
    Whole,
    /// Nobody asked for it.
    Unwanted,
    /// The reply has more bytes than one may have.
    TooLarge,
    /// It is not what its name says.
    Wrong,
    /// There is no room before others are done.
    Full,
}

impl Put {
    /// Whether no other object of the reply is waited for.
    pub(super) fn ends(self) -> bool {
        matches!(self, Self::Whole | Self::TooLarge | Self::Wrong)
    }
}

#[derive(Debug)]
pub(super) struct Upload {
    pub(super) task: Arc<Task>,
    pub(super) root: Digest,
    /// Tells a reply that is sent again from the one before.
    pub(super) session: String,
    /// By objects that it has in common with the message that it replies to, too.
    contents: Contents,
    lacking: HashSet<Digest>,
    bytes: u64,
    bytes_max: u64,
    room: Arc<Room>,
}

impl Upload {
    /// `names` are those of all its objects; those that `known` has are not asked for.
    pub(super) fn new(
        (task, root, session): (Arc<Task>, Digest, String),
        names: &[Digest],
        known: impl Fn(&Digest) -> Option<Bytes>,
        bytes_max: u64,
        room: Arc<Room>,
    ) -> Self {
        let (mut contents, mut lacking) = (Contents::new(), HashSet::new());
        for name in names {
            match known(name) {
                Some(content) => drop(contents.insert(*name, content)),
                None => drop(lacking.insert(*name)),
            }
        }
        Self { task, root, session, contents, lacking, bytes: 0, bytes_max, room }
    }

    pub(super) fn lacking(&self) -> impl Iterator<Item = &Digest> {
        self.lacking.iter()
    }

    /// Takes an object whose content is what its name says.
    pub(super) fn put(&mut self, id: Digest, content: Bytes) -> Put {
        if !self.lacking.contains(&id) {
            return if self.contents.contains_key(&id) { Put::Kept } else { Put::Unwanted };
        }
        let bytes = content.len() as u64;
        if self.bytes.saturating_add(bytes) > self.bytes_max {
            return Put::TooLarge;
        }
        if !self.room.take(bytes) {
            return Put::Full;
        }
        self.bytes += bytes;
        self.contents.insert(id, content);
        self.lacking.remove(&id);
        if self.lacking.is_empty() { Put::Whole } else { Put::Kept }
    }

    /// All of it, once it is whole.
    pub(super) fn take_contents(&mut self) -> Contents {
        std::mem::take(&mut self.contents)
    }
}

/// What is done with makes room.
impl Drop for Upload {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::{RunId, Work};

    fn upload(bytes_max: u64, room: &Arc<Room>) -> Upload {
        let task = Arc::new(Task { number: 1, run: RunId(1), round: 1, work: Work::Leave });
        let names = [1, 2, 3].map(|byte| Digest::new([byte; 32]));
        let known = |id: &Digest| (*id == names[2]).then(|| Bytes::from_static(b"known"));
        Upload::new((task, names[0], String::new()), &names, known, bytes_max, Arc::clone(room))
    }

    #[test]
    fn only_what_is_lacking_is_taken_and_within_its_bounds() {
        let (one, two, three) = (Digest::new([1; 32]), Digest::new([2; 32]), Digest::new([3; 32]));
        let room = Room::new(10);
        let mut first = upload(8, &room);
        assert!(first.lacking().all(|id| *id == one || *id == two));
        assert_eq!(first.put(Digest::new([9; 32]), Bytes::new()), Put::Unwanted);
        assert_eq!(first.put(three, Bytes::from_static(b"known")), Put::Kept);
        assert_eq!(first.put(one, Bytes::from_static(b"123456")), Put::Kept);
        assert_eq!(first.put(two, Bytes::from_static(b"123")), Put::TooLarge);
        let mut second = upload(8, &room);
        assert_eq!(second.put(one, Bytes::from_static(b"12345")), Put::Full);
        assert_eq!(first.put(two, Bytes::from_static(b"12")), Put::Whole);
        assert_eq!((room.taken(), first.take_contents().len()), (8, 3));
        drop(first);
        assert_eq!(second.put(one, Bytes::from_static(b"12345")), Put::Kept);
        drop(second);
        assert_eq!(room.taken(), 0);
    }
}
