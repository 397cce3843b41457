//! Holds a program against what every Jetson has: the shared libraries of JetPack 4 (Ubuntu 18.04), and no symbol that
//! came after them.
//!
//! glibc's and libstdc++'s symbols carry the version with which they came; for GLib's and GStreamer's Debian's packages
//! say it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, Sym as _};

use super::debian::SYMBOLS;

/// What a program may need at load time: glibc, GLib, GStreamer's core and base. Whatever else a device may lack is
/// opened at run time.
const LIBRARIES: &[&str] = &[
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgio-2.0.so.0",
    "libglib-2.0.so.0",
    "libgobject-2.0.so.0",
    "libgstapp-1.0.so.0",
    "libgstbase-1.0.so.0",
    "libgstreamer-1.0.so.0",
    "libgstvideo-1.0.so.0",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];

/// The newest version of each kind of symbol.
const LIMITS: &[(Kind, &[u32])] =
    &[(Kind::Glibc, &[2, 27]), (Kind::Glibcxx, &[3, 4, 25]), (Kind::Glib, &[2, 56, 4]), (Kind::Gstreamer, &[1, 14, 5])];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Glibc,
    Glibcxx,
    Glib,
    Gstreamer,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Glibc => "GLIBC",
            Self::Glibcxx => "GLIBCXX",
            Self::Glib => "GLib",
            Self::Gstreamer => "GStreamer",
        }
    }

    fn of_library(name: &str) -> Option<Self> {
        if name.starts_with("libgst") {
            Some(Self::Gstreamer)
        } else if ["libglib-", "libgobject-", "libgio-", "libgmodule-"].iter().any(|start| name.starts_with(start)) {
            Some(Self::Glib)
        } else {
            None
        }
    }
}

/// What a program was found to need.
#[derive(Debug)]
pub(super) struct Report {
    libraries: BTreeSet<String>,
    newest: BTreeMap<Kind, Version>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let libraries: Vec<&str> = self.libraries.iter().map(String::as_str).collect();
        writeln!(f, "      libraries  {}", libraries.join(" "))?;
        for (kind, limit) in LIMITS {
            let newest = self.newest.get(kind).map_or("none".to_owned(), Version::to_string);
            writeln!(f, "      {:<9}  newest symbol {newest}, limit {}", kind.name(), Version(limit.to_vec()))?;
        }
        Ok(())
    }
}

/// Reads `program`; an error names everything in it that some Jetson lacks. `sysroot` is what [`super::debian`] unpacked.
pub(super) fn check(program: &Path, sysroot: &Path) -> Result<Report> {
    let data = fs::read(program).with_context(|| format!("cannot read `{}`", program.display()))?;
    let needs = Needs::read(&data).with_context(|| format!("cannot read `{}` as an ELF program", program.display()))?;
    let folder = sysroot.join(SYMBOLS);
    let read = || {
        let mut since = Since::default();
        for entry in fs::read_dir(&folder)? {
            since.read(&fs::read_to_string(entry?.path())?, &needs.libraries);
        }
        Ok::<_, std::io::Error>(since)
    };
    let since = read().with_context(|| format!("cannot read what is in `{}`", folder.display()))?;
    judge(needs, &since).map_err(|faults| {
        anyhow::anyhow!("`{}` would not start on every Jetson:\n  {}", program.display(), faults.join("\n  "))
    })
}

/// What the loader must find.
#[derive(Debug, Default)]
struct Needs {
    libraries: BTreeSet<String>,
    symbols: Vec<Symbol>,
}

#[derive(Debug)]
struct Symbol {
    name: String,
    /// As `GLIBC_2.17`.
    version: Option<String>,
    /// The program starts without it.
    weak: bool,
}

impl Needs {
    fn read(data: &[u8]) -> object::Result<Self> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut needs = Self::default();
        let dynamic = sections.dynamic_table(endian, data)?;
        for entry in dynamic.iter() {
            if entry.tag == elf::DT_NEEDED {
                needs.libraries.insert(String::from_utf8_lossy(dynamic.string(entry)?).into_owned());
            }
        }
        let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
        let versions = sections.versions(endian, data)?.unwrap_or_default();
        for (index, symbol) in symbols.enumerate().filter(|(_, symbol)| symbol.is_undefined(endian)) {
            let version = versions.version(versions.version_index(endian, index).index())?;
            needs.symbols.push(Symbol {
                name: String::from_utf8_lossy(symbols.symbol_name(endian, symbol)?).into_owned(),
                version: version.map(|version| String::from_utf8_lossy(version.name()).into_owned()),
                weak: symbol.is_weak(),
            });
        }
        Ok(needs)
    }
}

/// With which version the symbols of libraries came.
#[derive(Debug, Default)]
struct Since(BTreeMap<String, (Kind, Version)>);

