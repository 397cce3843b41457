//! `revoada-fleet alerts`.

use clap::Subcommand;
use serde_json::json;

use super::Access;
use super::failure::Misuse;
use super::terminal::{rows, say, say_json, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// The newest first.
    List {
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        #[arg(long)]
        json: bool,
    },
    Rules {
        #[arg(long)]
        json: bool,
    },
    /// Add a rule, or change the one of its name.
    #[command(after_help = "Example: revoada-fleet alerts rule hot --when hot=85 --filter 'tag = roof' \
        --webhook https://hooks.example/revoada")]
    Rule {
        name: String,
        /// away=MINUTES, failed, hot=CELSIUS, slow=FPS or late=MILLISECONDS.
        #[arg(long, value_name = "CONDITION")]
        when: String,
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        #[arg(long, value_name = "URL")]
        webhook: Option<String>,
        /// Keep it, and do not watch it.
        #[arg(long)]
        disabled: bool,
    },
    /// Remove a rule with its alerts.
    RemoveRule { name: String },
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    match verb {
        Verb::List { limit, json } => {
            let answer = client.get(&["alerts"], &[("limit", limit.to_string().as_str())])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/raised_at", "/resolved_at", "/rule", "/device", "/text"];
            say(&table(&["raised", "over", "rule", "device", "text"], &rows(&answer, &columns)))
        }
        Verb::Rules { json } => {
            let answer = client.get(&["alert-rules"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/name", "/condition", "/filter", "/webhook", "/is_enabled"];
            say(&table(&["name", "when", "devices", "webhook", "enabled"], &rows(&answer, &columns)))
        }
        Verb::Rule { name, when, filter, webhook, disabled } => {
            let mut form = json!({ "condition": condition(when)?, "is_enabled": !disabled });
            if let Some(filter) = filter {
                form["filter"] = json!(filter);
            }
            if let Some(webhook) = webhook {
                form["webhook"] = json!(webhook);
            }
            client.put(&["alert-rules", name], &form).map(drop)
        }
        Verb::RemoveRule { name } => client.delete(&["alert-rules", name]).map(drop),
    }
}

fn condition(text: &str) -> Result<serde_json::Value, Misuse> {
    let wrong =
        || Misuse(format!("`--when {text}` is none of away=MINUTES, failed, hot=CELSIUS, slow=FPS, late=MILLISECONDS"));
    let (name, number) = match text.split_once('=') {
        Some((name, number)) => (name, Some(number.parse::<f64>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let key = match (name, number) {
        ("failed", None) => return Ok(json!({ "when": "failed" })),
        ("away", Some(number)) => return Ok(json!({ "when": "away", "minutes": number as u64 })),
        ("hot", Some(_)) => "celsius",
        ("slow", Some(_)) => "fps",
        ("late", Some(_)) => "milliseconds",
        _ => return Err(wrong()),
    };
    Ok(json!({ "when": name, key: number }))
}
