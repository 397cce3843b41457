//! `revoada doctor`: what this machine can do, what it lacks, and what could be better.

mod board;
mod fix;
mod nvpmodel;
mod proposals;
mod report;
mod system;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_core::TensorRtVersion;
use revoada_engine::Backend;
use revoada_engine::cuda::Device;
use revoada_pipeline::media::{self, MediaReport};
use revoada_pipeline::vision;
use revoada_tensorrt::Library;
use serde::Serialize;

use self::board::Board;
use self::proposals::{Proposal, propose};
use self::system::System;
use crate::Global;
use crate::models;
use crate::tegrastats::{self, Look};
use crate::terminal::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status 1 means that pipelines cannot run here at all; with `--fix`, that something was \
    not applied though it was agreed to, or that there was no terminal to ask on.")]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Also list what is there and needs nothing.
    #[arg(long, conflicts_with_all = ["fix", "report"])]
    all: bool,
    /// Propose what could be better: free disk, swap on a board of 4 GB, missing GStreamer plugins, groups, power mode,
    /// clocks. Each comes with its commands, which run where you agree to them.
    #[arg(long)]
    fix: bool,
    /// Agree to everything that `--fix` proposes. What a command asks itself, as `nvpmodel` does before a restart, is
    /// still asked.
    #[arg(long, requires = "fix")]
    yes: bool,
    /// Write what a maintainer wants to know of this board into one JSON file. It holds no names of hosts or users, no
    /// serial numbers and no addresses.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fix", "json"])]
    report: Option<PathBuf>,
    /// Look at the files below this folder in place of those of the system. Commands still run on the system.
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    machine: Machine,
    backends: Vec<BackendReport>,
    gpu: GpuReport,
    media: Result<MediaReport, String>,
    /// The version that follows cameras and makes pictures straight, or why there is none.
    opencv: Result<String, String>,
    /// Of a Jetson, by `tegrastats`; or why it is not known.
    load: Option<Result<Look, String>>,
    proposals: Vec<Proposal>,
}

#[derive(Debug, Serialize)]
struct Machine {
    architecture: &'static str,
    cores: usize,
    memory_mb: Option<u64>,
    /// `/etc/nv_tegra_release`, on a Jetson.
    l4t: Option<String>,
    /// `/proc/device-tree/model`, on boards.
    board: Option<String>,
}

#[derive(Debug, Serialize)]
struct GpuReport {
    /// Each with its architecture and memory, or why there is none.
    devices: Result<Vec<String>, String>,
    /// The version and whether it can build plans, or why there is none.
    tensorrt: Result<String, String>,
    /// Versions of TensorRT that this program speaks.
    spoken: Vec<TensorRtVersion>,
}

#[derive(Debug, Serialize)]
struct BackendReport {
    name: &'static str,
    usable: bool,
    /// The version where it is usable, else why it is not.
    text: String,
}

/// The name of the power mode that this Jetson is in; `None` on other machines, or where it cannot be said.
pub(crate) fn power_mode() -> Option<String> {
    board::power_mode(&System::new(Path::new("/")))
}

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let system = System::new(&args.root);
    let cache = crate::cache_folder();
    let look = || Board::read(&system, cache.as_deref());
    // Where GStreamer does not even start, the report says so.
    let elements = media::known_elements().unwrap_or_default();
    let diagnose = |board: &Board| propose(board, &elements);
    if args.fix {
        return fix::run(args.yes, args.json, || diagnose(&look()));
    }
    let board = look();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: machine(&board),
        backends: backends(global),
        gpu: gpu(global),
        load: board.is_jetson().then(load),
        proposals: diagnose(&board),
        media: media::probe().map_err(|error| error.to_string()),
        opencv: vision::opencv_version(),
    };
    if let Some(path) = &args.report {
        report::write(path, &system, &board, &report)?;
        return Ok(say(&format!("wrote {}", path.display()))?);
    }
    if args.json {
        say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        say(&render(&report, args.all))?;
    }
    anyhow::ensure!(report.backends.iter().any(|backend| backend.usable), "no backend can be used here");
    if let Err(reason) = report.media {
        anyhow::bail!("no video can be read here: {reason}");
    }
    Ok(())
}

