//! Loading models for the verbs that are not pipelines.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use revoada_bundle::bundle::{Bundle, Trust};
use revoada_bundle::sign::{PublicKey, TrustedKeys};
use revoada_engine::{
    Backend, BackendChoice, BackendOptions, LoadOptions, ModelFormat, Opened, PlanSearch, Wanted, WhenOutOfMemory,
    backends, library_candidates, open, select,
};
use revoada_pipeline::config::{ManifestConfig, ModelConfig};
use revoada_pipeline::run::Loader;
use tracing::info;

use crate::{Global, keys};

/// Which backend runs a model, how, and whose models.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BackendArgs {
    /// What runs the model.
    #[arg(long, default_value = "auto", value_name = "BACKEND", value_parser = backend_names())]
    backend: String,
    /// Threads inside one inference; one per core when not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Refuse a bundle or a plan that is not signed by this public key, or by one of those in this file, one a line; may
    /// be given again.
    #[arg(long, value_name = "KEY")]
    trust: Vec<TrustedKeys>,
}

impl BackendArgs {
    pub(crate) fn choice(&self) -> BackendChoice {
        BackendChoice::parse(&self.backend)
    }

    pub(crate) fn threads(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }

    /// Whose bundles and plans may run; `None` is anybody's.
    pub(crate) fn trusted(&self) -> anyhow::Result<Option<Vec<PublicKey>>> {
        match self.trust.as_slice() {
            [] => Ok(None),
            named => Ok(Some(TrustedKeys::read_all(named)?)),
        }
    }
}

/// What `--backend` takes, as help and completions show it.
pub(crate) fn backend_names() -> PossibleValuesParser {
    let backends = backends(&BackendOptions::default());
    PossibleValuesParser::new(std::iter::once("auto").chain(backends.iter().map(|backend| backend.name())))
}

/// A model and how its pictures are read, for `classify` and `detect`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// The ONNX model, its manifest beside it (`model.toml`), or a bundle.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// The model's manifest, where it is not beside it.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Names of the classes, one a line, in place of the manifest's.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    backend: BackendArgs,
    /// Least score of a result, 0 to 1.
    #[arg(long, value_name = "SCORE", value_parser = parse_score)]
    score_min: Option<f32>,
    /// The network's input, such as 640x640, where the model leaves it open.
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    size: Option<revoada_core::Size>,
    /// How the outputs are read, in place of the manifest's or the guessed decoder.
    #[arg(long, value_name = "DECODER")]
    decoder: Option<String>,
}

impl ModelArgs {
    pub(crate) fn config(&self) -> ModelConfig {
        ModelConfig {
            path: self.model.clone(),
            manifest: self.manifest.clone().map(ManifestConfig::File),
            labels: self.labels.clone(),
            backend: self.backend.choice(),
            threads: self.backend.threads(),
            concurrent_max: None,
            score_min: self.score_min,
            score_low: None,
            size: self.size,
            decoder: self.decoder.clone(),
            trust: self.backend.trust.clone(),
            tiles: None,
            rebuild: false,
            classes: Vec::new(),
        }
    }
}

fn parse_score(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|score| (0.0..=1.0).contains(score)).ok_or_else(|| "not between 0 and 1".to_owned())
}

fn parse_size(text: &str) -> Result<revoada_core::Size, String> {
    let side = |text: &str| text.parse().ok().filter(|side| (1..=1 << 15).contains(side));
    text.split_once('x')
        .and_then(|(width, height)| Some(revoada_core::Size::new(side(width)?, side(height)?)))
        .ok_or_else(|| "not like `640x640`".to_owned())
}

/// What backends need to know of this program and its command line.
pub(crate) fn backend_options(global: &Global) -> BackendOptions {
    let onnxruntime = match &global.onnxruntime {
        Some(named) => vec![named.clone()],
        None => library_candidates(crate::data_folder().as_deref()),
    };
    BackendOptions { onnxruntime, tensorrt: crate::tensorrt::options(global) }
}

/// The backends of this program, best first.
pub(crate) fn all_backends(global: &Global) -> Vec<Arc<dyn Backend>> {
    backends(&backend_options(global))
}

/// What models are loaded with.
pub(crate) fn loader(global: &Global) -> Loader {
    let mut loader = Loader::new(&backend_options(global));
    loader.plans = plan_search();
    loader
}

fn plan_search() -> PlanSearch {
    PlanSearch { cache: crate::build::plan_cache_folder(), own: Some(keys::own) }
}

/// The best backend for ONNX models that can be used.
pub(crate) fn any_backend(global: &Global) -> anyhow::Result<Arc<dyn Backend>> {
    let selected = select(&BackendChoice::Auto, &all_backends(global), ModelFormat::Onnx)?;
    info!("{}", selected.reason);
    Ok(selected.backend)
}

/// The ONNX file of a model, which may be a bundle: it is looked through first.
pub(crate) fn model_file(path: &Path) -> anyhow::Result<PathBuf> {
    match Bundle::is_at(path) {
        true => Ok(Bundle::open(path)?.verify(Trust::Anybody)?.model_path()),
        false => Ok(path.to_owned()),
    }
}

pub(crate) fn load(
    path: &Path,
    args: &BackendArgs,
    rows: usize,
    concurrent_max: usize,
    global: &Global,
) -> anyhow::Result<Opened> {
    let options = LoadOptions { threads: args.threads(), concurrent_max, trusted: args.trusted()? };
    open_as(path, args, rows, options, global)
}

/// Loads a bundle that this program has made itself, whoever else is trusted.
pub(crate) fn load_own(path: &Path, args: &BackendArgs, rows: usize, global: &Global) -> anyhow::Result<Opened> {
    open_as(path, args, rows, LoadOptions { threads: args.threads(), ..LoadOptions::default() }, global)
}

fn open_as(
    path: &Path,
    args: &BackendArgs,
    rows: usize,
    options: LoadOptions,
    global: &Global,
) -> anyhow::Result<Opened> {
    let (backend, when_out_of_memory) = (&args.choice(), WhenOutOfMemory::default());
    let wanted = Wanted { path, backend, rows, when_out_of_memory, options };
    Ok(open(&wanted, &all_backends(global), &plan_search())?)
}

/// Whether what is asked for runs plans, and can be used here.
pub(crate) fn runs_plans(args: &BackendArgs, global: &Global) -> bool {
    let selected = select(&args.choice(), &all_backends(global), ModelFormat::Plan);
    selected.is_ok_and(|selected| selected.backend.format() == ModelFormat::Plan)
}
