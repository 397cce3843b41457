//! DeepStream's files through the public door, held against golden files; `UPDATE_GOLDEN=1 cargo test --package
//! revoada-pipeline --test deepstream` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use revoada_bundle::strict::Problems;
use revoada_pipeline::config::{Draft, PipelineConfig, SinkConfig};
use revoada_pipeline::deepstream::{Converted, convert, keys_page};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deepstream")
}

/// Converts a file of the folder `case`; names in messages begin below it.
fn converted(case: &str, name: &str) -> Result<Converted, Problems> {
    let folder = folder().join(case);
    convert(Path::new(name), Path::new(""), &mut |path| fs::read(folder.join(path)))
}

fn check(converted: &Converted) -> PipelineConfig {
    let draft = Draft::from_file(Path::new("pipeline.toml"), &converted.toml, Path::new("/here"));
    draft.check().unwrap_or_else(|problems| panic!("{problems}\n{}", converted.toml))
}

fn assert_golden(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, text).expect("the golden file can be written");
    }
    let golden = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, golden, "differs from {}", path.display());
}

#[test]
fn the_page_of_keys_is_as_it_was_reviewed() {
    assert_golden(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/deepstream/KEYS.md"), &keys_page());
}

#[test]
fn a_whole_application_becomes_a_pipeline_and_what_has_no_effect_is_told() {
    let whole = converted("whole", "app.txt").unwrap_or_else(|problems| panic!("{problems}"));
    assert_golden(&folder().join("whole/pipeline.toml"), &whole.toml);
    assert_golden(&folder().join("whole/notes.txt"), &whole.notes_text());
    let config = check(&whole);
    let ids: Vec<&str> = config.streams.iter().map(|stream| stream.id.as_str()).collect();
    assert_eq!(ids, ["source0", "source1", "source2", "source3"], "counted among the enabled ones");
    // Printed and read again it is the same.
    let again = Draft::from_file(Path::new("pipeline.toml"), &config.to_toml(), Path::new("/here")).check();
    assert_eq!(again.expect("what is printed is read"), config);
}

/// Key files as YAML, a group at a time.
fn yaml(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim() {
        "" => String::new(),
        line if line.starts_with('#') => line.to_owned(),
        line if line.starts_with('[') => format!("{}:", line.trim_matches(['[', ']'])),
        line => {
            let (key, value) = line.split_once('=').expect("a key and its value");
            format!("  {key}: {value}")
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn both_spellings_become_the_same_pipeline() {
    let folder = folder().join("whole");
    let read = |path: &Path| {
        // Every file but labels and the tracker's, which are what they are.
        let spelt = path.to_string_lossy().replace(".yml", ".txt");
        let text = fs::read_to_string(folder.join(if path.ends_with("tracker.yml") { "tracker.yml" } else { &spelt }))?;
        let is_yaml = path.extension().is_some_and(|extension| extension == "yml") && !path.ends_with("tracker.yml");
        let named = [("detector.txt", "detector.yml"), ("color.txt", "color.yml"), ("analytics.txt", "analytics.yml")];
        let text = match is_yaml {
            true => named.iter().fold(yaml(&text), |text, (from, to)| {
                text.replace(&format!("nvinfer/{from}"), &format!("nvinfer/{to}"))
                    .replace(&format!("config-file: {from}"), &format!("config-file: {to}"))
            }),
            false => text,
        };
        Ok(text.into_bytes())
    };
    let spelt = |name: &str| convert(Path::new(name), Path::new(""), &mut |path| read(path));
    let (key_file, yaml) = (spelt("app.txt").expect("right"), spelt("app.yml").expect("right"));
    assert_eq!(yaml.toml, key_file.toml);
    assert_eq!(yaml.notes.len(), key_file.notes.len());
}

#[test]
fn every_problem_of_every_file_is_told_at_once_with_its_line() {
    let problems = converted("wrong", "app.txt").expect_err("nearly everything is wrong");
    assert_golden(&folder().join("wrong/problems.txt"), &format!("{problems}\n"));
}

#[test]
fn paths_begin_with_the_base_that_is_asked_for() {
    let folder = folder().join("whole");
    let whole =
        convert(Path::new("app.txt"), Path::new("/ds"), &mut |path| fs::read(folder.join(path))).expect("right");
    for path in ["/ds/models/detector.onnx", "/ds/models/detector.txt", "/ds/out/street-{stream}.mkv", "/ds/kitti"] {
        assert!(whole.toml.contains(&format!("\"{path}\"")), "`{path}` is not in\n{}", whole.toml);
    }
}

#[test]
fn sources_may_stand_in_a_table() {
    let app = "source:\n  csv-file-path: sources.csv\nprimary-gie:\n  enable: 1\n  config-file: infer.txt\n";
    let table =
        "enable,type,uri,num-sources,gpu-id\n1,3,file:///a/street.mp4,2,0\n0,2,file:///no.mp4,1,0\n1,4,rtsp://b/1,,\n";
    let converted = convert(Path::new("app.yml"), Path::new(""), &mut |path| match path.to_str() {
        Some("app.yml") => Ok(app.as_bytes().to_vec()),
        Some("sources.csv") => Ok(table.as_bytes().to_vec()),
        Some("infer.txt") => Ok(b"[property]\nonnx-file=m.onnx\n".to_vec()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    });
    let config = check(&converted.expect("right"));
    let uris: Vec<String> = config.streams.iter().map(|stream| stream.source.uri()).collect();
    assert_eq!(uris, ["/a/street.mp4", "/a/street.mp4", "rtsp://b/1"]);
}

/// A small application with other lines in its nvinfer file.
fn with_infer(lines: &str) -> Result<Converted, Problems> {
    let app = "[source0]\nenable=1\ntype=2\nuri=file:///clip.mp4\n[primary-gie]\nenable=1\nconfig-file=infer.txt\n";
    let infer = format!("[property]\nonnx-file=model.onnx\n{lines}");
    convert(Path::new("app.txt"), Path::new(""), &mut |path| match path.to_str() {
        Some("app.txt") => Ok(app.as_bytes().to_vec()),
        Some("infer.txt") => Ok(infer.clone().into_bytes()),
        Some("listed.txt") => Ok(b"a;b\n".to_vec()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    })
}

#[test]
fn messages_go_to_a_broker_of_mqtt() {
    let convert_sink = |lines: &str| {
        let app = format!(
            "[source0]\nenable=1\ntype=2\nuri=file:///clip.mp4\n[primary-gie]\nenable=1\nconfig-file=infer.txt\n\
             [sink0]\nenable=1\ntype=6\nmsg-conv-payload-type=1\nmsg-conv-frame-interval=5\n\
             msg-broker-proto-lib=/opt/lib/libnvds_mqtt_proto.so\n{lines}"
        );
        convert(Path::new("app.txt"), Path::new(""), &mut |path| match path.to_str() {
            Some("app.txt") => Ok(app.clone().into_bytes()),
            Some("infer.txt") => Ok(b"[property]\nonnx-file=m.onnx\n".to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        })
    };
    let converted =
        convert_sink("msg-broker-conn-str=broker;1884;x\ntopic=street\nmsg-broker-config=c.txt\n").expect("right");
    let expected = "type = \"mqtt\"\nurl = \"mqtt://broker:1884\"\ntopic = \"street\"\npayload = \"deepstream-minimal\"\nevery = 5\n";
    assert!(converted.toml.contains(expected), "{}", converted.toml);
    check(&converted);
    assert!(converted.notes_text().contains("msg-broker-config"), "{}", converted.notes_text());
    for lines in ["", "msg-broker-conn-str=broker\n", "msg-broker-conn-str=broker;none\n"] {
        let problems = convert_sink(lines).expect_err("wrong").to_string();
        assert!(problems.contains("expected the host and port of a broker, as `host;1883`"), "{problems}");
    }
}

#[test]
fn words_of_nvinfer_become_those_of_a_manifest() {
    for (lines, expected) in [
        ("", "decoder = \"detectnet\"\nscore_min = 0.2\nnms_iou_max = 0.3\n"),
        (
            "parse-bbox-func-name=NvDsInferParseYolo\ncluster-mode=2\n",
            "decoder = \"yolo-nms\"\nscore_min = 0.2\nnms_iou_max = 0.3\n",
        ),
        ("parse-bbox-func-name=NvDsInferParseYolo\ncluster-mode=4\n", "decoder = \"yolo-nms\"\nscore_min = 0.2\n\n"),
        (
            "parse-bbox-func-name=NvDsInferParseCustomYoloV8\ncluster-mode=4\n",
            "decoder = \"yolo-v8\"\nscore_min = 0.2\nnms_iou_max = 1.0\n",
        ),
        ("parse-bbox-func-name=Mine\n", "[model.manifest.output]\nscore_min = 0.2\n"),
        ("[class-attrs-all]\npre-cluster-threshold=0.3\npost-cluster-threshold=0.5\n", "score_min = 0.5\n"),
        ("[class-attrs-2]\nthreshold=0.1\n", "[[model.class]]\nscore_min = 0.2\n\n[[model.class]]\nclass = 2\n"),
        ("[class-attrs-1]\npre-cluster-threshold=1.4\n", "[[model.class]]\nclass = 1\ndrop = true\n"),
        ("maintain-aspect-ratio=1\n", "fit = \"letterbox\"\nanchor = \"top-left\"\nfill = 0.0\n"),
        ("maintain-aspect-ratio=1\nsymmetric-padding=1\n", "fit = \"letterbox\"\nanchor = \"center\"\nfill = 0.0\n"),
        (
            "model-color-format=2\nnetwork-input-order=1\ninfer-dims=1;28;32\n",
            "size = [32, 28]\nlayout = \"nhwc\"\nchannels = \"gray\"\n",
        ),
        ("network-type=1\nlabelfile-path=listed.txt\n", "[model.manifest]\nlabels = [\"a\", \"b\"]\n"),
        ("network-type=2\nsegmentation-threshold=0.6\n", "decoder = \"segmentation\"\nscore_min = 0.6\n"),
    ] {
        let converted = with_infer(lines).unwrap_or_else(|problems| panic!("{lines}{problems}"));
        check(&converted);
        let text = format!("{}\n", converted.toml);
        assert!(text.contains(expected), "{lines}\nshall become\n{expected}\nbut became\n{text}");
    }
}

/// The sinks and notes of an application whose sources record.
fn recorded(sources: &str) -> (Vec<SinkConfig>, String) {
    let app = format!("{sources}[primary-gie]\nenable=1\nconfig-file=infer.txt\n");
    let converted = convert(Path::new("app.txt"), Path::new("/ds"), &mut |path| match path.to_str() {
        Some("app.txt") => Ok(app.clone().into_bytes()),
        Some("infer.txt") => Ok(b"[property]\nonnx-file=m.onnx\n".to_vec()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    });
    let converted = converted.unwrap_or_else(|problems| panic!("{sources}{problems}"));
    (check(&converted).sinks, converted.notes_text())
}

#[test]
fn smart_recording_becomes_a_sink_for_each_folder() {
    let source = |number: u32, lines: &str| format!("[source{number}]\nenable=1\ntype=4\nuri=rtsp://a/1\n{lines}");
    let of = |sinks: &[SinkConfig]| -> Vec<(String, Vec<String>, u64, u64, bool)> {
        let recordings = sinks.iter().map(|sink| {
            let SinkConfig::Recording(one) = sink else { panic!("{sink:?} is no recording") };
            let streams = one.streams.iter().map(ToString::to_string).collect();
            let folder = one.folder.display().to_string();
            (folder, streams, one.before.as_secs(), one.after.as_secs(), one.on.is_empty())
        });
        recordings.collect()
    };
    let (sinks, notes) = recorded(&source(0, "smart-record=1\nsmart-rec-video-cache=900\nsmart-rec-duration=7\n"));
    assert_eq!(of(&sinks), [("/ds/".to_owned(), vec![], 600, 7, true)]);
    assert!(notes.contains("source0.smart-record: messages start no recordings; `revoada ctl record"), "{notes}");
    assert!(notes.contains("source0.smart-rec-video-cache: becomes 600 s"), "{notes}");
    // Without analytics there are no events.
    let [on, off] = ["smart-record=2\nsmart-rec-dir-path=a\n", "smart-record=0\nsmart-rec-dir-path=a\n"];
    let other = "smart-record=2\nsmart-rec-dir-path=b\nsmart-rec-start-time=1\n";
    let (sinks, notes) = recorded(&[(0, on), (1, off), (2, other), (3, on)].map(|(n, l)| source(n, l)).concat());
    let streams = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let first = ("/ds/a".to_owned(), streams(&["source0", "source3"]), 10, 10, true);
    assert_eq!(of(&sinks), [first, ("/ds/b".to_owned(), streams(&["source2"]), 1, 10, true)]);
    let on = ["source0", "source2", "source3"].map(|source| format!("{source}.smart-record")).join(", ");
    assert!(notes.contains(&format!("{on}: there are no events without `nvds-analytics`")), "{notes}");
}
