//! `revoada learn forget`

use std::path::PathBuf;

use revoada_learn::{Erase, forget};
use revoada_pipeline::control::Label;
use serde_json::json;

use crate::terminal::say;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of labelled pictures.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Erase the pictures, too.
    #[arg(long, conflicts_with = "label")]
    pictures: bool,
    /// Erase the pictures of this label, too.
    #[arg(long, value_name = "LABEL")]
    label: Option<Label>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let what = match (&args.label, args.pictures) {
        (Some(label), _) => Erase::Label(label.as_str()),
        (None, true) => Erase::Pictures,
        (None, false) => Erase::Derived,
    };
    let forgotten = forget(&args.data, what)?;
    let (derived, pictures, bytes) = (forgotten.derived, forgotten.pictures, forgotten.bytes);
    if args.json {
        return Ok(say(&json!({ "derived": derived, "pictures": pictures, "bytes": bytes }).to_string())?);
    }
    Ok(say(&format!("erased {derived} files made of pictures and {pictures} pictures, {bytes} bytes"))?)
}
