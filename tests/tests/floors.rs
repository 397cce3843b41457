//! The invariants of the house: who may know whom, and where dangerous or foreign things may live.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every crate there may be, its folder, and the crates of the workspace that it may import. A floor is
/// built of crates that import lower floors only.
const FLOORS: &[(u8, &str, &str, &[&str])] = &[
    (0, "revoada-core", "runtime/core", &[]),
    // For tests alone, see `the_emulator_is_for_tests`.
    (0, "revoada-emulator", "tests/emulator", &[]),
    (1, "revoada-bundle", "builder/bundle", &["revoada-core"]),
    (1, "revoada-tensorrt", "runtime/tensorrt", &["revoada-core"]),
    (1, "revoada-vision", "runtime/vision", &["revoada-core"]),
    (1, "revoada-proto", "fleet/proto", &["revoada-core"]),
    (1, "revoada-federated", "fleet/federated", &["revoada-core"]),
    (
        2,
        "revoada-engine",
        "runtime/engine",
        &["revoada-core", "revoada-bundle", "revoada-tensorrt", "revoada-emulator"],
    ),
    (3, "revoada-builder", "builder", &["revoada-core", "revoada-bundle", "revoada-engine", "revoada-tensorrt"]),
    (
        3,
        "revoada-pipeline",
        "runtime/pipeline",
        &["revoada-core", "revoada-bundle", "revoada-engine", "revoada-proto", "revoada-vision"],
    ),
    (3, "revoada-learn", "fleet/learn", &["revoada-core", "revoada-bundle", "revoada-engine", "revoada-federated"]),
    (3, "revoada-agent", "fleet/agent", &["revoada-core", "revoada-bundle", "revoada-proto"]),
    (3, "revoada-fleet", "fleet/server", &["revoada-core", "revoada-bundle", "revoada-proto", "revoada-federated"]),
    (
        4,
        "revoada",
        "runtime/device",
        &[
            "revoada-core",
            "revoada-bundle",
            "revoada-tensorrt",
            "revoada-proto",
            "revoada-federated",
            "revoada-engine",
            "revoada-builder",
            "revoada-pipeline",
            "revoada-learn",
            "revoada-agent",
        ],
    ),
];

/// Crates beside the house: they may import anything, and nothing may import them.
const OUTSIDE: &[(&str, &str)] = &[("revoada-tests", "tests"), ("xtask", "tests/xtask")];

/// The only folders in which the word `unsafe` may stand.
const UNSAFE: &[&str] = &["runtime/tensorrt/src", "runtime/tensorrt/tests", "runtime/engine/src/cuda"];

/// The only crates that may not forbid it.
const UNSAFE_CRATES: &[&str] = &["revoada-tensorrt", "revoada-engine"];

/// Crates that may depend on GStreamer, and the places that its types do not leave: the media module, and
/// those of its tests that make clips and play the RTSP server it talks to.
const GSTREAMER_CRATES: &[&str] = &["revoada-pipeline", "revoada-tests"];
const GSTREAMER_PLACES: &[&str] =
    &["runtime/pipeline/src/media", "runtime/pipeline/tests/media_clips", "runtime/pipeline/tests/media_network"];

/// The only crate that may depend on OpenCV.
const OPENCV_CRATE: &str = "revoada-vision";

/// The rooms, and what tools look for beside them.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "README.md",
    "builder",
    "configs",
    "cross",
    "fleet",
    "runtime",
    "tests",
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".gitignore",
    "Cargo.lock",
    "LICENSE",
    "deny.toml",
    "rustfmt.toml",
];

