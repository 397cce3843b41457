//! System packages, on Debian and Ubuntu.

use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::step;
use crate::setup::For;
use crate::{process, python};

/// What build scripts are linked with, and what reads the headers of the shim of TensorRT. Recommended packages are left
/// out, of these and all others: among them are desktops' sound and display servers.
const BUILD_PACKAGES: &[&str] = &["gcc", "libc6-dev", "libclang-dev", "pkg-config"];

/// Vouches for Debian's packages of another architecture; Ubuntu does not come with it.
const CROSS_PACKAGES: &[&str] = &["debian-archive-keyring"];

/// What the workspace compiles and links with, and what GStreamer loads at run time.
const PACKAGES: &[&str] = &[
    // To build.
    "g++",
    "libgstreamer1.0-dev",
    "libgstreamer-plugins-base1.0-dev",
    "libgstrtspserver-1.0-dev",
    // To read and write video: containers and HTTP in good, H.264 parsing in bad, x264 in ugly, decoders in libav.
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-ugly",
    "gstreamer1.0-libav",
    // `gst-launch-1.0`, with which tests and benchmarks make video.
    "gstreamer1.0-tools",
];

/// Installed only where no Python of the machine can make virtual environments.
const PYTHON_PACKAGES: &[&str] = &["python3", "python3-venv"];

/// Needed by tests alone.
const TEST_PACKAGES: &[&str] = &[
    // Writes clips that GStreamer's command line cannot, such as those that are to be shown turned.
    "ffmpeg",
    // Feature `opencv`, and the program that tells its bindings where the compiler's headers are.
    "clang",
    "libopencv-calib3d-dev",
    "libopencv-video-dev",
];

/// Makes the Debian in which the package is installed.
const SLOW_TEST_PACKAGES: &[&str] = &["debootstrap"];

/// Shows the preview page; Ubuntu's is no package.
const SLOW_TEST_BROWSER: &[&str] = &["chromium"];

/// Installs what is missing; asks the network only then.
pub(crate) fn install_packages(purpose: For) -> Result<()> {
    let python_is_there = python::interpreter().is_some();
    let wanted = BUILD_PACKAGES
        .iter()
        .chain(if purpose >= For::Demo { PACKAGES } else { CROSS_PACKAGES })
        .chain(if python_is_there { &[] } else { PYTHON_PACKAGES })
        .chain(if purpose >= For::Tests { TEST_PACKAGES } else { &[] })
        .chain(if purpose >= For::SlowTests { SLOW_TEST_PACKAGES } else { &[] })
        .chain(if purpose >= For::SlowTests && is_debian() { SLOW_TEST_BROWSER } else { &[] });
    if !process::succeeds(Command::new("dpkg-query").arg("--version")) {
        if python_is_there
            && process::succeeds(Command::new("pkg-config").args(["--exists", "gstreamer-rtsp-server-1.0"]))
        {
            eprintln!("note: this is neither Debian nor Ubuntu; GStreamer is here, its plugins are taken on trust");
            return Ok(());
        }
        let names: Vec<&str> = wanted.copied().collect();
        bail!(
            "this is neither Debian nor Ubuntu, whose packages set-up knows\nhint: install what these hold there, then \
             run it again: {}",
            names.join(" ")
        );
    }
    let missing: Vec<&str> = wanted.copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }

    let names = missing.join(" ");
    let root = process::output(Command::new("id").arg("-u"))?.trim() == "0";
    if !root {
        if !process::succeeds(Command::new("sudo").arg("--version")) {
            bail!(
                "system packages are missing, and without root or sudo set-up cannot install them\nhint: as root, run \
                 `apt-get install --no-install-recommends {names}`"
            );
        }
        eprintln!("installing with sudo: {names}");
        // Asks for the password before the progress line begins.
        process::show(Command::new("sudo").arg("--validate"))?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("env") } else { Command::new("sudo") };
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]).args(arguments);
        process::output(&mut command)
    };
    step("read the lists of system packages", || apt(&["update"]))?;
    step(&format!("install system packages: {names}"), || {
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(&missing);
        apt(&arguments)
    })?;
    Ok(())
}

fn is_debian() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "ID=debian")
}

fn is_installed(package: &str) -> bool {
    process::output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}\n", package]))
        .is_ok_and(|status| status.lines().any(|line| line == "installed"))
}
