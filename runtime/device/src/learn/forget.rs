//! `revoada learn forget`

use std::path::PathBuf;

use revoada_learn::forget;
use serde_json::json;

use crate::terminal::say;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of labelled pictures.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Erase the pictures, too.
    #[arg(long)]
    pictures: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let forgotten = forget(&args.data, args.pictures)?;
    let (derived, pictures, bytes) = (forgotten.derived, forgotten.pictures, forgotten.bytes);
    if args.json {
        return Ok(say(&json!({ "derived": derived, "pictures": pictures, "bytes": bytes }).to_string())?);
    }
    Ok(say(&format!("erased {derived} files made of pictures and {pictures} pictures, {bytes} bytes"))?)
}
