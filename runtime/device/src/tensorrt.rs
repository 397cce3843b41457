//! TensorRT and the GPU of this machine.

use std::fs;
use std::sync::Arc;

use anyhow::Context;
use revoada_core::{Architecture, DeviceClass, TensorRtVersion};
use revoada_engine::cuda::Device;
use revoada_tensorrt::{Library, LibraryPaths};

use crate::Global;

pub(crate) fn library(global: &Global) -> anyhow::Result<Arc<Library>> {
    let paths = global.tensorrt.as_deref().map_or_else(LibraryPaths::usual, LibraryPaths::in_folder);
    Ok(Library::open(&paths)?)
}

pub(crate) fn version(global: &Global) -> anyhow::Result<TensorRtVersion> {
    Ok(library(global)?.version())
}

/// What a plan that is built here depends on.
pub(crate) fn device_class(global: &Global) -> anyhow::Result<DeviceClass> {
    let device = Device::all()?.into_iter().next().context("the NVIDIA driver sees no device")?;
    let (major, minor) = device.driver;
    Ok(DeviceClass {
        module: board().or(Some(device.name)),
        architecture: Architecture::new(device.capability.major, device.capability.minor),
        multiprocessors: u32::try_from(device.multiprocessors).ok(),
        tensorrt: version(global)?,
        cuda: Some([major, minor]),
    })
}

/// The model of a board that says it: Jetsons do.
fn board() -> Option<String> {
    let model = fs::read_to_string("/proc/device-tree/model").ok()?;
    Some(model.trim_end_matches('\0').trim().to_owned()).filter(|model| !model.is_empty())
}
