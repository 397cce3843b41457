//! TensorRT's headers, from which the shim learns its dialects.
//!
//! No package of the Python registry has them, but a crate of the Rust registry carries several versions. It is
//! fetched as data, from whichever mirror the machine's cargo is configured for, and never built: a manifest that
//! depends on it is written into the cache, cargo fetches what that wants, and the headers are copied out. The crate
//! is pinned by its checksum, each set of headers by the SHA-256 of its files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;
use crate::progress::step;
use crate::stamp::sha256_of_folder;
use crate::workspace::Workspace;

const CRATE: &str = "trtx-sys";
const LICENCE: &str = "Apache-2.0";

/// The headers of one version of TensorRT.
struct HeaderSet {
    /// Its folder, in the crate's `TensorRT-Headers` and in `.cache/tensorrt-headers`.
    name: &'static str,
    /// Of the crate.
    version: &'static str,
    /// Of the crate's archive, as its registry gives it.
    checksum: &'static str,
    /// Of all its files, see [`sha256_of_folder`].
    sha256: &'static str,
}

const SETS: &[HeaderSet] = &[
    HeaderSet {
        name: "TRT-Enterprise-10.16",
        version: "0.5.0",
        checksum: "1efd9036abbd2775da5df4e49793ec8e656f026fb9c60dff7e95bda2d654e634",
        sha256: "4f8b3f7b662b3d799ac8ab27383d1aa8dee2fe489c7ce5c352c32f1193edd78a",
    },
    HeaderSet {
        name: "TRT-Enterprise-11.4",
        version: "0.9.1",
        checksum: "5480ee056292951daa1bc74532162d6cb75190f091e45d7d97c0c356916ae171",
        sha256: "891d9562d42a55d6a7081519343a4d83e31952d3cea7ae8a9bad3ce6cffcf9a6",
    },
    HeaderSet {
        name: "TRT-RTX-1.7",
        version: "0.9.1",
        checksum: "5480ee056292951daa1bc74532162d6cb75190f091e45d7d97c0c356916ae171",
        sha256: "88095ff91358bc76b964909f752ad2cbda52212b7843736d53d6e3078d7db5fd",
    },
];

/// Puts every set of headers that is not there, whole, into `.cache/tensorrt-headers`.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    for set in SETS {
        let target = workspace.cached(&format!("tensorrt-headers/{}", set.name));
        if sha256_of_folder(&target).is_ok_and(|found| found == set.sha256) {
            continue;
        }
        step(&format!("fetch TensorRT's headers {}", set.name), || {
            let source = unpacked(workspace, set)?.join("TensorRT-Headers").join(set.name);
            let found = sha256_of_folder(&source).with_context(|| format!("cannot read `{}`", source.display()))?;
            if found != set.sha256 {
                bail!(
                    "the headers {} are not those that were pinned: their SHA-256 is {found}, not {}",
                    set.name,
                    set.sha256
                );
            }
            let replaced = || {
                if target.exists() {
                    fs::remove_dir_all(&target)?;
                }
                copy(&source, &target)
            };
            replaced().with_context(|| format!("cannot write `{}`", target.display()))
        })?;
    }
    Ok(())
}

/// What `setup` fetches here, for people.
pub(crate) fn list() -> String {
    let lines = |set: &HeaderSet| {
        format!(
            ".cache/tensorrt-headers/{name}\n    TensorRT's headers, for one dialect of the shim\n    from   {CRATE} {} (Rust \
             registry), TensorRT-Headers/{name}\n    licence {LICENCE}\n    sha256 {} (of `sha256sum`'s lines)\n",
            set.version,
            set.sha256,
            name = set.name
        )
    };
    SETS.iter().map(lines).collect()
}

/// The folder in which cargo keeps the crate's files.
fn unpacked(workspace: &Workspace, set: &HeaderSet) -> Result<PathBuf> {
    let folder = workspace.cached(&format!("downloads/{CRATE}-{}", set.version));
    let manifest = folder.join("Cargo.toml");
    // A workspace of its own, so that it is no member of ours.
    let text = format!(
        "[package]\nname = \"headers\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{CRATE} = {{ \
         version = \"={}\", default-features = false }}\n",
        set.version
    );
    fs::create_dir_all(folder.join("src"))
        .and_then(|()| fs::write(folder.join("src/lib.rs"), ""))
        .and_then(|()| fs::write(&manifest, text))
        .with_context(|| format!("cannot write `{}`", manifest.display()))?;
    let mut cargo = process::cargo(workspace);
    // Only what this machine would need of the crate's own dependencies is fetched beside it.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.args(["metadata", "--format-version", "1", "--quiet", "--filter-platform", &platform, "--manifest-path"]);
    let metadata = process::output(cargo.arg(&manifest))?;

    let lock = folder.join("Cargo.lock");
    let locked = fs::read_to_string(&lock).with_context(|| format!("cannot read `{}`", lock.display()))?;
    match locked_checksum(&locked) {
        Some(checksum) if checksum == set.checksum => {}
        other => bail!(
            "{CRATE} {} is not the crate that was pinned: its checksum is {}, not {}",
            set.version,
            other.unwrap_or("missing"),
            set.checksum
        ),
    }
    let place = place_in(&metadata).with_context(|| format!("cargo does not say where it keeps {CRATE}"))?;
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    Ok(place)
}

/// The checksum with which cargo has verified the crate.
fn locked_checksum(lock: &str) -> Option<&str> {
    let (_, package) = lock.split_once(&format!("name = \"{CRATE}\"\n"))?;
    let package = package.split("[[package]]").next()?;
    package.lines().find_map(|line| line.strip_prefix("checksum = \"")?.strip_suffix('"'))
}

fn place_in(metadata: &str) -> Option<PathBuf> {
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    let package = metadata["packages"].as_array()?.iter().find(|package| package["name"] == CRATE)?;
    Some(Path::new(package["manifest_path"].as_str()?).parent()?.to_owned())
}

pub(crate) fn copy(source: &Path, target: &Path) -> std::io::Result<()> {
    fs::create_dir_all(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let beside = target.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &beside)?;
        } else {
            fs::copy(entry.path(), beside)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_pinned() {
        for set in SETS {
            for hash in [set.checksum, set.sha256] {
                assert!(
                    hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
                    "{}: `{hash}`",
                    set.name
                );
            }
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_crate_and_no_other() {
        let lock = "[[package]]\nname = \"other\"\nchecksum = \"aa\"\n\n[[package]]\nname = \"trtx-sys\"\nversion = \"0.5.0\"\n\
                    checksum = \"bb\"\n\n[[package]]\nname = \"third\"\nchecksum = \"cc\"\n";
        assert_eq!(locked_checksum(lock), Some("bb"));
        assert_eq!(locked_checksum("[[package]]\nname = \"trtx-sys\"\n\n[[package]]\nchecksum = \"cc\"\n"), None);
    }

    #[test]
    fn a_copied_folder_has_the_hash_of_the_first_and_a_changed_one_another() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("source"), folder.path().join("deep/target"));
        fs::create_dir_all(source.join("impl")).unwrap();
        fs::write(source.join("A.h"), "a").unwrap();
        fs::write(source.join("impl/B.h"), "b").unwrap();
        copy(&source, &target).unwrap();
        let hash = sha256_of_folder(&source).unwrap();
        assert_eq!(sha256_of_folder(&target).unwrap(), hash);
        fs::write(target.join("impl/B.h"), "c").unwrap();
        assert_ne!(sha256_of_folder(&target).unwrap(), hash);
    }
}
