//! `revoada-fleet users`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;

use super::Access;
use super::terminal::{rows, say, say_json, table};

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Role {
    /// Looks.
    Viewer,
    /// Deploys, and commands devices.
    Operator,
    /// Enrols devices, and decides who may what.
    Admin,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List {
        #[arg(long)]
        json: bool,
    },
    Add {
        name: String,
        #[arg(long, value_enum, default_value_t = Role::Viewer)]
        role: Role,
        /// A file with the password.
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
    /// Change what is given.
    Set {
        name: String,
        #[arg(long, value_enum)]
        role: Option<Role>,
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Whether the user may sign in.
        #[arg(long, value_name = "BOOL")]
        disabled: Option<bool>,
    },
    Remove {
        name: String,
    },
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    match verb {
        Verb::List { json } => {
            let answer = client.get(&["users"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/name", "/role", "/is_disabled", "/created_at"];
            say(&table(&["name", "role", "disabled", "created"], &rows(&answer, &columns)))
        }
        Verb::Add { name, role, password_file } => {
            let form = json!({ "name": name, "role": role.name(), "password": password(password_file)? });
            client.post(&["users"], &form).map(drop)
        }
        Verb::Set { name, role, password_file, disabled } => {
            let mut form = json!({});
            if let Some(role) = role {
                form["role"] = json!(role.name());
            }
            if let Some(path) = password_file {
                form["password"] = json!(password(path)?);
            }
            if let Some(disabled) = disabled {
                form["is_disabled"] = json!(disabled);
            }
            client.patch(&["users", name], &form).map(drop)
        }
        Verb::Remove { name } => client.delete(&["users", name]).map(drop),
    }
}

fn password(path: &PathBuf) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the password `{}`", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
