//! `revoada doctor --report FILE`: what a maintainer wants to know of a board, for a person who has one to send.
//!
//! One JSON file that can be read before it is sent. It holds no name of a host or a user, no serial number and no
//! address: none of their sources is read, and home folders in paths become `~`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::Context;
use revoada_bundle::partial::Partial;
use revoada_engine::cuda::{Compiler, compiler_candidates};
use serde::Serialize;
use serde_json::Value;

use super::board::{Board, Clock, Disk, Power, gpu_clocks, packages};
use super::system::System;
use crate::tegrastats::{self, Look};

/// Of the file's form.
const VERSION: u32 = 1;
/// What it may contain, said in it.
const PRIVACY: &str =
    "no names of hosts or users, no serial numbers, no addresses; home folders are `~`; read it before you send it";
/// Packages that decide what runs.
const PACKAGES: [&str; 9] = [
    "nvidia-l4t-",
    "nvidia-jetpack",
    "cuda-",
    "libcudnn",
    "libnvinfer",
    "libnvonnxparser",
    "tensorrt",
    "gstreamer1.0-",
    "libgstreamer",
];
/// Files of one folder of sensors that are kept.
const SENSOR_FILES_MAX: usize = 128;

#[derive(Serialize)]
struct Report<'r> {
    revoada_board_report: u32,
    privacy: &'static str,
    /// What `revoada doctor --json` prints.
    doctor: &'r super::Report,
    system: BTreeMap<&'static str, Option<String>>,
    packages: BTreeMap<String, String>,
    nvrtc: Result<String, String>,
    power: Option<&'r Power>,
    clocks: Vec<Clock>,
    disk: Option<&'r Disk>,
    tegrastats: Result<Vec<Said>, String>,
    /// Files of `/sys` and what stands in them.
    sensors: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct Said {
    line: String,
    read_as: Option<Look>,
}

/// Writes the file whole or not at all.
pub(super) fn write(path: &Path, system: &System, board: &Board, doctor: &super::Report) -> anyhow::Result<()> {
    let mut clocks = board.clocks.clone();
    clocks.extend(gpu_clocks(system));
    let said = |line: String| Said { read_as: Look::parse(&line), line };
    let report = Report {
        revoada_board_report: VERSION,
        privacy: PRIVACY,
        doctor,
        system: facts(system),
        packages: wanted_packages(system),
        nvrtc: nvrtc(),
        power: board.power.as_ref(),
        clocks,
        disk: board.disk.as_ref(),
        tegrastats: tegrastats::lines().map(|lines| lines.into_iter().map(said).collect()),
        sensors: sensors(system),
    };
    let mut value = serde_json::to_value(&report)?;
    without_commands(&mut value);
    without_homes(&mut value, &homes(system));
    let save = || -> io::Result<()> {
        let file = Partial::create(path)?;
        std::fs::write(file.path(), format!("{value:#}\n"))?;
        file.commit().map(drop)
    };
    save().with_context(|| format!("cannot write report `{}`", path.display()))
}

/// Single lines that name versions. `/proc/version` is not among them: it names the host that built the kernel.
fn facts(system: &System) -> BTreeMap<&'static str, Option<String>> {
    let os = system.text("/etc/os-release").unwrap_or_default();
    let os = os.lines().find_map(|line| Some(line.strip_prefix("PRETTY_NAME=")?.trim_matches('"').to_owned()));
    // Strings of a device tree end in NUL, and there are several.
    let compatible = system.text("/proc/device-tree/compatible");
    let compatible = compatible.map(|text| text.trim_end_matches('\0').replace('\0', " "));
    BTreeMap::from([
        ("board", system.line("/proc/device-tree/model")),
        ("compatible", compatible),
        ("l4t", system.line("/etc/nv_tegra_release")),
        ("kernel", system.line("/proc/sys/kernel/osrelease")),
        ("os", os),
        ("cuda", cuda(system)),
        ("memory", system.text("/proc/meminfo").map(|text| lines_of(&text, &["MemTotal", "MemAvailable", "Swap"]))),
        ("swaps", system.text("/proc/swaps")),
    ])
}

fn lines_of(text: &str, prefixes: &[&str]) -> String {
    let wanted = text.lines().filter(|line| prefixes.iter().any(|prefix| line.starts_with(prefix)));
    wanted.collect::<Vec<_>>().join("\n")
}

