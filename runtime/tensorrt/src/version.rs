//! Versions of TensorRT.

use std::fmt;

/// The two lines of products that share an interface and count versions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    /// TensorRT as a Jetson has it.
    Full,
    /// TensorRT for RTX: it builds for devices that are elsewhere, and not for a Jetson.
    Rtx,
}

/// The version of a library, or of the headers that a dialect was compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub flavour: Flavour,
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// Reads the number that `getInferLibVersion` answers. TensorRT up to 9 gave the minor version two digits and
    /// the major one its thousands; later ones give both two. TensorRT for RTX started at 1 with the latter, so
    /// that no number means two versions.
    pub(crate) fn from_number(number: u32) -> Self {
        let (major, minor, patch) = if number < 10_000 {
            (number / 1000, number / 100 % 10, number % 100)
        } else {
            (number / 10_000, number / 100 % 100, number % 100)
        };
        let flavour = if (1..8).contains(&major) && number >= 10_000 { Flavour::Rtx } else { Flavour::Full };
        Self { flavour, major, minor, patch }
    }

    /// What the library's functions expect to hear: `number` itself.
    pub(crate) fn number(self) -> i32 {
        let number = match self.flavour {
            Flavour::Full if self.major < 10 => self.major * 1000 + self.minor * 100 + self.patch,
            _ => self.major * 10_000 + self.minor * 100 + self.patch,
        };
        i32::try_from(number).expect("versions have few digits")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavour {
            Flavour::Full => "TensorRT",
            Flavour::Rtx => "TensorRT for RTX",
        };
        write!(f, "{name} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_every_age_are_read() {
        let full = |major, minor, patch| Version { flavour: Flavour::Full, major, minor, patch };
        for (number, version) in [
            (8201, full(8, 2, 1)),
            (8503, full(8, 5, 3)),
            (100_300, full(10, 3, 0)),
            (101_600, full(10, 16, 0)),
            (110_400, full(11, 4, 0)),
            (10_701, Version { flavour: Flavour::Rtx, major: 1, minor: 7, patch: 1 }),
        ] {
            assert_eq!(Version::from_number(number), version);
            assert_eq!(u32::try_from(version.number()), Ok(number));
        }
    }
}
