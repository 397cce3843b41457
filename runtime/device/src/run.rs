//! `revoada run`: a pipeline, described by a file, by flags, or by a file with flags over it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use revoada_bundle::sign::TrustedKeys;
use revoada_pipeline::config::{Draft, PipelineConfig, Value};
use revoada_pipeline::run::{self as pipeline, Parts, RunSummary};

use crate::Global;
use crate::failure::Misuse;
use crate::terminal::{self, say};
use crate::{convert, models, stop, summary};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada run --model centerface.onnx --source clip.mp4 --output faces.mp4 --results faces.jsonl\n  \
    revoada run --model yolo.onnx --source rtsp://10.0.0.7/1 --source v4l2:///dev/video0 --batch 2 --http 0.0.0.0:8080\n  \
    revoada run pipeline.toml --backend rten --frames 100\n  \
    revoada run --deepstream deepstream_app_config.txt\n  \
    revoada run pipeline.toml --print-config\n\n\
    Ctrl-C ends the run so that every output file is complete; a second one abandons it.")]
pub(crate) struct Args {
    /// Pipeline description in TOML; flags win over what it says.
    config: Option<PathBuf>,
    /// In its place, a file of deepstream-app, as key file or YAML; `revoada convert` prints what it becomes.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    deepstream: Option<PathBuf>,

    /// A video file, images:FOLDER, rtsp://, http(s)://, v4l2:///dev/video0, csi://0 or
    /// test://smpte?width=640&height=480&fps=30. Repeat it for several streams.
    #[arg(long, value_name = "URI", help_heading = "Streams")]
    source: Vec<String>,
    /// Stop each stream after so many frames.
    #[arg(long, value_name = "N", help_heading = "Streams")]
    frames: Option<i64>,
    /// Infer on every N-th frame only.
    #[arg(long, value_name = "N", help_heading = "Streams")]
    interval: Option<i64>,
    /// Play files so many times, or `forever`.
    #[arg(long, value_name = "N|forever", help_heading = "Streams")]
    repeat: Option<String>,
    /// Frames decoded ahead of inference, per stream.
    #[arg(long, value_name = "N", help_heading = "Streams")]
    queue: Option<i64>,
    /// How RTSP servers send: tcp, udp or auto.
    #[arg(long, value_name = "TRANSPORT", help_heading = "Streams")]
    rtsp_transport: Option<String>,
    /// How often a lost camera or server is tried again; for ever when not given.
    #[arg(long, value_name = "N", help_heading = "Streams")]
    reconnect_attempts: Option<i64>,

    /// The ONNX model, its manifest beside it (`model.toml`), or a bundle, which runs as its plan where one fits.
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    model: Option<PathBuf>,
    /// The model's manifest, where it is not beside it.
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    manifest: Option<PathBuf>,
    /// Names of the classes, one a line, in place of the manifest's.
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    labels: Option<PathBuf>,
    /// What runs the model.
    #[arg(long, value_name = "BACKEND", value_parser = models::backend_names(), help_heading = "Model")]
    backend: Option<String>,
    /// Threads inside one inference.
    #[arg(long, value_name = "N", help_heading = "Model")]
    threads: Option<i64>,
    /// Least score of a result, 0 to 1.
    #[arg(long, value_name = "SCORE", help_heading = "Model")]
    score_min: Option<f64>,
    /// The network's input, such as 640x640, where the model leaves it open.
    #[arg(long, value_name = "WxH", help_heading = "Model")]
    size: Option<String>,
    /// How the outputs are read, in place of the manifest's or the guessed decoder.
    #[arg(long, value_name = "DECODER", help_heading = "Model")]
    decoder: Option<String>,
    /// Refuse a bundle or a plan that is not signed by this public key, or by one of those in this file, one a line; may
    /// be given again.
    #[arg(long, value_name = "KEY", help_heading = "Model")]
    trust: Vec<TrustedKeys>,
    /// Where a bundle has no plan for this device, do not build one while the ONNX model runs.
    #[arg(long, help_heading = "Model")]
    no_rebuild: bool,
    /// Most frames of one inference, over all streams.
    #[arg(long, value_name = "N", help_heading = "Model")]
    batch: Option<i64>,
    /// How long an incomplete batch waits for more frames.
    #[arg(long, value_name = "MS", help_heading = "Model")]
    batch_wait: Option<i64>,
    /// Give the same results for the same files each time, byte for byte, whatever the threads do.
    #[arg(long, help_heading = "Model")]
    deterministic: bool,

    /// Follow objects from frame to frame: sort, bytetrack or ocsort. All parameters are keys of `[tracker]`.
    #[arg(long, value_name = "ALGORITHM", help_heading = "Tracking")]
    tracker: Option<String>,

