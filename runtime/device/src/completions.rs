//! `revoada completions SHELL`

use clap::CommandFactory;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: revoada completions bash > ~/.local/share/bash-completion/completions/revoada")]
pub(crate) struct Args {
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "revoada", &mut std::io::stdout());
    Ok(())
}