#[test]
fn a_lower_floor_never_imports_a_higher_one() {
    let floor: BTreeMap<&str, u8> = FLOORS.iter().map(|(floor, name, ..)| (*name, *floor)).collect();
    for (number, name, _, allowed) in FLOORS {
        for import in *allowed {
            assert!(floor[import] < *number, "the table lets {name} import {import}, which is not below it");
        }
    }

    let mut wrong = Vec::new();
    for package in packages() {
        let name = text(&package["name"]);
        let Some((_, _, _, allowed)) = FLOORS.iter().find(|(_, known, ..)| *known == name) else { continue };
        for import in imports(&package) {
            let ours = floor.contains_key(import) || OUTSIDE.iter().any(|(outside, _)| *outside == import);
            if ours && !allowed.contains(&import) {
                wrong.push(format!("{name} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_stands_in_its_folder() {
    for package in packages() {
        let name = text(&package["name"]);
        let places = FLOORS.iter().map(|(_, name, folder, _)| (*name, *folder)).chain(OUTSIDE.iter().copied());
        let Some((_, folder)) = places.into_iter().find(|(known, _)| *known == name) else {
            panic!("{name} has no place in the table of floors");
        };
        assert_eq!(Path::new(text(&package["manifest_path"])), root().join(folder).join("Cargo.toml"));
    }
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let mut checked = 0;
    for package in packages() {
        if UNSAFE_CRATES.contains(&text(&package["name"])) {
            continue;
        }
        for target in package["targets"].as_array().expect("cargo names the targets") {
            let is_program = |kind: &Value| matches!(text(kind), "lib" | "bin");
            if target["kind"].as_array().expect("a target has kinds").iter().any(is_program) {
                let path = Path::new(text(&target["src_path"]));
                assert!(read(path).contains("#![forbid(unsafe_code)]"), "`{}` does not", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 7, "only {checked} crate roots were found");
}

#[test]
fn the_emulator_is_for_tests() {
    for package in packages() {
        for dependency in package["dependencies"].as_array().expect("cargo names the dependencies") {
            let (name, kind) = (text(&dependency["name"]), &dependency["kind"]);
            assert!(name != "revoada-emulator" || kind == "dev", "{} is not built of tests alone", package["name"]);
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let keyword = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait", "#[unsafe("]
            .iter()
            .any(|word| code.contains(word) && !code.contains(&format!("\"{word}")))
    };
    assert_eq!(lines_outside(UNSAFE, &["builder", "fleet", "runtime", "tests"], keyword), Vec::<String>::new());
}

#[test]
fn gstreamer_stays_in_the_media_module() {
    for package in packages() {
        let name = text(&package["name"]);
        let depends = imports(&package).any(|import| import.starts_with("gstreamer"));
        assert!(!depends || GSTREAMER_CRATES.contains(&name), "{name} depends on GStreamer");
    }
    let names_it = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        ["gstreamer::", "gst::", "gstreamer_", "gst_app::", "gst_video::", "use gstreamer"]
            .iter()
            .any(|word| code.contains(word))
    };
    assert_eq!(lines_outside(GSTREAMER_PLACES, &["builder", "fleet", "runtime"], names_it), Vec::<String>::new());
}

#[test]
fn opencv_stays_in_its_crate() {
    for package in packages() {
        let name = text(&package["name"]);
        assert!(name == OPENCV_CRATE || imports(&package).all(|import| import != "opencv"), "{name} depends on OpenCV");
        if name == OPENCV_CRATE {
            continue;
        }
        for dependency in package["dependencies"].as_array().expect("cargo names the dependencies") {
            let left_out = dependency["optional"] == true && !builds_by_default(&package, "opencv");
            assert!(text(&dependency["name"]) != OPENCV_CRATE || left_out, "{name} cannot be built without OpenCV");
        }
    }
}

/// Whether a package has the feature and builds with it where nothing is said.
fn builds_by_default(package: &Value, feature: &str) -> bool {
    let default = package["features"]["default"].as_array();
    default.is_some_and(|features| features.iter().any(|default| text(default) == feature))
}

#[test]
fn the_top_level_holds_the_rooms_and_nothing_else() {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let Some(git) = git.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: top level: this is not a git checkout, so built files cannot be told from ours");
        return;
    };
    let files = String::from_utf8(git.stdout).expect("our file names are UTF-8");
    for file in files.lines() {
        let top = file.split('/').next().unwrap_or_default();
        assert!(TOP_LEVEL.contains(&top), "`{top}` does not belong at the top level");
    }
}

/// The workspace's packages as `cargo metadata` describes them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo, which runs this test, can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    match metadata["packages"].take() {
        Value::Array(packages) => packages,
        other => panic!("cargo's packages are {other}"),
    }
}

/// What a package depends on, of all kinds: a test that imports a higher floor ties the crates together too.
fn imports(package: &Value) -> impl Iterator<Item = &str> {
    package["dependencies"].as_array().expect("cargo names the dependencies").iter().map(|d| text(&d["name"]))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo gives a string here")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is above its tests")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}

/// Lines of Rust below `rooms` that `matches`, but for those below `allowed` and in this file.
fn lines_outside(allowed: &[&str], rooms: &[&str], matches: impl Fn(&str) -> bool) -> Vec<String> {
    let root = root();
    let mut folders: Vec<PathBuf> = rooms.iter().map(|room| root.join(room)).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        // A room may not have been built yet.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder of the checkout can be read").path();
            let relative = path.strip_prefix(&root).expect("the walk began at the root").to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if relative.extension().is_some_and(|extension| extension == "rs")
                && relative != Path::new("tests/tests/floors.rs")
                && !allowed
                    .iter()
                    .any(|allowed| relative.starts_with(allowed) || relative.with_extension("") == Path::new(allowed))
            {
                let text = read(&path);
                let lines = text.lines().enumerate().filter(|(_, line)| matches(line));
                found.extend(
                    lines.map(|(index, line)| format!("{}:{}: {}", relative.display(), index + 1, line.trim())),
                );
            }
        }
    }
    found
}
