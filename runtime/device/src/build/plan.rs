//! The plan of a build: found in the cache, compiled in a child process, or offered by another device.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use indicatif::ProgressBar;
use revoada_builder::compare::Report as Comparison;
use revoada_builder::compile::{
    Cancel, CompileOptions, Compiled, Event, MemoryGuard, Workshop, available_bytes, child,
};
use revoada_bundle::bundle::Precision;
use revoada_bundle::hash;
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::partial::Partial;
use revoada_bundle::plan::{Plan, PlanAccuracy, PlanFacts, PlanKey, PlanSpeed, ShapeProfile, ShapeRange};
use revoada_bundle::plan_cache::PlanCache;
use revoada_bundle::sign::SecretKey;
use revoada_core::{Compatibility, Digest, Dim, HardwareCompatibility, TensorRtVersion};
use serde::Serialize;
use tracing::info;

use super::PRODUCER;
use super::offered;
use super::target::{Resolved, Target};
use super::trial::{Origin, Trial};
use crate::Global;
use crate::failure::Misuse;
use crate::terminal::progress;

/// The folder of plans in that of what can be had again.
const PLANS: &str = "plans";
/// Room for a few dozen plans.
const CACHE_BYTES_MAX: u64 = 4 << 30;
/// Enough that the system is not driven out.
const MEMORY_LEFT_MIB: u32 = 256;
/// The child is this program with a verb that no help names.
pub(crate) const CHILD_VERB: &str = "compile-plan";

/// Where plans are kept from one start to the next.
pub(crate) fn plan_cache_folder() -> Option<PathBuf> {
    Some(crate::cache_folder()?.join(PLANS))
}

/// What is said of the plan.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Plan")]
pub(crate) struct PlanArgs {
    /// For which GPU a plan is compiled: `local`, a compute capability such as `sm_86` (TensorRT for RTX only),
    /// `none`, or `auto`: local where TensorRT and a GPU are there.
    #[arg(long, default_value = "auto", value_name = "TARGET", value_parser = Target::parse)]
    pub(super) target: Target,
    /// The plan's file; BUNDLE.plan when not given.
    #[arg(long, value_name = "FILE")]
    pub(super) plan: Option<PathBuf>,
    /// A plan of the bundle that another device of exactly this class built: it is tried in place of one that is compiled
    /// here, and then signed and kept as this device's own.
    #[arg(long, value_name = "PLAN", conflicts_with = "memory")]
    pub(super) offered: Option<PathBuf>,
    /// Largest batch of the plan, where the model leaves its batch open; 1 when not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch_max: Option<u16>,
    /// Shapes of an input that the plan runs, smallest:best:largest: `images=1x3x640x640:4x3x640x640:8x3x640x640`.
    #[arg(long, value_name = "INPUT=SHAPES")]
    profile: Vec<String>,
    /// Run on this core of the deep learning accelerator; what it cannot do goes to the GPU.
    #[arg(long, value_name = "CORE")]
    dla: Option<u32>,
    /// Let later versions of TensorRT run the plan, too, up to the next major one (from 8.6 on); it is larger and may
    /// be slower.
    #[arg(long)]
    version_compatible: bool,
    /// Let other GPUs run the plan, too (from TensorRT 8.6 on); it may be slower. Jetsons do not take it.
    #[arg(long, value_enum, value_name = "GPUS")]
    hardware_compatible: Option<OtherGpus>,
    /// Device memory in MiB that one layer may use as scratch.
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Memory in MiB that a build must leave free, or it is ended.
    #[arg(long, default_value_t = MEMORY_LEFT_MIB, value_name = "MIB")]
    memory_left: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OtherGpus {
    /// Of the same compute capability.
    Same,
    /// Of the Ampere generation and later.
    Ampere,
}

impl PlanArgs {
    /// For the GPU that is here and these shapes, each as `--profile` takes it; the rest is as when nothing is said.
    pub(crate) fn local(profile: Vec<String>) -> Self {
        Self {
            target: Target::Local,
            plan: None,
            offered: None,
            batch_max: None,
            profile,
            dla: None,
            version_compatible: false,
            hardware_compatible: None,
            memory: None,
            memory_left: MEMORY_LEFT_MIB,
        }
    }

