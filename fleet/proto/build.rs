//! Compiles the `.proto` files without a `protoc` on the machine.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["device.proto"], ["proto"])?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(descriptors, files.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    let mut flower = Vec::new();
    gather(Path::new("proto/flower"), &mut flower)?;
    flower.sort();
    tonic_prost_build::configure().bytes(".").compile_fds(protox::compile(flower, ["proto/flower"])?)?;
    Ok(())
}

/// Every `.proto` file below a folder.
fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