fn backends(global: &Global) -> Vec<BackendReport> {
    let report = |backend: &Arc<dyn Backend>| match backend.check().and_then(|()| backend.version()) {
        Ok(version) => BackendReport { name: backend.name(), usable: true, text: version },
        Err(error) => BackendReport { name: backend.name(), usable: false, text: error.to_string() },
    };
    models::all_backends(global).iter().map(report).collect()
}

fn load() -> Result<Look, String> {
    let lines = tegrastats::lines()?;
    let last = lines.last().map(String::as_str).unwrap_or_default();
    Look::parse(last).ok_or_else(|| format!("`tegrastats` says nothing that is known: `{last}`"))
}

fn gpu(global: &Global) -> GpuReport {
    let device = |device: &Device| {
        let (major, minor) = device.driver;
        let memory_mib = device.memory_bytes >> 20;
        format!("{} ({}, {memory_mib} MiB, CUDA {major}.{minor})", device.name, device.architecture)
    };
    let library = |library: Arc<Library>| {
        let builds =
            if library.can_build() { "builds and runs plans" } else { "runs plans; its ONNX parser is missing" };
        format!("{} ({builds})", library.version())
    };
    GpuReport {
        devices: Device::all().map(|all| all.iter().map(device).collect()).map_err(|error| error.to_string()),
        tensorrt: crate::tensorrt::library(global).map(library).map_err(|error| format!("{error:#}")),
        spoken: revoada_tensorrt::dialects(),
    }
}

fn render_gpu(text: &mut String, gpu: &GpuReport) {
    match &gpu.devices {
        Ok(devices) => devices.iter().for_each(|device| {
            let _ = writeln!(text, "  {} {device}", mark(true));
        }),
        Err(reason) => {
            let _ = writeln!(text, "  {} {reason}", mark(false));
        }
    }
    let (Ok(tensorrt) | Err(tensorrt)) = &gpu.tensorrt;
    let _ = writeln!(text, "  {} {tensorrt}", mark(gpu.tensorrt.is_ok()));
    let spoken: Vec<String> = gpu.spoken.iter().map(|version| format!("{version}")).collect();
    let spoken =
        if spoken.is_empty() { "no TensorRT: built without its headers".to_owned() } else { spoken.join(", ") };
    let _ = writeln!(text, "  {} speaks {spoken}", mark(!gpu.spoken.is_empty()));
}

fn machine(board: &Board) -> Machine {
    Machine {
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mb: board.memory_mib,
        l4t: board.l4t.clone(),
        board: board.model.clone(),
    }
}

fn render(report: &Report, all: bool) -> String {
    let machine = &report.machine;
    let mut text = format!("revoada {} on {}, {} cores", report.version, machine.architecture, machine.cores);
    if let Some(memory) = machine.memory_mb {
        let _ = write!(text, ", {:.1} GB of memory", memory as f64 / 1024.0);
    }
    for fact in [&machine.board, &machine.l4t].into_iter().flatten() {
        let _ = write!(text, ", {fact}");
    }
    text.push_str("\n\ninference\n");
    for backend in &report.backends {
        let _ = writeln!(text, "  {} {:<12} {}", mark(backend.usable), backend.name, backend.text);
    }
    text.push_str("\nGPU\n");
    render_gpu(&mut text, &report.gpu);
    text.push_str("\nlenses and moving cameras\n");
    let opencv = report.opencv.as_ref().map(|version| format!("OpenCV {version}"));
    let (Ok(opencv) | Err(opencv)) = &opencv.map_err(String::clone);
    let _ = writeln!(text, "  {} {opencv}", mark(report.opencv.is_ok()));
    text.push_str("\nvideo\n");
    match &report.media {
        Ok(media) => render_media(&mut text, media, all),
        Err(reason) => {
            let _ = writeln!(text, "  {} {reason}", mark(false));
        }
    }
    if let Some(load) = &report.load {
        text.push_str("\nnow\n");
        render_load(&mut text, load);
    }
    if !report.proposals.is_empty() {
        text.push_str("\nto improve: `revoada doctor --fix` proposes how\n");
    }
    for Proposal { id, found, .. } in &report.proposals {
        let _ = writeln!(text, "  {} {id:<12} {found}", mark(false));
    }
    text
}

