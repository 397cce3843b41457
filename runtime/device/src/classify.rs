//! `revoada classify IMAGE…`

use std::path::PathBuf;

use anyhow::ensure;

use crate::Global;
use crate::models::ModelArgs;
use crate::pictures;
use crate::terminal::{say, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: revoada classify --model efficientnet-lite0.onnx cat.png coffee.png")]
pub(crate) struct Args {
    /// Pictures: JPEG, PNG, BMP or WebP.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Print one JSON object a picture, as `run --results FILE.jsonl` writes them.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    pictures::each(&args.model, &args.images, global, |record| {
        if args.json {
            say(&serde_json::to_string(record)?)?;
            return Ok(());
        }
        ensure!(
            !record.classifications.is_empty(),
            "the model does not classify; try `revoada detect`, or name its decoder with `--decoder`"
        );
        say(&record.stream)?;
        let rows = record.classifications.iter().map(|guess| {
            let name = guess.label.clone().unwrap_or_else(|| format!("class {}", guess.class));
            vec![format!("  {name}"), format!("{:.1} %", guess.score * 100.0)]
        });
        say(&table(&rows.collect::<Vec<_>>()))?;
        Ok(())
    })
}
