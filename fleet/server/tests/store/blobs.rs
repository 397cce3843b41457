//! Blobs: called by what they are, whole or not at all, within their bounds.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use prost::bytes::Bytes;
use revoada_bundle::hash;
use revoada_core::Digest;
use revoada_fleet::blobs::{Begun, BlobError, BlobLimits, Blobs, Collected};
use revoada_fleet::store::Store;
use revoada_fleet::store::sqlite::Sqlite;

use crate::samples::{add_version, at, digest};

pub(crate) const LIMITS: BlobLimits =
    BlobLimits { quota_bytes: 10_000_000, blob_bytes_max: 6_000_000, uploads_max: 3, kept: Duration::from_secs(100) };

struct Place {
    blobs: Blobs,
    store: Arc<dyn Store>,
    folder: tempfile::TempDir,
}

fn place(limits: BlobLimits) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::in_memory().unwrap());
    Place { blobs: Blobs::open(folder.path(), store.clone(), limits, at(0)).unwrap(), store, folder }
}

fn bytes(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 % 251) as u8).collect()
}

async fn read(blobs: &Blobs, digest: Digest, range: std::ops::Range<u64>) -> Vec<u8> {
    let pieces: Vec<Bytes> = blobs.read(digest, range).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

fn files(folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        files += if entry.path().is_dir() { self::files(&entry.path()) } else { 1 };
    }
    files
}

#[tokio::test]
async fn a_blob_is_read_back_whole_and_in_ranges() {
    let place = place(LIMITS);
    let whole = bytes(3_000_000);
    let digest = place.blobs.put(whole.clone(), at(0)).await.unwrap();
    assert_eq!((digest, place.blobs.size(digest).await.unwrap()), (hash(&whole), Some(3_000_000)));
    for range in [0..3_000_000, 0..1, 2_999_999..3_000_000, 1_048_575..1_048_577, 5..2_500_000] {
        let expected = &whole[range.start as usize..range.end as usize];
        assert!(read(&place.blobs, digest, range.clone()).await == expected, "{range:?}");
    }
    for (start, end) in [(0, 3_000_001), (5, 5), (3_000_000, 3_000_001)] {
        let Err(error) = place.blobs.read(digest, start..end).await else { panic!("{start} to {end} is no range") };
        assert!(matches!(error, BlobError::Range { .. }), "{error}");
    }
    assert_eq!(place.blobs.read_whole(digest, 3_000_000).await.unwrap(), whole);
    assert!(matches!(place.blobs.read_whole(digest, 2_999_999).await, Err(BlobError::TooLarge { .. })));
    let empty = place.blobs.put(Bytes::new(), at(0)).await.unwrap();
    assert_eq!((empty, read(&place.blobs, empty, 0..0).await), (hash(b""), Vec::new()));
    assert!(matches!(place.blobs.read(hash(b"?"), 0..1).await, Err(BlobError::Missing { .. })));
    assert_eq!(place.blobs.begin(digest, 3_000_000, at(1)).await.unwrap(), Begun::Whole, "it is written once");
}

#[tokio::test]
async fn what_is_taken_becomes_no_blob() {
    let place = place(LIMITS);
    let whole = bytes(5_000);
    let digest = hash(&whole);
    place.blobs.begin(digest, 5_000, at(0)).await.unwrap();
    place.blobs.append(digest, 0, whole.slice(..2_000), at(0)).await.unwrap();
    assert!(matches!(place.blobs.take(digest, 5_000).await, Err(BlobError::Unfinished { missing: 3_000, .. })));
    place.blobs.append(digest, 2_000, whole.slice(2_000..), at(0)).await.unwrap();
    assert!(matches!(place.blobs.take(digest, 4_999).await, Err(BlobError::TooLarge { .. })));
    assert_eq!(place.blobs.take(digest, 5_000).await.unwrap(), whole);
    assert!(matches!(place.blobs.take(digest, 5_000).await, Err(BlobError::NotBegun { .. })));
    assert_eq!((place.blobs.size(digest).await.unwrap(), files(place.folder.path())), (None, 0));
    // Neither does what is something else.
    place.blobs.begin(digest, 5_000, at(0)).await.unwrap();
    place.blobs.append(digest, 0, bytes(5_001).slice(1..), at(0)).await.unwrap();
    assert!(matches!(place.blobs.take(digest, 5_000).await, Err(BlobError::Changed { .. })));
    assert_eq!(files(place.folder.path()), 0);
}

#[tokio::test]
async fn an_upload_is_resumed_where_it_ended_also_by_another_process() {
    let place = place(LIMITS);
    let whole = bytes(500_000);
    let digest = hash(&whole);
    assert_eq!(place.blobs.begin(digest, 500_000, at(0)).await.unwrap(), Begun::At(0));
    assert_eq!(place.blobs.append(digest, 0, whole.slice(..200_000), at(0)).await.unwrap(), 200_000);
    let error = place.blobs.append(digest, 100_000, whole.slice(100_000..), at(0)).await.unwrap_err();
    assert!(matches!(error, BlobError::Offset { expected: 200_000, got: 100_000, .. }), "{error}");
    let error = place.blobs.complete(digest, at(0)).await.unwrap_err();
    assert!(matches!(error, BlobError::Unfinished { missing: 300_000, .. }), "{error}");
    assert_eq!(place.blobs.size(digest).await.unwrap(), None, "what is not whole is no blob");
    let Place { blobs, store, folder } = place;
    drop(blobs);
    let blobs = Blobs::open(folder.path(), store, LIMITS, at(50)).unwrap();
    assert_eq!(blobs.begin(digest, 500_000, at(50)).await.unwrap(), Begun::At(200_000));
    blobs.append(digest, 200_000, whole.slice(200_000..), at(50)).await.unwrap();
    blobs.complete(digest, at(50)).await.unwrap();
    blobs.complete(digest, at(51)).await.unwrap();
    assert!(read(&blobs, digest, 0..500_000).await == whole);
    assert_eq!(files(&folder.path().join("spool")), 0);
}

