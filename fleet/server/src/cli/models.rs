//! `revoada-fleet models`.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use revoada_bundle::bundle::{Bundle, INDEX, SIGNATURE, Trust};
use revoada_bundle::hash_file;
use revoada_bundle::partial::replace;
use revoada_bundle::sign::{Purpose, SecretKey};
use revoada_core::Digest;
use serde_json::{Value, json};
use ureq::http::Method;

use super::Access;
use super::client::Client;
use super::failure::Misuse;
use super::terminal::{members, rows, say, say_json, table};

/// As much as the service takes at once.
const PIECE_BYTES: usize = 4 << 20;

/// What can be deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Model,
    Pipeline,
    Package,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Pipeline => "pipeline",
            Self::Package => "package",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Everything that is registered.
    List {
        #[arg(long)]
        json: bool,
    },
    /// One version, its reports, and which device classes have a plan of it.
    Show {
        digest: String,
        #[arg(long)]
        json: bool,
    },
    /// Upload a bundle, a pipeline's file or a package with its signature, and register it as a version.
    #[command(after_help = "Examples:\n  \
        revoada-fleet models add faces-2.bundle --version 2\n  \
        revoada-fleet models add cameras.toml --kind pipeline --name cameras --version 3\n\n\
        A bundle holds its signature; for a pipeline or a package it lies beside it as FILE.sig.json, as\n\
        `revoada-fleet models sign` writes it.")]
    Add {
        path: PathBuf,
        #[arg(long, value_enum, default_value_t = Kind::Model)]
        kind: Kind,
        /// A bundle says its own.
        #[arg(long, value_name = "NAME", required_if_eq_any([("kind", "pipeline"), ("kind", "package")]))]
        name: Option<String>,
        #[arg(long, value_name = "VERSION")]
        version: String,
    },
    /// Sign a pipeline's file or a package as its owner, wherever the key is: needs no service. `revoada build` signs bundles.
    Sign {
        path: PathBuf,
        #[arg(long, value_enum)]
        kind: Kind,
        /// The owner's private key, as `revoada key --new` makes it.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Have the service fetch a bundle from a folder on the web.
    Import {
        url: String,
        #[arg(long, value_name = "NAME")]
        name: String,
        #[arg(long, value_name = "VERSION")]
        version: String,
    },
    /// Remove a version that nothing names any more.
    Remove { digest: String },
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = || access.client();
    match verb {
        Verb::Sign { path, kind, key } => sign(path, *kind, key),
        Verb::List { json } => {
            let answer = client()?.get(&["artefacts"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let versions: Vec<&Value> = answer
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|artefact| artefact["versions"].as_array().into_iter().flatten())
                .collect();
            let columns = ["/kind", "/name", "/version", "/bytes", "/created_at", "/created_by", "/digest"];
            let titles = ["kind", "name", "version", "bytes", "created", "by", "digest"];
            say(&table(&titles, &rows(&json!(versions), &columns)))
        }
        Verb::Show { digest, json } => {
            let answer = client()?.get(&["versions", digest], &[])?;
            if *json { say_json(&answer) } else { say(&members(&answer)) }
        }
        Verb::Add { path, kind: Kind::Model, name, version } => add_bundle(&client()?, path, name.as_deref(), version),
        Verb::Add { path, kind, name, version } => {
            let signature = signature_beside(path);
            let signature = read_json(&signature)?;
            let (digest, bytes) = hash_file(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let client = client()?;
            upload(&client, path, digest, bytes)?;
            register(&client, *kind, name.as_deref().unwrap_or_default(), version, digest, &signature)
        }
        Verb::Import { url, name, version } => {
            let form = json!({ "url": url, "version": version });
            let answer = client()?.post(&["artefacts", "model", name, "import"], &form)?;
            say(answer["digest"].as_str().unwrap_or_default())
        }
        Verb::Remove { digest } => client()?.delete(&["versions", digest]).map(drop),
    }
}

/// Verified here first: a broken bundle is not worth the way.
fn add_bundle(client: &Client, path: &Path, name: Option<&str>, version: &str) -> anyhow::Result<()> {
    let bundle = Bundle::open(path)?.verify(Trust::Anybody)?;
    let signature = read_json(&path.join(SIGNATURE))?;
    for (file, record) in &bundle.index().files {
        upload(client, &path.join(file), record.sha256, record.bytes)?;
    }
    let index = path.join(INDEX);
    let bytes = fs::metadata(&index).with_context(|| format!("cannot read `{}`", index.display()))?.len();
    upload(client, &index, bundle.digest(), bytes)?;
    let name = name.unwrap_or(&bundle.index().name);
    register(client, Kind::Model, name, version, bundle.digest(), &signature)
}

fn register(
    client: &Client,
    kind: Kind,
    name: &str,
    version: &str,
    digest: Digest,
    signature: &Value,
) -> anyhow::Result<()> {
    let form = json!({ "version": version, "digest": digest, "signature": signature });
    client.post(&["artefacts", kind.name(), name, "versions"], &form)?;
    say(&format!("{name} {version} is {digest}"))
}

/// Uploads what the service does not have, going on where an earlier try ended.
pub(super) fn upload(client: &Client, path: &Path, digest: Digest, bytes: u64) -> anyhow::Result<()> {
    let begun = client.post(&["blobs"], &json!({ "digest": digest, "bytes": bytes }))?;
    if begun["is_whole"] == true {
        return Ok(());
    }
    let unreadable = || format!("cannot read `{}`", path.display());
    let mut offset = begun["offset"].as_u64().context("the service does not say where the upload goes on")?;
    let mut file = File::open(path).with_context(unreadable)?;
    file.seek(SeekFrom::Start(offset)).with_context(unreadable)?;
    let text = digest.to_string();
    while offset < bytes {
        let mut piece = Vec::new();
        file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece).with_context(unreadable)?;
        let at = offset.to_string();
        let request = client.request(Method::PATCH, &["blobs", &text], &[("offset", &at)])?;
        let request = request.header("content-type", "application/octet-stream").body(piece)?;
        let mut answer = client.run(request)?;
        let answer: Value = serde_json::from_slice(&answer.body_mut().read_to_vec()?)?;
        offset = answer["offset"].as_u64().context("the service does not say where the upload goes on")?;
    }
    client.post(&["blobs", &text, "complete"], &json!({})).map(drop)
}

fn sign(path: &Path, kind: Kind, key: &Path) -> anyhow::Result<()> {
    let purpose = match kind {
        Kind::Model => return Err(Misuse("a bundle is signed as it is built: `revoada build --key`".to_owned()).into()),
        Kind::Pipeline => Purpose::Pipeline,
        Kind::Package => Purpose::Package,
    };
    let key = SecretKey::load(key)?;
    let (digest, _) = hash_file(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let beside = signature_beside(path);
    let text = serde_json::to_vec_pretty(&key.sign(purpose, digest))?;
    replace(&beside, &text).with_context(|| format!("cannot write `{}`", beside.display()))?;
    say(&format!("wrote {}, signed by {}", beside.display(), key.public()))
}

fn signature_beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".sig.json");
    beside.into()
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the signature `{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` is no signature", path.display()))
}
