//! What people read when they ask for help, held against golden files; `UPDATE_GOLDEN=1 cargo test
//! --package revoada --test help` writes them anew.

use std::path::Path;
use std::process::{Command, Output};

fn revoada(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_revoada"));
    // The width of the terminal and variables that stand for options would show in the text.
    command
        .args(args)
        .env_remove("REVOADA_ONNXRUNTIME")
        .env_remove("REVOADA_TENSORRT")
        .env_remove("REVOADA_LOG")
        .env("COLUMNS", "100");
    command.output().expect("the program starts")
}

#[test]
fn the_help_of_every_verb_is_as_it_was_reviewed() {
    let verbs = [
        "",
        "run",
        "convert",
        "build",
        "verify",
        "key",
        "inspect",
        "bench",
        "classify",
        "detect",
        "learn",
        "learn train",
        "learn evaluate",
        "learn merge",
        "learn forget",
        "doctor",
        "agent",
        "ctl",
        "completions",
    ];
    for verb in verbs {
        let args: Vec<&str> = verb.split_whitespace().chain(["--help"]).collect();
        let output = revoada(&args);
        assert!(output.status.success(), "{verb}");
        let text = String::from_utf8(output.stdout).expect("help is UTF-8");
        let name = if verb.is_empty() { "revoada".to_owned() } else { verb.replace(' ', "-") };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).expect("the golden file can be written");
        }
        let golden = std::fs::read_to_string(&path).expect("the golden file is part of the repository");
        assert_eq!(text, golden, "`revoada {verb} --help` differs from {}", path.display());
    }
}

#[test]
fn completions_name_every_verb_in_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = revoada(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).expect("completions are UTF-8");
        for verb in [
            "run", "convert", "build", "verify", "key", "inspect", "bench", "classify", "detect", "doctor", "agent",
            "ctl",
        ] {
            assert!(script.contains(verb), "{shell} does not complete `{verb}`");
        }
    }
}

#[test]
fn nothing_is_coloured_where_standard_output_is_no_terminal() {
    for args in [&["--help"][..], &["doctor"], &["run", "--nonsense"]] {
        let output = revoada(args);
        for stream in [&output.stdout, &output.stderr] {
            assert!(!stream.contains(&0x1b), "an escape sequence in {args:?}");
        }
    }
}
