//! `revoada convert FILE`: DeepStream's files as a pipeline of ours.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use revoada_bundle::strict::TEXT_BYTES_MAX;
use revoada_pipeline::config::Draft;
use revoada_pipeline::deepstream::{self, Converted};

use crate::terminal::say;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada convert deepstream_app_config.txt\n  \
    revoada convert source4_1080p_dec_infer.yml --output pipeline.toml\n\n\
    What has no effect, and why, is told on standard error. `revoada run --deepstream FILE` runs what this prints.")]
pub(crate) struct Args {
    /// A file of deepstream-app, as key file (.txt) or YAML (.yml); the files that it names are read, too.
    file: PathBuf,
    /// Write the pipeline there, and not to standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let here = std::env::current_dir().context("cannot tell the working folder")?;
    let written = args.output.as_deref().map_or_else(|| here.clone(), |output| folder_of(&here.join(output)));
    let read = folder_of(&here.join(&args.file));
    // Paths stay as they are where the pipeline lies beside what it is made from.
    let base = if plain(&written) == plain(&read) { PathBuf::new() } else { plain(&read) };
    let converted = convert(&args.file, &base)?;
    // What is printed is held against our own rules at once.
    draft(&args.file, &converted, &here).check()?;
    match &args.output {
        Some(output) => std::fs::write(output, &converted.toml)
            .with_context(|| format!("cannot write pipeline `{}`", output.display()))?,
        None => say(&converted.toml)?,
    }
    Ok(())
}

/// Converts a file, and tells on standard error what has no effect.
pub(crate) fn convert(file: &Path, base: &Path) -> anyhow::Result<Converted> {
    let converted = deepstream::convert(file, base, &mut read_file)?;
    eprint!("{}", converted.notes_text());
    Ok(converted)
}

/// What was converted, with paths relative to the folder of `file`.
pub(crate) fn draft(file: &Path, converted: &Converted, here: &Path) -> Draft {
    let name = format!("{} (converted)", file.display());
    Draft::from_file(Path::new(&name), &converted.toml, here)
}

/// One byte more than any such file has, so that a longer one is told as such.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// As the system has it, where the folder is there.
fn plain(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}
