//! Manifests as files: what version 1 means, and what people read who got one wrong.
//!
//! `UPDATE_GOLDEN=1 cargo test -p revoada-bundle --test manifest` writes the expected sentences anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::fs;
use std::path::{Path, PathBuf};

use revoada_bundle::manifest::{Activation, BoxFormat, InputManifest, Manifest, OutputManifest};
use revoada_core::{Anchor, ChannelOrder, Fit, Layout, Size};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

fn everything() -> Manifest {
    Manifest {
        name: Some("Everything".into()),
        licence: Some("MIT".into()),
        source: Some("nowhere".into()),
        labels: ["person", "bicycle", "", "car"].map(String::from).to_vec(),
        input: InputManifest {
            name: Some("images".into()),
            size: Some(Size::new(640, 480)),
            layout: Some(Layout::Nhwc),
            channels: ChannelOrder::Bgr,
            fit: Fit::Letterbox { anchor: Anchor::TopLeft, fill: 114.0 },
            mean: [123.675, 116.28, 103.53],
            scale: [0.0039215686; 3],
        },
        output: OutputManifest {
            decoder: Some("yolo-v5".into()),
            tensors: [("heatmap".into(), "537".into())].into(),
            score_min: Some(0.3),
            nms_iou_max: Some(0.5),
            results_max: Some(100),
            activation: Some(Activation::Sigmoid),
            box_format: Some(BoxFormat::XyxyNormalized),
            strides: vec![8, 16],
            anchors: vec![vec![[10.0, 13.0], [16.5, 30.0]], vec![[30.0, 61.0]]],
            background: true,
        },
    }
}

#[test]
fn a_manifest_of_version_1_is_read() {
    assert_eq!(Manifest::load(&data("manifest-v1/everything.toml")).unwrap(), everything());
    assert_eq!(Manifest::load(&data("manifest-v1/minimal.toml")).unwrap(), Manifest::default());
}

#[test]
fn the_manifests_of_our_models_are_read() {
    let folder = data("../../../../tests/models");
    let paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let manifests: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert!(!manifests.is_empty(), "no manifests in {}", folder.display());
    for path in manifests {
        let text = fs::read_to_string(&path).unwrap();
        // Labels of models are downloaded with them.
        let manifest = Manifest::parse(&path.display().to_string(), &text, |_| Ok("label".to_owned())).unwrap();
        assert!(manifest.licence.is_some() && manifest.source.is_some(), "{}", path.display());
        assert!(!manifest.labels.is_empty(), "{}", path.display());
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    for manifest in [Manifest::default(), everything()] {
        let text = manifest.to_toml();
        let no_labels_file = |name: &str| Err(format!("nobody named `{name}`"));
        assert_eq!(Manifest::parse("written.toml", &text, no_labels_file).unwrap(), manifest, "{text}");
    }
    assert!(everything().to_toml().contains("mean = [123.675, 116.28, 103.53]"), "{}", everything().to_toml());
}

#[test]
fn a_letterbox_is_centred_and_grey_unless_said() {
    let manifest = Manifest::parse("a.toml", "version = 1\ninput.fit = \"letterbox\"", |_| Ok(String::new())).unwrap();
    assert_eq!(manifest.input.fit, Fit::letterbox_centered());
}

#[test]
fn the_manifest_beside_a_model_is_found_and_may_be_absent() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("yolo.v8.onnx");
    assert_eq!(Manifest::beside(&model).unwrap(), None);
    fs::write(folder.path().join("yolo.v8.toml"), "version = 1\nname = \"beside\"").unwrap();
    assert_eq!(Manifest::beside(&model).unwrap().unwrap().name.as_deref(), Some("beside"));
}

#[test]
fn a_broken_manifest_is_refused_with_every_problem_at_its_line() {
    let mut failures = Vec::new();
    let mut cases: Vec<PathBuf> = fs::read_dir(data("manifests")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 12, "the table has lost rows: {cases:?}");
    for case in cases {
        let error = Manifest::load(&case.join("model.toml")).expect_err(&format!("{}", case.display()));
        // Messages name the file as it was asked for; the expected text is the same on every machine.
        let got = error.to_string().replace(&format!("{}/", case.display()), "") + "\n";
        let expected = case.join("expected.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &got).unwrap();
        } else if fs::read_to_string(&expected).unwrap() != got {
            failures.push(format!("{}:\n{got}", case.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
