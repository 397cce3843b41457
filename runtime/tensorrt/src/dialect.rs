//! Which versions of TensorRT this program can speak to.

use std::cmp::Reverse;

use crate::sys::{DIALECTS, TrtApi};
use crate::version::{Flavour, Version};

/// The versions that this program was built for, oldest first: those of TensorRT 8 that Jetsons have, and those whose
/// headers were there. A library is served by a dialect of its major version.
pub fn dialects() -> Vec<Version> {
    let mut versions: Vec<Version> = tables().map(version_of).collect();
    versions.sort_unstable();
    versions
}

/// The table for a library of this version.
pub(crate) fn choose(library: Version) -> Option<&'static TrtApi> {
    tables()
        .filter_map(|table| Some((rank(version_of(table), library)?, table)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, table)| table)
}

/// How well a dialect fits a library; the least fits best. Within a major version later functions are appended to
/// tables that stay, so the latest dialect that is not newer than the library is right; failing that, the oldest newer
/// one, if the library is not too old for it.
fn rank(dialect: Version, library: Version) -> Option<(bool, Reverse<u32>, u32)> {
    let same = (dialect.flavour, dialect.major) == (library.flavour, library.major);
    if !same || library.minor < oldest_minor(library) {
        return None;
    }
    let newer = dialect.minor > library.minor;
    Some(if newer { (true, Reverse(0), dialect.minor) } else { (false, Reverse(dialect.minor), 0) })
}

/// The first minor version of a major one whose tables have all that the shim calls, in the places that later ones
/// have it.
fn oldest_minor(library: Version) -> u32 {
    match (library.flavour, library.major) {
        (Flavour::Full, 8) => 2,
        (Flavour::Full, 10) => 1,
        (Flavour::Rtx, 1) => 5,
        _ => 0,
    }
}

fn tables() -> impl Iterator<Item = &'static TrtApi> {
    DIALECTS.iter().map(|api| {
        // SAFETY: the function takes nothing and gives the address of a table that lives as long as the program.
        unsafe { &*api() }
    })
}

fn version_of(table: &TrtApi) -> Version {
    let number = |value: i32| u32::try_from(value).expect("headers count from zero");
    Version {
        flavour: if table.rtx != 0 { Flavour::Rtx } else { Flavour::Full },
        major: number(table.major),
        minor: number(table.minor),
        patch: number(table.patch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(library: (u32, u32), dialects: &[(u32, u32)]) -> Option<(u32, u32)> {
        let full = |(major, minor)| Version { flavour: Flavour::Full, major, minor, patch: 0 };
        let ranked = dialects.iter().filter_map(|dialect| Some((rank(full(*dialect), full(library))?, *dialect)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, dialect)| dialect)
    }

    #[test]
    fn a_library_is_served_by_the_nearest_dialect_of_its_major_version() {
        let dialects = [(8, 2), (8, 5), (8, 6), (10, 3), (10, 16), (11, 4)];
        for (library, expected) in [
            ((8, 0), None),
            ((8, 2), Some((8, 2))),
            ((8, 4), Some((8, 2))),
            ((8, 6), Some((8, 6))),
            ((10, 0), None),
            ((10, 1), Some((10, 3))),
            ((10, 13), Some((10, 3))),
            ((10, 20), Some((10, 16))),
            ((11, 1), Some((11, 4))),
            ((9, 3), None),
            ((12, 0), None),
        ] {
            assert_eq!(chosen(library, &dialects), expected, "{library:?}");
        }
    }
}
