//! Compiles an ONNX model for a GPU that need not be here, as often as asked, and says how long each time took:
//!
//!     cargo run --package revoada-tensorrt --example compile -- LIBRARIES MODEL CAPABILITY TIMES [INPUT=SHAPE]…
//!
//! `LIBRARIES` is the folder of TensorRT for RTX, such as `.cache/lib`; `CAPABILITY` is such as 86. An input with
//! dimensions that the model leaves open needs a `SHAPE`, such as `1x3x224x224`.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use revoada_tensorrt::{BuildRequest, Cancel, Library, LibraryPaths, Model, Profile, Progress, Range, Target};

/// Prints the outermost phases.
struct Phases;

impl Progress for Phases {
    fn started(&self, phase: &str, parent: Option<&str>, steps: u32) {
        if parent.is_none() {
            eprintln!("{phase}: {steps} steps");
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, model, capability, times, shapes @ ..] = arguments.as_slice() else {
        return Err("usage: compile LIBRARIES MODEL CAPABILITY TIMES [INPUT=SHAPE]…".into());
    };
    let library = Library::open(&LibraryPaths::in_folder(Path::new(folder)))?;
    eprintln!("{} from `{}`", library.version(), library.path().display());
    let mut request = BuildRequest::new(Model::File(Path::new(model)));
    request.target = Target::ComputeCapabilities(vec![capability.parse()?]);
    if !shapes.is_empty() {
        request.profiles = vec![profile(shapes)?];
    }

    for _ in 0..times.parse()? {
        let started = Instant::now();
        let built = library.build(&request, &Phases, &Cancel::default())?;
        println!("{} bytes in {} ms", built.plan.len(), started.elapsed().as_millis());
    }
    Ok(())
}

/// A profile that allows each input its one shape.
fn profile(shapes: &[String]) -> Result<Profile, Box<dyn Error>> {
    let mut profile = Profile::default();
    for argument in shapes {
        let (input, shape) = argument.split_once('=').ok_or_else(|| format!("`{argument}` is not INPUT=SHAPE"))?;
        let shape: Vec<u64> = shape.split('x').map(str::parse).collect::<Result<_, _>>()?;
        profile = profile.with(input, Range { min: shape.clone(), opt: shape.clone(), max: shape });
    }
    Ok(profile)
}
