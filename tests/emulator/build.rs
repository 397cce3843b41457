//! Builds the emulator's libraries, with our kernels compiled into them as C++.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where NVIDIA's headers of the emulated TensorRT are, once they were fetched.
const HEADERS: &str = "../../.cache/tensorrt-headers/TRT-Enterprise-10.16";

/// The two types of CUDA's that they want.
const CUDA_TYPES: &str = "../../runtime/tensorrt/shim/cuda";

/// The tables of functions that the emulated TensorRT has.
const TABLES: [&str; 12] = [
    "Runtime",
    "CudaEngine",
    "ExecutionContext",
    "EngineInspector",
    "Builder",
    "BuilderConfig",
    "HostMemory",
    "Layer",
    "NetworkDefinition",
    "OptimizationProfile",
    "Tensor",
    "TimingCache",
];

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
    link(&[&source], &[], &driver, "libcuda.so.1", &libraries);
    link(&[&source], &[], &["control.cpp", "nvrtc.cpp"].map(|name| source.join(name)), "libnvrtc.so.12", &libraries);
    link(&[&source], &[], &["control.cpp", "nvml.cpp"].map(|name| source.join(name)), "libnvidia-ml.so.1", &libraries);
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
    let read = |name: &str| fs::read_to_string(headers.join(name));
    let (Ok(tables), Ok(parser)) = (read("NvInferImpl.h"), read("NvOnnxParser.h")) else { return };
    let table =
        |name: &&str| strict(&tables, &format!("class V{name} : public VRoot"), name, &format!("apiv::V{name}"));
    write_strict(out, "strict.h", "nvinfer1", &TABLES.iter().map(table).collect::<String>());
    let parser = strict(&parser, "class IParser\n{", "Parser", "IParser");
    write_strict(out, "strict_parser.h", "nvonnxparser", &parser);

    let include = [control, &source, out];
    let theirs = [&*headers, &here.join(CUDA_TYPES)];
    let with_control = |names: &[&str]| -> Vec<PathBuf> {
        names.iter().map(|name| source.join(name)).chain([control.join("control.cpp")]).collect()
    };
    link(
        &include,
        &theirs,
        &with_control(&["plan.cpp", "infer.cpp", "onnx.cpp", "build.cpp"]),
        "libnvinfer.so.10",
        libraries,
    );
    link(&include, &theirs, &with_control(&["parser.cpp"]), "libnvonnxparser.so.10", libraries);
}

fn write_strict(out: &Path, file: &str, namespace: &str, classes: &str) {
    let text = format!(
        "#pragma once\n#include \"control.h\"\n#pragma GCC diagnostic ignored \"-Wunused-parameter\"\n#pragma GCC \
         diagnostic ignored \"-Woverloaded-virtual\"\n#pragma GCC diagnostic ignored \
         \"-Wdeprecated-declarations\"\nnamespace strict {{\nusing namespace {namespace};\n{classes}}}\n"
    );
    fs::write(out.join(file), text).expect("the output folder is ours");
}

/// A class that has every function that the class at `start` of a header wants, each of which ends the program.
fn strict(header: &str, start: &str, name: &str, base: &str) -> String {
    let start = header.find(start).expect("the headers have the class");
    let body = &header[start..start + header[start..].find("\n};").expect("a class ends")];
    let mut code = format!("struct {name} : {base} {{\n");
    // What is compiled only with a feature of NVIDIA's own is no part of the table.
    let common = body.split("#if ").enumerate().map(|(index, part)| match index {
        0 => part,
        _ => part.split_once("#endif").map_or("", |(_, after)| after),
    });
    for declaration in common.collect::<String>().split("virtual ").skip(1) {
        // The next one's text may follow; what is not left open here needs nothing.
        let end = declaration.find(';').expect("a declaration ends");
        let Some(declaration) = declaration[..end].trim_end().strip_suffix("= 0") else { continue };
        let head = declaration.split('(').next().and_then(|head| head.split_whitespace().last());
        let name = head.expect("a function has a name").trim_start_matches(['*', '&']);
        writeln!(code, "{declaration} override {{ emulator::fatal(\"`{name}` of TensorRT is not emulated\"); }}")
            .expect("a string takes what is written");
    }
    code + "};\n"
}

fn link(ours: &[&Path], theirs: &[&Path], sources: &[PathBuf], name: &str, folder: &Path) {
    let compiler = cc::Build::new().cpp(true).std("c++17").pic(true).opt_level(2).warnings(true).get_compiler();
    let mut command: Command = compiler.to_command();
    command
        .args(["-shared", "-fvisibility=hidden", "-pthread"])
        .arg(format!("-Wl,-soname,{name}"))
        .args(ours.iter().map(|folder| format!("-I{}", folder.display())))
        .args(theirs.iter().map(|folder| format!("-isystem{}", folder.display())))
        .args(sources)
        .arg("-o")
        .arg(folder.join(name))
        .arg("-ldl");
    let status = command.status().expect("a C++ compiler can be started");
    assert!(status.success(), "cannot build the emulator's {name}: {command:?}");
}
