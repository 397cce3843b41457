//! The numbers by which libraries tell their version.

use revoada_core::{TensorRtFlavour, TensorRtVersion};

/// Reads the number that `getInferLibVersion` answers. TensorRT up to 9 gave the minor version two digits and
/// the major one its thousands; later ones give both two. TensorRT for RTX started at 1 with the latter, so
/// that no number means two versions.
pub(crate) fn from_number(number: u32) -> TensorRtVersion {
    let (major, minor, patch) = if number < 10_000 {
        (number / 1000, number / 100 % 10, number % 100)
    } else {
        (number / 10_000, number / 100 % 100, number % 100)
    };
    let flavour =
        if (1..8).contains(&major) && number >= 10_000 { TensorRtFlavour::Rtx } else { TensorRtFlavour::Full };
    TensorRtVersion { flavour, major, minor, patch }
}

/// What the library's functions expect to hear: `number` itversion.
pub(crate) fn number(version: TensorRtVersion) -> i32 {
    let number = match version.flavour {
        TensorRtFlavour::Full if version.major < 10 => version.major * 1000 + version.minor * 100 + version.patch,
        _ => version.major * 10_000 + version.minor * 100 + version.patch,
    };
    i32::try_from(number).expect("versions have few digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_every_age_are_read() {
        let full = |major, minor, patch| TensorRtVersion { flavour: TensorRtFlavour::Full, major, minor, patch };
        for (number, version) in [
            (8201, full(8, 2, 1)),
            (8503, full(8, 5, 3)),
            (100_300, full(10, 3, 0)),
            (101_600, full(10, 16, 0)),
            (110_400, full(11, 4, 0)),
            (10_701, TensorRtVersion { flavour: TensorRtFlavour::Rtx, major: 1, minor: 7, patch: 1 }),
        ] {
            assert_eq!(from_number(number), version);
            assert_eq!(u32::try_from(super::number(version)), Ok(number));
        }
    }
}
