//! TensorRT and the GPU of this machine.

use std::sync::Arc;

use anyhow::Context;
use revoada_core::{DeviceClass, TensorRtVersion};
use revoada_engine::TensorRtOptions;
use revoada_engine::cuda::{Device, compiler_candidates};
use revoada_tensorrt::{Library, LibraryPaths};

use crate::Global;

fn paths(global: &Global) -> Vec<LibraryPaths> {
    LibraryPaths::search(global.tensorrt.as_deref())
}

pub(crate) fn library(global: &Global) -> anyhow::Result<Arc<Library>> {
    Ok(Library::open(&paths(global))?)
}

pub(crate) fn version(global: &Global) -> anyhow::Result<TensorRtVersion> {
    Ok(library(global)?.version())
}

/// What the backend needs to know.
pub(crate) fn options(global: &Global) -> TensorRtOptions {
    TensorRtOptions {
        libraries: paths(global),
        compilers: compiler_candidates(),
        kernels: crate::cache_folder().map(|folder| folder.join("kernels")),
        device: 0,
    }
}

/// The one that plans are built for and run on.
pub(crate) fn device() -> anyhow::Result<Device> {
    Device::all()?.into_iter().next().context("the NVIDIA driver sees no device")
}

/// What a plan that is built here depends on.
pub(crate) fn device_class(global: &Global) -> anyhow::Result<DeviceClass> {
    Ok(device()?.class(version(global)?))
}
