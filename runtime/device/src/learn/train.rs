//! `revoada learn train`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::ValueEnum;
use revoada_bundle::hash;
use revoada_bundle::partial::{check_folder, replace};
use revoada_core::Digest;
use revoada_federated::to_safetensors;
use revoada_learn::{ClassWeights, Evaluation, HeadShape, Optimiser, Settings, Trained, train};
use revoada_pipeline::run::SystemClock;
use serde_json::{Value, json};

use super::courtesy::{Courtesy, CourtesyArgs};
use super::head::Origin;
use super::subject::{SubjectArgs, pictures_json};
use crate::Global;
use crate::failure::Misuse;
use crate::terminal::{say, table};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Weights to begin with: a file, `none` for random ones, or `model` for those of the model's last layer.
    #[arg(long, value_name = "FILE", default_value = "none")]
    weights: Origin,
    /// Where to write the trained weights.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Numbers of a hidden layer with a ReLU; without it the head is one layer.
    #[arg(long, value_name = "N")]
    hidden: Option<usize>,
    /// Times that each picture is learned from.
    #[arg(long, value_name = "N", default_value_t = Settings::default().epochs)]
    epochs: usize,
    /// Pictures of one step.
    #[arg(long, value_name = "N", default_value_t = Settings::default().batch)]
    batch: usize,
    /// The length of a step.
    #[arg(long, value_name = "RATE", default_value_t = Settings::default().rate)]
    rate: f64,
    /// How steps are made.
    #[arg(long, value_name = "OPTIMISER", default_value = "adam")]
    optimiser: OptimiserName,
    /// How fast weights decay with adamw; 0.01 when not given.
    #[arg(long, value_name = "DECAY")]
    decay: Option<f64>,
    /// How strongly weights are held where they began (FedProx's mu).
    #[arg(long, value_name = "MU", default_value_t = 0.0)]
    proximal: f64,
    /// What pictures of rare classes count.
    #[arg(long, value_name = "WEIGHTS", default_value = "none")]
    class_weights: ClassWeightsName,
    /// End after so many epochs that made it no better for held-out pictures, and keep the best weights.
    #[arg(long, value_name = "EPOCHS")]
    patience: Option<usize>,
    /// The share of the pictures that are held out to judge by.
    #[arg(long, value_name = "SHARE", default_value_t = Settings::default().held_out)]
    held_out: f64,
    /// Of random weights and of the order of pictures.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    courtesy: CourtesyArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OptimiserName {
    Sgd,
    Adam,
    Adamw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClassWeightsName {
    /// As much as any other.
    None,
    /// More, so that all classes count the same.
    Balanced,
}

impl Args {
    fn settings(&self) -> anyhow::Result<Settings> {
        let optimiser = match (self.optimiser, self.decay) {
            (OptimiserName::Adamw, decay) => Optimiser::AdamW { decay: decay.unwrap_or(0.01) },
            (_, Some(_)) => return Err(Misuse("`--decay` is of `--optimiser adamw` alone".to_owned()).into()),
            (OptimiserName::Adam, None) => Optimiser::Adam,
            (OptimiserName::Sgd, None) => Optimiser::Sgd,
        };
        let class_weights = match self.class_weights {
            ClassWeightsName::None => ClassWeights::None,
            ClassWeightsName::Balanced => ClassWeights::Balanced,
        };
        let settings = Settings {
            epochs: self.epochs,
            batch: self.batch,
            rate: self.rate,
            optimiser,
            proximal: self.proximal,
            class_weights,
            patience: self.patience,
            held_out: self.held_out,
            seed: self.seed,
            memory_bytes_max: self.subject.memory_bytes_max(),
            ..Settings::default()
        };
        settings.check().map_err(|error| Misuse(error.to_string()))?;
        Ok(settings)
    }
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let started = Instant::now();
    let settings = args.settings()?;
    check_folder(&args.output).with_context(|| format!("cannot write `{}`", args.output.display()))?;
    let mut courtesy = Courtesy::start(&args.courtesy)?;
    let subject = args.subject.open()?;
    let start = args.weights.weights(&subject.split.head, subject.labels.len(), args.hidden, args.seed)?;
    let shape = HeadShape::of(start.layout())?;
    let extracted = args.subject.extract(&subject, &shape, &settings, global, &mut || courtesy.ask_in_time())?;
    let settings = Settings { time_max: courtesy.time_left(), ..settings };
    let trained = train(&start, &extracted.examples, &settings, &SystemClock::start(), &mut || courtesy.ask())?;
    let examples = trained.examples.to_string();
    let bytes = to_safetensors(&trained.weights, &[("examples", &examples)]);
    replace(&args.output, &bytes).with_context(|| format!("cannot write `{}`", args.output.display()))?;
    if args.json {
        let mut record = record(&trained, &shape, hash(&bytes));
        record["output"] = json!(args.output);
        record["pictures"] = pictures_json(&subject, &extracted);
        record["elapsed_s"] = json!(started.elapsed().as_secs_f64());
        return Ok(say(&record.to_string())?);
    }
    say(&render(&trained))?;
    Ok(say(&format!("wrote {}", args.output.display()))?)
}

fn record(trained: &Trained, shape: &HeadShape, digest: Digest) -> Value {
    json!({
        "weights": digest,
        "features": shape.features,
        "hidden": shape.hidden,
        "classes": shape.classes,
        "examples": trained.examples,
        "train_loss": trained.train_loss,
        "before": trained.before,
        "after": trained.after,
        "epochs": trained.epochs,
        "ended": trained.ended,
    })
}

fn render(trained: &Trained) -> String {
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.4}"));
    let percent = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{:.1} %", value * 100.0));
    let of = |held_out: &Option<Evaluation>, value: fn(&Evaluation) -> f64| held_out.as_ref().map(value);
    let (before, after) = (&trained.before, &trained.after);
    let held_out = before.as_ref().map_or(0, |held_out| held_out.examples);
    let (loss, accuracy) = (|found: &Evaluation| found.loss, |found: &Evaluation| found.accuracy);
    let rows = [
        [format!("{held_out} held-out pictures"), "before".to_owned(), "after".to_owned()],
        ["loss".to_owned(), number(of(before, loss)), number(of(after, loss))],
        ["accuracy".to_owned(), percent(of(before, accuracy)), percent(of(after, accuracy))],
    ];
    let (examples, epochs) = (trained.examples, trained.epochs);
    let learned = format!("learned from {examples} pictures in {epochs} epochs, loss {}\n", number(trained.train_loss));
    learned + &table(&rows.map(Vec::from))
}