#[tokio::test]
async fn what_hashes_differently_is_refused_and_leaves_nothing() {
    let place = place(LIMITS);
    let claimed = hash(b"something else");
    place.blobs.begin(claimed, 500_000, at(0)).await.unwrap();
    place.blobs.append(claimed, 0, bytes(500_000), at(0)).await.unwrap();
    let error = place.blobs.complete(claimed, at(0)).await.unwrap_err();
    assert!(matches!(error, BlobError::Changed { .. }), "{error}");
    assert_eq!((place.blobs.size(claimed).await.unwrap(), files(place.folder.path())), (None, 0));
    assert!(matches!(place.blobs.complete(claimed, at(0)).await, Err(BlobError::NotBegun { .. })));
    place.blobs.begin(claimed, 10, at(0)).await.unwrap();
    let error = place.blobs.append(claimed, 0, bytes(11), at(0)).await.unwrap_err();
    assert!(matches!(error, BlobError::TooLong { bytes: 10, .. }), "{error}");
    assert_eq!(files(place.folder.path()), 0);
}

#[tokio::test]
async fn blobs_and_uploads_stay_within_their_bounds() {
    let place = place(LIMITS);
    let begin = async |number, bytes, seconds| place.blobs.begin(digest(number), bytes, at(seconds)).await;
    let error = begin(1, 6_000_001, 0).await.unwrap_err();
    assert!(matches!(error, BlobError::TooLarge { max: 6_000_000, .. }), "{error}");
    place.blobs.put(bytes(3_000_000), at(0)).await.unwrap();
    begin(1, 6_000_000, 0).await.unwrap();
    let error = begin(2, 1_000_001, 0).await.unwrap_err();
    assert!(matches!(error, BlobError::Full { free: 1_000_000, .. }), "{error}");
    begin(2, 10, 1).await.unwrap();
    begin(3, 10, 2).await.unwrap();
    assert!(matches!(begin(4, 10, 2).await, Err(BlobError::TooManyUploads { max: 3 })));
    assert_eq!(begin(2, 10, 60).await.unwrap(), Begun::At(0), "one that is begun may go on");
    assert_eq!(begin(4, 10, 101).await.unwrap(), Begun::At(0), "nobody went on with the first for so long");
    let error = place.blobs.append(digest(1), 0, bytes(1), at(101)).await.unwrap_err();
    assert!(matches!(error, BlobError::NotBegun { .. }), "{error}");
    assert_eq!(begin(2, 20, 102).await.unwrap(), Begun::At(0), "another size begins anew");
    assert_eq!(files(&place.folder.path().join("spool")), 3);
}

#[tokio::test]
async fn what_nothing_refers_to_is_collected_and_the_rest_is_kept() {
    let Place { store, folder, .. } = place(LIMITS);
    let used = bytes(1000);
    let mut used_digest = [0; 32];
    used_digest.copy_from_slice(hash(&used).as_bytes());
    let blobs = Blobs::open(folder.path(), store.clone(), LIMITS, at(0)).unwrap();
    blobs.put(used.clone(), at(0)).await.unwrap();
    let unused = blobs.put(bytes(2000), at(0)).await.unwrap();
    let mut version = add_version(&*store, 1);
    let signature = store.signature(&version.digest).unwrap().unwrap();
    version.digest = Digest::new(used_digest);
    version.version = "2.0.0".to_owned();
    assert!(store.add_version(&version, &signature, at(0)).unwrap());
    // What a crash leaves: an object that the store does not know, and one that was being written.
    let orphan = folder.path().join("objects/sha256/09").join(digest(9).hex());
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, "orphan").unwrap();
    let staged = format!("{}#1", orphan.display());
    fs::write(&staged, "half of").unwrap();
    assert_eq!(blobs.collect(at(100)).await.unwrap(), Collected::default(), "they are too young");
    let later = at(10_000_000_000);
    let collected = blobs.collect(later).await.unwrap();
    assert_eq!((collected.blobs, collected.bytes), (2, 2006));
    assert_eq!((blobs.size(unused).await.unwrap(), orphan.exists()), (None, false));
    assert!(read(&blobs, Digest::new(used_digest), 0..1000).await == used);
    drop(blobs);
    Blobs::open(folder.path(), store, LIMITS, at(0)).unwrap();
    assert!(!Path::new(&staged).exists());
}

#[tokio::test]
async fn two_that_write_the_same_blob_do_not_meet() {
    let place = Arc::new(place(LIMITS));
    let whole = bytes(2_000_000);
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (place, whole) = (place.clone(), whole.clone());
            tokio::spawn(async move { place.blobs.put(whole, at(0)).await })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => done += 1,
            Err(
                BlobError::Busy { .. }
                | BlobError::Offset { .. }
                | BlobError::NotBegun { .. }
                | BlobError::Unfinished { .. },
            ) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(done > 0);
    assert!(read(&place.blobs, hash(&whole), 0..2_000_000).await == whole);
}
