//! What a plan was compiled for, and whether a device is that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A GPU architecture by its compute capability, written `sm_87`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Architecture {
    pub major: u32,
    pub minor: u32,
}

impl Architecture {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// 87 for 8.7, as compilers call it.
    pub const fn number(self) -> u32 {
        self.major * 10 + self.minor
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no GPU architecture: expected one like `sm_87`")]
pub struct ArchitectureError(String);

impl FromStr for Architecture {
    type Err = ArchitectureError;

    fn from_str(text: &str) -> Result<Self, ArchitectureError> {
        let refuse = || ArchitectureError(text.chars().take(40).collect());
        let digits = text.strip_prefix("sm_").ok_or_else(refuse)?;
        if !(2..=3).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(refuse());
        }
        let number: u32 = digits.parse().map_err(|_| refuse())?;
        Ok(Self::new(number / 10, number % 10))
    }
}

impl From<Architecture> for String {
    fn from(architecture: Architecture) -> Self {
        architecture.to_string()
    }
}

impl TryFrom<String> for Architecture {
    type Error = ArchitectureError;

    fn try_from(text: String) -> Result<Self, ArchitectureError> {
        text.parse()
    }
}

/// Which product of NVIDIA's compiled a plan: their plans are not each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorRtFlavour {
    /// TensorRT, as it comes with JetPack.
    Full,
    /// TensorRT for RTX.
    Rtx,
}

/// A TensorRT version: `TensorRT 10.3.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TensorRtVersion {
    pub flavour: TensorRtFlavour,
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl TensorRtVersion {
    /// Whether a profile of open shapes belongs to one execution context at a time.
    pub const fn has_exclusive_profiles(self) -> bool {
        matches!(self.flavour, TensorRtFlavour::Full) && self.major < 10
    }
}

impl fmt::Display for TensorRtVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavour {
            TensorRtFlavour::Full => "TensorRT",
            TensorRtFlavour::Rtx => "TensorRT for RTX",
        };
        write!(f, "{name} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What must be equal for a plan to run: on a device everything is known; what a plan leaves open
/// does not matter to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceClass {
    /// The module's model: `NVIDIA Jetson Orin NX Engineering Reference Developer Kit`.
    pub module: Option<String>,
    pub architecture: Architecture,
    /// Streaming multiprocessors.
    pub multiprocessors: Option<u32>,
    pub tensorrt: TensorRtVersion,
    /// Of the CUDA runtime: major and minor.
    pub cuda: Option<[u32; 2]>,
}

/// On which other devices and versions than its own a plan runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compatibility {
    /// Later versions of TensorRT run it too, up to the next major one.
    pub version: bool,
    pub hardware: HardwareCompatibility,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HardwareCompatibility {
    /// The very same GPU.
    #[default]
    None,
    /// GPUs of the same compute capability.
    SameArchitecture,
    /// Ampere and everything after it.
    AmpereAndLater,
}

/// The first difference between what a plan was built for and what is here.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("built for {built_for}, this device has {here}")]
pub struct Mismatch {
    pub built_for: String,
    pub here: String,
}

impl DeviceClass {
    /// Whether a plan built for `self` runs on `device`; if not, both sides of the first difference.
    pub fn check(&self, compatibility: Compatibility, device: &DeviceClass) -> Result<(), Mismatch> {
        fn unequal<T: PartialEq>(plan: Option<&T>, device: Option<&T>) -> bool {
            plan.is_some() && plan != device
        }
        let mismatch = |built_for: String, here: String| Err(Mismatch { built_for, here });
        let said = |text: Option<String>| text.unwrap_or_else(|| "an unknown one".to_owned());
        if !self.runs_with(compatibility.version, device.tensorrt) {
            return mismatch(self.tensorrt.to_string(), device.tensorrt.to_string());
        }
        let same_gpu = compatibility.hardware == HardwareCompatibility::None;
        let architecture_fits = match compatibility.hardware {
            HardwareCompatibility::None | HardwareCompatibility::SameArchitecture => {
                self.architecture == device.architecture
            }
            HardwareCompatibility::AmpereAndLater => device.architecture >= Architecture::new(8, 0),
        };
        if !architecture_fits {
            return mismatch(self.architecture.to_string(), device.architecture.to_string());
        }
        if same_gpu && unequal(self.multiprocessors.as_ref(), device.multiprocessors.as_ref()) {
            let count = |count: Option<u32>| said(count.map(|count| format!("{count} multiprocessors")));
            return mismatch(count(self.multiprocessors), count(device.multiprocessors));
        }
        if same_gpu && unequal(self.module.as_ref(), device.module.as_ref()) {
            let name = |name: &Option<String>| said(name.as_ref().map(|name| format!("module `{name}`")));
            return mismatch(name(&self.module), name(&device.module));
        }
        if !compatibility.version && unequal(self.cuda.as_ref(), device.cuda.as_ref()) {
            let version =
                |version: Option<[u32; 2]>| said(version.map(|[major, minor]| format!("CUDA {major}.{minor}")));
            return mismatch(version(self.cuda), version(device.cuda));
        }
        Ok(())
    }

