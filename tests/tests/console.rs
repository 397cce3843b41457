//! The fleet's console in a real browser (`tests/python/console.py`), before a fleet that its showroom plays.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::PathBuf;
use std::process::Command;

use revoada_tests::{Showroom, asset, finish, root};
use serde_json::Value;

/// A browser that the machine has.
fn browser() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&folders).collect();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|program| program.is_file())
}

#[test]
fn the_console_is_for_eyes_and_hands_of_every_kind() {
    let name = "the_console_is_for_eyes_and_hands_of_every_kind";
    let python = asset("venv/bin/python");
    if std::env::var_os("REVOADA_FULL").is_none() {
        eprintln!("skipped: {name}: it wants a browser; `cargo xtask test --full` runs it");
        return;
    }
    let Some(browser) = browser() else {
        eprintln!("skipped: {name}: there is no Chromium or Chrome");
        return;
    };
    let showroom = Showroom::open();
    let mut script = Command::new(python);
    script.arg("-B").arg(root().join("tests/python/console.py")).arg(browser).args([
        &showroom.address,
        &showroom.user,
        &showroom.password,
    ]);
    // Whoever wants to look at it names a folder.
    script.args(std::env::var_os("REVOADA_SCREENSHOTS"));
    let seen = finish(&mut script).expect_code(0);
    showroom.close();
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    for what in ["errors", "contrast", "wide", "unnamed", "focus"] {
        assert_eq!(seen[what].as_array().map(Vec::len), Some(0), "{what}: {:#}", seen[what]);
    }
    assert!(seen["texts"].as_u64().unwrap() > 3000, "{seen}");
    assert_eq!(seen["first"][0], "Skip to content", "{seen}");
    assert_eq!(seen["skipped"], "content", "{seen}");
    assert!(seen["controls"].as_u64().unwrap() > 20, "{seen}");
}
