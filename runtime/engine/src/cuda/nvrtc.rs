//! NVIDIA's compiler of kernels, as a library that is opened where there is one.
//!
//! cudarc's loader knows neither the names that CUDA 11 and 13 give the library nor how to get a binary out of it,
//! so the few functions are looked up here.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::{fmt, ptr};

use libloading::Library;
use revoada_core::Architecture;

use super::error::CudaError;

/// A kernel's source, kept beside the Rust that launches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSource {
    /// Of the file.
    pub name: &'static str,
    pub text: &'static str,
    /// The function to launch.
    pub entry: &'static str,
}

/// What every kernel is compiled with besides its architecture. CUDA 10.2 knows no newer language.
pub(super) const OPTIONS: &[&str] = &["--std=c++14"];

/// Compiled code that the driver loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Ends with a zero, because the driver reads PTX as text.
    bytes: Vec<u8>,
}

impl Image {
    pub(super) fn new(mut bytes: Vec<u8>) -> Self {
        if bytes.last() != Some(&0) {
            bytes.push(0);
        }
        Self { bytes }
    }

    pub(super) fn terminated(&self) -> &[u8] {
        &self.bytes
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - 1]
    }

    /// Machine code of one architecture, as against PTX, which the driver compiles further.
    pub fn is_binary(&self) -> bool {
        self.bytes.starts_with(b"\x7fELF")
    }
}

/// What is asked of the compiler: machine code where it knows the architecture, else PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelTarget {
    pub(super) number: u32,
    pub(super) binary: bool,
}

impl fmt::Display for KernelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", if self.binary { "sm" } else { "compute" }, self.number)
    }
}

type Program = *mut std::ffi::c_void;
type Answer = c_int;

/// The functions of NVRTC that we call; those that CUDA 10.2 lacks are optional.
#[derive(Debug)]
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Answer,
    error_string: unsafe extern "C" fn(Answer) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Answer,
    destroy: unsafe extern "C" fn(*mut Program) -> Answer,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Answer,
    log: Bytes,
    ptx: Bytes,
    cubin: Option<Bytes>,
    architectures: Option<(unsafe extern "C" fn(*mut c_int) -> Answer, unsafe extern "C" fn(*mut c_int) -> Answer)>,
}

/// A function that says how long something is, and one that writes it.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    size: unsafe extern "C" fn(Program, *mut usize) -> Answer,
    write: unsafe extern "C" fn(Program, *mut c_char) -> Answer,
}

/// An opened NVRTC.
#[derive(Debug)]
pub struct Compiler {
    functions: Functions,
    version: (u32, u32),
    /// Ascending; empty where the library cannot say.
    architectures: Vec<u32>,
    path: PathBuf,
}

/// Where NVRTC is looked for, best first: what the machine calls the default, then each version by its own name,
/// then where the CUDA toolkit puts it.
pub fn compiler_candidates() -> Vec<PathBuf> {
    let names = ["", ".13", ".12", ".11.2", ".11.1", ".11.0", ".10.2"].map(|version| format!("libnvrtc.so{version}"));
    let toolkit = names.iter().map(|name| Path::new("/usr/local/cuda/lib64").join(name));
    names.iter().map(PathBuf::from).chain(toolkit).collect()
}

impl Compiler {
    /// Opens the first of these libraries that can be opened.
    pub fn open(candidates: &[PathBuf]) -> Result<Self, CudaError> {
        let unusable = |reason| CudaError::NoCompiler { reason };
        let Some((library, path)) = candidates.iter().find_map(|path| {
            // SAFETY: opening a library runs its initialisers; NVRTC's ask for nothing of their caller.
            unsafe { Library::new(path) }.ok().map(|library| (library, path.clone()))
        }) else {
            let names: Vec<_> = candidates.iter().map(|path| format!("`{}`", path.display())).collect();
            return Err(unusable(format!("NVRTC is not installed; looked for {}", names.join(", "))));
        };
        // Never closed: what NVRTC has registered with the threads that used it would outlive its code.
        let library: &'static Library = Box::leak(Box::new(library));
        let functions =
            Functions::find(library).map_err(|missing| unusable(format!("`{}` lacks `{missing}`", path.display())))?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: writes two integers.
        functions.answer(unsafe { (functions.version)(&mut major, &mut minor) }).map_err(unusable)?;
        let architectures = functions.architectures().map_err(unusable)?;
        let version = (major.unsigned_abs(), minor.unsigned_abs());
        Ok(Self { functions, version, architectures, path })
    }

    /// Of NVRTC: major and minor.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every architecture that it compiles for, ascending, 87 for 8.7; empty where it cannot say.
    pub fn architectures(&self) -> &[u32] {
        &self.architectures
    }

