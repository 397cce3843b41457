//! What is offered was signed by an owner, and is what was signed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use revoada_bundle::bundle::{BundleWriter, Index, Lineage, Precision, SIGNATURE, VERSION};
use revoada_bundle::sign::{Purpose, SecretKey, Signature};
use revoada_bundle::{hash, partial};
use revoada_core::Digest;
use revoada_fleet::blobs::{BlobLimits, Blobs};
use revoada_fleet::registry::{FileKind, Import, ImportError, Importer};
use revoada_fleet::store::Store;
use revoada_fleet::store::sqlite::Sqlite;
use revoada_proto::Kind;

use crate::blobs::LIMITS;
use crate::samples::{anna, at, digest};

struct Desk {
    importer: Importer,
    store: Arc<dyn Store>,
    key: SecretKey,
    folder: tempfile::TempDir,
}

fn desk_with(limits: BlobLimits) -> Desk {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::in_memory().unwrap());
    fs::create_dir(folder.path().join("blobs")).unwrap();
    let blobs = Arc::new(Blobs::open(&folder.path().join("blobs"), store.clone(), limits, at(0)).unwrap());
    let key = SecretKey::generate().unwrap();
    let importer = Importer { store: store.clone(), blobs, trusted: [key.public()].into() };
    Desk { importer, store, key, folder }
}

fn desk() -> Desk {
    desk_with(LIMITS)
}

impl Desk {
    fn bundle(&self, key: Option<&SecretKey>) -> (PathBuf, Digest) {
        let target = self.folder.path().join("people.bundle");
        let mut writer = BundleWriter::create(&target).unwrap();
        writer.add("model.onnx", &model()).unwrap();
        writer.add("model.toml", b"version = 1\nlabels = [\"cat\"]\n").unwrap();
        writer.add("reports/accuracy.json", br#"{"map": 0.5}"#).unwrap();
        writer.add("reports/a page.html", b"<p>").unwrap();
        let index = Index {
            version: VERSION,
            name: "people".to_owned(),
            precision: Precision::Fp16,
            producer: "revoada test".to_owned(),
            licence: Some("MIT".to_owned()),
            lineage: Lineage { source: None, parent: Some(digest(7)), steps: vec!["fp16".to_owned()] },
            files: Default::default(),
        };
        let bundle = writer.seal(index, key).unwrap().publish().unwrap();
        (target, bundle.digest())
    }

    /// Uploads what a bundle has, as a client does that has only the blobs' names.
    async fn upload(&self, folder: &Path, files: &[&str]) {
        for file in files {
            self.importer.blobs.put(fs::read(folder.join(file)).unwrap().into(), at(1)).await.unwrap();
        }
    }

    fn nothing_is_offered(&self) {
        assert_eq!(self.store.artefacts().unwrap(), []);
        assert_eq!(self.store.versions(Kind::Model, "people").unwrap(), []);
    }
}

fn model() -> Vec<u8> {
    (0..2_500_000).map(|index| (index % 253) as u8).collect()
}

fn import(version: &str) -> Import {
    Import { name: None, version: version.to_owned(), parents: vec![digest(8)] }
}

fn signature_of(folder: &Path) -> Signature {
    serde_json::from_slice(&fs::read(folder.join(SIGNATURE)).unwrap()).unwrap()
}

#[tokio::test]
async fn a_signed_bundle_becomes_a_version_of_its_model() {
    let desk = desk();
    let (folder, digest_of_it) = desk.bundle(Some(&desk.key));
    let version = desk.importer.folder(&folder, import("1.0"), anna(), at(1)).await.unwrap();
    assert_eq!(desk.store.version(&digest_of_it).unwrap(), Some(version.clone()));
    assert_eq!((version.name.as_str(), version.version.as_str(), version.signer), ("people", "1.0", desk.key.public()));
    assert_eq!(version.parents, [digest(7), digest(8)]);
    assert_eq!(version.reports["accuracy"]["map"], 0.5);
    assert_eq!(version.files.len(), 4);
    let model_file = version.files["model.onnx"];
    assert_eq!(desk.importer.blobs.read_whole(model_file.digest, 3_000_000).await.unwrap(), model());
    assert_eq!(desk.store.artefact(Kind::Model, "people").unwrap().unwrap().licence, Some("MIT".to_owned()));
    assert!(desk.store.signature(&digest_of_it).unwrap().unwrap().verify(Purpose::Bundle, digest_of_it));
    let again = desk.importer.folder(&folder, import("9.9"), anna(), at(2)).await.unwrap();
    assert_eq!(again, version, "it is there already");
    assert_eq!(desk.importer.blobs.collect(at(10_000_000_000)).await.unwrap().blobs, 0, "all of it is used");
}

#[tokio::test]
async fn a_bundle_that_was_tampered_with_or_is_a_strangers_is_not_offered() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("changed after the bundle was made", |folder| fs::write(folder.join("model.toml"), "version = 1").unwrap()),
        ("does not know", |folder| fs::write(folder.join("more.txt"), "").unwrap()),
        ("lacks the file", |folder| fs::remove_file(folder.join("model.onnx")).unwrap()),
        ("has no signature", |folder| fs::remove_file(folder.join(SIGNATURE)).unwrap()),
        ("cannot be trusted", |folder| {
            let index = fs::read_to_string(folder.join("bundle.json")).unwrap();
            fs::write(folder.join("bundle.json"), index.replace("people", "peoples")).unwrap();
        }),
    ];
    for (expected, change) in changes {
        let desk = desk();
        let (folder, _) = desk.bundle(Some(&desk.key));
        change(&folder);
        let error = desk.importer.folder(&folder, import("1.0"), anna(), at(1)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        desk.nothing_is_offered();
    }
    let desk = desk();
    let (folder, _) = desk.bundle(Some(&SecretKey::generate().unwrap()));
    let error = desk.importer.folder(&folder, import("1.0"), anna(), at(1)).await.unwrap_err().to_string();
    assert!(error.contains("not among the trusted keys"), "{error}");
    desk.nothing_is_offered();
}

