//! `revoada-fleet devices`.

use std::collections::BTreeSet;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Access;
use super::terminal::{members, rows, say, say_json, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Devices by name.
    List {
        /// Which: `tag = entrance and version >= 1.2.0`.
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// After the device of this name.
        #[arg(long, value_name = "DEVICE")]
        after: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Everything of one device.
    Show {
        device: String,
        #[arg(long)]
        json: bool,
    },
    /// Add and take tags.
    Tag {
        device: String,
        #[arg(long, value_name = "TAG")]
        add: Vec<String>,
        #[arg(long, value_name = "TAG")]
        remove: Vec<String>,
    },
    /// Have a device build plans for all of its class, or no longer.
    Builder {
        device: String,
        #[arg(value_enum)]
        state: Switch,
    },
    /// What happened, the newest first.
    Events {
        /// On this device alone.
        device: Option<String>,
        /// At least so bad: info, warn or error.
        #[arg(long, value_name = "LEVEL")]
        level: Option<String>,
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        #[arg(long)]
        json: bool,
    },
    /// Make a device's certificates worth nothing; it may be enrolled again.
    Revoke { device: String },
    /// Take a device out of the fleet, with everything that is known of it.
    Remove { device: String },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    match verb {
        Verb::List { filter, limit, after, json } => {
            let limit = limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(filter.as_deref().map(|filter| ("filter", filter)));
            query.extend(after.as_deref().map(|after| ("after", after)));
            let answer = client.get(&["devices"], &query)?;
            if *json {
                return say_json(&answer);
            }
            let rows = rows(
                &answer["devices"],
                &["/device", "/health", "/version", "/tags", "/figures/fps", "/figures/latency_ms", "/seen", "/why"],
            );
            let shown = rows.len();
            say(&table(&["device", "health", "version", "tags", "fps", "p99 ms", "seen", "why"], &rows))?;
            match answer["matching"].as_u64() {
                Some(matching) if matching > shown as u64 => eprintln!("{shown} of {matching}; `--after` goes on"),
                _ => {}
            }
            Ok(())
        }
        Verb::Show { device, json } => {
            let answer = client.get(&["devices", device], &[])?;
            if *json { say_json(&answer) } else { say(&members(&answer)) }
        }
        Verb::Tag { device, add, remove } => {
            let known = client.get(&["devices", device], &[])?;
            let known = known["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let mut tags: BTreeSet<&str> = known.collect();
            tags.extend(add.iter().map(String::as_str));
            tags.retain(|tag| !remove.iter().any(|removed| removed == tag));
            client.patch(&["devices", device], &json!({ "tags": tags })).map(drop)
        }
        Verb::Builder { device, state } => {
            let is_builder = matches!(state, Switch::On);
            client.patch(&["devices", device], &json!({ "is_builder": is_builder })).map(drop)
        }
        Verb::Events { device, level, limit, json } => {
            let limit = limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(device.as_deref().map(|device| ("device", device)));
            query.extend(level.as_deref().map(|level| ("level", level)));
            let answer = client.get(&["events"], &query)?;
            if *json {
                return say_json(&answer);
            }
            say(&table(
                &["at", "device", "level", "event", "text"],
                &rows(&answer, &["/at", "/device", "/level", "/name", "/text"]),
            ))
        }
        Verb::Revoke { device } => {
            let answer = client.post(&["devices", device, "revoke"], &json!({}))?;
            say(&format!("{} certificates revoked", answer["certificates"]))
        }
        Verb::Remove { device } => client.delete(&["devices", device]).map(drop),
    }
}
