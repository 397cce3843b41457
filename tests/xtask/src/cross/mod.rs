//! Builds the programs for aarch64, the architecture of every Jetson, on a machine of another.
//!
//! zig compiles the C++ and links, against the oldest glibc that a Jetson has; Rust's standard library comes from
//! rustup or from source, GStreamer's libraries from Debian's arm64 packages, unpacked below `.cache/cross`. What was
//! built is then held against what every JetPack has, see [`abi`].

mod abi;
mod debian;
mod qemu;
mod rust_std;
mod sysroot;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::assets::Package;
use crate::progress::step;
use crate::workspace::Workspace;
use crate::{assets, fetch, process, python, setup, test};

pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";

/// That of JetPack 4, on a Jetson Nano.
const GLIBC: &str = "2.27";

/// The programs, by their packages.
const PROGRAMS: &[&str] = &["revoada"];

/// Packages of the Python registry of which the slow tests take the libraries for the target.
const LIBRARIES: &[&str] = &["onnxruntime", "tensorrt-rtx-cu13-libs"];

/// Where they lie in the cache.
const FOLDER: &str = "cross/";

/// Crates whose unit tests run under the emulator.
const UNIT_TESTED: &[&str] = &["revoada-core", "revoada-bundle", "revoada-engine"];

/// How the programs are built, by the name of cargo's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What is delivered.
    Release,
    /// Quick to build, for tests.
    Dev,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// What is needed to build for the target.
pub(crate) struct Toolchain {
    sysroot: PathBuf,
    /// A sysroot of rustc's, where the toolchain has no library for the target.
    std: Option<PathBuf>,
    /// Where libclang is to look for the headers of C, as options.
    includes: String,
}

/// Fetches and makes what is missing of the tools, then builds every program and checks what it links to.
pub(crate) fn run(workspace: &Workspace, profile: Profile) -> Result<()> {
    setup::run(workspace, setup::For::Cross)?;
    let toolchain = Toolchain::ensure(workspace)?;
    for package in PROGRAMS {
        eprintln!("build `{package}` for {TARGET} with glibc {GLIBC} (profile {})", profile.name());
        // What their features add links a library that a JetPack may lack.
        let arguments = ["--profile", profile.name(), "--package", package, "--no-default-features"];
        process::show(toolchain.cargo(workspace, "zigbuild").args(arguments))?;
        let program = workspace.file("target").join(TARGET).join(profile.folder()).join(package);
        let report = step(&format!("check what `{package}` links to"), || abi::check(&program, &toolchain.sysroot))?;
        eprint!("{report}");
        println!("{}", program.display());
    }
    Ok(())
}

/// Builds and fetches what the tests under the emulator want. Those of [`test::Extent::Full`] want more.
pub(crate) fn prepare_tests(workspace: &Workspace, extent: test::Extent) -> Result<()> {
    run(workspace, Profile::Dev)?;
    qemu::ensure(workspace)?;
    if extent == test::Extent::Full {
        for package in libraries() {
            fetch::package(workspace, package, FOLDER)?;
        }
        let toolchain = Toolchain::ensure(workspace)?;
        let arguments = ["--package", "revoada-tensorrt", "--example", "compile"];
        process::show(toolchain.cargo(workspace, "zigbuild").args(arguments))?;
    }
    Ok(())
}

fn libraries() -> impl Iterator<Item = &'static Package> {
    assets::packages("aarch64").filter(|package| LIBRARIES.contains(&package.name))
}

/// The files that the slow tests fetch here, for people.
pub(crate) fn list() -> String {
    assets::list(libraries(), FOLDER)
}

/// Runs unit tests under the emulator.
pub(crate) fn unit_tests(workspace: &Workspace) -> Result<Command> {
    let toolchain = Toolchain::ensure(workspace)?;
    let emulator = qemu::ensure(workspace)?;
    let mut command = toolchain.cargo(workspace, "test");
    let runner = format!("{} -L {}", emulator.display(), toolchain.sysroot.display());
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    command.args(["--lib", "--no-fail-fast"]).args(UNIT_TESTED.iter().flat_map(|name| ["--package", name]));
    Ok(command)
}

impl Toolchain {
    pub(crate) fn ensure(workspace: &Workspace) -> Result<Self> {
        python::install(workspace, &python::CROSS)?;
        let std = rust_std::ensure(workspace)?;
        let sysroot = sysroot::ensure(workspace)?;
        let mut zig = Command::new(python::executable(workspace));
        let zig = process::output(zig.args(["-c", "import ziglang; print(*ziglang.__path__)"]))?;
        let folders = [
            format!("{}/lib/include", zig.trim()),
            format!("{}/usr/include", sysroot.display()),
            format!("{}/usr/include/aarch64-linux-gnu", sysroot.display()),
        ];
        let includes = folders.map(|folder| format!("-isystem '{folder}'")).join(" ");
        Ok(Self { sysroot, std, includes })
    }

    /// `cargo-zigbuild VERB` for the target.
    fn cargo(&self, workspace: &Workspace, verb: &str) -> Command {
        let tools = python::executable(workspace).parent().expect("it lies in a folder").to_owned();
        let mut command = Command::new(tools.join("cargo-zigbuild"));
        command.current_dir(workspace.root()).args([verb, "--target", &format!("{TARGET}.{GLIBC}")]);
        command
            .env("PATH", path_with(&tools))
            .env("ZIG_GLOBAL_CACHE_DIR", workspace.cached("cross/zig"))
            .env("CARGO_ZIGBUILD_CACHE_DIR", workspace.cached("cross/zigbuild"))
            // Before the folders of zig that cargo-zigbuild adds in a form that libclang does not take.
            .env("BINDGEN_EXTRA_CLANG_ARGS_aarch64-unknown-linux-gnu", &self.includes)
            .env("PKG_CONFIG_SYSROOT_DIR_aarch64_unknown_linux_gnu", &self.sysroot)
            .env("PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu", pkg_config_folders(&self.sysroot));
        if let Some(std) = &self.std {
            command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", format!("--sysroot={}", std.display()));
        }
        command
    }
}

fn path_with(folder: &Path) -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths([folder.to_owned()].into_iter().chain(env::split_paths(&path)))
        .expect("parts of PATH have no colon")
}

fn pkg_config_folders(sysroot: &Path) -> std::ffi::OsString {
    let folders = ["usr/lib/aarch64-linux-gnu/pkgconfig", "usr/share/pkgconfig"].map(|folder| sysroot.join(folder));
    env::join_paths(folders).expect("the checkout's path has no colon")
}
