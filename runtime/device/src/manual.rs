//! `revoada manual FOLDER`: for those who make packages.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the manual pages go: `revoada.1`, and one for each verb.
    folder: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let written = fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(crate::Cli::command().disable_help_subcommand(true), &args.folder));
    written.with_context(|| format!("cannot write manual pages to `{}`", args.folder.display()))
}
