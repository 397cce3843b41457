//! TensorRT for RTX, which builds for GPUs that are elsewhere: what it shows holds for TensorRT 10 and 11, whose
//! interface it has. One program, because the library is large.

mod building;
mod lean;
mod onnx;
mod opening;
mod profiles;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_tensorrt::{BuildRequest, Library, LibraryPaths, Model, Target};

/// Where `cargo xtask setup --tests` puts the libraries.
fn folder() -> PathBuf {
    cache("lib")
}

fn cache(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache").join(path)
}

/// The library, unless this machine lacks it: then the reason has been printed.
fn library() -> Option<Arc<Library>> {
    match Library::open(&LibraryPaths::in_folder(&folder())) {
        Ok(library) => Some(library),
        Err(error) => {
            println!("skipped: TensorRT for RTX: {error}");
            None
        }
    }
}

/// A plan for a device that need not be here.
fn request(model: &[u8]) -> BuildRequest<'_> {
    let model = Model::Bytes { bytes: model, path: None };
    BuildRequest { target: Target::ComputeCapabilities(vec![86]), ..BuildRequest::new(model) }
}
