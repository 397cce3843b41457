//! Finding TensorRT on this machine.

use std::error::Error as _;
use std::ffi::{OsStr, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_core::TensorRtVersion;

use crate::dialect::{choose, dialects};
use crate::error::OpenError;
use crate::sys::TrtApi;
use crate::version;

/// Where the two libraries of one TensorRT are: absolute paths, or names that the system's linker searches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryPaths {
    /// `libnvinfer`: builder and runtime; or `libnvinfer_lean`, which runs version-compatible plans alone.
    pub infer: PathBuf,
    /// `libnvonnxparser`: needed to build only.
    pub parser: PathBuf,
}

impl LibraryPaths {
    /// The names under which TensorRT is installed, newest first.
    pub fn usual() -> Vec<Self> {
        let full = ["11", "10", "8"]
            .map(|major| Self::named(&format!("libnvinfer.so.{major}"), &format!("libnvonnxparser.so.{major}")));
        let rtx = Self::named("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1");
        full.into_iter().chain([rtx]).collect()
    }

    /// The same names in one folder.
    pub fn in_folder(folder: &Path) -> Vec<Self> {
        let inside = |paths: Self| Self { infer: folder.join(paths.infer), parser: folder.join(paths.parser) };
        Self::usual().into_iter().map(inside).collect()
    }

    /// Where to look: in `folder` where one is named, else under the usual names.
    pub fn search(folder: Option<&Path>) -> Vec<Self> {
        folder.map_or_else(Self::usual, Self::in_folder)
    }

    fn named(infer: &str, parser: &str) -> Self {
        Self { infer: infer.into(), parser: parser.into() }
    }
}

/// A TensorRT that is loaded. It stays in memory until the program ends: TensorRT's threads and the drivers
/// beneath it do not survive being unloaded.
pub struct Library {
    pub(crate) api: &'static TrtApi,
    /// Missing in a lean runtime.
    pub(crate) create_builder: Option<Create>,
    pub(crate) create_runtime: Create,
    pub(crate) parser: Result<Parser, NoParser>,
    version: TensorRtVersion,
    path: PathBuf,
}

pub(crate) type Create = unsafe extern "C" fn(*mut c_void, i32) -> *mut c_void;

pub(crate) struct Parser {
    pub(crate) create: unsafe extern "C" fn(*mut c_void, *mut c_void, i32) -> *mut c_void,
    /// What the parser's functions expect to hear.
    pub(crate) version: i32,
}

#[derive(Clone)]
pub(crate) struct NoParser {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

impl Library {
    /// Opens the first of `search` that is there.
    pub fn open(search: &[LibraryPaths]) -> Result<Arc<Self>, OpenError> {
        let mut tried = Vec::new();
        for paths in search {
            match load(&paths.infer) {
                Ok(library) => return Self::from_loaded(&library, paths).map(Arc::new),
                Err(reason) => tried.push((paths.infer.clone(), reason)),
            }
        }
        Err(OpenError::NotFound { tried })
    }

    fn from_loaded(library: &libloading::Library, paths: &LibraryPaths) -> Result<Self, OpenError> {
        let path = paths.infer.clone();
        let missing = |symbol| OpenError::NotTensorRt { path: path.clone(), symbol };
        let (version, create_builder, create_runtime);
        // SAFETY: these are the types that every version of TensorRT declares for them.
        unsafe {
            let number: unsafe extern "C" fn() -> i32 = symbol(library, "getInferLibVersion").map_err(missing)?;
            create_builder = symbol(library, "createInferBuilder_INTERNAL").ok();
            create_runtime = symbol(library, "createInferRuntime_INTERNAL").map_err(missing)?;
            version = version::from_number(u32::try_from(number()).unwrap_or(0));
        }
        let Some(api) = choose(version) else {
            return Err(OpenError::NotSpoken { path, version, spoken: dialects() });
        };
        let parser =
            load_parser(&paths.parser, version).map_err(|reason| NoParser { path: paths.parser.clone(), reason });
        Ok(Self { api, create_builder, create_runtime, parser, version, path })
    }

    /// The library's own version.
    pub fn version(&self) -> TensorRtVersion {
        self.version
    }

    /// As it was searched for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can build plans: a lean runtime cannot, nor can a library without its ONNX parser.
    pub fn can_build(&self) -> bool {
        self.create_builder.is_some() && self.parser.is_ok()
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("version", &self.version).field("path", &self.path).finish_non_exhaustive()
    }
}

/// Loads a library for good; the error is the linker's sentence.
fn load(path: &Path) -> Result<ManuallyDrop<libloading::Library>, String> {
    // SAFETY: loading runs the library's initialisers. The caller has named it as NVIDIA's, which do nothing to
    // this program's state; that it stays loaded spares us its finalisers.
    unsafe { libloading::Library::new(AsRef::<OsStr>::as_ref(path)) }.map(ManuallyDrop::new).map_err(|error| {
        let said = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        // The linker begins with the name, which stands beside this already.
        let name = format!("{}: ", path.display());
        said.strip_prefix(&name).unwrap_or(&said).to_owned()
    })
}

fn load_parser(path: &Path, version: TensorRtVersion) -> Result<Parser, String> {
    let library = load(path)?;
    let missing = |symbol| format!("it has no `{symbol}`");
    // SAFETY: these are the types that every version of the parser declares for them.
    unsafe {
        let create = symbol(&library, "createNvOnnxParser_INTERNAL").map_err(missing)?;
        let number: unsafe extern "C" fn() -> i32 = symbol(&library, "getNvOnnxParserVersion").map_err(missing)?;
        tracing::debug!(target: "tensorrt", parser = number(), %version, "opened the parser");
        Ok(Parser { create, version: number() })
    }
}

/// # Safety
/// `T` is the type of the function of that name.
unsafe fn symbol<T: Copy>(library: &libloading::Library, name: &'static str) -> Result<T, &'static str> {
    // SAFETY: the caller vouches for the type; the library is never unloaded, so the address stays good.
    unsafe { library.get::<T>(name.as_bytes()) }.map(|symbol| *symbol).map_err(|_| name)
}
