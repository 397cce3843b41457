//! What a card takes, as NVIDIA's management library tells it.
//!
//! The library comes with the driver of discrete cards and is opened where there is one. Jetsons have it from JetPack 5 on,
//! without this figure: their boards have monitors of their own.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr;

use libloading::Library;

use super::device::Device;
use super::error::CudaError;

const LIBRARY: &str = "libnvidia-ml.so.1";

type Handle = *mut c_void;
type Answer = c_int;

/// The functions of NVML that we call; that of the energy may be missing.
#[derive(Debug)]
struct Functions {
    shutdown: unsafe extern "C" fn() -> Answer,
    error_string: unsafe extern "C" fn(Answer) -> *const c_char,
    power: unsafe extern "C" fn(Handle, *mut c_uint) -> Answer,
    energy: Option<unsafe extern "C" fn(Handle, *mut c_ulonglong) -> Answer>,
}

/// The power of one card: the whole board of it, and nothing of the computer around it.
#[derive(Debug)]
pub struct CardPower {
    functions: Functions,
    card: Handle,
    /// Dropped last.
    _library: Library,
}

// SAFETY: NVML may be called from any thread, several at once, by its documentation; the handle is only passed to it.
unsafe impl Send for CardPower {}
// SAFETY: as above.
unsafe impl Sync for CardPower {}

impl CardPower {
    /// Refused where nothing tells what this device takes.
    pub fn open(device: &Device) -> Result<Self, CudaError> {
        let refused = |reason: String| CudaError::NoPower { reason };
        // SAFETY: opening the library runs its initialisers; NVML's ask for nothing of their caller.
        let library = unsafe { Library::new(LIBRARY) };
        let library = library.map_err(|_| refused(format!("there is no NVML (`{LIBRARY}` cannot be opened)")))?;
        let missing = |name: &str| refused(format!("`{LIBRARY}` lacks `{name}`"));
        let init: unsafe extern "C" fn() -> Answer = symbol(&library, "nvmlInit_v2").map_err(missing)?;
        let by_bus_id: unsafe extern "C" fn(*const c_char, *mut Handle) -> Answer =
            symbol(&library, "nvmlDeviceGetHandleByPciBusId_v2").map_err(missing)?;
        let functions = Functions {
            shutdown: symbol(&library, "nvmlShutdown").map_err(missing)?,
            error_string: symbol(&library, "nvmlErrorString").map_err(missing)?,
            power: symbol(&library, "nvmlDeviceGetPowerUsage").map_err(missing)?,
            energy: symbol(&library, "nvmlDeviceGetTotalEnergyConsumption").ok(),
        };
        // SAFETY: no arguments.
        functions.answer(unsafe { init() }).map_err(refused)?;
        // From here on it is shut down in `Drop`.
        let mut opened = Self { functions, card: ptr::null_mut(), _library: library };
        let bus_id = CString::new(device.pci_bus_id.as_str()).expect("digits and colons");
        // SAFETY: NVML is initialised, the text ends with a zero, and one handle is written.
        let found = unsafe { by_bus_id(bus_id.as_ptr(), &mut opened.card) };
        opened.functions.answer(found).map_err(refused)?;
        opened.milliwatts()?;
        Ok(opened)
    }

    /// Of this moment; from the Ampere generation on most cards tell the average of the last second.
    pub fn milliwatts(&self) -> Result<u64, CudaError> {
        let mut milliwatts = 0;
        // SAFETY: NVML is initialised and the handle its own; one integer is written.
        let answer = unsafe { (self.functions.power)(self.card, &mut milliwatts) };
        self.functions.answer(answer).map_err(|reason| CudaError::NoPower { reason })?;
        Ok(milliwatts.into())
    }

    /// All that was used since the driver was loaded; `None` where it is not counted, which it is from the Volta
    /// generation on.
    pub fn millijoules(&self) -> Option<u64> {
        let mut millijoules = 0;
        // SAFETY: NVML is initialised and the handle its own; one integer is written.
        let answer = unsafe { (self.functions.energy?)(self.card, &mut millijoules) };
        self.functions.answer(answer).ok().map(|()| millijoules)
    }
}

impl Drop for CardPower {
    fn drop(&mut self) {
        // SAFETY: initialised once in `open`; NVML counts how often. Nobody can be told of a failure.
        let _ = unsafe { (self.functions.shutdown)() };
    }
}

impl Functions {
    /// The error is NVML's own word.
    fn answer(&self, answer: Answer) -> Result<(), String> {
        if answer == 0 {
            return Ok(());
        }
        // SAFETY: NVML answers with a string of its own for every number.
        let text = unsafe { CStr::from_ptr((self.error_string)(answer)) };
        Err(format!("NVML says `{}`", text.to_string_lossy()))
    }
}

/// The function of this name, whose type is that of what it goes into.
fn symbol<F: Copy>(library: &Library, name: &'static str) -> Result<F, &'static str> {
    // SAFETY: these are NVML's functions, whose C signatures are fixed by their names; they are called only while the
    // library is open.
    unsafe { library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| name)
}
