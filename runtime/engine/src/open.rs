//! From what the user named as a model to a loaded engine. A bundle runs as the plan that was built of it, where a
//! backend runs plans here and there is one that fits, else as the ONNX model in it.
//!
//! A plan is code. One that the user named may be anybody's, unless he says whom he trusts; one that was found is taken
//! only from this user himself or from whom he trusts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_bundle::bundle::{self, Bundle, Trust, VerifiedBundle};
use revoada_bundle::plan::{PlanErrorKind, PlanHeader};
use revoada_bundle::plan_cache::{note_use, plans_of};
use revoada_bundle::sign::PublicKey;
use revoada_core::{DeviceClass, Digest};
use tracing::{debug, info, warn};

use crate::{Backend, BackendChoice, Engine, EngineError, LoadOptions, ModelFormat, ModelSource, Selected, select};

/// Where plans are found, and whose are taken without a word.
#[derive(Clone, Debug, Default)]
pub struct PlanSearch {
    /// The folder of a [`PlanCache`](revoada_bundle::plan_cache::PlanCache); `None`: only beside the bundle.
    pub cache: Option<PathBuf>,
    /// This user's own key, asked for at every load: it is made with his first plan, which may be built while this runs.
    pub own: Option<fn() -> Option<PublicKey>>,
}

/// A model as the user asks for it.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// An ONNX file, a plan, or a bundle.
    pub path: &'a Path,
    pub backend: &'a BackendChoice,
    /// The largest batch.
    pub rows: usize,
    pub when_out_of_memory: WhenOutOfMemory,
    /// How it is loaded. `trusted` holds for bundles, too.
    pub options: LoadOptions,
}

/// What becomes of a bundle whose plan the GPU has no memory for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenOutOfMemory {
    /// Its ONNX model runs on the CPU.
    #[default]
    RunOnCpu,
    /// It is refused with [`EngineError::OutOfMemory`], for who can make room.
    Fail,
}

/// A loaded model, and where it came from.
pub struct Opened {
    pub backend: Arc<dyn Backend>,
    pub engine: Arc<dyn Engine>,
    pub bundle: Option<VerifiedBundle>,
    /// Why the bundle's ONNX model runs, where a backend would run a plan of it.
    pub no_plan: Option<String>,
}

/// Opens what the user named. What was chosen, and why, is logged.
pub fn open(wanted: &Wanted<'_>, backends: &[Arc<dyn Backend>], search: &PlanSearch) -> Result<Opened, EngineError> {
    let load = |source: ModelSource<'_>| {
        let selected = select(wanted.backend, backends, source.format())?;
        info!(backend = selected.backend.name(), "{}", selected.reason);
        let engine = selected.backend.load(source, &wanted.options)?;
        Ok::<_, EngineError>((selected.backend, engine))
    };
    if !Bundle::is_at(wanted.path) {
        let (backend, engine) = load(ModelSource::of(wanted.path))?;
        return Ok(Opened { backend, engine, bundle: None, no_plan: None });
    }
    let bundle = Bundle::open(wanted.path)?.verify(trust(wanted.options.trusted.as_deref()))?;
    info!(digest = %bundle.digest(), name = %bundle.index().name, "bundle");
    let mut no_plan = None;
    if let Some(Selected { backend, reason }) = plan_backend(wanted.backend, backends)? {
        match load_plan(wanted, &*backend, bundle.digest(), search)? {
            Ok(engine) => {
                info!(backend = backend.name(), "{reason}");
                return Ok(Opened { backend, engine, bundle: Some(bundle), no_plan });
            }
            Err(reason) if matches!(wanted.backend, BackendChoice::Named(_)) => {
                return Err(EngineError::NoPlan { bundle: wanted.path.to_owned(), reason });
            }
            Err(reason) => {
                warn!("no plan of `{}` runs here: {reason}", wanted.path.display());
                no_plan = Some(reason);
            }
        }
    }
    let (backend, engine) = load(ModelSource::File(&bundle.model_path()))?;
    Ok(Opened { backend, engine, bundle: Some(bundle), no_plan })
}

