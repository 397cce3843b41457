//! The other side: the process that calls TensorRT.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use revoada_bundle::onnx::OnnxModel;
use revoada_core::{Architecture, HardwareCompatibility, TensorRtVersion};
use revoada_tensorrt::{
    BuildError, BuildRequest, Built, Cancel, Hardware, Library, LibraryPaths, Model, Profile, Progress, Range, Target,
};

use super::precision::check_precision;
use super::{CompileOptions, CompileRequest, Event, MODEL_IS_THERE, memory};

/// Among all processes the first that the system ends when memory runs out.
const OOM_SCORE: &str = "1000";
/// A request names three files and the shapes of a few inputs.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// Reads a request from `input`, compiles, and tells `output` how it went. An error is one of talking; a model
/// that cannot be compiled is told as an event.
pub fn child(input: &mut dyn Read, output: Box<dyn Write + Send>) -> io::Result<()> {
    // Allowed to everybody in this direction; where it is not, the watchdog is still there.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        tracing::debug!(%error, "cannot offer this process to the system's memory killer");
    }
    let mut input = BufReader::new(input.take(REQUEST_BYTES_MAX));
    let mut text = Vec::new();
    input.read_until(b'\n', &mut text)?;
    let request: CompileRequest = serde_json::from_slice(&text)?;
    let teller = Teller(Mutex::new(output));
    let mut wait_for_model = || input.read_exact(&mut [0; MODEL_IS_THERE.len()]);
    let event = run(&request, &mut wait_for_model, &teller).unwrap_or_else(|reason| Event::Failed { reason });
    teller.tell(&event)
}

fn run(
    request: &CompileRequest,
    wait_for_model: &mut dyn FnMut() -> io::Result<()>,
    teller: &Teller,
) -> Result<Event, String> {
    let CompileRequest { model, plan, options } = request;
    let library =
        Library::open(&LibraryPaths::search(options.tensorrt.as_deref())).map_err(|error| error.to_string())?;
    wait_for_model().map_err(|error| format!("the model did not come: {error}"))?;
    let Some(plan) = plan else {
        let refused = library.refused_nodes(Model::File(model)).map_err(|error| error.to_string())?;
        return match refused.as_slice() {
            [] => Ok(Event::Readable),
            nodes => Err(format!(
                "{} cannot read the model: {}",
                library.version(),
                nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            )),
        };
    };
    let bytes = fs::read(model).map_err(|error| format!("cannot read the model: {error}"))?;
    let request = build_request(Model::Bytes { bytes: &bytes, path: Some(model) }, options, library.version())?;
    let started = Instant::now();
    let built = match &options.timing_cache {
        Some(path) => build_with_timings(&library, &request, path, teller)?,
        None => library.build(&request, teller, &Cancel::default()).map_err(|error| error.to_string())?,
    };
    let compile_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let graph = OnnxModel::parse(bytes).map_err(|error| error.to_string())?;
    let checked = check_precision(&graph, &built.layers).map_err(|error| error.to_string())?;
    let checked = checked.map_err(|mismatch| mismatch.to_string())?;
    fs::write(plan, &built.plan).map_err(|error| format!("cannot write the plan: {error}"))?;
    Ok(Event::Done {
        tensorrt: library.version(),
        layers: built.layers.len(),
        checked,
        peak_bytes: memory::peak_bytes(),
        compile_ms,
    })
}

/// Builds with what earlier builds have timed, and leaves them what this one has; alone, as far as builds of this
/// device go. Timings that cannot be used are begun anew.
fn build_with_timings(
    library: &Library,
    request: &BuildRequest<'_>,
    path: &Path,
    teller: &Teller,
) -> Result<Built, String> {
    let _alone = alone(path, teller).map_err(|error| format!("cannot lock `{}`: {error}", path.display()))?;
    let known = fs::read(path).unwrap_or_default();
    let build = |timings: &[u8]| {
        let request = BuildRequest { timing_cache: Some(timings), ..request.clone() };
        library.build(&request, teller, &Cancel::default())
    };
    let built = match build(&known) {
        Err(BuildError::TimingCache { .. }) if !known.is_empty() => {
            tracing::warn!(path = %path.display(), "the timings of earlier builds cannot be used and are begun anew");
            build(&[])
        }
        other => other,
    };
    let built = built.map_err(|error| error.to_string())?;
    if let Some(timings) = &built.timing_cache
        && let Err(error) = revoada_bundle::partial::replace(path, timings)
    {
        tracing::warn!(path = %path.display(), %error, "cannot keep the timings of this build");
    }
    Ok(built)
}