    /// Refuses shapes that are not the model's, before time is spent on it.
    pub(super) fn check_profile(&self, model: &OnnxModel, manifest: &Manifest) -> anyhow::Result<()> {
        match self.profile.is_empty() {
            true => Ok(()),
            false => profile(self, model, manifest).map(drop),
        }
    }

    /// Whatever is said of a plan that is not wanted has no effect.
    fn check(&self) -> Result<(), Misuse> {
        let said = [
            (self.plan.is_some(), "--plan"),
            (self.offered.is_some(), "--offered"),
            (self.batch_max.is_some(), "--batch-max"),
            (!self.profile.is_empty(), "--profile"),
            (self.dla.is_some(), "--dla"),
            (self.version_compatible, "--version-compatible"),
            (self.hardware_compatible.is_some(), "--hardware-compatible"),
            (self.memory.is_some(), "--memory"),
        ];
        match said.iter().find(|(said, _)| *said) {
            Some((_, option)) if self.target == Target::None => {
                Err(Misuse(format!("`{option}` has no effect with `--target none`: no plan is built")))
            }
            _ => Ok(()),
        }
    }

    fn compatibility(&self) -> Compatibility {
        let hardware = match self.hardware_compatible {
            None => HardwareCompatibility::None,
            Some(OtherGpus::Same) => HardwareCompatibility::SameArchitecture,
            Some(OtherGpus::Ampere) => HardwareCompatibility::AmpereAndLater,
        };
        Compatibility { version: self.version_compatible, hardware }
    }
}

/// What `--json` says of a plan.
#[derive(Debug, Serialize)]
pub(crate) struct BuiltPlan {
    pub(super) path: PathBuf,
    built_for: String,
    tensorrt: TensorRtVersion,
    pub(crate) bytes: usize,
    cached: bool,
    /// From the converted graph to the plan in its file.
    plan_ms: u128,
    compile_ms: Option<u128>,
    peak_bytes: Option<u64>,
    /// Of a plan that was tried here.
    accuracy: Option<PlanAccuracy>,
    speed: Option<PlanSpeed>,
    /// Of which the accuracy is the sum; of a plan that was tried just now.
    #[serde(skip)]
    pub(crate) comparison: Option<Comparison>,
}

/// Of what a plan is wanted.
pub(crate) struct Subject<'a> {
    pub(crate) model: &'a OnnxModel,
    pub(crate) manifest: &'a Manifest,
    pub(crate) bundle: Digest,
    pub(crate) precision: Precision,
    /// For a plan that runs here.
    pub(crate) trial: Trial,
}

/// What compiles plans for one target.
pub(crate) struct Compiler<'a> {
    args: &'a PlanArgs,
    global: &'a Global,
    target: Resolved,
    interrupt: Interrupt,
}

impl<'a> Compiler<'a> {
    /// `None` where no plan is wanted, or can be had and need not.
    pub(crate) fn new(args: &'a PlanArgs, global: &'a Global) -> anyhow::Result<Option<Self>> {
        args.check()?;
        let Some(target) = args.target.resolve(global)? else { return Ok(None) };
        if args.offered.is_some() && target.elsewhere.is_some() {
            return Err(
                Misuse("`--offered` is for the device that is here: one elsewhere cannot try a plan".into()).into()
            );
        }
        Ok(Some(Self { args, global, target, interrupt: Interrupt::listen()? }))
    }

    /// Whether plans are tried: those for a GPU elsewhere cannot be.
    pub(super) fn tries_plans(&self) -> bool {
        self.target.elsewhere.is_none()
    }

    pub(super) fn has_int8(&self) -> bool {
        self.target.has_int8()
    }

    /// Asks TensorRT, before time is spent on the model, whether it reads it.
    pub(super) fn check(&self, model: &OnnxModel) -> anyhow::Result<()> {
        let options = self.options(ShapeProfile::new(), None);
        let checked = self.workshop(&std::env::temp_dir(), |shop| shop.check(model, &options));
        checked.context("cannot compile a plan")
    }

