//! The preview page in a real browser (`tests/python/page.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::PathBuf;
use std::process::Command;

use revoada_tests::{Running, asset, finish, free_port, revoada, root, wait_for};
use serde_json::Value;

/// A browser that the machine has.
fn browser() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&folders).collect();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|program| program.is_file())
}

#[test]
fn a_person_sees_all_streams_and_adds_and_removes_one() {
    let name = "a_person_sees_all_streams_and_adds_and_removes_one";
    let python = asset("venv/bin/python");
    if std::env::var_os("REVOADA_FULL").is_none() {
        eprintln!("skipped: {name}: it wants a browser; `cargo xtask test --full` runs it");
        return;
    }
    let Some(browser) = browser() else {
        eprintln!("skipped: {name}: there is no Chromium or Chrome");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let [model, clip] = ["models/centerface.onnx", "clips/carphone_pristine.mp4"].map(asset);
    let text = format!(
        "[[stream]]\nid = \"car\"\nuri = {clip:?}\nrepeat = \"forever\"\n\
         [[stream]]\nid = \"ball\"\nuri = \"test://ball?width=320&height=240&fps=10&live=true\"\n\
         [model]\npath = {model:?}\nsize = \"160x160\"\n[tracker]\nalgorithm = \"bytetrack\"\n\
         [analytics]\nanchor = \"center\"\n[[analytics.region]]\nname = \"seat\"\npoints = [[30, 25], [115, 25], [115, 115], [30, 115]]\ndwell_s = 0.5\n\
         streams = [\"car\"]\n\
         [http]\naddress = \"{address}\"\ncontrol = true\n[[sink]]\ntype = \"preview\"\n"
    );
    let config = folder.path().join("pipeline.toml");
    std::fs::write(&config, text).unwrap();
    let running = Running::start(revoada().arg("run").arg(&config));
    wait_for("the page is served", || std::net::TcpStream::connect(&address).ok());
    let mut script = Command::new(python);
    script.arg("-B").arg(root().join("tests/python/page.py")).arg(browser).arg(format!("http://{address}/"));
    script.arg("test://smpte?width=320&height=240&fps=10&live=true");
    // Whoever wants to look at it names a folder.
    script.args(std::env::var_os("REVOADA_SCREENSHOTS"));
    let seen = finish(&mut script).expect_code(0);
    let process = running.0.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &process]).status().unwrap().success());
    running.finish().expect_code(0);
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(seen["errors"].as_array().map(Vec::len), Some(0), "{seen}");
    let pictures: Vec<_> = seen["tiles"].as_array().unwrap().iter().map(|tile| tile["picture"].clone()).collect();
    assert_eq!(pictures, [serde_json::json!([176, 144]), serde_json::json!([320, 240])], "{seen}");
    assert!(seen["event"].as_str().unwrap().contains("seat"), "{seen}");
    assert!(seen["refused"].as_str().unwrap().contains("ftp"), "{seen}");
}
