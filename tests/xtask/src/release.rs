//! What people install: a Debian package and a tarball for each architecture, and their checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::step;
use crate::stamp::{Made, remove_folder, replace, sha256};
use crate::workspace::Workspace;
use crate::{cross, process, setup, tools};

/// Packs for Debian and Ubuntu; built from source where it is wanted.
const CARGO_DEB: &str = "3.8.0";

/// Below `target`.
const FOLDER: &str = "release-files";

/// What a release may weigh.
const BINARY_BYTES_MAX: u64 = 30_000_000;
const PACKAGE_BYTES_MAX: u64 = 15_000_000;

/// Where the tests install.
const DEBIAN_SUITE: &str = "bookworm";

/// What a program is built for, and what that is called by whom.
struct Architecture {
    /// Debian's name.
    debian: &'static str,
    /// The kernel's.
    machine: &'static str,
    /// `None` for this machine's.
    target: Option<&'static str>,
}

const NATIVE: Architecture = Architecture { debian: "amd64", machine: "x86_64", target: None };

const JETSON: Architecture = Architecture { debian: "arm64", machine: "aarch64", target: Some(cross::TARGET) };

/// Builds everything that a release consists of into `target/release-files` and lists it; nothing is published.
pub(crate) fn dry_run(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, setup::For::Demo)?;
    let mut files = Vec::new();
    // The first one's program writes the manual pages of both.
    for architecture in [NATIVE, JETSON] {
        files.extend(pack(workspace, &architecture)?);
    }
    let mut sums = String::new();
    let mut heavy = Vec::new();
    for File { path, bytes_max } in &files {
        let bytes = fs::metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?.len();
        let name = path.strip_prefix(workspace.root()).unwrap_or(path).display();
        println!("{:>6.1} MB of {:>2} MB  {name}", bytes as f64 / 1e6, bytes_max / 1_000_000);
        if bytes > *bytes_max {
            heavy.push(name.to_string());
        }
        if path.extension().is_some_and(|extension| extension == "deb" || extension == "gz") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            sums += &format!("{}  {name}\n", sha256(path).with_context(|| format!("cannot read `{name}`"))?);
        }
    }
    replace(&folder(workspace).join("SHA256SUMS"), &sums)?;
    anyhow::ensure!(heavy.is_empty(), "heavier than a release may be: {}", heavy.join(", "));
    Ok(())
}

/// What the test of the package wants: two revisions of it, and a Debian to install them in.
pub(crate) fn for_tests(workspace: &Workspace) -> Result<()> {
    let binary = build(workspace, &NATIVE)?;
    make_pages(workspace, &binary)?;
    for revision in [1, 2] {
        debian_package(workspace, &NATIVE, revision)?;
    }
    debian(workspace)
}

/// What the package depends on and what the test looks with; nothing is to be downloaded while it runs.
const DEBIAN_PACKAGES: &[&str] = &[
    "adduser",
    "systemd",
    "libgstreamer1.0-0",
    "libgstreamer-plugins-base1.0-0",
    "libgstrtspserver-1.0-0",
    "gstreamer1.0-plugins-base",
];

/// A small Debian, as an archive.
fn debian(workspace: &Workspace) -> Result<()> {
    let archive = workspace.cached("debian.tar");
    Made { name: "debian", inputs: &[], outputs: std::slice::from_ref(&archive) }.ensure(workspace, || {
        step("make a Debian to install in", || {
            let root = workspace.cached("debian");
            if root.exists() {
                // Of a run that was broken off.
                process::succeeds(Command::new("umount").arg(root.join("proc")));
            }
            remove_folder(&root)?;
            let mut bootstrap = Command::new("debootstrap");
            bootstrap.args(["--variant=minbase", DEBIAN_SUITE]).arg(&root);
            process::output(&mut bootstrap)?;
            let mut install = Command::new("chroot");
            install.arg(&root).args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"]);
            process::output(install.arg("--no-install-recommends").args(DEBIAN_PACKAGES))?;
            process::output(Command::new("chroot").arg(&root).args(["apt-get", "clean"]))?;
            let mut tar = Command::new("tar");
            tar.args(["--create", "--numeric-owner", "--one-file-system"]);
            process::output(tar.arg("--file").arg(&archive).arg("--directory").arg(&root).arg("."))?;
            remove_folder(&root)
        })
    })
}