#[tokio::test]
async fn an_uploaded_bundle_is_offered_once_all_of_it_is_there() {
    let desk = desk();
    let (folder, index) = desk.bundle(Some(&desk.key));
    let signature = signature_of(&folder);
    desk.upload(&folder, &["bundle.json", "model.toml", "reports/accuracy.json", "reports/a page.html"]).await;
    let add = async |signature| desk.importer.uploaded(index, signature, import("1.0"), anna(), at(1)).await;
    let error = add(signature.clone()).await.unwrap_err();
    assert!(matches!(&error, ImportError::Lacks { file, .. } if file == "model.onnx"), "{error}");
    desk.nothing_is_offered();
    desk.upload(&folder, &["model.onnx"]).await;
    for purpose in [Purpose::Plan, Purpose::Pipeline] {
        let error = add(desk.key.sign(purpose, index)).await.unwrap_err();
        assert!(matches!(error, ImportError::Signature { .. }), "{error}");
    }
    let error = add(SecretKey::generate().unwrap().sign(Purpose::Bundle, index)).await.unwrap_err();
    assert!(matches!(error, ImportError::Stranger { .. }), "{error}");
    desk.nothing_is_offered();
    assert_eq!(add(signature).await.unwrap().files.len(), 4);
}

#[tokio::test]
async fn an_index_that_leaves_its_folder_is_refused_though_it_is_signed() {
    let desk = desk();
    let (folder, _) = desk.bundle(Some(&desk.key));
    let text = fs::read_to_string(folder.join("bundle.json")).unwrap();
    for path in ["../../etc/cron.d/x", "/etc/passwd", "a/../../b", "./x", "bundle.json"] {
        let index = text.replace("reports/accuracy.json", path);
        let digest = desk.importer.blobs.put(index.into(), at(1)).await.unwrap();
        let signature = desk.key.sign(Purpose::Bundle, digest);
        let error = desk.importer.uploaded(digest, signature, import("1.0"), anna(), at(1)).await.unwrap_err();
        assert!(error.to_string().contains("outside the bundle"), "{path}: {error}");
    }
    desk.nothing_is_offered();
}

