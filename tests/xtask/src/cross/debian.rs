//! Takes packages of another architecture or release out of Debian's archive, without root: nothing is installed, no
//! architecture is added, and the machine's own lists of packages stay as they are.
//!
//! apt downloads and verifies, with a state of its own below `.cache/cross/apt`; dpkg-deb unpacks. Ubuntu can do so too,
//! where its package `debian-archive-keyring` is installed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::stamp::remove_folder;
use crate::workspace::Workspace;

/// Asked where the machine's own apt knows no mirror of Debian.
const MIRROR: &str = "http://deb.debian.org/debian";

pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Documents, of no use to a compiler.
const LEFT_OUT: &[&str] = &["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"];

/// A release for one architecture, as Debian names both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    pub(super) suite: &'static str,
    pub(super) architecture: &'static str,
}

/// What is unpacked: the packages alone, or also all that they depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Alone,
    WithDependencies,
}

impl Release {
    /// Unpacks packages into `target`, which holds nothing else afterwards; it appears whole or not at all. What was
    /// downloaded by a run that was interrupted is not downloaded again.
    ///
    /// A package is named as apt-get takes it, so also as `rust-src=1.95.0*`.
    pub(super) fn unpack(self, workspace: &Workspace, packages: &[&str], extent: Extent, target: &Path) -> Result<()> {
        let state = workspace.cached(&format!("cross/apt/{}-{}", self.suite, self.architecture));
        let apt = self.prepare(&state)?;
        process::output(apt.command("apt-get").arg("update"))?;
        let archives = state.join("archives");
        match extent {
            Extent::WithDependencies => {
                let mut install = apt.command("apt-get");
                process::output(install.args(["install", "--yes", "--download-only"]).args(packages))?;
            }
            Extent::Alone => {
                let mut download = apt.command("apt-get");
                process::output(download.arg("download").args(packages).current_dir(&archives))?;
            }
        }

        let beside = target.with_added_extension("part");
        remove_folder(&beside)?;
        for archive in packages_in(&archives)? {
            process::output(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&beside))?;
            keep_symbols(&archive, &beside)?;
        }
        for folder in LEFT_OUT {
            remove_folder(&beside.join(folder))?;
        }
        make_links_relative(&beside, &beside).with_context(|| format!("cannot read `{}`", beside.display()))?;
        remove_folder(target)?;
        fs::rename(&beside, target).with_context(|| format!("cannot put `{}` in place", target.display()))?;
        remove_folder(&state)
    }

    /// Writes what apt needs to know of this release into `state`.
    fn prepare(self, state: &Path) -> Result<Apt> {
        if !Path::new(KEYRING).exists() {
            bail!(
                "there is no `{KEYRING}`, which vouches for Debian's packages\nhint: install `debian-archive-keyring`"
            );
        }
        let source = format!("deb [arch={} signed-by={KEYRING}] {} {} main\n", self.architecture, mirror(), self.suite);
        let write = || {
            for folder in ["lists/partial", "archives/partial", "parts"] {
                fs::create_dir_all(state.join(folder))?;
            }
            fs::write(state.join("status"), "")?;
            fs::write(state.join("sources.list"), source)
        };
        write().with_context(|| format!("cannot write to `{}`", state.display()))?;
        let option = |name: &str, path: &str| format!("{name}={}", state.join(path).display());
        let options = vec![
            format!("APT::Architecture={}", self.architecture),
            format!("APT::Architectures={}", self.architecture),
            option("Dir::State", ""),
            option("Dir::State::status", "status"),
            option("Dir::State::lists", "lists"),
            option("Dir::Cache", ""),
            option("Dir::Cache::archives", "archives"),
            option("Dir::Etc::sourcelist", "sources.list"),
            option("Dir::Etc::sourceparts", "parts"),
            // The pins of the machine are for its own releases.
            "Dir::Etc::preferences=/dev/null".to_owned(),
            option("Dir::Etc::preferencesparts", "parts"),
            "APT::Install-Recommends=0".to_owned(),
            // The user who downloads owns the folder; `_apt` could not write to it.
            "APT::Sandbox::User=".to_owned(),
            "Debug::NoLocking=1".to_owned(),
            // Catalogues of programs with pictures, which desktops add to what is downloaded.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ];
        Ok(Apt { options })
    }
}

/// apt's programs with a state of their own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--quiet");
        for option in &self.options {
            command.arg("--option").arg(option);
        }
        command
    }
}

/// The first mirror of Debian that the machine's apt is configured for.
fn mirror() -> String {
    let asked = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let known = process::output(Command::new("apt-get").args(asked)).unwrap_or_default();
    let mirror = known.lines().map(|line| line.trim_end_matches('/')).find(|line| line.ends_with("/debian"));
    mirror.unwrap_or(MIRROR).to_owned()
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = entries.with_context(|| format!("cannot read `{}`", folder.display()))?;
    let mut packages: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.sort();
    Ok(packages)
}

/// Keeps what a package of libraries says of its symbols: with which version each came.
fn keep_symbols(archive: &Path, root: &Path) -> Result<()> {
    let Ok(symbols) = process::output(Command::new("dpkg-deb").arg("--info").arg(archive).arg("symbols")) else {
        return Ok(());
    };
    let folder = root.join(SYMBOLS);
    let name = archive.file_stem().unwrap_or_default();
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join(name), symbols))
        .with_context(|| format!("cannot write to `{}`", folder.display()))
}

/// Where [`Release::unpack`] leaves the lists of symbols, one file for each package of libraries.
pub(super) const SYMBOLS: &str = "symbols";

/// Turns links to places of the device into links within `root`, so that linkers and emulators follow them.
fn make_links_relative(root: &Path, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            make_links_relative(root, &path)?;
        } else if kind.is_symlink() {
            let Ok(inside) = fs::read_link(&path)?.strip_prefix("/").map(Path::to_owned) else { continue };
            let depth = folder.strip_prefix(root).expect("the walk began there").components().count();
            let up: PathBuf = std::iter::repeat_n("..", depth).collect();
            fs::remove_file(&path)?;
            std::os::unix::fs::symlink(up.join(inside), &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_link_leads_to_the_same_file_inside_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("usr/lib");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(root.path().join("lib")).unwrap();
        fs::write(root.path().join("lib/libm.so.6"), "m").unwrap();
        std::os::unix::fs::symlink("/lib/libm.so.6", deep.join("libm.so")).unwrap();
        std::os::unix::fs::symlink("libm.so", deep.join("libm.so.0")).unwrap();
        make_links_relative(root.path(), root.path()).unwrap();
        assert_eq!(fs::read_link(deep.join("libm.so")).unwrap(), Path::new("../../lib/libm.so.6"));
        assert_eq!(fs::read_to_string(deep.join("libm.so.0")).unwrap(), "m");
    }
}
