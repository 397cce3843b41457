//! From an ONNX model to a plan.

mod request;
mod session;

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::error::{BuildError, ParserError, layer_in};
use crate::host::{Cancel, Host, Progress};
use crate::library::Library;
use crate::tensor::NetworkInput;
use crate::version::{Flavour, Version};

pub use request::{BuildRequest, Built, Hardware, Layer, Model, Profile, Range, Target};

use session::{Session, Taken};

/// One build at a time in a program: a build times kernels, which two at once would distort, and TensorRT for RTX 1.7
/// mixes up the targets of two.
static BUILDING: Mutex<()> = Mutex::new(());

/// TensorRT for RTX's number for the device that is here.
const CURRENT_DEVICE: i32 = 1;

impl Library {
    /// Compiles a plan. It blocks for seconds, or on a Jetson for many minutes; TensorRT uses threads of its own. A
    /// second build in the same program waits for the first.
    pub fn build(
        &self,
        request: &BuildRequest<'_>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Built, BuildError> {
        let host = Host::new(progress, cancel);
        let built = self.build_with(request, &host);
        host.resume_panic();
        built
    }

    fn build_with(&self, request: &BuildRequest<'_>, host: &Host<'_>) -> Result<Built, BuildError> {
        let (bytes, path) = request.model.read()?;
        let session = Session::open(self, host)?;
        self.parse(&session, &bytes, path)?;
        drop(bytes);
        let (inputs, layers) = (session.inputs(), session.layers());
        check_profiles(&inputs, &request.profiles)?;
        self.configure(&session, request)?;
        let alone = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        if host.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let Some(plan) = session.run() else {
            if host.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            let messages = session.messages();
            let layer = layer_in(&messages, layers.iter().map(|layer| layer.name.as_str()));
            return Err(BuildError::Compile { version: self.version(), layer, messages });
        };
        drop(alone);
        let timing_cache = request.timing_cache.and_then(|_| session.timings());
        Ok(Built { plan, timing_cache, inputs, layers })
    }

    /// Names the nodes that this TensorRT refuses, without building; none, if it takes the model. TensorRT before 10
    /// stops at the first.
    pub fn refused_nodes(&self, model: Model<'_>) -> Result<Vec<ParserError>, BuildError> {
        let host = Host::new(&(), &Cancel::default());
        let (bytes, path) = model.read()?;
        let session = Session::open(self, &host)?;
        match self.parse(&session, &bytes, path) {
            Err(BuildError::Parse { errors, .. }) if errors.iter().any(|error| error.index.is_some()) => Ok(errors),
            other => other.map(|()| Vec::new()),
        }
    }

    /// Fills the network, with an error that names every node that TensorRT refuses.
    fn parse(&self, session: &Session<'_>, model: &[u8], path: Option<&Path>) -> Result<(), BuildError> {
        let taken = session.parse(model, path);
        let mut errors = session.parser_errors();
        let of_none =
            |description| ParserError { index: None, node: String::new(), operator: String::new(), description };
        if taken == Taken::Done {
            // To the format an empty file is a model, though one without a graph.
            if session.layers().is_empty() {
                return Err(BuildError::Parse {
                    version: self.version(),
                    errors: vec![of_none("it is empty".to_owned())],
                });
            }
            return Ok(());
        }
        // What is no node's fault, such as a file of weights that is missing, only the log explains.
        if errors.iter().all(|error| error.index.is_none()) {
            errors = session.messages().into_iter().map(|message| of_none(message.text)).chain(errors).collect();
        }
        Err(BuildError::Parse { version: self.version(), errors })
    }