    /// Writes the plan to `path`.
    pub(crate) fn plan(&self, subject: &Subject<'_>, signer: &SecretKey, path: &Path) -> anyhow::Result<BuiltPlan> {
        let started = Instant::now();
        let profile = profile(self.args, subject.model, subject.manifest)?;
        let mut key = PlanKey {
            bundle: subject.bundle,
            device: self.target.class.clone(),
            compatibility: self.args.compatibility(),
            precision: subject.precision,
            profile: profile.clone(),
            dla_core: self.args.dla,
            builder: PRODUCER.to_owned(),
        };
        let offered = self.args.offered.as_deref().map(|path| offered::read(path, &key)).transpose()?;
        if let Some(offered) = &offered {
            key = offered.key().clone();
        }
        let folder = crate::cache_folder().context("there is no home folder for the plan cache")?;
        let cache = PlanCache::open(&folder.join(PLANS), CACHE_BYTES_MAX)?;
        let _alone = cache.lock_build(&key)?;
        let cached = cache.get(&key)?.filter(|plan| plan.signer() == signer.public());
        let is_cached = cached.is_some();
        let cannot_write = || format!("cannot write `{}`", path.display());
        let (plan, compiled, comparison) = match cached {
            Some(plan) => {
                info!("the plan is in the cache");
                written(&plan, path).and_then(Partial::commit).with_context(cannot_write)?;
                (plan, None, None)
            }
            None => {
                let (engine, compiled, origin) = match offered {
                    // Only what the engine does is the other device's to say.
                    Some(offered) => (offered.payload().to_vec(), None, Origin::Offered),
                    None => {
                        let timings = self.timings(&folder)?;
                        let mut compiled =
                            self.compile(subject.model, self.options(profile, timings), cache.folder())?;
                        (std::mem::take(&mut compiled.engine), Some(compiled), Origin::Built)
                    }
                };
                let (inputs, outputs) = (subject.model.inputs()?, subject.model.outputs()?);
                let (mut facts, mut comparison) = (PlanFacts { inputs, outputs, ..PlanFacts::default() }, None);
                if self.tries_plans() {
                    let untried = Plan::seal(key.clone(), facts.clone(), engine.as_slice(), signer);
                    let (found, compared) =
                        subject.trial.of_plan(&untried, origin, subject.model, facts, self.global)?;
                    (facts, comparison) = (found, Some(compared));
                }
                let plan = Plan::seal(key, facts, engine, signer);
                // The disk is waited for once, and the plan appears when the cache has it, too.
                thread::scope(|scope| {
                    let kept = scope.spawn(|| cache.insert(&plan));
                    let partial = written(&plan, path);
                    kept.join().expect("the cache does not panic")?;
                    partial.and_then(Partial::commit).with_context(cannot_write)
                })?;
                (plan, compiled, comparison)
            }
        };
        let built = BuiltPlan {
            path: path.to_owned(),
            built_for: plan.key().device.to_string(),
            tensorrt: plan.key().device.tensorrt,
            bytes: plan.payload().len(),
            cached: is_cached,
            plan_ms: started.elapsed().as_millis(),
            compile_ms: compiled.as_ref().map(|compiled| compiled.compile_time.as_millis()),
            peak_bytes: compiled.as_ref().and_then(|compiled| compiled.peak_bytes),
            accuracy: plan.facts().accuracy,
            speed: plan.facts().speed,
            comparison,
        };
        let seconds = compiled.map(|compiled| format!("{:.1}", compiled.compile_time.as_secs_f64()));
        info!(plan = %path.display(), built_for = %built.built_for, bytes = built.bytes, seconds, "plan");
        Ok(built)
    }

    fn compile(&self, model: &OnnxModel, options: CompileOptions, scratch: &Path) -> anyhow::Result<Compiled> {
        let mut bars = Bars::default();
        let compiled = self.workshop(scratch, |shop| shop.compile(model, &options, &mut |event| bars.show(event)));
        bars.clear();
        let compiled = compiled.context("cannot compile a plan")?;
        let Compiled { layers, checked, .. } = compiled;
        info!(layers, checked, "TensorRT took the graph's precisions as they are");
        Ok(compiled)
    }

