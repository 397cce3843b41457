//! What kind of device there is, and which memory it shares best with the CPU.

use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute};
use revoada_core::{Architecture, DeviceClass, TensorRtVersion};

use super::driver::{Driver, answer};
use super::error::CudaError;

/// A device as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub ordinal: usize,
    pub name: String,
    pub architecture: Architecture,
    pub multiprocessors: usize,
    /// Physical memory; on an integrated device it is the CPU's too.
    pub memory_bytes: usize,
    pub memory: MemoryTraits,
    /// Where it is on the PCI bus, as NVIDIA's tools write it: `00000000:01:00.0`.
    pub pci_bus_id: String,
    /// Of CUDA, as the driver supports it: major and minor.
    pub driver: (u32, u32),
}

/// What decides how the CPU and the device share memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTraits {
    /// The device has no memory of its own but uses the CPU's.
    pub integrated: bool,
    /// Page-locked memory can be mapped into the device.
    pub maps_host: bool,
    pub managed: bool,
    /// The CPU may touch managed memory while the device works.
    pub concurrent_managed: bool,
    /// One address space for CPU and device.
    pub unified_addressing: bool,
}

/// How bytes get from the CPU to the device and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryPolicy {
    /// Page-locked memory and memory of the device, with copies between them: discrete cards.
    Copied,
    /// Page-locked memory that both see: integrated devices that keep caches coherent, Xavier and later.
    Mapped,
    /// Managed memory that both see: integrated devices without I/O coherency, where the CPU would reach
    /// page-locked memory uncached. The Nano and the TX2.
    Managed,
}

impl MemoryPolicy {
    /// The policy for a device. I/O coherency has no attribute of its own: NVIDIA's guide to CUDA for Tegra names
    /// the architecture from which it is there.
    pub const fn of(architecture: Architecture, memory: MemoryTraits) -> Self {
        let coherent = architecture.number() >= 72;
        match memory {
            MemoryTraits { integrated: true, maps_host: true, .. } if coherent => Self::Mapped,
            MemoryTraits { integrated: true, managed: true, .. } if !coherent => Self::Managed,
            _ => Self::Copied,
        }
    }
}

impl Device {
    /// Every device that the driver sees; none is an error, and so is no driver.
    pub fn all() -> Result<Vec<Self>, CudaError> {
        let driver = Driver::get()?;
        let mut count = 0;
        // SAFETY: writes one integer.
        answer("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
        if count <= 0 {
            return Err(CudaError::Unavailable { reason: "the NVIDIA driver sees no device".to_owned() });
        }
        (0..count.unsigned_abs() as usize)
            .map(|ordinal| Self::query(driver, ordinal).map(|(device, _)| device))
            .collect()
    }

    pub(super) fn query(driver: &Driver, ordinal: usize) -> Result<(Self, CUdevice), CudaError> {
        let mut raw = 0;
        let index = i32::try_from(ordinal).unwrap_or(i32::MAX);
        // SAFETY: writes one integer; an ordinal that does not exist is answered with an error.
        answer("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut raw, index) })?;
        let mut name = [0u8; 256];
        // SAFETY: the driver writes at most the given number of bytes, a final zero included.
        answer("cuDeviceGetName", unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 256, raw) })?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut memory_bytes = 0;
        // SAFETY: writes one size.
        answer("cuDeviceTotalMem_v2", unsafe { sys::cuDeviceTotalMem_v2(&mut memory_bytes, raw) })?;

        use CUdevice_attribute as A;
        let number = |attribute| -> Result<u32, CudaError> {
            let mut value = 0;
            // SAFETY: writes one integer; all these attributes exist since CUDA 8.
            let result = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, raw) };
            answer("cuDeviceGetAttribute", result).map(|()| value.unsigned_abs())
        };
        let flag = |attribute| number(attribute).map(|value| value != 0);
        let device = Self {
            ordinal,
            name: String::from_utf8_lossy(name).into_owned(),
            architecture: Architecture::new(
                number(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                number(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: number(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            memory_bytes,
            memory: MemoryTraits {
                integrated: flag(A::CU_DEVICE_ATTRIBUTE_INTEGRATED)?,
                maps_host: flag(A::CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY)?,
                managed: flag(A::CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY)?,
                concurrent_managed: flag(A::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS)?,
                unified_addressing: flag(A::CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING)?,
            },
            pci_bus_id: format!(
                "{:08X}:{:02X}:{:02X}.0",
                number(A::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
                number(A::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
                number(A::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?
            ),
            driver: driver.version(),
        };
        Ok((device, raw))
    }

    /// What a plan depends on that this version of TensorRT builds or runs here.
    pub fn class(&self, tensorrt: TensorRtVersion) -> DeviceClass {
        DeviceClass {
            module: Some(board().unwrap_or_else(|| self.name.clone())),
            architecture: self.architecture,
            multiprocessors: u32::try_from(self.multiprocessors).ok(),
            tensorrt,
            cuda: Some([self.driver.0, self.driver.1]),
        }
    }

    pub fn policy(&self) -> MemoryPolicy {
        MemoryPolicy::of(self.architecture, self.memory)
    }
}

/// The model of a board that says it: Jetsons do.
fn board() -> Option<String> {
    let model = std::fs::read_to_string("/proc/device-tree/model").ok()?;
    Some(model.trim_end_matches('\0').trim().to_owned()).filter(|model| !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEGRATED: MemoryTraits = MemoryTraits {
        integrated: true,
        maps_host: true,
        managed: true,
        concurrent_managed: false,
        unified_addressing: true,
    };

    #[test]
    fn each_class_of_device_has_its_memory_policy() {
        let discrete = MemoryTraits { integrated: false, concurrent_managed: true, ..INTEGRATED };
        for (what, architecture, memory, expected) in [
            ("Nano", Architecture::new(5, 3), INTEGRATED, MemoryPolicy::Managed),
            ("TX2", Architecture::new(6, 2), INTEGRATED, MemoryPolicy::Managed),
            ("Xavier", Architecture::new(7, 2), INTEGRATED, MemoryPolicy::Mapped),
            ("Orin", Architecture::new(8, 7), INTEGRATED, MemoryPolicy::Mapped),
            ("Thor", Architecture::new(11, 0), INTEGRATED, MemoryPolicy::Mapped),
            ("discrete Pascal", Architecture::new(6, 1), discrete, MemoryPolicy::Copied),
            ("discrete Hopper", Architecture::new(9, 0), discrete, MemoryPolicy::Copied),
            (
                "integrated that maps and manages nothing",
                Architecture::new(5, 3),
                MemoryTraits { maps_host: false, managed: false, ..INTEGRATED },
                MemoryPolicy::Copied,
            ),
        ] {
            assert_eq!(MemoryPolicy::of(architecture, memory), expected, "{what}");
        }
    }
}
