//! `revoada-fleet audit`.

use anyhow::bail;
use clap::Subcommand;

use super::Access;
use super::terminal::{rows, say, say_json, table, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// The newest first.
    List {
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// What is older than the entry of this number.
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        #[arg(long)]
        json: bool,
    },
    /// Compute the whole chain anew; fails where an entry is not as it was written.
    Check,
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    match verb {
        Verb::List { limit, before, json } => {
            let (limit, before) = (limit.to_string(), before.map(|before| before.to_string()));
            let mut query = vec![("limit", limit.as_str())];
            query.extend(before.as_deref().map(|before| ("before", before)));
            let answer = client.get(&["audit"], &query)?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/number", "/at", "/by", "/action", "/subject", "/details"];
            say(&table(&["number", "at", "by", "action", "subject", "details"], &rows(&answer, &columns)))
        }
        Verb::Check => {
            let answer = client.get(&["audit", "check"], &[])?;
            if answer["is_whole"] == true {
                return say(&format!("{} entries are whole; the last is {}", answer["entries"], text(&answer["head"])));
            }
            bail!("entry {} is not as it was written: {}", answer["broken"], text(&answer["why"]))
        }
    }
}
