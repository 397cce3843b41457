//! The plan of a build: found in the cache, or compiled in a child process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context;
use indicatif::ProgressBar;
use revoada_builder::compile::{
    Cancel, CompileOptions, Event, MemoryGuard, Workshop, available_bytes, check_precision, child,
};
use revoada_bundle::bundle::Precision;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::{Plan, PlanFacts, PlanKey, ShapeProfile};
use revoada_bundle::plan_cache::PlanCache;
use revoada_bundle::sign::SecretKey;
use revoada_core::{Architecture, Compatibility, DeviceClass, Digest, TensorRtVersion};
use serde::Serialize;
use tracing::info;

use super::{Args, PRODUCER};
use crate::Global;
use crate::terminal::progress;

/// Room for a few dozen plans.
const CACHE_BYTES_MAX: u64 = 4 << 30;
/// The child is this program with a verb that no help names.
pub(crate) const CHILD_VERB: &str = "compile-plan";

/// `--target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Auto,
    Local,
    None,
    Architecture(Architecture),
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => Self::Auto,
            "local" => Self::Local,
            "none" => Self::None,
            architecture => Self::Architecture(
                architecture.parse().map_err(|_| "expected `auto`, `local`, `none` or one like `sm_86`".to_owned())?,
            ),
        })
    }

    /// What a plan will be built for; `None` where none is wanted, or can be had and need not.
    pub(super) fn resolve(&self, global: &Global) -> anyhow::Result<Option<Resolved>> {
        let tensorrt = || crate::tensorrt::version(global);
        match self {
            Self::None => Ok(None),
            Self::Auto => match local(global) {
                Ok(resolved) => Ok(Some(resolved)),
                Err(reason) => {
                    info!("no plan is built: {reason:#}");
                    Ok(None)
                }
            },
            Self::Local => local(global).map(Some),
            Self::Architecture(architecture) => {
                let class = DeviceClass {
                    module: None,
                    architecture: *architecture,
                    multiprocessors: None,
                    tensorrt: tensorrt()?,
                    cuda: None,
                };
                Ok(Some(Resolved { class, target: Some(*architecture) }))
            }
        }
    }
}

fn local(global: &Global) -> anyhow::Result<Resolved> {
    Ok(Resolved { class: crate::tensorrt::device_class(global)?, target: None })
}

/// A target of which everything is known that a plan depends on.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    class: DeviceClass,
    target: Option<Architecture>,
}

impl Resolved {
    /// Jetson Nano and TX2 have no instructions for it; Xavier, sm_72, was the first Jetson that had.
    pub(super) fn has_int8(&self) -> bool {
        let architecture = self.class.architecture;
        architecture == Architecture::new(6, 1) || architecture >= Architecture::new(7, 2)
    }
}

/// What `--json` says of a plan.
#[derive(Debug, Serialize)]
pub(super) struct BuiltPlan {
    path: PathBuf,
    built_for: String,
    tensorrt: TensorRtVersion,
    bytes: usize,
    cached: bool,
    /// From the converted graph to the plan in its file.
    plan_ms: u128,
    compile_ms: Option<u128>,
    peak_bytes: Option<u64>,
}

#[allow(clippy::too_many_arguments, reason = "a plan depends on so much")]
pub(super) fn plan(
    args: &Args,
    global: &Global,
    interrupt: &Interrupt,
    target: &Resolved,
    model: &OnnxModel,
    bundle: Digest,
    precision: Precision,
    profile: ShapeProfile,
    signer: &SecretKey,
    path: &Path,
) -> anyhow::Result<BuiltPlan> {
    let started = Instant::now();
    let key = PlanKey {
        bundle,
        device: target.class.clone(),
        compatibility: Compatibility::default(),
        precision,
        profile: profile.clone(),
        builder: PRODUCER.to_owned(),
    };
    let folder = plan_cache_folder().context("there is no home folder for the plan cache")?;
    let cache = PlanCache::open(&folder, CACHE_BYTES_MAX)?;
    let _alone = cache.lock_build(&key)?;
    let cached = cache.get(&key)?.filter(|plan| plan.signer() == signer.public());
    let (plan, compiled) = match cached {
        Some(plan) => {
            info!("the plan is in the cache");
            (plan, None)
        }
        None => {
            let options = options(args, global, target, profile);
            let mut bars = Bars::default();
            let compiled =
                workshop(args, interrupt, &folder, |shop| shop.compile(model, &options, &mut |event| bars.show(event)));
            bars.clear();
            let compiled = compiled.context("cannot compile a plan")?;
            let checked = check_precision(model, &compiled.layers)??;
            info!(layers = compiled.layers.len(), checked, "TensorRT took the graph's precisions as they are");
            let facts = PlanFacts { inputs: model.inputs()?, outputs: model.outputs()?, speed: None };
            let plan = Plan::seal(key, facts, &compiled.engine, signer);
            cache.insert(&plan)?;
            (plan, Some(compiled))
        }
    };
    revoada_bundle::partial::replace(path, plan.bytes())
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    let built = BuiltPlan {
        path: path.to_owned(),
        built_for: plan.key().device.to_string(),
        tensorrt: plan.key().device.tensorrt,
        bytes: plan.payload().len(),
        cached: compiled.is_none(),
        plan_ms: started.elapsed().as_millis(),
        compile_ms: compiled.as_ref().map(|compiled| compiled.compile_time.as_millis()),
        peak_bytes: compiled.as_ref().and_then(|compiled| compiled.peak_bytes),
    };
    let seconds = compiled.map(|compiled| format!("{:.1}", compiled.compile_time.as_secs_f64()));
    info!(plan = %path.display(), built_for = %built.built_for, bytes = built.bytes, seconds, "plan");
    Ok(built)
}

