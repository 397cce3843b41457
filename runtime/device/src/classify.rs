//! `revoada classify IMAGE…`

use anyhow::ensure;

use crate::Global;
use crate::pictures::{self, Args};
use crate::terminal::{say, table};

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    pictures::each(args, global, |record| {
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