/// Waits until nobody else builds with the timings at `path`.
fn alone(path: &Path, teller: &Teller) -> io::Result<File> {
    let lock = File::options().create(true).append(true).open(path.with_extension("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            teller.tell_or_end(&Event::Waiting);
            lock.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(lock)
}

/// How many sessions a plan of open shapes runs at once where each needs a profile of its own: a pipeline's.
const EXCLUSIVE_PROFILES: usize = 2;

fn build_request<'a>(
    model: Model<'a>,
    options: &CompileOptions,
    version: TensorRtVersion,
) -> Result<BuildRequest<'a>, String> {
    let size = |size: &usize| u64::try_from(*size).map_err(|_| "a shape is too large".to_owned());
    let shape = |shape: &[usize]| shape.iter().map(size).collect::<Result<Vec<_>, _>>();
    let mut profile = Profile::default();
    for (input, range) in &options.profile {
        let range = Range { min: shape(&range.min)?, opt: shape(&range.opt)?, max: shape(&range.max)? };
        profile = profile.with(input, range);
    }
    let copies = match profile.ranges.is_empty() {
        true => 0,
        false if version.has_exclusive_profiles() => EXCLUSIVE_PROFILES,
        false => 1,
    };
    Ok(BuildRequest {
        profiles: vec![profile; copies],
        workspace_bytes_max: options.workspace_bytes_max,
        target: options.target.map_or(Target::ThisDevice, |Architecture { major, minor }| {
            Target::ComputeCapabilities(vec![major * 10 + minor])
        }),
        hardware: match options.compatibility.hardware {
            HardwareCompatibility::None => Hardware::Same,
            HardwareCompatibility::SameArchitecture => Hardware::SameComputeCapability,
            HardwareCompatibility::AmpereAndLater => Hardware::AmperePlus,
        },
        version_compatible: options.compatibility.version,
        dla_core: options.dla_core,
        ..BuildRequest::new(model)
    })
}

/// Writes events; TensorRT's threads have some, too.
struct Teller(Mutex<Box<dyn Write + Send>>);

impl Teller {
    fn tell(&self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(&line)?;
        output.flush()
    }

    /// A parent that is gone does not want a plan.
    fn tell_or_end(&self, event: &Event) {
        if self.tell(event).is_err() {
            std::process::exit(1);
        }
    }
}

impl Progress for Teller {
    fn started(&self, phase: &str, _parent: Option<&str>, steps: u32) {
        self.tell_or_end(&Event::Started { phase: phase.to_owned(), steps });
    }

    fn step(&self, phase: &str, step: u32) {
        self.tell_or_end(&Event::Step { phase: phase.to_owned(), step });
    }

    fn finished(&self, phase: &str) {
        self.tell_or_end(&Event::Finished { phase: phase.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use revoada_core::TensorRtFlavour;

    use super::*;

    #[test]
    fn a_plan_of_open_shapes_has_a_profile_for_every_session_that_may_not_share_one() {
        let mut options = CompileOptions::default();
        let version = |major| TensorRtVersion { flavour: TensorRtFlavour::Full, major, minor: 5, patch: 2 };
        let profiles = |options: &CompileOptions, major| {
            let model = Model::Bytes { bytes: &[], path: None };
            build_request(model, options, version(major)).unwrap().profiles.len()
        };
        assert_eq!((profiles(&options, 8), profiles(&options, 10)), (0, 0), "of fixed shapes");
        let shape = |rows| vec![rows, 3];
        let range = revoada_bundle::plan::ShapeRange { min: shape(1), opt: shape(2), max: shape(4) };
        options.profile.insert("x".to_owned(), range);
        assert_eq!((profiles(&options, 8), profiles(&options, 10)), (2, 1));
    }
}