    /// Video with what was found drawn into it: FILE.mp4 or FILE.mkv; `{stream}` becomes the
    /// stream's name.
    #[arg(long, value_name = "FILE", help_heading = "Outputs")]
    output: Vec<PathBuf>,
    /// Results as FILE.jsonl (one JSON object a frame) or FILE.csv (one row a result).
    #[arg(long, value_name = "FILE", help_heading = "Outputs")]
    results: Vec<PathBuf>,
    /// Every frame as a picture into FOLDER.
    #[arg(long, value_name = "FOLDER", help_heading = "Outputs")]
    images: Option<PathBuf>,
    /// Format of the pictures: jpeg or png.
    #[arg(long, value_name = "FORMAT", requires = "images", help_heading = "Outputs")]
    image_format: Option<String>,
    /// Serve the streams over RTSP at rtsp://ADDRESS/<stream>.
    #[arg(long, value_name = "ADDRESS", help_heading = "Outputs")]
    rtsp: Option<String>,
    /// Serve a page to watch in a browser, and /metrics for Prometheus.
    #[arg(long, value_name = "ADDRESS", help_heading = "Outputs")]
    http: Option<String>,
    /// Count the results and keep none.
    #[arg(long, conflicts_with_all = ["output", "results", "images", "rtsp"], help_heading = "Outputs")]
    no_output: bool,
    /// Bit rate of video and RTSP outputs.
    #[arg(long, value_name = "KBPS", help_heading = "Outputs")]
    bitrate: Option<i64>,

    /// Hide what was found: blur or mosaic.
    #[arg(long, value_name = "METHOD", help_heading = "Drawing")]
    anonymize: Option<String>,
    /// Hide only this class; repeat it for several.
    #[arg(long, value_name = "LABEL", requires = "anonymize", help_heading = "Drawing")]
    anonymize_class: Vec<String>,
    /// Draw the frame's time.
    #[arg(long, help_heading = "Drawing")]
    clock: bool,
    /// Do not draw these.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT", help_heading = "Drawing")]
    hide: Vec<Drawn>,

    /// Listen on a Unix socket for `revoada ctl`.
    #[arg(long, value_name = "SOCKET", help_heading = "Observation")]
    control: Option<PathBuf>,
    /// Print DeepStream's `**PERF:` lines to standard error this often.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5", help_heading = "Observation")]
    perf: Option<f64>,
    /// Print the summary as one JSON object on standard output.
    #[arg(long, help_heading = "Observation")]
    json: bool,
    /// Print the effective configuration and do nothing.
    #[arg(long, help_heading = "Observation")]
    print_config: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Drawn {
    Boxes,
    Labels,
    Scores,
    Landmarks,
    Masks,
    Tracks,
}

impl Drawn {
    fn key(self) -> &'static str {
        match self {
            Self::Boxes => "draw.boxes",
            Self::Labels => "draw.labels",
            Self::Scores => "draw.scores",
            Self::Landmarks => "draw.landmarks",
            Self::Masks => "draw.masks",
            Self::Tracks => "draw.tracks",
        }
    }
}

pub(crate) fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let config = configure(&args)?;
    if args.print_config {
        say(&config.to_toml())?;
        return Ok(());
    }
    let stop = stop::on_signals()?;
    let mut parts = Parts {
        loader: Arc::new(models::loader(global)),
        rebuild: Some(crate::rebuild::rebuild(global)),
        ..Parts::new(&models::backend_options(global))
    };
    if args.config.is_some() || args.deepstream.is_some() {
        let args = args.clone();
        parts.reread = Some(Box::new(move || configure(&args).map_err(|error| format!("{error:#}"))));
    }
    let bar = terminal::counter(config.streams.iter().map(|stream| stream.frames_max).sum());
    let shown = bar.clone();
    parts.progress = Some(Box::new(move |summary| {
        shown.set_position(summary.frames_out);
        shown.set_message(format!("{:.1} fps", summary.fps));
    }));
    let summary = pipeline::run(config, parts, &stop);
    bar.finish_and_clear();
    let summary = summary?;
    if args.json {
        say(&serde_json::to_string_pretty(&summary)?)?;
    } else {
        eprint!("{}", summary::render(&summary));
    }
    fail_where_streams_failed(&summary)
}

fn fail_where_streams_failed(summary: &RunSummary) -> anyhow::Result<()> {
    let failures: Vec<String> =
        summary.failures().map(|(stream, error)| format!("stream `{stream}`: {error}")).collect();
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("\nerror: "));
    Ok(())
}

