//! TensorRT 8: our own description of it against real headers, where there are some (JetPack has them), and what the
//! shim calls through it, on an emulator.

mod emulated;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The machine's C++ compiler, which has compiled the shim.
fn compiler() -> Command {
    let mut command = Command::new(env::var_os("CXX").unwrap_or_else(|| OsString::from("c++")));
    command.args(["-std=c++17", "-Wno-deprecated-declarations"]);
    command
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folders in `TENSORRT_INCLUDE_DIRS` that hold headers of TensorRT 8.
fn real_headers() -> Vec<PathBuf> {
    let folders = env::var_os("TENSORRT_INCLUDE_DIRS").unwrap_or_default();
    let is_eight = |folder: &PathBuf| {
        let text = fs::read_to_string(folder.join("NvInferVersion.h")).unwrap_or_default();
        text.lines().any(|line| line.split_whitespace().take(3).eq(["#define", "NV_TENSORRT_MAJOR", "8"]))
    };
    env::split_paths(&folders).filter(is_eight).collect()
}

#[test]
fn every_slot_and_value_of_tensorrt_8_is_what_real_headers_say() {
    let headers = real_headers();
    if headers.is_empty() {
        println!("skipped: tables of TensorRT 8: `TENSORRT_INCLUDE_DIRS` names no headers of it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (index, headers) in headers.iter().enumerate() {
        let program = folder.path().join(format!("check{index}"));
        let mut compile = compiler();
        compile.arg(file("shim/eight/check.cpp")).arg("-isystem").arg(headers);
        compile.arg("-idirafter").arg(file("shim/cuda")).arg("-o").arg(&program);
        let compiled = compile.output().unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let checked = Command::new(&program).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "`{}`: {said}", headers.display());
        println!("{said}");
    }
}