    /// What to compile for a device: its own architecture, or the PTX of the newest older one, which the driver
    /// compiles for it.
    pub fn target(&self, architecture: Architecture) -> Result<KernelTarget, CudaError> {
        let number = architecture.number();
        let binary = self.functions.cubin.is_some();
        if self.architectures.is_empty() || self.architectures.contains(&number) {
            return Ok(KernelTarget { number, binary });
        }
        let older = self.architectures.iter().rev().find(|known| **known < number);
        older.map(|known| KernelTarget { number: *known, binary: false }).ok_or_else(|| CudaError::NoCompiler {
            reason: format!(
                "NVRTC {}.{} knows nothing that a device of compute capability {}.{} runs",
                self.version.0, self.version.1, architecture.major, architecture.minor
            ),
        })
    }

    pub fn compile(&self, source: &KernelSource, target: KernelTarget) -> Result<Image, CudaError> {
        let failed = |log: String| CudaError::Compile {
            source_name: source.name,
            architecture: target.to_string(),
            log: log.trim().to_owned(),
        };
        let text = CString::new(source.text).expect("sources are text");
        let name = CString::new(source.name).expect("files have names");
        let option = format!("--gpu-architecture={target}");
        let options: Vec<CString> = OPTIONS
            .iter()
            .copied()
            .chain([option.as_str()])
            .map(|option| CString::new(option).expect("options are text"))
            .collect();
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();

        let mut program = OwnedProgram { functions: &self.functions, raw: ptr::null_mut() };
        // SAFETY: the strings live until the end of this function, and there are no headers.
        let created = unsafe {
            (self.functions.create)(&mut program.raw, text.as_ptr(), name.as_ptr(), 0, ptr::null(), ptr::null())
        };
        self.functions.answer(created).map_err(failed)?;
        // SAFETY: the program is alive, and there are as many options as said.
        let compiled = unsafe { (self.functions.compile)(program.raw, options.len() as c_int, options.as_ptr()) };
        if let Err(error) = self.functions.answer(compiled) {
            let log = program.read(self.functions.log).map_err(failed)?;
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
            return Err(failed(if log.is_empty() { error } else { log }));
        }
        let bytes = match self.functions.cubin.filter(|_| target.binary) {
            Some(cubin) => program.read(cubin),
            None => program.read(self.functions.ptx),
        };
        bytes.map(Image::new).map_err(failed)
    }
}

impl Functions {
    fn find(library: &'static Library) -> Result<Self, &'static str> {
        /// The function of this name, whose type is that of the field it goes into.
        fn get<F: Copy>(library: &Library, name: &'static str) -> Result<F, &'static str> {
            // SAFETY: these are NVRTC's functions, whose C signatures have never changed; the library is
            // never closed.
            unsafe { library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| name)
        }
        let bytes = |size, write| -> Result<Bytes, &'static str> {
            Ok(Bytes { size: get(library, size)?, write: get(library, write)? })
        };
        Ok(Self {
            version: get(library, "nvrtcVersion")?,
            error_string: get(library, "nvrtcGetErrorString")?,
            create: get(library, "nvrtcCreateProgram")?,
            destroy: get(library, "nvrtcDestroyProgram")?,
            compile: get(library, "nvrtcCompileProgram")?,
            log: bytes("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?,
            ptx: bytes("nvrtcGetPTXSize", "nvrtcGetPTX")?,
            cubin: bytes("nvrtcGetCUBINSize", "nvrtcGetCUBIN").ok(),
            architectures: get(library, "nvrtcGetNumSupportedArchs")
                .and_then(|count| Ok((count, get(library, "nvrtcGetSupportedArchs")?)))
                .ok(),
        })
    }

    fn answer(&self, answer: Answer) -> Result<(), String> {
        if answer == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC answers with a string of its own for every number.
        let text = unsafe { CStr::from_ptr((self.error_string)(answer)) };
        Err(text.to_string_lossy().into_owned())
    }

    fn architectures(&self) -> Result<Vec<u32>, String> {
        let Some((count_of, write)) = self.architectures else { return Ok(Vec::new()) };
        let mut count = 0;
        // SAFETY: writes one integer.
        self.answer(unsafe { count_of(&mut count) })?;
        let mut numbers = vec![0; count.unsigned_abs() as usize];
        // SAFETY: writes as many integers as it has said.
        self.answer(unsafe { write(numbers.as_mut_ptr()) })?;
        let mut numbers: Vec<u32> = numbers.into_iter().map(c_int::unsigned_abs).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

struct OwnedProgram<'a> {
    functions: &'a Functions,
    raw: Program,
}

impl OwnedProgram<'_> {
    fn read(&self, what: Bytes) -> Result<Vec<u8>, String> {
        let mut size = 0;
        // SAFETY: the program is alive; writes one size.
        self.functions.answer(unsafe { (what.size)(self.raw, &mut size) })?;
        let mut bytes = vec![0u8; size];
        // SAFETY: the program is alive; writes as many bytes as it has said.
        self.functions.answer(unsafe { (what.write)(self.raw, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for OwnedProgram<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: NVRTC made it, and nobody else destroys it. It only fails for what is no program.
            let _ = unsafe { (self.functions.destroy)(&mut self.raw) };
        }
    }
}
