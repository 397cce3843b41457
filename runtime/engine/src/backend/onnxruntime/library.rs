//! Finding and opening ONNX Runtime's shared library, once per process.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use tracing::level_filters::LevelFilter;

use crate::EngineError;

use super::NAME;

/// What a library file is called, newest name first.
const FILE_NAMES: [&str; 2] = ["libonnxruntime.so.1", "libonnxruntime.so"];

/// Where distributions and hand-made installations put it, where the loader does not look by itself.
const SYSTEM_DIRS: [&str; 6] = [
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/onnxruntime/lib",
];

/// Where to look for the library, in order: beside the running program, wherever the system's loader
/// looks, the usual library folders, and `data_dir`, the program's own folder of the user.
pub fn library_candidates(data_dir: Option<&Path>) -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent);
    let in_dirs = |dirs: &[&Path]| -> Vec<PathBuf> {
        dirs.iter().flat_map(|dir| FILE_NAMES.iter().map(|name| dir.join(name))).collect()
    };
    let mut candidates = in_dirs(beside.as_slice());
    // A bare name asks the loader; the crate resolves it against the program's folder first, and
    // panics where there is none.
    if beside.is_some() {
        candidates.extend(FILE_NAMES.map(PathBuf::from));
    }
    candidates.extend(in_dirs(&SYSTEM_DIRS.map(Path::new)));
    candidates.extend(in_dirs(data_dir.as_slice()));
    candidates
}

/// The library as it was opened.
#[derive(Clone)]
pub(super) struct Library {
    pub(super) environment: Environment,
    pub(super) path: PathBuf,
}

impl Library {
    /// The version, which `ort` does not tell: official builds export their symbols under it.
    pub(super) fn version(&self) -> Option<String> {
        let start = File::open(mapped_path().as_deref().unwrap_or(&self.path)).ok()?;
        let mut bytes = Vec::new();
        start.take(STRING_TABLE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let at = bytes.windows(SYMBOL_VERSION.len()).position(|window| window == SYMBOL_VERSION)?;
        let rest = bytes[at + SYMBOL_VERSION.len()..].iter().map(|byte| char::from(*byte));
        Some(rest.take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect())
    }
}

const SYMBOL_VERSION: &[u8] = b"VERS_";

/// A library's table of strings lies near its start, before the code.
const STRING_TABLE_BYTES_MAX: u64 = 4 << 20;

/// The file that the loader found, where it was asked by name alone.
fn mapped_path() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let path =
        paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("libonnxruntime")))?;
    Some(path.to_owned())
}

/// The process has at most one: ONNX Runtime's environment is global.
static OPENED: Mutex<Option<Library>> = Mutex::new(None);

/// Opens the first of `candidates` that can be opened, or returns the library already open where it
/// is one of them.
pub(super) fn open(candidates: &[PathBuf]) -> Result<Library, EngineError> {
    let unavailable = |reason: String| EngineError::Unavailable { backend: NAME, reason };
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = opened.as_ref() {
        if candidates.contains(&library.path) {
            return Ok(library.clone());
        }
        let path = library.path.display();
        return Err(unavailable(format!("this process has already loaded `{path}`, and can load only one")));
    }
    let mut refused = Vec::new();
    for path in candidates {
        // The loader's own error for an absent file says less than the list of places below.
        if path.components().count() > 1 && !path.exists() {
            continue;
        }
        match ort::init_from(path) {
            Ok(builder) => {
                let environment = builder
                    .with_name("revoada")
                    .with_telemetry(false)
                    .with_logger(Arc::new(log))
                    .build()
                    .map_err(|error| unavailable(format!("`{}` does not start: {error}", path.display())))?;
                environment.set_log_level(log_level());
                return Ok(opened.insert(Library { environment, path: path.clone() }).clone());
            }
            Err(error) => refused.push((path, error.to_string())),
        }
    }
    // A file that is there and cannot be loaded explains more than names that the loader did not find.
    let file = refused.iter().find(|(path, _)| path.components().count() > 1);
    Err(unavailable(match file {
        Some((_, error)) => error.clone(),
        None => format!(
            "no ONNX Runtime library was found; looked for {}",
            candidates.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
        ),
    }))
}

/// ONNX Runtime formats whatever passes its level, so that level follows what is listened to.
fn log_level() -> LogLevel {
    match LevelFilter::current() {
        LevelFilter::TRACE => LogLevel::Verbose,
        LevelFilter::DEBUG => LogLevel::Warning,
        _ => LogLevel::Fatal,
    }
}

/// Its errors come back from the call that failed as well, and its warnings are about how a graph
/// was exported: both explain, neither needs anybody.
fn log(level: LogLevel, category: &str, id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, id, location, "{message}"),
        LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", category, id, location, "{message}")
        }
        LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(target: "onnxruntime", category, id, location, "{message}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_folder_comes_first_and_the_users_last() {
        let candidates = library_candidates(Some(Path::new("/home/user/.local/share/revoada")));
        let beside = std::env::current_exe().unwrap().parent().unwrap().join("libonnxruntime.so.1");
        assert_eq!(candidates.first(), Some(&beside));
        assert_eq!(candidates.last(), Some(&PathBuf::from("/home/user/.local/share/revoada/libonnxruntime.so")));
        assert!(candidates.contains(&PathBuf::from("libonnxruntime.so.1")));
    }

    #[test]
    fn places_without_a_library_are_all_named() {
        let error = open(&[PathBuf::from("/nowhere/libonnxruntime.so"), PathBuf::from("libonnxruntime-absent.so")])
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "backend `onnxruntime` cannot be used here: no ONNX Runtime library was found; \
             looked for `/nowhere/libonnxruntime.so`, `libonnxruntime-absent.so`"
        );
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_that_names_it() {
        let path = std::env::current_exe().unwrap().parent().unwrap().join("not-a-library.so");
        std::fs::write(&path, "text").unwrap();
        let error = open(std::slice::from_ref(&path)).err().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(error.to_string().contains(&format!("{}", path.display())), "{error}");
    }
}
