//! `revoada completions SHELL`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::terminal::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: revoada completions bash > ~/.local/share/bash-completion/completions/revoada")]
pub(crate) struct Args {
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "revoada", &mut script);
    Ok(say(&String::from_utf8(script)?)?)
}
