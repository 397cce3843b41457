//! `revoada detect IMAGE…`

use crate::Global;
use crate::pictures::{self, Args};
use crate::terminal::{say, table};

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    pictures::each(args, global, |record| {
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
