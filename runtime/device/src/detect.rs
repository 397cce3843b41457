//! `revoada detect IMAGE…`

use std::path::PathBuf;

use crate::Global;
use crate::models::ModelArgs;
use crate::pictures;
use crate::terminal::{say, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: revoada detect --model centerface.onnx crowd.jpg --json")]
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
        say(&format!("{}: {} found", record.stream, record.detections.len()))?;
        let rows = record.detections.iter().map(|found| {
            let name = found.label.clone().unwrap_or_else(|| format!("class {}", found.class));
            let [left, top, width, height] = found.bbox;
            vec![
                format!("  {name}"),
                format!("{:.1} %", found.score * 100.0),
                format!("{width:.0}×{height:.0}"),
                format!("at ({left:.0}, {top:.0})"),
            ]
        });
        say(&table(&rows.collect::<Vec<_>>()))?;
        Ok(())
    })
}
