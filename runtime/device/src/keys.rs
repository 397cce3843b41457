//! `revoada key`, and the key that signs where none is named.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use revoada_bundle::sign::{KeyError, PublicKey, SecretKey};
use tracing::{info, warn};

use crate::failure::Misuse;
use crate::terminal::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada key                          the public half of the key that signs here\n  \
    revoada key owner.pem                … of the key in a file\n  \
    revoada key owner.pem --new          makes a new key; a file that is there is never replaced")]
pub(crate) struct Args {
    /// The private key's file (PKCS #8 PEM); the one of this user when not given.
    key: Option<PathBuf>,
    /// Make a new key.
    #[arg(long)]
    new: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let key = match (&args.key, args.new) {
        (Some(path), true) => {
            let key = SecretKey::generate()?;
            key.save(path)?;
            key
        }
        (None, true) => return Err(Misuse("say where the new key is to be: `revoada key FILE --new`".into()).into()),
        (path, false) => owner(path.as_deref())?,
    };
    Ok(say(&key.public().to_string())?)
}

/// The public half of this user's own key, where there is one already.
pub(crate) fn own() -> Option<PublicKey> {
    match SecretKey::load(&own_path()?) {
        Ok(key) => Some(key.public()),
        Err(KeyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "this user's key cannot be used, so that its plans are not taken"
            );
            None
        }
    }
}

fn own_path() -> Option<PathBuf> {
    Some(crate::data_folder()?.join("keys").join("owner.pem"))
}

/// The key in a file, or this user's own, which is made at its first use.
pub(crate) fn owner(path: Option<&Path>) -> anyhow::Result<SecretKey> {
    if let Some(path) = path {
        return Ok(SecretKey::load(path)?);
    }
    let path = own_path().context("there is no home folder for a key; name one with `--key`")?;
    let folder = path.parent().expect("the key lies in a folder");
    match SecretKey::load(&path) {
        Err(KeyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        loaded => return Ok(loaded?),
    }
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot create `{}`", folder.display()))?;
    let key = SecretKey::generate()?;
    match key.save(&path) {
        Ok(()) => info!(path = %path.display(), public = %key.public(), "made a key to sign with; keep a copy of it"),
        // Another process was faster.
        Err(KeyError::Write { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            return Ok(SecretKey::load(&path)?);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(key)
}