#[tokio::test]
async fn a_bundle_that_does_not_fit_leaves_no_version() {
    let desk = desk_with(BlobLimits { quota_bytes: 1_000_000, ..LIMITS });
    let (folder, _) = desk.bundle(Some(&desk.key));
    let error = desk.importer.folder(&folder, import("1.0"), anna(), at(1)).await.unwrap_err().to_string();
    assert!(error.contains("of the quota are free"), "{error}");
    desk.nothing_is_offered();
}

#[tokio::test]
async fn pipelines_and_packages_are_signed_for_what_they_are() {
    let desk = desk();
    let named = |name: &str| Import { name: Some(name.to_owned()), version: "1".to_owned(), parents: Vec::new() };
    let path = desk.folder.path().join("door.toml");
    partial::replace(&path, b"version = 1\n").unwrap();
    let pipeline = hash(b"version = 1\n");
    let add = async |kind, signature, import| desk.importer.file(kind, &path, signature, import, anna(), at(1)).await;
    let right = desk.key.sign(Purpose::Pipeline, pipeline);
    let wrong = desk.key.sign(Purpose::Package, pipeline);
    let error = add(FileKind::Pipeline, wrong, named("door")).await.unwrap_err();
    assert!(matches!(error, ImportError::Signature { .. }), "{error}");
    let error = add(FileKind::Package, right.clone(), named("door")).await.unwrap_err();
    assert!(matches!(error, ImportError::Signature { .. }), "{error}");
    let error = add(FileKind::Pipeline, right.clone(), import("1")).await.unwrap_err();
    assert!(matches!(error, ImportError::Unnamed), "{error}");
    let version = add(FileKind::Pipeline, right, named("door")).await.unwrap();
    assert_eq!((version.kind, version.digest, version.bytes), (Kind::Pipeline, pipeline, 12));
    let bad = desk.importer.blobs.put("version = ".into(), at(1)).await.unwrap();
    let signature = desk.key.sign(Purpose::Pipeline, bad);
    let uploaded = async |kind, digest, signature| {
        desk.importer.uploaded_file(kind, digest, signature, named("other"), anna(), at(2)).await
    };
    let error = uploaded(FileKind::Pipeline, bad, signature).await.unwrap_err();
    assert!(matches!(error, ImportError::Pipeline { .. }), "{error}");
    let program = desk.importer.blobs.put("\x7fELF".into(), at(1)).await.unwrap();
    let signature = desk.key.sign(Purpose::Package, program);
    assert_eq!(uploaded(FileKind::Package, program, signature.clone()).await.unwrap().kind, Kind::Package);
    let missing = desk.key.sign(Purpose::Package, digest(3));
    assert!(uploaded(FileKind::Package, digest(3), missing).await.is_err());
}

/// A web server of one folder.
struct Site {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy)]
struct Manners {
    knows_ranges: bool,
    /// The first so many answers for the model break off in the middle.
    breaks_off: usize,
}

fn serve(folder: PathBuf, manners: Manners) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/some%20where", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, broken) = (requests.clone(), AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while reader.read_line(&mut head).unwrap() > 2 {}
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let range =
                head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
            seen.lock().unwrap().push(format!("{path} {}", range.unwrap_or(0)));
            let file = path.strip_prefix("/some%20where/").unwrap_or("nothing").replace("%20", " ");
            let (status, body) = match (fs::read(folder.join(file)), range) {
                (Ok(body), Some(range)) if manners.knows_ranges => ("206 Partial Content", body[range..].to_vec()),
                (Ok(body), _) => ("200 OK", body),
                (Err(_), _) => ("404 Not Found", Vec::new()),
            };
            let breaks_off =
                path.ends_with("model.onnx") && broken.fetch_add(1, Ordering::Relaxed) < manners.breaks_off;
            let sent = if breaks_off { &body[..body.len() / 2] } else { &body };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            // Whoever asked may have gone.
            drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent)));
        }
    });
    Site { url, requests }
}

