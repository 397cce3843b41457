//! `revoada doctor`: what this machine can do, and what it lacks.

use std::fmt::Write as _;
use std::sync::Arc;

use revoada_core::TensorRtVersion;
use revoada_engine::cuda::Device;
use revoada_pipeline::media::{self, MediaReport};
use revoada_tensorrt::Library;
use serde::Serialize;

use crate::Global;
use crate::models;
use crate::terminal::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status 1 means that pipelines cannot run here at all.")]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Also list what is there and needs nothing.
    #[arg(long)]
    all: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    machine: Machine,
    backends: Vec<BackendReport>,
    gpu: GpuReport,
    media: Result<MediaReport, String>,
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

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let backends = models::all_backends(global)
        .iter()
        .map(|backend| match backend.check().and_then(|()| backend.version()) {
            Ok(version) => BackendReport { name: backend.name(), usable: true, text: version },
            Err(error) => BackendReport { name: backend.name(), usable: false, text: error.to_string() },
        })
        .collect();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: machine(),
        backends,
        gpu: gpu(global),
        media: media::probe().map_err(|error| error.to_string()),
    };
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

fn machine() -> Machine {
    let line = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().next().map(|line| line.trim_matches(['\0', ' ', '#']).to_owned())
    };
    Machine {
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mb: line("/proc/meminfo").and_then(|line| {
            let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib / 1024)
        }),
        l4t: line("/etc/nv_tegra_release"),
        board: line("/proc/device-tree/model"),
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
    text.push_str("\nvideo\n");
    match &report.media {
        Ok(media) => render_media(&mut text, media, all),
        Err(reason) => {
            let _ = writeln!(text, "  {} {reason}", mark(false));
        }
    }
    text
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