fn configure(args: &Args) -> anyhow::Result<PipelineConfig> {
    let here = std::env::current_dir().context("cannot tell the working folder")?;
    let mut draft = match (&args.config, &args.deepstream) {
        (Some(path), _) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read pipeline `{}`", path.display()))?;
            Draft::from_file(path, &text, &here)
        }
        (None, Some(path)) => convert::draft(path, &convert::convert(path, Path::new(""))?, &here),
        (None, None) => {
            let missing = [(args.source.is_empty(), "--source"), (args.model.is_none(), "--model")];
            if let Some((_, flag)) = missing.iter().find(|(missing, _)| *missing) {
                return Err(Misuse(format!(
                    "`{flag}` is missing; give `--model MODEL --source URI`, or a pipeline file"
                ))
                .into());
            }
            Draft::empty()
        }
    };
    set_streams(&mut draft, args);
    set_model(&mut draft, args);
    set_sinks(&mut draft, args)?;
    set(&mut draft, "tracker.algorithm", args.tracker.clone());
    set_drawing(&mut draft, args);
    set(&mut draft, "http.address", args.http.clone());
    set(&mut draft, "control.socket", args.control.as_deref().map(text));
    set(&mut draft, "perf.interval_s", args.perf);
    set(&mut draft, "deterministic", args.deterministic.then_some(true));
    Ok(draft.check()?)
}

fn set(draft: &mut Draft, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        draft.set(key, value);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn set_streams(draft: &mut Draft, args: &Args) {
    for uri in &args.source {
        draft.add_stream(uri);
    }
    let each: [(&str, Option<Value>); 6] = [
        ("frames_max", args.frames.map(Value::from)),
        ("interval", args.interval.map(Value::from)),
        ("repeat", args.repeat.as_ref().map(|text| text.parse::<i64>().map_or_else(|_| text.into(), Value::from))),
        ("queue_frames_max", args.queue.map(Value::from)),
        ("rtsp.transport", args.rtsp_transport.as_ref().map(Value::from)),
        ("reconnect.attempts_max", args.reconnect_attempts.map(Value::from)),
    ];
    for (key, value) in each {
        if let Some(value) = value {
            draft.set_every_stream(key, value);
        }
    }
}

fn set_model(draft: &mut Draft, args: &Args) {
    set(draft, "model.path", args.model.as_deref().map(text));
    set(draft, "model.manifest", args.manifest.as_deref().map(text));
    set(draft, "model.labels", args.labels.as_deref().map(text));
    set(draft, "model.backend", args.backend.clone());
    set(draft, "model.threads", args.threads);
    set(draft, "model.score_min", args.score_min);
    set(draft, "model.size", args.size.clone());
    set(draft, "model.decoder", args.decoder.clone());
    if !args.trust.is_empty() {
        draft.set("model.trust", args.trust.iter().map(trusted).collect::<Value>());
    }
    set(draft, "model.rebuild", args.no_rebuild.then_some(false));
    set(draft, "batch.frames_max", args.batch);
    set(draft, "batch.wait_ms", args.batch_wait);
}

/// A file of keys is one of the working folder, whatever folder the pipeline file is in.
fn trusted(keys: &TrustedKeys) -> String {
    match keys {
        TrustedKeys::Key(key) => key.to_string(),
        TrustedKeys::File(path) => text(&std::path::absolute(path).unwrap_or_else(|_| path.clone())),
    }
}

fn set_sinks(draft: &mut Draft, args: &Args) -> anyhow::Result<()> {
    let bitrate = args.bitrate.map(|bitrate| ("bitrate_kbps", Value::from(bitrate)));
    if bitrate.is_some() && args.output.is_empty() && args.rtsp.is_none() {
        return Err(Misuse("`--bitrate` has no effect without `--output` or `--rtsp`".into()).into());
    }
    for path in &args.output {
        let options = [Some(("path", Value::from(text(path)))), bitrate.clone()];
        draft.add_sink("video", options.into_iter().flatten());
    }
    for path in &args.results {
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => "jsonl",
            Some("csv") => "csv",
            _ => return Err(Misuse(format!("`--results {}` ends in neither .jsonl nor .csv", path.display())).into()),
        };
        draft.add_sink(kind, [("path", text(path))]);
    }
    if let Some(folder) = &args.images {
        let format = args.image_format.clone().map(|format| ("format", format));
        draft.add_sink("images", [Some(("folder", text(folder))), format].into_iter().flatten());
    }
    if let Some(address) = &args.rtsp {
        let options = [Some(("address", Value::from(address))), bitrate];
        draft.add_sink("rtsp", options.into_iter().flatten());
    }
    if args.http.is_some() && args.config.is_none() && args.deepstream.is_none() {
        draft.add_sink("preview", [("type", "preview")]);
    }
    if args.no_output {
        draft.add_sink("none", [("type", "none")]);
    }
    Ok(())
}

fn set_drawing(draft: &mut Draft, args: &Args) {
    set(draft, "draw.anonymize.method", args.anonymize.clone());
    if !args.anonymize_class.is_empty() {
        draft.set("draw.anonymize.classes", args.anonymize_class.iter().map(String::as_str).collect::<Value>());
    }
    set(draft, "draw.clock", args.clock.then_some(true));
    for drawn in &args.hide {
        draft.set(drawn.key(), false);
    }
}
