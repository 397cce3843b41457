//! `revoada-fleet enrolment`.

use clap::Subcommand;
use serde_json::json;

use super::Access;
use super::terminal::{rows, say, say_json, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a token, which is printed this once; `revoada agent enrol` takes it.
    Add {
        /// What to call it; the device's name, where neither `--device` nor `--prefix` is given.
        name: String,
        /// For this device alone.
        #[arg(long, value_name = "DEVICE", conflicts_with = "prefix")]
        device: Option<String>,
        /// For devices whose names begin so; `""` is any.
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<String>,
        /// How many devices may use it.
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        valid_for: String,
    },
    /// All of them, without their texts.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Make one worth nothing.
    Remove { name: String },
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    match verb {
        Verb::Add { name, device, prefix, uses, valid_for } => {
            let mut form = json!({ "name": name, "uses": uses, "valid_for": valid_for });
            match prefix {
                Some(prefix) => form["prefix"] = json!(prefix),
                None => form["device"] = json!(device.as_ref().unwrap_or(name)),
            }
            let answer = client.post(&["enrolment-tokens"], &form)?;
            say(answer["token"].as_str().unwrap_or_default())
        }
        Verb::List { json } => {
            let answer = client.get(&["enrolment-tokens"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/name", "/device", "/prefix", "/uses_left", "/expires_at"];
            say(&table(&["name", "device", "prefix", "uses left", "expires"], &rows(&answer, &columns)))
        }
        Verb::Remove { name } => client.delete(&["enrolment-tokens", name]).map(drop),
    }
}