const GOOD: Manners = Manners { knows_ranges: true, breaks_off: 0 };

#[tokio::test]
async fn a_bundle_is_fetched_from_a_web_server() {
    let desk = desk();
    let (folder, digest) = desk.bundle(Some(&desk.key));
    let site = serve(folder, GOOD);
    let version = desk.importer.url(&site.url, import("1.0"), anna(), at(1)).await.unwrap();
    assert_eq!((version.digest, version.files.len()), (digest, 4));
}

#[tokio::test]
async fn a_fetch_that_broke_off_goes_on_where_it_ended() {
    for knows_ranges in [true, false] {
        let desk = desk();
        let (folder, _) = desk.bundle(Some(&desk.key));
        let site = serve(folder, Manners { knows_ranges, breaks_off: 1 });
        let fetch = async || desk.importer.url(&site.url, import("1.0"), anna(), at(1)).await;
        let error = fetch().await.unwrap_err();
        assert!(matches!(error, ImportError::Read { .. }), "{error}");
        desk.nothing_is_offered();
        assert_eq!(fetch().await.unwrap().version, "1.0");
        let requests = site.requests.lock().unwrap();
        let models: Vec<_> = requests.iter().filter(|request| request.contains("model.onnx")).collect();
        assert_eq!(models.len(), 2);
        assert!(models[0].ends_with(" 0") && !models[1].ends_with(" 0"), "{models:?}");
    }
}

#[tokio::test]
async fn of_a_strangers_site_nothing_but_index_and_signature_is_fetched() {
    let desk = desk();
    let (folder, _) = desk.bundle(Some(&SecretKey::generate().unwrap()));
    let site = serve(folder, GOOD);
    let error = desk.importer.url(&site.url, import("1.0"), anna(), at(1)).await.unwrap_err();
    assert!(matches!(error, ImportError::Stranger { .. }), "{error}");
    assert_eq!(*site.requests.lock().unwrap(), ["/some%20where/bundle.json 0", "/some%20where/signature.json 0"]);
    desk.nothing_is_offered();
}

#[tokio::test]
async fn a_site_that_sends_something_else_is_refused() {
    for change in [b"short".to_vec(), model()[1..].to_vec(), [model(), model()].concat()] {
        let desk = desk();
        let (folder, _) = desk.bundle(Some(&desk.key));
        fs::write(folder.join("model.onnx"), change).unwrap();
        let site = serve(folder.clone(), GOOD);
        let error = desk.importer.url(&site.url, import("1.0"), anna(), at(1)).await.unwrap_err();
        assert!(matches!(error, ImportError::Blob(_)), "{error}");
        desk.nothing_is_offered();
        fs::write(folder.join("bundle.json"), vec![b' '; 2 << 20]).unwrap();
        let error = desk.importer.url(&site.url, import("1.0"), anna(), at(1)).await.unwrap_err();
        assert!(matches!(error, ImportError::Read { .. }), "{error}");
    }
    let desk = desk();
    for url in ["ftp://example.org/x", "file:///etc", "no url"] {
        let error = desk.importer.url(url, import("1.0"), anna(), at(1)).await.unwrap_err();
        assert!(matches!(error, ImportError::Url { .. }), "{error}");
    }
    let site = serve(desk.folder.path().to_owned(), GOOD);
    let error = desk.importer.url(&site.url, import("1.0"), anna(), at(1)).await.unwrap_err();
    assert!(matches!(error, ImportError::Answer { status: 404, .. }), "{error}");
}