struct File {
    path: PathBuf,
    bytes_max: u64,
}

fn pack(workspace: &Workspace, architecture: &Architecture) -> Result<[File; 3]> {
    let binary = build(workspace, architecture)?;
    if architecture.target.is_none() {
        make_pages(workspace, &binary)?;
    }
    let package = debian_package(workspace, architecture, 1)?;
    let tarball = tarball(workspace, architecture, &binary)?;
    Ok([(binary, BINARY_BYTES_MAX), (package, PACKAGE_BYTES_MAX), (tarball, PACKAGE_BYTES_MAX)]
        .map(|(path, bytes_max)| File { path, bytes_max }))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.file("target").join(FOLDER)
}

fn build(workspace: &Workspace, architecture: &Architecture) -> Result<PathBuf> {
    if let Some(target) = architecture.target {
        cross::run(workspace, cross::Profile::Release)?;
        return Ok(workspace.file("target").join(target).join("release/revoada"));
    }
    step(&format!("build revoada for {}", architecture.debian), || {
        process::output(process::cargo(workspace).args(["build", "--release", "--package", "revoada"]))
    })?;
    Ok(workspace.file("target/release/revoada"))
}

/// Manual pages and completions, which the program itself writes.
fn make_pages(workspace: &Workspace, binary: &Path) -> Result<()> {
    let share = folder(workspace).join("share");
    step("write manual pages and completions", || {
        remove_folder(&share)?;
        process::output(Command::new(binary).arg("manual").arg(share.join("man/man1")))?;
        for (shell, path) in [
            ("bash", "bash-completion/completions/revoada"),
            ("zsh", "zsh/vendor-completions/_revoada"),
            ("fish", "fish/vendor_completions.d/revoada.fish"),
        ] {
            replace(&share.join(path), &process::output(Command::new(binary).args(["completions", shell]))?)?;
        }
        Ok(())
    })
}

fn debian_package(workspace: &Workspace, architecture: &Architecture, revision: u32) -> Result<PathBuf> {
    let tool = tools::ensure(workspace, "cargo-deb", CARGO_DEB)?;
    let name = format!("revoada_{}-{revision}_{}.deb", version(), architecture.debian);
    let package = folder(workspace).join(&name);
    step(&format!("pack {name}"), || {
        let mut command = Command::new(&tool);
        command.current_dir(workspace.root()).args(["--no-build", "--package", "revoada", "--quiet"]);
        command.args(["--deb-revision", &revision.to_string()]).arg("--output").arg(&package);
        if let Some(target) = architecture.target {
            command.args(["--target", target, "--variant", architecture.machine]);
        }
        process::output(&mut command)
    })?;
    Ok(package)
}

/// The same files for systems without `dpkg`, to be unpacked below `/usr/local` or a home; byte for byte the same from
/// the same binary.
fn tarball(workspace: &Workspace, architecture: &Architecture, binary: &Path) -> Result<PathBuf> {
    let name = format!("revoada-{}-linux-{}", version(), architecture.machine);
    let tarball = folder(workspace).join(format!("{name}.tar.gz"));
    step(&format!("pack {name}.tar.gz"), || {
        let root = folder(workspace).join(&name);
        remove_folder(&root)?;
        let copy = |from: &Path, to: &str| {
            let to = root.join(to);
            process::output(Command::new("mkdir").arg("-p").arg(to.parent().expect("it lies below `root`")))?;
            process::output(Command::new("cp").arg("-r").arg(from).arg(&to))
        };
        copy(binary, "bin/revoada")?;
        copy(&folder(workspace).join("share"), "share")?;
        copy(&workspace.file("configs"), "share/doc/revoada/examples")?;
        for document in ["README.md", "LICENSE"] {
            copy(&workspace.file(document), &format!("share/doc/revoada/{document}"))?;
        }
        copy(&workspace.file("cross/debian/revoada@.service"), "lib/systemd/system/revoada@.service")?;
        let mut tar = Command::new("tar");
        tar.args(["--create", "--gzip", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
        tar.args(["--mode=u+rwX,go+rX,go-w"]).arg("--file").arg(&tarball).arg("--directory").arg(folder(workspace));
        process::output(tar.arg(&name))?;
        remove_folder(&root)
    })?;
    Ok(tarball)
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
