//! The fleet service's REST API, asked whatever its OpenAPI document says may be asked, and what it says may not.

use std::process::Command;

use revoada_tests::{Showroom, asset, finish, root};

/// Of each operation, each time the same ones.
const EXAMPLES: &str = "40";

#[test]
fn the_service_answers_whatever_is_asked_as_its_document_says() {
    let name = "the_service_answers_whatever_is_asked_as_its_document_says";
    if std::env::var_os("REVOADA_FULL").is_none() {
        eprintln!("skipped: {name}: it takes a while; `cargo xtask test --full` runs it");
        return;
    }
    let showroom = Showroom::open();
    let scratch = tempfile::tempdir().expect("there is room for a folder");
    let mut script = Command::new(asset("venv/bin/python"));
    script.arg("-B").arg(root().join("tests/python/openapi.py"));
    script.args([&showroom.address, &showroom.user, &showroom.password]);
    script.args(["--seed", "1", "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES]);
    let told = finish(script.current_dir(scratch.path())).expect_code(0);
    println!("{}", told.stdout);
    showroom.close();
}