/// CUDA 10 has a text, later ones a JSON file.
fn cuda(system: &System) -> Option<String> {
    let named = |text: String| {
        let value: Value = serde_json::from_str(&text).ok()?;
        Some(value["cuda"]["version"].as_str()?.to_owned())
    };
    let folder = "/usr/local/cuda";
    system.text(&format!("{folder}/version.json")).and_then(named).or(system.line(&format!("{folder}/version.txt")))
}

fn wanted_packages(system: &System) -> BTreeMap<String, String> {
    let status = system.text("/var/lib/dpkg/status").unwrap_or_default();
    let wanted = |name: &str| PACKAGES.iter().any(|prefix| name.starts_with(prefix));
    packages(&status).into_iter().filter(|(name, _)| wanted(name)).collect()
}

fn nvrtc() -> Result<String, String> {
    let compiler = Compiler::open(&compiler_candidates()).map_err(|error| error.to_string())?;
    let (major, minor) = compiler.version();
    Ok(format!("{major}.{minor} from `{}`", compiler.path().display()))
}

/// Temperatures and power as the kernel gives them: all that a test needs to stand in for this board.
fn sensors(system: &System) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    let mut folders = Vec::new();
    for class in ["/sys/class/thermal", "/sys/class/hwmon"] {
        folders.extend(system.names(class).into_iter().map(|name| format!("{class}/{name}")));
    }
    let monitors = "/sys/bus/i2c/drivers/ina3221x";
    for chip in system.names(monitors) {
        let chip = format!("{monitors}/{chip}");
        folders.extend(system.names(&chip).into_iter().map(|name| format!("{chip}/{name}")));
    }
    for folder in folders {
        let files = system.names(&folder).into_iter().filter(|name| is_sensor(name)).take(SENSOR_FILES_MAX);
        found.extend(files.map(|name| format!("{folder}/{name}")).map(|path| (path.clone(), system.line(&path))));
    }
    found
}

fn is_sensor(name: &str) -> bool {
    matches!(name, "name" | "type" | "temp")
        || name.ends_with("_input")
        || name.ends_with("_label")
        || name.starts_with("rail_name_")
}

/// Home folders of people, longest first.
fn homes(system: &System) -> Vec<String> {
    let passwd = system.text("/etc/passwd").unwrap_or_default();
    let home =
        |line: &str| line.split(':').nth(5).filter(|home| home.trim_matches('/').contains('/')).map(str::to_owned);
    let mut homes: Vec<String> = passwd.lines().filter_map(home).collect();
    homes.sort_by_key(|home| std::cmp::Reverse(home.len()));
    homes
}

/// One of them names the user.
fn without_commands(report: &mut Value) {
    for proposal in report["doctor"]["proposals"].as_array_mut().into_iter().flatten() {
        proposal["commands"].take();
    }
}

fn without_homes(value: &mut Value, homes: &[String]) {
    match value {
        Value::String(text) => *text = without_home(text, homes),
        Value::Array(items) => items.iter_mut().for_each(|item| without_homes(item, homes)),
        Value::Object(fields) => fields.values_mut().for_each(|field| without_homes(field, homes)),
        _ => {}
    }
}

fn without_home(text: &str, homes: &[String]) -> String {
    let text = homes.iter().fold(text.to_owned(), |text, home| text.replace(home, "~"));
    // Those of users whom a directory service knows, and where desktops mount their cards and sticks.
    without_name(&without_name(&text, "/home/", "~"), "/media/", "/media/~")
}

/// `parent` and the name that follows it become `with`.
fn without_name(text: &str, parent: &str, with: &str) -> String {
    let mut parts = text.split(parent);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = part.find(|end: char| end == '/' || end == '`' || end.is_whitespace()).unwrap_or(part.len());
        kept.push_str(with);
        kept.push_str(&part[name..]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_folders_become_a_tilde_whoever_s_they_are() {
        let homes = ["/data/people/ana".to_owned()];
        for (text, expected) in [
            ("looked for `/home/jo/.local/share/x.so`, `/home/ana`", "looked for `~/.local/share/x.so`, `~`"),
            ("/data/people/ana/plans", "~/plans"),
            ("/home/", "~"),
            ("`/run/media/jo/card/revoada`, `/media/jo`", "`/run/media/~/card/revoada`, `/media/~`"),
            ("/usr/lib/libnvinfer.so.10", "/usr/lib/libnvinfer.so.10"),
        ] {
            assert_eq!(without_home(text, &homes), expected);
        }
    }
}
