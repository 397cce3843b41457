//! `revoada verify PATH`: whether a bundle or a plan is whole, and who vouches for it.

use std::path::PathBuf;

use revoada_bundle::bundle::{Bundle, Trust};
use revoada_bundle::plan::Plan;
use revoada_bundle::sign::TrustedKeys;
use serde_json::json;

use crate::terminal::{say, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada verify model.bundle\n  \
    revoada verify model.bundle --key ed25519:3f2a…      also refuses what others have signed")]
pub(crate) struct Args {
    /// A bundle's folder, or a plan's file.
    path: PathBuf,
    /// A trusted public key, or a file with one a line; may be given again. What no trusted key has signed is refused.
    #[arg(long, value_name = "KEY")]
    key: Vec<TrustedKeys>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let keys = TrustedKeys::read_all(&args.key)?;
    let trust = if args.key.is_empty() { Trust::Anybody } else { Trust::OneOf(&keys) };
    let facts = if args.path.is_dir() {
        let bundle = Bundle::open(&args.path)?.verify(trust)?;
        let index = bundle.index();
        json!({
            "kind": "bundle", "digest": bundle.digest(), "name": index.name, "precision": index.precision,
            "licence": index.licence, "producer": index.producer, "files": index.files.len(),
            "signed_by": bundle.signer(),
        })
    } else {
        let plan = Plan::read(&args.path)?;
        plan.check_signer(trust)?;
        let key = plan.key();
        json!({
            "kind": "plan", "bundle": key.bundle, "built_for": key.device.to_string(), "precision": key.precision,
            "builder": key.builder, "bytes": plan.payload().len(), "signed_by": plan.signer(),
        })
    };
    if args.json {
        return Ok(say(&serde_json::to_string_pretty(&facts)?)?);
    }
    let rows = facts.as_object().expect("it was made as one").iter().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let text = if value.is_null() { "nobody".to_owned() } else { text };
        vec![format!("{}  {text}", format_args!("{:<10}", name.replace('_', " ")))]
    });
    say(&table(&rows.collect::<Vec<_>>()))?;
    if args.key.is_empty() {
        tracing::info!("whole; whether its signer is to be trusted, `--key` decides");
    }
    Ok(())
}
