//! `revoada learn evaluate`

use anyhow::Context;
use revoada_learn::{HeadShape, Settings, evaluate};
use serde_json::json;

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
    /// The weights to judge: a file, or `model` for those of the model's last layer.
    #[arg(long, value_name = "FILE")]
    weights: Origin,
    #[command(flatten)]
    courtesy: CourtesyArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    if args.weights == Origin::Nothing {
        return Err(Misuse("there is nothing to judge in `--weights none`".to_owned()).into());
    }
    let mut courtesy = Courtesy::start(&args.courtesy)?;
    let subject = args.subject.open()?;
    let weights = args.weights.weights(&subject.split.head, subject.labels.len(), None, 0)?;
    let shape = HeadShape::of(weights.layout())?;
    let settings = Settings { memory_bytes_max: args.subject.memory_bytes_max(), ..Settings::default() };
    let extracted = args.subject.extract(&subject, &shape, &settings, global, &mut || courtesy.ask_in_time())?;
    let judged = evaluate(&weights, &extracted.examples)?.context("there are no pictures to judge by")?;
    let named = || subject.labels.iter().zip(&judged.classes);
    if args.json {
        let classes = named().map(|(label, counts)| {
            json!({ "label": label, "examples": counts.examples, "right": counts.right, "predicted": counts.predicted })
        });
        let record = json!({
            "examples": judged.examples,
            "loss": judged.loss,
            "accuracy": judged.accuracy,
            "classes": classes.collect::<Vec<_>>(),
            "pictures": pictures_json(&subject, &extracted),
        });
        return Ok(say(&record.to_string())?);
    }
    let title = ["class", "pictures", "right", "taken for it"].map(str::to_owned).to_vec();
    let rows = named().filter(|(_, counts)| counts.examples > 0 || counts.predicted > 0).map(|(label, counts)| {
        vec![label.clone(), counts.examples.to_string(), counts.right.to_string(), counts.predicted.to_string()]
    });
    let rows: Vec<Vec<String>> = std::iter::once(title).chain(rows).collect();
    let accuracy = judged.accuracy * 100.0;
    say(&format!("right about {accuracy:.1} % of {} pictures, loss {:.4}", judged.examples, judged.loss))?;
    Ok(say(&table(&rows))?)
}
