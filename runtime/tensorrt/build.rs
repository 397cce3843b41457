//! Reads the shim's flat header into Rust, and compiles the shim once for each set of TensorRT's headers.
//!
//! Sets are looked for in the folders that `TENSORRT_INCLUDE_DIRS` lists (separated by colons; such as JetPack's
//! `/usr/include/aarch64-linux-gnu`) and in `.cache/tensorrt-headers`, which `cargo xtask setup` fills. Of two sets
//! of the same version the first is taken. Of TensorRT 8, whose headers cannot be fetched, `shim/eight` describes the
//! versions that Jetsons have, so a crate that is built without any headers knows those.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

const INCLUDE_DIRS: &str = "TENSORRT_INCLUDE_DIRS";

const SOURCES: &[&str] = &["entry.cpp", "build.cpp", "network.cpp", "runtime.cpp", "tensors.cpp", "bindings.cpp"];

/// The minor versions of TensorRT 8 that differ in what the shim calls: JetPack 4.6, 5.1 and 6.0.
const EIGHTS: [u32; 3] = [2, 5, 6];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the crate's folder"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a folder for what is made"));
    let shim = manifest.join("shim");
    println!("cargo::rerun-if-env-changed={INCLUDE_DIRS}");
    println!("cargo::rerun-if-changed={}", shim.display());
    println!("cargo::rerun-if-changed=build.rs");

    bind(&shim.join("revoada_tensorrt.h"), &out.join("bindings.rs"));

    let given = env::var_os(INCLUDE_DIRS).unwrap_or_default();
    let fetched = manifest.join("../../.cache/tensorrt-headers");
    let mut dialects = BTreeMap::new();
    for folder in env::split_paths(&given).filter(|folder| !folder.as_os_str().is_empty()) {
        match HeaderSet::find(&folder) {
            Ok(set) => _ = dialects.entry(set.dialect.clone()).or_insert(set),
            Err(why) => println!("cargo::warning={INCLUDE_DIRS} names `{}`, {why}", folder.display()),
        }
    }
    // A folder that is not there counts as changed, so that the headers are found once they are.
    println!("cargo::rerun-if-changed={}", fetched.display());
    for entry in fs::read_dir(&fetched).into_iter().flatten().flatten() {
        if let Ok(set) = HeaderSet::find(&entry.path()) {
            dialects.entry(set.dialect.clone()).or_insert(set);
        }
    }

    for minor in EIGHTS {
        let set = HeaderSet::described(&shim, minor);
        dialects.entry(set.dialect.clone()).or_insert(set);
    }

    for set in dialects.values() {
        compile(&shim, set);
    }
    let path = out.join("dialects.rs");
    let tables: Vec<String> = dialects.keys().map(|dialect| format!("{dialect}_api")).collect();
    // `sys.rs` has the macro that declares and lists them.
    fs::write(&path, format!("dialects!({});\n", tables.join(", ")))
        .unwrap_or_else(|error| panic!("cannot write `{}`: {error}", path.display()));
}

/// The headers of one version.
struct HeaderSet {
    folder: PathBuf,
    /// A word that tells it from others, such as `revoada_tensorrt_10_16`.
    dialect: String,
    /// For our own description of TensorRT 8, the minor version.
    described: Option<u32>,
}

impl HeaderSet {
    /// Reads the version of the headers in `folder`; the error continues a sentence.
    fn find(folder: &Path) -> Result<Self, String> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).map_err(|_| format!("which has no `{name}`"));
        read("NvInfer.h")?;
        read("NvOnnxParser.h")?;
        let text = read("NvInferVersion.h")?;
        let number = |names: &[&str]| {
            let value = |line: &str, name: &str| -> Option<u32> {
                line.strip_prefix("#define")?.trim_start().strip_prefix(name)?.split_whitespace().next()?.parse().ok()
            };
            text.lines().find_map(|line| names.iter().find_map(|name| value(line, name)))
        };
        let rtx = number(&["TRT_MAJOR_RTX "]).zip(number(&["TRT_MINOR_RTX "]));
        let full = number(&["NV_TENSORRT_MAJOR ", "TRT_MAJOR_ENTERPRISE "])
            .zip(number(&["NV_TENSORRT_MINOR ", "TRT_MINOR_ENTERPRISE "]));
        println!("cargo::rerun-if-changed={}", folder.join("NvInferVersion.h").display());
        let dialect = match (rtx, full) {
            (Some((major, minor)), _) => format!("revoada_tensorrt_rtx_{major}_{minor}"),
            (None, Some((major, minor))) => format!("revoada_tensorrt_{major}_{minor}"),
            (None, None) => return Err("whose `NvInferVersion.h` names no version".to_owned()),
        };
        Ok(Self { folder: folder.to_owned(), dialect, described: None })
    }

    fn described(shim: &Path, minor: u32) -> Self {
        Self { folder: shim.join("eight"), dialect: format!("revoada_tensorrt_8_{minor}"), described: Some(minor) }
    }
}

fn compile(shim: &Path, set: &HeaderSet) {
    let mut build = cc::Build::new();
    // Headers of NVIDIA's are the system's: their warnings are not ours to mend. `-idirafter` lets a real CUDA
    // come before our two typedefs.
    build
        .cpp(true)
        .std("c++17")
        .flag("-isystem")
        .flag(&set.folder)
        .flag("-idirafter")
        .flag(shim.join("cuda"))
        .flag_if_supported("-Wno-deprecated-declarations")
        .flag("-fvisibility=hidden")
        .define("REVOADA_DIALECT", set.dialect.as_str())
        .define("nvinfer1", format!("{}_nvinfer1", set.dialect).as_str())
        .define("nvonnxparser", format!("{}_nvonnxparser", set.dialect).as_str());
    if let Some(minor) = set.described {
        build.define("REVOADA_EIGHT_MINOR", minor.to_string().as_str());
    }
    for source in SOURCES {
        build.file(shim.join(source));
    }
    build.compile(&set.dialect);
}

fn bind(header: &Path, target: &Path) {
    let bindings = bindgen::Builder::default()
        .header(header.to_string_lossy())
        .allowlist_item("Trt.*|TRT_.*")
        .derive_default(true)
        .layout_tests(false)
        .merge_extern_blocks(true)
        .default_macro_constant_type(bindgen::MacroTypeVariation::Signed)
        .generate()
        .unwrap_or_else(|error| panic!("cannot read `{}`: {error}\nis `libclang-dev` installed?", header.display()));
    bindings.write_to_file(target).unwrap_or_else(|error| panic!("cannot write `{}`: {error}", target.display()));
}
