//! Compiles the `.proto` files without a `protoc` on the machine.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

/// Where Flower's own packages are looked for.
const FLOWER: &str = "proto/flower";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["device.proto"], ["proto"])?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(descriptors, files.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;

    let folder = std::fs::read_dir(PathBuf::from(FLOWER).join("flwr/proto"))?;
    let files = folder.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    tonic_prost_build::configure()
        .bytes(".")
        // In one order, so that the same message is always the same bytes.
        .btree_map(".flwr.proto.ServerMessage")
        .btree_map(".flwr.proto.ClientMessage")
        .compile_fds(protox::compile(files, [FLOWER])?)?;
    Ok(())
}