    fn runs_with(&self, version_compatible: bool, here: TensorRtVersion) -> bool {
        let (built, next_major) = (
            self.tensorrt,
            match self.tensorrt.major {
                // There was no TensorRT 9 to run plans.
                8 => 10,
                major => major + 1,
            },
        );
        let later = built.flavour == here.flavour && built <= here && here.major <= next_major;
        built == here || (version_compatible && later)
    }
}

/// ``sm_87, 16 multiprocessors, TensorRT 10.3.0, CUDA 12.6, `NVIDIA Jetson Orin NX` ``
impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.architecture)?;
        if let Some(count) = self.multiprocessors {
            write!(f, ", {count} multiprocessors")?;
        }
        write!(f, ", {}", self.tensorrt)?;
        if let Some([major, minor]) = self.cuda {
            write!(f, ", CUDA {major}.{minor}")?;
        }
        self.module.as_ref().map_or(Ok(()), |module| write!(f, ", `{module}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(major: u32, minor: u32, patch: u32) -> TensorRtVersion {
        TensorRtVersion { flavour: TensorRtFlavour::Full, major, minor, patch }
    }

    fn orin() -> DeviceClass {
        DeviceClass {
            module: Some("Orin NX".to_owned()),
            architecture: Architecture::new(8, 7),
            multiprocessors: Some(8),
            tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
            cuda: Some([12, 6]),
        }
    }

    fn with(change: impl FnOnce(&mut DeviceClass)) -> DeviceClass {
        let mut device = orin();
        change(&mut device);
        device
    }

    #[test]
    fn architectures_are_written_as_compilers_take_them() {
        for (text, architecture) in [("sm_53", (5, 3)), ("sm_87", (8, 7)), ("sm_110", (11, 0))] {
            let (major, minor) = architecture;
            assert_eq!(text.parse(), Ok(Architecture::new(major, minor)));
            assert_eq!(Architecture::new(major, minor).to_string(), text);
        }
        for text in ["87", "sm_", "sm_8", "sm_+87", "sm_8.7", "sm_1234", "compute_87"] {
            assert!(text.parse::<Architecture>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_plan_that_does_not_fit_names_both_sides() {
        let strict = Compatibility::default();
        assert_eq!(orin().check(strict, &orin()), Ok(()));
        for (device, expected) in [
            (with(|d| d.tensorrt = full(8, 6, 2)), "built for TensorRT 10.3.0, this device has TensorRT 8.6.2"),
            (with(|d| d.architecture = Architecture::new(7, 2)), "built for sm_87, this device has sm_72"),
            (with(|d| d.multiprocessors = Some(16)), "built for 8 multiprocessors, this device has 16 multiprocessors"),
            (with(|d| d.module = Some("AGX".to_owned())), "built for module `Orin NX`, this device has module `AGX`"),
            (with(|d| d.cuda = Some([11, 4])), "built for CUDA 12.6, this device has CUDA 11.4"),
        ] {
            assert_eq!(orin().check(strict, &device).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn what_a_plan_leaves_open_does_not_matter_to_it() {
        let open = with(|d| (d.module, d.multiprocessors, d.cuda) = (None, None, None));
        assert_eq!(open.check(Compatibility::default(), &orin()), Ok(()));
        assert!(orin().check(Compatibility::default(), &open).is_err(), "an unknown device is not the same one");
    }

    #[test]
    fn compatible_plans_run_elsewhere_as_far_as_tensorrt_promises() {
        let version = Compatibility { version: true, ..Compatibility::default() };
        let runs = |from: [u32; 3], to: [u32; 3]| {
            with(|d| d.tensorrt = full(from[0], from[1], from[2]))
                .check(version, &with(|d| d.tensorrt = full(to[0], to[1], to[2])))
                .is_ok()
        };
        assert!(runs([8, 6, 0], [10, 0, 0]) && runs([10, 3, 0], [11, 1, 0]) && runs([10, 3, 0], [10, 9, 0]));
        assert!(!runs([8, 6, 0], [11, 0, 0]) && !runs([10, 3, 0], [10, 2, 0]));
        let ampere = Compatibility { hardware: HardwareCompatibility::AmpereAndLater, ..Compatibility::default() };
        let other = with(|d| (d.architecture, d.multiprocessors, d.module) = (Architecture::new(8, 9), Some(60), None));
        assert_eq!(orin().check(ampere, &other), Ok(()));
        assert!(orin().check(ampere, &with(|d| d.architecture = Architecture::new(7, 5))).is_err());
    }
}