impl Since {
    /// Takes in what a package says, see deb-symbols(5), of the libraries that are needed.
    fn read(&mut self, text: &str, needed: &BTreeSet<String>) {
        let mut kind = None;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
            if line.starts_with(' ') {
                if let (Some(kind), Some((symbol, _))) = (kind, first.split_once('@')) {
                    self.0.insert(symbol.to_owned(), (kind, Version::parse(second)));
                }
            } else if !first.starts_with(['*', '|']) {
                kind = Kind::of_library(first).filter(|_| needed.contains(first));
            }
        }
    }
}

/// The faults continue the sentence that the program would not start.
fn judge(needs: Needs, since: &Since) -> Result<Report, Vec<String>> {
    let unexpected = needs.libraries.iter().filter(|library| !LIBRARIES.contains(&library.as_str()));
    let mut faults: Vec<String> = unexpected.map(|library| format!("it needs the library `{library}`")).collect();
    let mut newest = BTreeMap::<Kind, Version>::new();
    for symbol in &needs.symbols {
        let found = match symbol.version.as_deref().and_then(|version| version.split_once('_')) {
            Some(("GLIBC", version)) => Some((Kind::Glibc, Version::parse(version))),
            Some(("GLIBCXX", version)) => Some((Kind::Glibcxx, Version::parse(version))),
            _ => since.0.get(&symbol.name).cloned(),
        };
        let Some((kind, version)) = found else {
            if !symbol.weak && !symbol.name.is_empty() {
                faults.push(format!("nothing says which library has the symbol `{}`", symbol.name));
            }
            continue;
        };
        let (_, limit) = LIMITS.iter().find(|(limited, _)| *limited == kind).expect("every kind has a limit");
        if version.0.as_slice() > *limit && !symbol.weak {
            let limit = Version(limit.to_vec());
            faults.push(format!("`{}` came with {} {version}, the limit is {limit}", symbol.name, kind.name()));
        }
        let newest = newest.entry(kind).or_default();
        *newest = version.max(std::mem::take(newest));
    }
    if faults.is_empty() { Ok(Report { libraries: needs.libraries, newest }) } else { Err(faults) }
}

/// Numbers between dots.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Version(Vec<u32>);

impl Version {
    /// Leaves out what follows the numbers, as in `1.14.0-1~`.
    fn parse(text: &str) -> Self {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        Self(text[..end].split('.').filter_map(|part| part.parse().ok()).collect())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(library: &str, symbol: &str, version: Option<&str>) -> Needs {
        let symbol = Symbol { name: symbol.to_owned(), version: version.map(str::to_owned), weak: false };
        Needs { libraries: [library.to_owned()].into(), symbols: vec![symbol] }
    }

    const PACKAGE: &str = "\
libgstreamer-1.0.so.0 libgstreamer1.0-0 (>= 1.4.0)
* Build-Depends-Package: libgstreamer1.0-dev
 gst_buffer_new@Base 1.0.0
 gst_clear_structure@Base 1.15.1
libgstcontroller-1.0.so.0 libgstreamer1.0-0 (>= 1.4.0)
 gst_lfo_new@Base 1.2.0
";

    fn since(needs: &Needs) -> Since {
        let mut since = Since::default();
        since.read(PACKAGE, &needs.libraries);
        since
    }

    #[test]
    fn what_jetpack_4_has_is_fine() {
        for (library, symbol, version) in
            [("libc.so.6", "memfd_create", Some("GLIBC_2.27")), ("libgstreamer-1.0.so.0", "gst_buffer_new", None)]
        {
            let needs = needs(library, symbol, version);
            let since = since(&needs);
            let report = judge(needs, &since).unwrap().to_string();
            assert!(report.contains(library), "{report}");
        }
    }

    #[test]
    fn what_is_newer_or_elsewhere_is_named() {
        for (library, symbol, version, fault) in [
            ("libc.so.6", "fcntl64", Some("GLIBC_2.28"), "`fcntl64` came with GLIBC 2.28, the limit is 2.27"),
            ("libgstreamer-1.0.so.0", "gst_clear_structure", None, "`gst_clear_structure` came with GStreamer 1.15.1"),
            // Of a library that the program does not load.
            ("libgstreamer-1.0.so.0", "gst_lfo_new", None, "nothing says which library has the symbol `gst_lfo_new`"),
            ("libnvinfer.so.10", "malloc", Some("GLIBC_2.17"), "it needs the library `libnvinfer.so.10`"),
        ] {
            let needs = needs(library, symbol, version);
            let since = since(&needs);
            let faults = judge(needs, &since).unwrap_err();
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{faults:?}");
        }
    }

    #[test]
    fn a_symbol_that_may_be_missing_is_no_fault() {
        let mut needs = needs("libc.so.6", "statx", Some("GLIBC_2.28"));
        needs.symbols[0].weak = true;
        let since = since(&needs);
        judge(needs, &since).unwrap();
    }

    #[test]
    fn a_real_program_says_what_it_needs() {
        let data = fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = Needs::read(&data).unwrap();
        assert!(needs.libraries.contains("libc.so.6"), "{:?}", needs.libraries);
        assert!(needs.symbols.iter().any(|symbol| symbol.version.as_deref().is_some_and(|v| v.starts_with("GLIBC_"))));
    }
}
