//! `revoada-fleet tokens`.

use clap::Subcommand;
use serde_json::json;

use super::Access;
use super::terminal::{rows, say, say_json, table};
use super::users::Role;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List {
        #[arg(long)]
        json: bool,
    },
    /// Make a token, which is printed this once.
    Add {
        name: String,
        #[arg(long, value_enum, default_value_t = Role::Viewer)]
        role: Role,
        /// For ever, where it is not given.
        #[arg(long, value_name = "DURATION")]
        valid_for: Option<String>,
    },
    /// Make one worth nothing.
    Remove { name: String },
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    match verb {
        Verb::List { json } => {
            let answer = client.get(&["tokens"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/name", "/role", "/expires_at", "/last_used"];
            say(&table(&["name", "role", "expires", "last used"], &rows(&answer, &columns)))
        }
        Verb::Add { name, role, valid_for } => {
            let mut form = json!({ "name": name, "role": role.name() });
            if let Some(valid_for) = valid_for {
                form["valid_for"] = json!(valid_for);
            }
            say(client.post(&["tokens"], &form)?["token"].as_str().unwrap_or_default())
        }
        Verb::Remove { name } => client.delete(&["tokens", name]).map(drop),
    }
}