fn render_load(text: &mut String, load: &Result<Look, String>) {
    let look = match load {
        Ok(look) => look,
        Err(reason) => {
            let _ = writeln!(text, "  {} {reason}", mark(false));
            return;
        }
    };
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {} {name:<12} {value}", mark(true));
    };
    for (name, used) in [("memory", look.memory), ("swap", look.swap)] {
        if let Some(used) = used {
            line(name, format!("{} of {} MiB", used.used_mib, used.total_mib));
        }
    }
    let busy: Vec<String> = look
        .cores
        .iter()
        .map(|core| {
            core.as_ref().and_then(|core| core.percent).map_or("off".to_owned(), |percent| format!("{percent} %"))
        })
        .collect();
    if !busy.is_empty() {
        line("cores", busy.join(", "));
    }
    for (name, part) in [("GPU", &look.gpu), ("EMC", &look.emc)] {
        if let Some(part) = part {
            let percent = part.percent.map(|percent| format!("{percent} %"));
            let clocks: Vec<String> = part.mhz.iter().map(ToString::to_string).collect();
            let clocks = (!clocks.is_empty()).then(|| format!("at {} MHz", clocks.join(", ")));
            line(name, percent.into_iter().chain(clocks).collect::<Vec<_>>().join(" "));
        }
    }
    if let Some((sensor, celsius)) = look.warmest() {
        line("warmest", format!("{sensor}, {celsius:.1} °C"));
    }
    if let Some((watts, rails)) = look.watts() {
        line("power", format!("{watts:.2} W ({rails})"));
    }
}

fn render_media(text: &mut String, media: &MediaReport, all: bool) {
    let _ = writeln!(text, "  {} GStreamer {}", mark(true), media.gstreamer);
    for (what, element) in [("decodes H.264 with", &media.decoder), ("encodes H.264 with", &media.encoder)] {
        let _ = writeln!(text, "  {} {what} {}", mark(element.is_some()), element.as_deref().unwrap_or("nothing"));
    }
    let _ = writeln!(text, "  {} serves RTSP", mark(media.rtsp_server));
    let cameras: Vec<String> = media.cameras.iter().map(|path| path.display().to_string()).collect();
    let cameras = if cameras.is_empty() { "none".to_owned() } else { cameras.join(", ") };
    let _ = writeln!(text, "  {} cameras: {cameras}", mark(!media.cameras.is_empty()));

    let mut missing = media.elements.iter().filter(|element| !element.present).peekable();
    if missing.peek().is_some() {
        text.push_str("\nmissing, and where to get it\n");
    }
    for element in missing {
        // A hardware element that is absent where there is no such hardware is no fault.
        let kind = if element.hardware { " (hardware)" } else { "" };
        let _ = writeln!(text, "  {} {:<18} {}{kind}: {}", mark(false), element.name, element.purpose, element.package);
    }
    if all {
        text.push_str("\npresent\n");
        for element in media.elements.iter().filter(|element| element.present) {
            let _ = writeln!(text, "  {} {:<18} {}", mark(true), element.name, element.purpose);
        }
    }
}

fn mark(good: bool) -> &'static str {
    if good { "✓" } else { "–" }
}
