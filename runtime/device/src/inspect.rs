//! `revoada inspect MODEL`: what a model wants and gives, what it costs, and what each backend says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::{OnnxModel, Summary};
use revoada_core::{Size, TensorSpec};
use revoada_engine::{LoadOptions, ModelSource, PictureInput, picture_input};
use revoada_pipeline::decode::{DecoderContext, Decoders};
use serde::Serialize;

use crate::Global;
use crate::models;
use crate::shapes;
use crate::terminal::{say, si, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada inspect model.onnx\n  \
    revoada inspect detector.onnx --shape images=1x3x640x640 --json")]
pub(crate) struct Args {
    /// The ONNX model, its manifest beside it (`model.toml`), or a bundle.
    model: PathBuf,
    /// Shape of an input whose dimensions are open, for the cost: `images=1x3x640x640`.
    #[arg(long, value_name = "INPUT=DIMS")]
    shape: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    name: Option<String>,
    licence: Option<String>,
    summary: Summary,
    /// How pictures enter, or why they cannot.
    picture: Said,
    /// How outputs are read, or why they cannot.
    decoder: Said,
    backends: Vec<BackendReport>,
}

/// A sentence, and whether it is a good one.
#[derive(Debug, Serialize)]
struct Said {
    ok: bool,
    text: String,
}

impl Said {
    fn of<T, E: std::error::Error + Send + Sync + 'static>(
        result: Result<T, E>,
        text: impl FnOnce(T) -> String,
    ) -> Self {
        match result {
            Ok(value) => Self { ok: true, text: text(value) },
            Err(error) => Self { ok: false, text: format!("{:#}", anyhow::Error::new(error)) },
        }
    }
}

#[derive(Debug, Serialize)]
struct BackendReport {
    name: &'static str,
    #[serde(flatten)]
    said: Said,
}

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let path = models::model_file(&args.model)?;
    let model = OnnxModel::read(&path)?;
    let manifest = Manifest::beside(&path)?.unwrap_or_default();
    let (inputs, outputs) = (model.inputs()?, model.outputs()?);
    let mut shapes = shapes::parse(&args.shape)?;
    shapes::check_names(&inputs, &shapes)?;
    let picture = picture_input(&inputs, &manifest.input);
    shapes::add_picture(&mut shapes, &inputs, &manifest.input);
    let size = picture.as_ref().ok().map(|picture| picture.transform.size);
    let report = Report {
        model: args.model.display().to_string(),
        name: manifest.name.clone(),
        licence: manifest.licence.clone(),
        summary: model.summary(&known(&inputs, shapes))?,
        picture: Said::of(picture, |picture| describe(&inputs, &picture)),
        decoder: decoder(&outputs, &manifest, size),
        backends: models::all_backends(global)
            .iter()
            .map(|backend| {
                let loaded =
                    backend.check().and_then(|()| backend.load(ModelSource::File(&path), &LoadOptions::default()));
                let said = Said::of(loaded, |_| "loads it".to_owned());
                BackendReport { name: backend.name(), said }
            })
            .collect(),
    };
    if args.json {
        say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        say(&render(&report))?;
    }
    Ok(())
}

/// Shapes for the cost: as given, else as declared with a batch of 1; inputs that stay open are left
/// out, and nodes that depend on them are reported as uncounted.
fn known(inputs: &[TensorSpec], mut shapes: BTreeMap<String, Vec<usize>>) -> BTreeMap<String, Vec<usize>> {
    for input in inputs {
        let declared: Option<Vec<usize>> = input
            .dims
            .iter()
            .enumerate()
            .map(|(index, dim)| dim.fixed().or_else(|| (index == 0).then_some(1)))
            .collect();
        if let Some(declared) = declared {
            shapes.entry(input.name.clone()).or_insert(declared);
        }
    }
    shapes
}

fn describe(inputs: &[TensorSpec], picture: &PictureInput) -> String {
    let transform = &picture.transform;
    format!(
        "`{}` takes a picture of {}, {:?} {:?}, {:?}",
        inputs[picture.index].name, transform.size, transform.channels, transform.layout, transform.fit
    )
}

fn decoder(outputs: &[TensorSpec], manifest: &Manifest, size: Option<Size>) -> Said {
    let context = DecoderContext {
        outputs,
        manifest: &manifest.output,
        labels: manifest.labels.len(),
        input: size.unwrap_or_default(),
    };
    Said::of(Decoders::standard().build(&context), |built| match built.guessed {
        Some(guess) => guess,
        None => format!("`{}`, as the manifest says", built.decoder.name()),
    })
}

fn render(report: &Report) -> String {
    let summary = &report.summary;
    let mut text = report.model.clone();
    for part in [&report.name, &report.licence].into_iter().flatten() {
        let _ = write!(text, ", {part}");
    }
    let opsets = summary.opsets.iter().map(|(domain, version)| match domain.as_str() {
        "" | "ai.onnx" => format!("opset {version}"),
        domain => format!("{domain} {version}"),
    });
    let _ = writeln!(text, "\n{}", opsets.collect::<Vec<_>>().join(", "));
    if let Some(producer) = &summary.producer {
        let _ = writeln!(text, "made by {producer}");
    }
    for (title, values) in [("inputs", &summary.inputs), ("outputs", &summary.outputs)] {
        let _ = writeln!(text, "\n{title}");
        let rows = values.iter().map(|value| {
            let dims = value.dims.as_ref().map_or("?".to_owned(), |dims| dims.join("×"));
            let shape = value.shape.as_ref().map(|shape| {
                let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
                format!("here {}", sides.join("×"))
            });
            [Some(format!("  {}", value.name)), Some(value.dtype.clone()), Some(dims), shape]
                .into_iter()
                .flatten()
                .collect()
        });
        text.push_str(&table(&rows.collect::<Vec<Vec<String>>>()));
    }
    let _ = writeln!(
        text,
        "\ncost: {} parameters ({}B), {}FLOPs ({}MACs) in {} nodes",
        si(summary.parameters as f64),
        si(summary.parameter_bytes as f64),
        si(summary.cost.flops as f64),
        si(summary.cost.macs as f64),
        summary.nodes
    );
    for uncounted in &summary.cost.uncounted {
        let _ = writeln!(text, "  not counted: {} {} ({})", uncounted.nodes, uncounted.op, uncounted.reason);
    }
    let mut ops: Vec<(&String, &usize)> = summary.ops.iter().collect();
    ops.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
    let ops: Vec<String> = ops.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let _ = writeln!(text, "operators: {}", ops.join(", "));
    let _ = writeln!(text, "\npicture: {}", report.picture.text);
    let _ = writeln!(text, "decoder: {}", report.decoder.text);
    for backend in &report.backends {
        let _ = writeln!(text, "{}: {}", backend.name, backend.said.text);
    }
    text
}
