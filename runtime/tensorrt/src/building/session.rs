//! The owner of one build's objects: each method asks TensorRT one thing.

use std::ffi::{CString, c_void};
use std::path::Path;
use std::ptr::NonNull;

use crate::error::{BuildError, Message, NO_DEVICE, ParserError, plain};
use crate::host::{Bytes, Host};
use crate::library::Library;
use crate::sys::{self, call};
use crate::tensor::{DataType, NetworkInput, dims_of, text, to_dims};

use super::{Hardware, Layer, Profile};

/// A builder with its network, parser and configuration.
pub(super) struct Session<'a> {
    library: &'a Library,
    host: &'a Host<'a>,
    build: NonNull<sys::TrtBuild>,
}

/// How TensorRT took a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Done,
    Refused,
    /// This version has no such thing.
    Absent,
}

impl Taken {
    fn of(status: i32) -> Self {
        match status {
            sys::TRT_DONE => Self::Done,
            sys::TRT_ABSENT => Self::Absent,
            _ => Self::Refused,
        }
    }
}

impl<'a> Session<'a> {
    pub(super) fn open(library: &'a Library, host: &'a Host<'a>) -> Result<Self, BuildError> {
        let Some(create_builder) = library.create_builder else {
            return Err(BuildError::NoBuilder { path: library.path().to_owned() });
        };
        let parser = library
            .parser
            .as_ref()
            .map_err(|missing| BuildError::NoParser { path: missing.path.clone(), reason: missing.reason.clone() })?;
        // SAFETY: the functions are those of the library whose version this is, and the table is of its dialect.
        // The host outlives the build: `Self` borrows it.
        let build = unsafe {
            call!(
                library.api,
                build_open(
                    Some(create_builder),
                    Some(parser.create),
                    library.version().number(),
                    parser.version,
                    &host.raw(),
                )
            )
        };
        let Some(build) = NonNull::new(build) else {
            return Err(BuildError::Start { version: library.version(), messages: host.take_messages() });
        };
        Ok(Self { library, host, build })
    }

    fn raw(&self) -> *mut sys::TrtBuild {
        self.build.as_ptr()
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        self.host.take_messages()
    }

    pub(super) fn parse(&self, model: &[u8], path: Option<&Path>) -> Taken {
        let Ok(path) = path_text(path) else { return Taken::Refused };
        let path = path.as_ref().map_or(std::ptr::null(), |path| path.as_ptr());
        // SAFETY: the model is `len` readable bytes, and the path is null or ends with a zero byte.
        Taken::of(unsafe { call!(self.library.api, build_parse(self.raw(), model.as_ptr().cast(), model.len(), path)) })
    }

    pub(super) fn parser_errors(&self) -> Vec<ParserError> {
        // SAFETY: the build is open.
        let count = unsafe { call!(self.library.api, build_error_count(self.raw())) };
        (0..count).filter_map(|index| self.parser_error(index)).collect()
    }

    fn parser_error(&self, index: i32) -> Option<ParserError> {
        let mut error = sys::TrtParserError::default();
        // SAFETY: the build is open, and the texts of the error live until it closes.
        unsafe {
            if call!(self.library.api, build_error(self.raw(), index, &raw mut error)) != sys::TRT_DONE {
                return None;
            }
            Some(ParserError {
                index: usize::try_from(error.node).ok(),
                node: text(error.node_name),
                operator: text(error.node_operator),
                description: described(&text(error.description)),
            })
        }
    }

    pub(super) fn inputs(&self) -> Vec<NetworkInput> {
        // SAFETY: the build is open.
        let count = unsafe { call!(self.library.api, build_input_count(self.raw())) };
        let input = |index| {
            let mut tensor = sys::TrtTensor::default();
            // SAFETY: the build is open, and the tensor's name lives until it closes.
            unsafe {
                let status = call!(self.library.api, build_input(self.raw(), index, &raw mut tensor));
                (status == sys::TRT_DONE).then(|| NetworkInput {
                    name: text(tensor.name),
                    data_type: DataType::of(tensor.type_),
                    dims: dims_of(&tensor.dims),
                })
            }
        };
        (0..count).filter_map(input).collect()
    }

    pub(super) fn layers(&self) -> Vec<Layer> {
        // SAFETY: the build is open.
        let count = unsafe { call!(self.library.api, build_layer_count(self.raw())) };
        (0..count).filter_map(|index| self.layer(index)).collect()
    }

    fn layer(&self, index: i32) -> Option<Layer> {
        let types = |is_output, count| {
            (0..count)
                .map(|tensor| {
                    // SAFETY: the build is open.
                    DataType::of(unsafe {
                        call!(self.library.api, build_layer_type(self.raw(), index, is_output, tensor))
                    })
                })
                .collect()
        };
        let mut layer = sys::TrtLayer::default();
        // SAFETY: the build is open, and the layer's texts live until it closes.
        let (name, kind) = unsafe {
            if call!(self.library.api, build_layer(self.raw(), index, &raw mut layer)) != sys::TRT_DONE {
                return None;
            }
            (text(layer.name), text(layer.kind))
        };
        Some(Layer { name, kind, inputs: types(0, layer.inputs), outputs: types(1, layer.outputs) })
    }

    pub(super) fn obey_types(&self) -> Taken {
        // SAFETY: the build is open.
        Taken::of(unsafe { call!(self.library.api, build_obey_types(self.raw())) })
    }

