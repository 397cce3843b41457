//! Builds the emulator's libraries, with our kernels compiled into them as C++.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where NVIDIA's headers of the emulated TensorRT are, once they were fetched.
const HEADERS: &str = "../../.cache/tensorrt-headers/TRT-Enterprise-10.16";

/// The two types of CUDA's that they want.
const CUDA_TYPES: &str = "../../runtime/tensorrt/shim/cuda";

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
    link(&[&source], &driver, "libcuda.so.1", &libraries);
    link(&[&source], &["control.cpp", "nvrtc.cpp"].map(|name| source.join(name)), "libnvrtc.so.12", &libraries);
    // By this name the driver is looked for first; a real one must not be found before the emulated.
    let short = libraries.join("libcuda.so");
    if short.symlink_metadata().is_err() {
        std::os::unix::fs::symlink("libcuda.so.1", short).expect("the output folder is ours");
    }
    tensorrt(&here, &source, &libraries, &out);
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

/// Builds the emulated TensorRT where there are headers of the real one; whoever wants it sees that it is missing.
fn tensorrt(here: &Path, control: &Path, libraries: &Path, out: &Path) {
    let headers = here.join(HEADERS);
    let source = here.join("tensorrt");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed={}", headers.display());
    let Ok(tables) = fs::read_to_string(headers.join("NvInferImpl.h")) else { return };
    let strict: String = ["Runtime", "CudaEngine", "ExecutionContext", "EngineInspector"]
        .iter()
        .map(|table| strict(&tables, table))
        .collect();
    let strict = format!(
        "#pragma once\n#include \"control.h\"\n#pragma GCC diagnostic ignored \"-Wunused-parameter\"\n#pragma GCC \
         diagnostic ignored \"-Woverloaded-virtual\"\n#pragma GCC diagnostic ignored \
         \"-Wdeprecated-declarations\"\nnamespace strict {{\nusing namespace nvinfer1;\n{strict}}}\n"
    );
    fs::write(out.join("strict.h"), strict).expect("the output folder is ours");
    let mut sources = ["plan.cpp", "infer.cpp"].map(|name| source.join(name)).to_vec();
    sources.push(control.join("control.cpp"));
    let include = [control, &source, out, &headers, &here.join(CUDA_TYPES)];
    link(&include, &sources, "libnvinfer.so.10", libraries);
}

/// A class that has every function of one of TensorRT's tables, each of which ends the program.
fn strict(tables: &str, table: &str) -> String {
    let start = tables.find(&format!("class V{table} : public VRoot")).expect("the headers have the table");
    let body = &tables[start..start + tables[start..].find("\n};").expect("a class ends")];
    let mut code = format!("struct {table} : apiv::V{table} {{\n");
    // What is compiled only with a feature of NVIDIA's own is no part of the table.
    let common = body.split("#if ").enumerate().map(|(index, part)| match index {
        0 => part,
        _ => part.split_once("#endif").map_or("", |(_, after)| after),
    });
    for declaration in common.collect::<String>().split("virtual ").skip(1) {
        let declaration = declaration.split(" = 0;").next().expect("a split has a first part");
        let name =
            declaration.split('(').next().and_then(|head| head.split_whitespace().last()).expect("it has a name");
        let name = name.trim_start_matches(['*', '&']);
        writeln!(code, "{declaration} override {{ emulator::fatal(\"`{name}` of TensorRT is not emulated\"); }}")
            .expect("a string takes what is written");
    }
    code + "};\n"
}

fn link(include: &[&Path], sources: &[PathBuf], name: &str, folder: &Path) {
    let compiler = cc::Build::new().cpp(true).std("c++17").pic(true).opt_level(2).warnings(true).get_compiler();
    let mut command: Command = compiler.to_command();
    command
        .args(["-shared", "-fvisibility=hidden", "-pthread"])
        .arg(format!("-Wl,-soname,{name}"))
        .args(include.iter().map(|folder| format!("-I{}", folder.display())))
        .args(sources)
        .arg("-o")
        .arg(folder.join(name))
        .arg("-ldl");
    let status = command.status().expect("a C++ compiler can be started");
    assert!(status.success(), "cannot build the emulator's {name}: {command:?}");
}