    fn options(&self, profile: ShapeProfile, timing_cache: Option<PathBuf>) -> CompileOptions {
        CompileOptions {
            tensorrt: self.global.tensorrt.clone(),
            target: self.target.elsewhere,
            compatibility: self.args.compatibility(),
            profile,
            workspace_bytes_max: self.workspace(),
            dla_core: self.args.dla,
            timing_cache,
        }
    }

    /// What was said, or half of what is free where the GPU has no memory of its own.
    fn workspace(&self) -> Option<u64> {
        let said = self.args.memory.map(|mib| u64::from(mib) << 20);
        said.or_else(|| available_bytes().filter(|_| self.target.is_jetson()).map(|bytes| bytes / 2))
    }

    /// Where the timings of this device's kernels are kept, for builds that time them: they hold for one device class.
    fn timings(&self, cache: &Path) -> anyhow::Result<Option<PathBuf>> {
        if !self.target.times_kernels() {
            return Ok(None);
        }
        let folder = cache.join("timings");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        let class = serde_json::to_vec(&self.target.class)?;
        Ok(Some(folder.join(hash(&class).hex()).with_extension("timings")))
    }

    /// Lends the means to start children; a signal meanwhile cancels what they do.
    fn workshop<T>(&self, scratch: &Path, work: impl FnOnce(&Workshop<'_>) -> T) -> T {
        let command = || {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(CHILD_VERB);
            Ok(command)
        };
        let guard = MemoryGuard { left_bytes_min: u64::from(self.args.memory_left) << 20 };
        let cancel = Cancel::default();
        *self.interrupt.lock() = Some(cancel.clone());
        let done = work(&Workshop { command: &command, scratch, guard, cancel });
        *self.interrupt.lock() = None;
        done
    }
}

/// On the disk, and not under its name yet.
fn written(plan: &Plan, path: &Path) -> io::Result<Partial> {
    let partial = Partial::create(path)?;
    let mut file = File::create(partial.path())?;
    file.write_all(plan.bytes())?;
    file.sync_all()?;
    Ok(partial)
}

/// What the plan runs: what was said, and for inputs whose batch is open a batch of up to `--batch-max`.
fn profile(args: &PlanArgs, model: &OnnxModel, manifest: &Manifest) -> anyhow::Result<ShapeProfile> {
    let mut profile = crate::shapes::parse_profile(&args.profile)?;
    let inputs = model.inputs()?;
    if let Some(name) = profile.keys().find(|name| inputs.iter().all(|spec| spec.name != **name)) {
        return Err(Misuse(format!("`--profile {name}=…` names no input of the model")).into());
    }
    let picture = revoada_engine::picture_input(&inputs, &manifest.input).ok();
    for (index, spec) in inputs.iter().enumerate() {
        if profile.contains_key(&spec.name) || spec.dims.iter().all(|dim| dim.fixed().is_some()) {
            continue;
        }
        let batch = usize::from(args.batch_max.unwrap_or(1));
        let shape = |rows: usize| match &picture {
            Some(picture) if picture.index == index => Some(picture.shape(picture.rows_fixed.unwrap_or(rows)).to_vec()),
            _ => {
                let rest: Option<Vec<usize>> = spec.dims[1..].iter().map(Dim::fixed).collect();
                Some([vec![rows], rest?].concat())
            }
        };
        let (Some(min), Some(max)) = (shape(1), shape(batch)) else {
            return Err(Misuse(format!("input `{spec}` has open dimensions; give its shapes with `--profile`")).into());
        };
        profile.insert(spec.name.clone(), ShapeRange { min, opt: max.clone(), max });
    }
    Ok(profile)
}

/// What a signal cancels: the child that compiles, where there is one.
#[derive(Clone, Default)]
struct Interrupt(Arc<Mutex<Option<Cancel>>>);

impl Interrupt {
    /// From now on a signal cancels a build, and otherwise ends the process as usual.
    fn listen() -> anyhow::Result<Self> {
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
            Event::Waiting => info!("another build has the device; this one waits"),
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