    /// Adds a profile whose ranges fit the network's inputs.
    pub(super) fn add_profile(&self, profile: &Profile) -> Result<(), BuildError> {
        let refused =
            |input: &str| BuildError::Profile { input: input.to_owned(), reason: "is refused by TensorRT".to_owned() };
        // SAFETY: the build is open; it owns the profile.
        let raw: *mut c_void = unsafe { call!(self.library.api, build_profile(self.raw())) };
        if raw.is_null() {
            return Err(BuildError::Start { version: self.library.version(), messages: self.messages() });
        }
        for (input, range) in &profile.ranges {
            let name = CString::new(input.as_str()).map_err(|_| refused(input))?;
            let shapes = [&range.min, &range.opt, &range.max].map(|shape| to_dims(shape));
            let [Some(min), Some(opt), Some(max)] = shapes else { return Err(refused(input)) };
            // SAFETY: the profile is of this build and not added yet; the name ends with a zero byte.
            let status = unsafe {
                call!(self.library.api, build_profile_range(self.raw(), raw, name.as_ptr(), &min, &opt, &max))
            };
            if Taken::of(status) != Taken::Done {
                return Err(refused(input));
            }
        }
        // SAFETY: the profile is of this build.
        let status = unsafe { call!(self.library.api, build_profile_done(self.raw(), raw)) };
        if Taken::of(status) != Taken::Done {
            let names: Vec<&str> = profile.ranges.keys().map(String::as_str).collect();
            return Err(refused(&names.join("`, `")));
        }
        Ok(())
    }

    pub(super) fn workspace(&self, bytes: u64) -> Taken {
        // SAFETY: the build is open.
        Taken::of(unsafe { call!(self.library.api, build_workspace(self.raw(), bytes)) })
    }

    pub(super) fn timing_cache(&self, cache: &[u8]) -> Taken {
        // SAFETY: the build is open, and the cache is `len` readable bytes, which TensorRT copies.
        Taken::of(unsafe {
            call!(self.library.api, build_timing_cache(self.raw(), cache.as_ptr().cast(), cache.len()))
        })
    }

    pub(super) fn version_compatible(&self) -> Taken {
        // SAFETY: the build is open.
        Taken::of(unsafe { call!(self.library.api, build_version_compatible(self.raw())) })
    }

    pub(super) fn hardware(&self, hardware: Hardware) -> Taken {
        let level = match hardware {
            Hardware::Same => sys::TRT_HARDWARE_SAME,
            Hardware::AmperePlus => sys::TRT_HARDWARE_AMPERE_PLUS,
            Hardware::SameComputeCapability => sys::TRT_HARDWARE_SAME_COMPUTE_CAPABILITY,
        };
        // SAFETY: the build is open.
        Taken::of(unsafe { call!(self.library.api, build_hardware(self.raw(), level)) })
    }

    pub(super) fn targets(&self, capabilities: &[i32]) -> Taken {
        let Ok(count) = i32::try_from(capabilities.len()) else { return Taken::Refused };
        // SAFETY: the build is open, and the list has `count` numbers.
        Taken::of(unsafe { call!(self.library.api, build_targets(self.raw(), capabilities.as_ptr(), count)) })
    }

    pub(super) fn dla_cores(&self) -> i32 {
        // SAFETY: the build is open.
        unsafe { call!(self.library.api, build_dla_cores(self.raw())) }
    }

    pub(super) fn dla(&self, core: i32) -> Taken {
        // SAFETY: the build is open.
        Taken::of(unsafe { call!(self.library.api, build_dla(self.raw(), core)) })
    }

    pub(super) fn run(&self) -> Option<Vec<u8>> {
        let mut plan = Bytes::default();
        // SAFETY: the build is open, and the sink's bytes outlive the call.
        let status = unsafe { call!(self.library.api, build_run(self.raw(), &plan.sink())) };
        (Taken::of(status) == Taken::Done).then_some(plan.0)
    }

    pub(super) fn timings(&self) -> Option<Vec<u8>> {
        let mut cache = Bytes::default();
        // SAFETY: the build is open, and the sink's bytes outlive the call.
        let status = unsafe { call!(self.library.api, build_timings(self.raw(), &cache.sink())) };
        (Taken::of(status) == Taken::Done).then_some(cache.0)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: the build came from `build_open` and is closed only here.
        unsafe { call!(self.library.api, build_close(self.raw())) };
    }
}

/// The part of a parser's message that is meant for people: it may begin with the condition that did not hold, and go
/// on with what the library had to say, line by line.
fn described(description: &str) -> String {
    if description.contains("Plugin not found") {
        return "TensorRT has no such operator".to_owned();
    }
    let after = description.split_once("Assertion failed: ").and_then(|(_, rest)| rest.split_once("): "));
    let lines: Vec<String> = after.map_or(description, |(_, text)| text).lines().map(plain).collect();
    // A GPU that is missing is no fault of the node's, and its name stands beside this already.
    let beside = |line: &String| line.starts_with("Invalid Node") || NO_DEVICE.iter().any(|error| line.contains(error));
    let telling: Vec<String> = lines.iter().filter(|line| !beside(line)).cloned().collect();
    if telling.is_empty() { lines.join("; ") } else { telling.join("; ") }
}

/// A path as the parser wants it; the error is one with a zero byte in it.
fn path_text(path: Option<&Path>) -> Result<Option<CString>, std::ffi::NulError> {
    path.map(|path| CString::new(path.as_os_str().as_encoded_bytes())).transpose()
}
