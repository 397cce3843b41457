//! Builds the emulator's libraries, with our kernels compiled into them as C++.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the kernels stand.
const KERNELS: &str = "../../runtime/engine/src/cuda";

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let source = here.join("cuda");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed={}", here.join(KERNELS).display());

    let libraries = out.join("libraries");
    fs::create_dir_all(&libraries).expect("the output folder is ours");
    let mut driver: Vec<PathBuf> =
        ["control.cpp", "memory.cpp", "work.cpp", "driver.cpp"].map(|name| source.join(name)).into();
    driver.extend(kernels(&here.join(KERNELS), &out));
    link(&source, &driver, "libcuda.so.1", &libraries);
    link(&source, &["control.cpp", "nvrtc.cpp"].map(|name| source.join(name)), "libnvrtc.so.12", &libraries);
    // By this name the driver is looked for first; a real one must not be found before the emulated.
    let short = libraries.join("libcuda.so");
    if short.symlink_metadata().is_err() {
        std::os::unix::fs::symlink("libcuda.so.1", short).expect("the output folder is ours");
    }
    println!("cargo::rustc-env=EMULATOR_LIBRARIES={}", libraries.display());
}

/// Wraps every `.cu` file into C++ that defines CUDA's names before it and registers its entry points after it.
fn kernels(folder: &Path, out: &Path) -> Vec<PathBuf> {
    let mut wrapped = Vec::new();
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("the kernels are there").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "cu")) {
        println!("cargo::rerun-if-changed={}", file.display());
        let text = fs::read_to_string(file).expect("a kernel is text");
        let mut code = format!("#include \"device.h\"\n#include {file:?}\n");
        for entry in text.split("extern \"C\" __global__ void ").skip(1) {
            let name = entry.split('(').next().expect("a split has a first part").trim();
            writeln!(code, "static const emulator::Registration {name}_registration(\"{name}\", &{name});")
                .expect("a string takes what is written");
        }
        let stem = file.file_stem().expect("a file has a name").to_string_lossy();
        let path = out.join(format!("{stem}.kernel.cpp"));
        fs::write(&path, code).expect("the output folder is ours");
        wrapped.push(path);
    }
    assert!(!wrapped.is_empty(), "there is no kernel in `{}`", folder.display());
    wrapped
}

fn link(include: &Path, sources: &[PathBuf], name: &str, folder: &Path) {
    let compiler = cc::Build::new().cpp(true).std("c++17").pic(true).opt_level(2).warnings(true).get_compiler();
    let mut command: Command = compiler.to_command();
    command
        .args(["-shared", "-fvisibility=hidden", "-pthread"])
        .arg(format!("-Wl,-soname,{name}"))
        .arg("-I")
        .arg(include)
        .args(sources)
        .arg("-o")
        .arg(folder.join(name));
    let status = command.status().expect("a C++ compiler can be started");
    assert!(status.success(), "cannot build the emulator's {name}: {command:?}");
}
