//! Bundles: written whole or not at all, trusted only as they were signed.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use revoada_bundle::bundle::{Bundle, BundleWriter, Index, Lineage, MANIFEST, MODEL, Precision, Trust, VERSION};
use revoada_bundle::hash;
use revoada_bundle::sign::SecretKey;

fn index() -> Index {
    Index {
        version: VERSION,
        name: "thumbnails".to_owned(),
        precision: Precision::Fp16,
        producer: "revoada test".to_owned(),
        licence: Some("Apache-2.0".to_owned()),
        lineage: Lineage { source: Some(hash(b"source")), parent: None, steps: vec!["fp16".to_owned()] },
        files: Default::default(),
    }
}

fn write(target: &Path, key: Option<&SecretKey>) -> Bundle {
    let mut writer = BundleWriter::create(target).unwrap();
    writer.add(MODEL, b"not really a model").unwrap();
    writer.add(MANIFEST, b"version = 1\nlabels = [\"cat\"]\n").unwrap();
    writer.add("reports/accuracy.json", b"{}").unwrap();
    writer.seal(index(), key).unwrap().publish().unwrap()
}

/// A signed bundle that `change` was done to, as its reader sees it.
fn refusal(change: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("b");
    let key = SecretKey::generate().unwrap();
    write(&target, Some(&key));
    change(&target);
    let opened = Bundle::open(&target).and_then(|bundle| bundle.verify(Trust::OneOf(&[key.public()])));
    let error = opened.expect_err("it was changed").to_string();
    error.replace(&folder.path().display().to_string(), "").replace(&key.public().to_string(), "KEY")
}

#[test]
fn a_bundle_is_read_back_as_it_was_written_and_named_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let key = SecretKey::generate().unwrap();
    let written = write(&folder.path().join("one"), Some(&key));
    let again = write(&folder.path().join("two"), None);
    assert_eq!(written.digest(), again.digest(), "the name, the time and the signer are not part of it");
    let bundle = written.verify(Trust::OneOf(&[key.public()])).unwrap();
    assert_eq!(bundle.signer(), Some(key.public()));
    assert_eq!((bundle.index().name.as_str(), bundle.index().files.len()), ("thumbnails", 3));
    assert_eq!(bundle.read("reports/accuracy.json").unwrap(), b"{}");
    assert_eq!(bundle.manifest().unwrap().labels, ["cat"]);
    assert!(bundle.read("secrets").unwrap_err().to_string().ends_with("lacks the file `secrets` of its index"));
    fs::write(folder.path().join("one").join(MODEL), "changed later").unwrap();
    assert!(bundle.read(MODEL).is_err(), "what was verified is held against the index again when it is read");
}

#[test]
fn who_signed_decides_whether_a_bundle_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (key, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let signed = write(&folder.path().join("signed"), Some(&key));
    let unsigned = write(&folder.path().join("unsigned"), None);
    let trusted = [other.public(), key.public()];
    assert!(signed.clone().verify(Trust::OneOf(&trusted)).is_ok());
    assert!(signed.clone().verify(Trust::Anybody).is_ok());
    let error = signed.verify(Trust::OneOf(&trusted[..1])).unwrap_err().to_string();
    assert!(
        error.ends_with(&format!("is signed by `{}`, which is not among the trusted keys", key.public())),
        "{error}"
    );
    assert!(unsigned.clone().verify(Trust::Anybody).is_ok());
    let error = unsigned.verify(Trust::OneOf(&trusted)).unwrap_err().to_string();
    assert!(error.ends_with("has no signature, and only signed ones are trusted"), "{error}");
}