/// The backend that runs plans, where one is wanted and can be used.
fn plan_backend(choice: &BackendChoice, backends: &[Arc<dyn Backend>]) -> Result<Option<Selected>, EngineError> {
    match (choice, select(choice, backends, ModelFormat::Plan)) {
        (_, Ok(selected)) => Ok(Some(selected).filter(|selected| selected.backend.format() == ModelFormat::Plan)),
        (BackendChoice::Named(_), Err(error)) => Err(error),
        (BackendChoice::Auto, Err(error)) => {
            debug!("plans are not looked for: {error}");
            Ok(None)
        }
    }
}

/// The first plan that fits, of those beside the bundle and in the cache, or why none does.
fn load_plan(
    wanted: &Wanted<'_>,
    backend: &dyn Backend,
    bundle: Digest,
    search: &PlanSearch,
) -> Result<Result<Arc<dyn Engine>, String>, EngineError> {
    let Some(device) = backend.device_class()? else { return Ok(Err("it runs no plans".to_owned())) };
    let mut trusted = wanted.options.trusted.clone().unwrap_or_default();
    trusted.extend(search.own.and_then(|own| own()));
    let options = LoadOptions { trusted: Some(trusted.clone()), ..wanted.options.clone() };
    let (mut refused, mut out_of_memory) = (BTreeSet::new(), None);
    for (path, header) in candidates(wanted.path, bundle, search, &mut refused) {
        let fits = check(&header, bundle, &trusted, &device, wanted.rows);
        match fits.map_err(|reason| format!("plan `{}` {reason}", path.display())) {
            Ok(()) => match backend.load(ModelSource::Plan(&path), &options) {
                Ok(engine) => {
                    info!(plan = %path.display(), "took a plan of the bundle");
                    if search.cache.as_ref().is_some_and(|folder| path.starts_with(folder)) {
                        note_use(&path);
                    }
                    return Ok(Ok(engine));
                }
                Err(error) => {
                    refused.insert(error.to_string());
                    if matches!(error, EngineError::OutOfMemory { .. }) {
                        out_of_memory = Some(error);
                    }
                }
            },
            Err(reason) => drop(refused.insert(reason)),
        }
    }
    if let (Some(error), WhenOutOfMemory::Fail) = (out_of_memory, wanted.when_out_of_memory) {
        return Err(error);
    }
    Ok(Err(match refused.is_empty() {
        true => format!("there is none for {device}"),
        false => refused.into_iter().collect::<Vec<_>>().join("; "),
    }))
}

/// What may be the bundle's plans, the likeliest first.
fn candidates(
    path: &Path,
    bundle: Digest,
    search: &PlanSearch,
    refused: &mut BTreeSet<String>,
) -> Vec<(PathBuf, PlanHeader)> {
    let mut plans = Vec::new();
    let beside = bundle::beside(path, "plan");
    match PlanHeader::read(&beside) {
        Ok(header) => plans.push((beside, header)),
        Err(error) if error.is_not_found() => {}
        Err(error) => drop(refused.insert(error.to_string())),
    }
    match search.cache.as_ref().map(|folder| plans_of(folder, bundle)) {
        Some(Ok(cached)) => plans.extend(cached),
        Some(Err(error)) => warn!(error = &error as &dyn std::error::Error, "cached plans are passed over"),
        None => {}
    }
    plans
}

/// An error reads on after the plan's name.
fn check(
    header: &PlanHeader,
    bundle: Digest,
    trusted: &[PublicKey],
    device: &DeviceClass,
    rows: usize,
) -> Result<(), String> {
    if header.key().bundle != bundle {
        return Err("is of another bundle".to_owned());
    }
    header.check(Trust::OneOf(trusted), device).map_err(|kind| match kind {
        PlanErrorKind::Stranger { key } => {
            format!("is signed by `{key}`, which is neither this user's key nor among the trusted keys")
        }
        other => other.to_string(),
    })?;
    // Only where the graph leaves the batch open: one that is fixed is run as often as is needed.
    let open = header.facts().inputs.iter().filter(|spec| spec.dims.first().is_some_and(|dim| dim.fixed().is_none()));
    let largest = open.filter_map(|spec| header.key().profile.get(&spec.name)?.max.first()).min();
    match largest {
        Some(largest) if *largest < rows => {
            Err(format!("was built for batches of up to {largest}, and {rows} are asked for"))
        }
        _ => Ok(()),
    }
}

fn trust(keys: Option<&[PublicKey]>) -> Trust<'_> {
    keys.map_or(Trust::Anybody, Trust::OneOf)
}