pub(crate) fn plan_cache_folder() -> Option<PathBuf> {
    Some(crate::cache_folder()?.join("plans"))
}

/// Asks TensorRT, before time is spent on the model, whether it reads it.
pub(super) fn check(
    args: &Args,
    global: &Global,
    interrupt: &Interrupt,
    target: &Resolved,
    model: &OnnxModel,
) -> anyhow::Result<()> {
    let options = options(args, global, target, ShapeProfile::new());
    let checked = workshop(args, interrupt, &std::env::temp_dir(), |shop| shop.check(model, &options));
    checked.context("cannot compile a plan")
}

fn options(args: &Args, global: &Global, target: &Resolved, profile: ShapeProfile) -> CompileOptions {
    CompileOptions {
        tensorrt: global.tensorrt.clone(),
        target: target.target,
        compatibility: Compatibility::default(),
        profile,
        workspace_bytes_max: workspace(args, target),
        dla_core: None,
        timing_cache: None,
    }
}

/// Lends the means to start children; a signal meanwhile cancels what they do.
fn workshop<T>(args: &Args, interrupt: &Interrupt, scratch: &Path, work: impl FnOnce(&Workshop<'_>) -> T) -> T {
    let command = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD_VERB);
        Ok(command)
    };
    let guard = MemoryGuard { left_bytes_min: u64::from(args.memory_left) << 20 };
    let cancel = Cancel::default();
    *interrupt.lock() = Some(cancel.clone());
    let done = work(&Workshop { command: &command, scratch, guard, cancel });
    *interrupt.lock() = None;
    done
}

/// What a signal cancels: the child that compiles, where there is one.
#[derive(Clone, Default)]
pub(super) struct Interrupt(Arc<Mutex<Option<Cancel>>>);

impl Interrupt {
    /// From now on a signal cancels a build, and otherwise ends the process as usual.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let heard = interrupt.clone();
        crate::stop::on_signal(move || match &*heard.lock() {
            Some(cancel) if !cancel.is_cancelled() => {
                cancel.cancel();
                true
            }
            _ => false,
        })?;
        Ok(interrupt)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cancel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was said, or half of what is free where the GPU has no memory of its own.
fn workspace(args: &Args, target: &Resolved) -> Option<u64> {
    let said = args.memory.map(|mib| u64::from(mib) << 20);
    said.or_else(|| {
        let is_jetson = target.target.is_none() && target.class.module.is_some();
        available_bytes().filter(|_| is_jetson).map(|bytes| bytes / 2)
    })
}

/// The outermost phase that counts steps, as a bar.
#[derive(Default)]
struct Bars {
    bar: Option<(String, ProgressBar)>,
}

impl Bars {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Started { phase, steps } if self.bar.is_none() && *steps > 1 => {
                self.bar = Some((phase.clone(), progress(u64::from(*steps), phase)));
            }
            Event::Step { phase, step } => {
                if let Some((_, bar)) = self.bar.as_ref().filter(|(shown, _)| shown == phase) {
                    bar.set_position(u64::from(*step) + 1);
                }
            }
            Event::Finished { phase } if self.bar.as_ref().is_some_and(|(shown, _)| shown == phase) => self.clear(),
            _ => {}
        }
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// The hidden verb.
pub(crate) fn run_child() -> anyhow::Result<()> {
    Ok(child(&mut std::io::stdin().lock(), Box::new(std::io::stdout()))?)
}