#[test]
fn whatever_was_changed_is_named() {
    let edit = |file: &str, from: &str, to: &str| {
        let (file, from, to) = (file.to_owned(), from.to_owned(), to.to_owned());
        move |bundle: &Path| {
            let text = fs::read_to_string(bundle.join(&file)).unwrap();
            assert!(text.contains(&from), "{text}");
            fs::write(bundle.join(&file), text.replacen(&from, &to, 1)).unwrap();
        }
    };
    type Change = Box<dyn FnOnce(&Path)>;
    let changes: Vec<(Change, &str)> = vec![
        (
            Box::new(edit(MODEL, "really", "REALLY")),
            "has a file `model.onnx` that was changed after the bundle was made",
        ),
        (
            Box::new(|b| fs::write(b.join(MODEL), "").unwrap()),
            "has a file `model.onnx` that was changed after the bundle was made",
        ),
        (
            Box::new(|b| fs::remove_file(b.join("reports/accuracy.json")).unwrap()),
            "lacks the file `reports/accuracy.json` of its index",
        ),
        (
            Box::new(|b| fs::write(b.join("reports/x"), "").unwrap()),
            "has a file `reports/x` that its index does not know",
        ),
        (
            Box::new(|b| symlink("/etc/passwd", b.join("x")).unwrap()),
            "has a file `x (no plain file)` that its index does not know",
        ),
        (
            Box::new(|b| {
                fs::rename(b.join(MODEL), b.parent().unwrap().join("elsewhere")).unwrap();
                symlink(b.parent().unwrap().join("elsewhere"), b.join(MODEL)).unwrap();
            }),
            "has a file `model.onnx (no plain file)` that its index does not know",
        ),
        (Box::new(edit("bundle.json", "fp16", "int8")), "has a signature that cannot be trusted: it does not match"),
        (
            Box::new(|b| fs::remove_file(b.join("signature.json")).unwrap()),
            "has no signature, and only signed ones are trusted",
        ),
        (Box::new(|b| fs::remove_file(b.join("bundle.json")).unwrap()), "is no bundle: it has no `bundle.json`"),
        (
            Box::new(edit("bundle.json", "\"version\": 1", "\"version\": 2")),
            "was written in version 2 of the format; this program reads up to 1",
        ),
        (
            Box::new(edit("bundle.json", "reports/accuracy.json", "../accuracy.json")),
            "has an index that cannot be used: it names a file `../accuracy.json` outside the bundle",
        ),
        (
            Box::new(edit("bundle.json", "reports/accuracy.json", "/accuracy.json")),
            "has an index that cannot be used: it names a file `/accuracy.json` outside the bundle",
        ),
        (
            Box::new(edit("bundle.json", MODEL, "other.onnx")),
            "has an index that cannot be used: it names no `model.onnx` or no `model.toml`",
        ),
        (
            Box::new(edit("signature.json", "\"signature\": \"", "\"signature\": \"zz")),
            "has a signature that cannot be trusted: it does not match",
        ),
    ];
    for (change, expected) in changes {
        assert_eq!(refusal(change), format!("bundle `/b` {expected}"));
    }
    assert!(
        refusal(|b| fs::write(b.join("bundle.json"), "{").unwrap()).contains("has an index that cannot be used: EOF")
    );
    assert!(
        refusal(|b| fs::write(b.join("signature.json"), "[]").unwrap())
            .contains("has a signature that cannot be trusted:")
    );
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_bundle_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("b");
    let mut writer = BundleWriter::create(&target).unwrap();
    writer.add(MODEL, b"half").unwrap();
    assert!(!target.exists());
    drop(writer);
    let mut writer = BundleWriter::create(&target).unwrap();
    writer.add(MODEL, b"whole").unwrap();
    writer.add(MANIFEST, b"version = 1").unwrap();
    drop(writer.seal(index(), None).unwrap());
    assert_eq!(names(folder.path()), Vec::<String>::new());

    write(&target, None);
    let error = BundleWriter::create(&target).unwrap_err().to_string();
    assert!(error.ends_with("is there already; a bundle never changes, so choose another name"), "{error}");
    let error = BundleWriter::create(&PathBuf::from("/no/such/folder/b")).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("there is no folder `/no/such/folder`"), "{cause}");
    assert_eq!(names(folder.path()), ["b"]);
}

#[test]
fn two_who_write_the_same_bundle_do_not_spoil_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("b");
    let fill = |mut writer: BundleWriter| {
        writer.add(MODEL, b"m").unwrap();
        writer.add(MANIFEST, b"version = 1\n").unwrap();
        writer.seal(index(), None).unwrap().publish()
    };
    let (first, second) = (BundleWriter::create(&target).unwrap(), BundleWriter::create(&target).unwrap());
    let written = fill(first).unwrap();
    assert!(fill(second).is_err());
    assert_eq!(Bundle::open(&target).unwrap().verify(Trust::Anybody).unwrap().digest(), written.digest());
    assert_eq!(names(folder.path()), ["b"]);
}

#[test]
fn random_indexes_and_signatures_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("b"), Some(&SecretKey::generate().unwrap()));
    for file in ["bundle.json", "signature.json"] {
        let path = folder.path().join("b").join(file);
        let whole = fs::read(&path).unwrap();
        bolero::check!().with_type::<(u16, [u8; 3])>().with_iterations(2000).for_each(|(position, bytes)| {
            let mut damaged = whole.clone();
            let position = usize::from(*position) % damaged.len();
            damaged.splice(position..(position + 3).min(whole.len()), *bytes);
            fs::write(&path, &damaged).unwrap();
            let opened = Bundle::open(&folder.path().join("b")).and_then(|bundle| bundle.verify(Trust::Anybody));
            // What reads as before was not changed, or in blanks of a signature only.
            assert!(opened.is_err() || file == "signature.json" || damaged == whole);
        });
        fs::write(&path, &whole).unwrap();
    }
}