    fn configure(&self, session: &Session<'_>, request: &BuildRequest<'_>) -> Result<(), BuildError> {
        let version = self.version();
        let need = |taken, what: &str| available(version, taken, || what.to_owned());
        need(session.obey_types(), "control over the types of layers")?;
        for profile in &request.profiles {
            session.add_profile(profile)?;
        }
        if let Some(bytes) = request.workspace_bytes_max {
            need(session.workspace(bytes), "limit of its workspace")?;
        }
        if let Some(cache) = request.timing_cache
            && session.timing_cache(cache) != Taken::Done
        {
            return Err(BuildError::TimingCache { version, messages: session.messages() });
        }
        if request.version_compatible {
            need(session.version_compatible(), "plans that later versions run")?;
        }
        if request.hardware != Hardware::Same {
            available(version, session.hardware(request.hardware), || {
                match request.hardware {
                    Hardware::Same => unreachable!("it is asked for nothing"),
                    Hardware::AmperePlus => "plans for all devices from Ampere on",
                    Hardware::SameComputeCapability => "plans for all devices of one compute capability",
                }
                .to_owned()
            })?;
        }
        if let Some(number) = request.dla_core {
            let there = session.dla_cores();
            let core = i32::try_from(number).ok().filter(|core| *core < there);
            let taken = core.map_or(Taken::Absent, |core| session.dla(core));
            need(taken, &format!("DLA core {number} here: there are {there}"))?;
        }
        self.aim(session, &request.target)
    }

    fn aim(&self, session: &Session<'_>, target: &Target) -> Result<(), BuildError> {
        let (numbers, what) = match target {
            // TensorRT builds for this device, and the one for RTX for any, if they are told nothing.
            Target::ThisDevice if self.version().flavour == Flavour::Full => return Ok(()),
            Target::ThisDevice => (vec![CURRENT_DEVICE], "GPU to build for".to_owned()),
            Target::ComputeCapabilities(capabilities) => {
                let names: Vec<String> = capabilities.iter().map(|number| format!("`sm_{number}`")).collect();
                let numbers = capabilities.iter().map(|number| i32::try_from(*number).unwrap_or(-1));
                (numbers.collect(), format!("way to build for {} from here", names.join(", ")))
            }
        };
        available(self.version(), session.targets(&numbers), || what)
    }
}

impl<'a> Model<'a> {
    fn read(self) -> Result<(Cow<'a, [u8]>, Option<&'a Path>), BuildError> {
        match self {
            Self::Bytes { bytes, path } => Ok((Cow::Borrowed(bytes), path)),
            Self::File(path) => {
                let bytes = fs::read(path).map_err(|source| BuildError::ReadModel { path: path.to_owned(), source })?;
                Ok((Cow::Owned(bytes), Some(path)))
            }
        }
    }
}

fn available(version: Version, taken: Taken, what: impl FnOnce() -> String) -> Result<(), BuildError> {
    match taken {
        Taken::Done => Ok(()),
        Taken::Refused | Taken::Absent => Err(BuildError::Unavailable { version, what: what() }),
    }
}

/// Says what TensorRT would say less clearly, or not at all: every dimension that is not known needs a range in
/// every profile, and ranges belong to inputs and fit them.
fn check_profiles(inputs: &[NetworkInput], profiles: &[Profile]) -> Result<(), BuildError> {
    for input in inputs.iter().filter(|input| input.dims.contains(&None)) {
        if profiles.is_empty() || profiles.iter().any(|profile| !profile.ranges.contains_key(&input.name)) {
            return Err(BuildError::NoProfile { input: input.name.clone(), dims: shape_text(&input.dims) });
        }
    }
    for (name, range) in profiles.iter().flat_map(|profile| &profile.ranges) {
        let wrong = |reason: String| Err(BuildError::Profile { input: name.clone(), reason });
        let Some(input) = inputs.iter().find(|input| input.name == *name) else {
            let names: Vec<String> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
            return wrong(format!("names no input of the model, which has {}", names.join(", ")));
        };
        let shapes = [&range.min, &range.opt, &range.max];
        if shapes.iter().any(|shape| shape.len() != input.dims.len()) {
            return wrong(format!("must have {} dimensions", input.dims.len()));
        }
        for (axis, dim) in input.dims.iter().enumerate() {
            let [min, opt, max] = shapes.map(|shape| shape[axis]);
            if let Some(length) = dim
                && [min, opt, max].iter().any(|value| value != length)
            {
                return wrong(format!("must have {length} at dimension {axis}, which the model fixes"));
            }
            if !(min <= opt && opt <= max) {
                return wrong(format!("is not in order at dimension {axis}: {min}, {opt}, {max}"));
            }
        }
    }
    Ok(())
}

fn shape_text(dims: &[Option<u64>]) -> String {
    let dims: Vec<String> = dims.iter().map(|dim| dim.map_or("?".to_owned(), |value| value.to_string())).collect();
    dims.join("×")
}
