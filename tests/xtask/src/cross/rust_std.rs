//! Rust's standard library for the target, where rustup cannot download it.
//!
//! rustc takes only a library that was built by itself, from its own source: from rustup's component `rust-src`, or from
//! Debian's package of the same version.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::TARGET;
use super::debian::{Extent, Release};
use crate::process;
use crate::progress::step;
use crate::stamp::Made;
use crate::workspace::Workspace;

/// Keeps the source of several versions of Rust at a time.
const SOURCES: Release = Release { suite: "trixie-backports", architecture: "amd64" };

/// The folder to hand to rustc as its `--sysroot`; `None` where the toolchain itself has the library.
pub(super) fn ensure(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let toolchain = toolchain(workspace)?;
    if has_library(&toolchain) {
        return Ok(None);
    }
    let added = step(&format!("add Rust's target {TARGET}"), || {
        process::output(Command::new("rustup").args(["target", "add", TARGET]).current_dir(workspace.root()))
    });
    match added {
        Ok(_) if has_library(&toolchain) => return Ok(None),
        Ok(_) => eprintln!("note: rustup has added it to another toolchain than `{}`", toolchain.display()),
        Err(error) => eprintln!("note: {error:#}"),
    }
    let version = version(workspace)?;
    let sysroot = workspace.cached(&format!("cross/std-{version}"));
    let name = format!("cross-std-{version}");
    let inputs = [workspace.file("tests/xtask/src/cross/rust_std.rs")];
    let outputs = [sysroot.join("built")];
    Made { name: &name, inputs: &inputs, outputs: &outputs }.ensure(workspace, || {
        let source = source(workspace, &toolchain, &version)?;
        step(&format!("build Rust's standard library {version} for {TARGET}"), || build(workspace, &source, &sysroot))
    })?;
    Ok(Some(sysroot))
}

fn rustc(workspace: &Workspace) -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(workspace.root());
    command
}

fn toolchain(workspace: &Workspace) -> Result<PathBuf> {
    Ok(PathBuf::from(process::output(rustc(workspace).args(["--print", "sysroot"]))?.trim()))
}

fn has_library(toolchain: &Path) -> bool {
    toolchain.join("lib/rustlib").join(TARGET).join("lib").is_dir()
}

/// As `1.95.0`.
fn version(workspace: &Workspace) -> Result<String> {
    let said = process::output(rustc(workspace).arg("--version"))?;
    let version = said.split_whitespace().nth(1).context("rustc does not say its version")?;
    if version.contains('-') {
        bail!("rustc {version} is no release, so no package has its source\nhint: `rustup component add rust-src`");
    }
    Ok(version.to_owned())
}

/// The folder `library` of rustc's source.
fn source(workspace: &Workspace, toolchain: &Path, version: &str) -> Result<PathBuf> {
    let component = toolchain.join("lib/rustlib/src/rust/library");
    if component.join("std/Cargo.toml").exists() {
        return Ok(component);
    }
    let unpacked = workspace.cached(&format!("cross/rust-src-{version}"));
    let library = unpacked.join(format!("usr/src/rustc-{version}/library"));
    if !library.join("std/Cargo.toml").exists() {
        step(&format!("fetch the source of Rust's standard library {version}"), || {
            let package = format!("rust-src={version}+*");
            SOURCES.unpack(workspace, &[&package], Extent::Alone, &unpacked)
        })?;
    }
    Ok(library)
}

fn build(workspace: &Workspace, source: &Path, sysroot: &Path) -> Result<()> {
    let work = workspace.cached("cross/std-build");
    let library = work.join("library");
    let prepare = || {
        fs::create_dir_all(&work)?;
        if library.exists() {
            fs::remove_dir_all(&library)?;
        }
        crate::headers::copy(source, &library)
    };
    prepare().with_context(|| format!("cannot copy `{}`", source.display()))?;
    // As a shared library it would have to be linked, and nobody uses that.
    edit(&library.join("std/Cargo.toml"), r#"crate-type = ["dylib", "rlib"]"#, r#"crate-type = ["rlib"]"#)?;

    // What rustup's own is built with: unwinding, backtraces, bitcode for link-time optimisation, and the mark of crates
    // that users must not name.
    let flags = format!(
        "-Zforce-unstable-if-unmarked -Cembed-bitcode=yes -Cforce-frame-pointers=yes --remap-path-prefix={}=/rustc",
        work.display()
    );
    let mut cargo = process::cargo(workspace);
    cargo.args([
        "build",
        "--release",
        "--target",
        TARGET,
        "--features",
        "std/panic-unwind,backtrace",
        "--manifest-path",
    ]);
    cargo
        .arg(library.join("sysroot/Cargo.toml"))
        .current_dir(&library)
        .env("CARGO_TARGET_DIR", work.join("target"))
        // Lets a released compiler build the one crate that it alone may.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", flags)
        .env("__CARGO_DEFAULT_LIB_METADATA", "revoada")
        .env("CARGO_PROFILE_RELEASE_PANIC", "unwind")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    process::output(&mut cargo)?;

    let target = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let install = || {
        if sysroot.exists() {
            fs::remove_dir_all(sysroot)?;
        }
        fs::create_dir_all(&target)?;
        for entry in fs::read_dir(work.join("target").join(TARGET).join("release/deps"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_owned();
            let is_library = path.extension().is_some_and(|extension| extension == "rlib");
            // The crate that only holds the others together.
            if is_library && !name.to_string_lossy().starts_with("libsysroot-") {
                fs::copy(&path, target.join(name))?;
            }
        }
        fs::write(sysroot.join("built"), "")?;
        fs::remove_dir_all(&work)
    };
    install().with_context(|| format!("cannot write to `{}`", sysroot.display()))
}

/// Replaces the one occurrence of `from`.
fn edit(path: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    if text.matches(from).count() != 1 {
        bail!("`{}` does not say `{from}` once: this version of Rust's library is unknown here", path.display());
    }
    fs::write(path, text.replace(from, to)).with_context(|| format!("cannot write `{}`", path.display()))
}
