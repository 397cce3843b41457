//! `revoada build MODEL`: from an ONNX model to a signed bundle and, where TensorRT is there, a plan.

mod boxes;
mod compile;
mod evidence;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use revoada_builder::clean::{CleanOptions, clean};
use revoada_builder::compare::Thresholds;
use revoada_builder::convert::{Accuracy, ConvertError, Converted, Recipe, Refusal, convert};
use revoada_builder::int8::Method;
use revoada_builder::{Keep, report};
use revoada_bundle::bundle::{BundleWriter, Index, Lineage, MANIFEST, MODEL, Precision, SealedBundle, VERSION};
use revoada_bundle::hash;
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::ShapeProfile;
use revoada_core::Dim;
use revoada_engine::Backend;
use tracing::{info, warn};

use crate::Global;
use crate::failure::{Misuse, Refused};
use crate::terminal::say;
use crate::{keys, models};

pub(crate) use compile::{CHILD_VERB, plan_cache_folder, run_child};
use compile::{Interrupt, Target};
use evidence::Evidence;
use steps::Timed;

pub(crate) const PRODUCER: &str = concat!("revoada ", env!("CARGO_PKG_VERSION"));
/// ONNX operator sets up to this are in what today's TensorRT reads.
const OPSET_MAX: i64 = 19;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada build model.onnx\n  \
    revoada build model.onnx --precision int8 --calibration photographs/ --output model.bundle\n  \
    revoada build model.onnx --target sm_86 --batch-max 8\n\n\
    A model that answers too differently from the original is refused: the report says which layers\n\
    are to blame, and `--mixed` keeps them as they are.")]
pub(crate) struct Args {
    /// The ONNX model; its manifest is looked for beside it (`model.toml`).
    model: PathBuf,
    /// The model's manifest, where it is not beside it.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// What the model computes in.
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Fp16)]
    precision: PrecisionChoice,
    /// The bundle: a folder that must not be there yet. MODEL-PRECISION.bundle when not given.
    #[arg(long, value_name = "BUNDLE")]
    output: Option<PathBuf>,
    /// A folder of pictures from which the ranges of INT8 are learnt; half of them when there is no
    /// `--evaluation`.
    #[arg(long, value_name = "FOLDER")]
    calibration: Option<PathBuf>,
    /// A folder of other pictures, on which the answers are compared with the original's.
    #[arg(long, value_name = "FOLDER")]
    evaluation: Option<PathBuf>,
    /// How a range follows from the numbers seen: min-max, entropy, or a percentile such as 99.99.
    #[arg(long, default_value = "99.99", value_name = "METHOD", value_parser = parse_method)]
    calibration_method: Method,
    /// A layer, by its node's name, that keeps the precision that it has; may be given again.
    #[arg(long, value_name = "NODE")]
    keep: Vec<String>,
    /// Take a mixed model, with the layers to blame kept as they are, where the model is refused and the mixed
    /// one passes.
    #[arg(long)]
    mixed: bool,
    /// Least cosine between each output and the original's, on every picture. When not given: 0.9999 for FP32,
    /// 0.99 for FP16, 0.95 for INT8.
    #[arg(long, value_name = "COSINE", value_parser = parse_share)]
    cosine_min: Option<f64>,
    /// Least share of pictures with the same best class, of a classifier.
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    top1_min: Option<f64>,
    /// Least share of boxes that match, of a detector.
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    boxes_min: Option<f64>,
    /// For which GPU a plan is compiled: `local`, a compute capability such as `sm_86` (TensorRT for RTX only),
    /// `none`, or `auto`: local where TensorRT and a GPU are there.
    #[arg(long, default_value = "auto", value_name = "TARGET", value_parser = Target::parse)]
    target: Target,
    /// The plan's file; BUNDLE.plan when not given.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Largest batch of the plan, where the model leaves its batch open.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch_max: u16,
    /// Shapes of an input that the plan runs, smallest:best:largest: `images=1x3x640x640:4x3x640x640:8x3x640x640`.
    #[arg(long, value_name = "INPUT=SHAPES")]
    profile: Vec<String>,
    /// Device memory in MiB that one layer may use as scratch.
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Memory in MiB that a build must leave free, or it is ended.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory_left: u32,
    /// The private key that signs; made at the first build when not given.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print one JSON object about what was built on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PrecisionChoice {
    Fp32,
    Fp16,
    Int8,
    /// INT8 where the GPU has it and the model stays accurate, else FP16, else FP32.
    Best,
}

impl PrecisionChoice {
    /// What is tried, in order.
    fn tries(self) -> &'static [Precision] {
        match self {
            Self::Fp32 => &[Precision::Fp32],
            Self::Fp16 => &[Precision::Fp16],
            Self::Int8 => &[Precision::Int8],
            Self::Best => &[Precision::Int8, Precision::Fp16, Precision::Fp32],
        }
    }
}

fn parse_method(text: &str) -> Result<Method, String> {
    match text {
        "min-max" => Ok(Method::MinMax),
        "entropy" => Ok(Method::Entropy),
        number => match number.parse() {
            Ok(percent) if percent > 50.0 && percent <= 100.0 => Ok(Method::Percentile(percent)),
            _ => Err("expected `min-max`, `entropy`, or a percentile above 50".to_owned()),
        },
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "not between 0 and 1".to_owned())
}

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let source = fs::read(&args.model).with_context(|| format!("cannot read model `{}`", args.model.display()))?;
    let model = OnnxModel::read(&args.model)?;
    let manifest = manifest(args)?;
    let backend = models::any_backend(global)?;
    let keys = keys::owner(args.key.as_deref())?;
    let target = args.target.resolve(global)?;
    let interrupt = Interrupt::listen()?;
    if let Some(target) = &target {
        // Cleaned first: nodes that do nothing need not be read by anybody.
        let cleaned = clean(&*backend, &model, &CleanOptions::default())?;
        compile::check(args, global, &interrupt, target, &cleaned.model)?;
    }
    let evidence = Evidence::gather(&model, &manifest, args.calibration.as_deref(), args.evaluation.as_deref())?;

    let (precision, converted) = convert_best(args, &model, &manifest, &backend, &evidence, &target)?;
    let output = args.output.clone().unwrap_or_else(|| default_output(&args.model, precision));
    let index = Index {
        version: VERSION,
        name: manifest.name.clone().unwrap_or_else(|| stem(&args.model)),
        precision,
        producer: PRODUCER.to_owned(),
        licence: manifest.licence.clone(),
        lineage: Lineage {
            source: Some(hash(&source)),
            parent: None,
            steps: vec!["clean".into(), precision.name().into()],
        },
        files: Default::default(),
    };
    // In its place only when all that was asked for is there.
    let sealed = seal_bundle(&output, index, &manifest, &converted, &keys)?;
    let profile = profile(args, &converted.model, &manifest)?;
    let built = match target {
        Some(target) => {
            let path = args.plan.clone().unwrap_or_else(|| beside(&output, "plan"));
            Some(compile::plan(
                args,
                global,
                &interrupt,
                &target,
                &converted.model,
                sealed.digest(),
                precision,
                profile,
                &keys,
                &path,
            )?)
        }
        None => None,
    };
    let bundle = sealed.publish()?;
    info!(bundle = %output.display(), digest = %bundle.digest(), signer = %keys.public(), "signed");
    let summary = serde_json::json!({
        "bundle": output, "digest": bundle.digest(), "precision": precision, "signer": keys.public(),
        "accuracy": converted.accuracy, "plan": built,
    });
    if args.json {
        say(&serde_json::to_string_pretty(&summary)?)?
    } else {
        say(&output.display().to_string())?
    }
    Ok(())
}

/// The first precision whose model passes its gate.
fn convert_best(
    args: &Args,
    model: &OnnxModel,
    manifest: &Manifest,
    backend: &Arc<dyn Backend>,
    evidence: &Evidence,
    target: &Option<compile::Resolved>,
) -> anyhow::Result<(Precision, Converted)> {
    let tries: Vec<Precision> = match args.precision {
        PrecisionChoice::Best => {
            let able = |precision: &Precision| match precision {
                Precision::Int8 if evidence.calibration().is_none() => {
                    info!("no pictures to calibrate with: INT8 is left out");
                    false
                }
                Precision::Int8 => target.as_ref().is_none_or(compile::Resolved::has_int8),
                Precision::Fp32 | Precision::Fp16 => true,
            };
            args.precision.tries().iter().copied().filter(able).collect()
        }
        other => other.tries().to_vec(),
    };
    let scores = scores(model, manifest)?;
    let mut last = None;
    for precision in tries {
        let recipe = Recipe {
            precision,
            keep: Keep { nodes: args.keep.iter().cloned().collect(), ..Keep::default() },
            mixed: args.mixed || args.precision == PrecisionChoice::Best,
            thresholds: Thresholds {
                cosine_min: args.cosine_min.or(Some(cosine_min(precision))),
                top1_min: args.top1_min.filter(|_| scores.is_some()),
                ..Thresholds::default()
            },
            scores,
            method: args.calibration_method,
            calibration: evidence.calibration(),
            evaluation: evidence.evaluation(),
            opset_max: OPSET_MAX,
        };
        let outcome = convert(&**backend, model, &recipe, &Timed::default())
            .and_then(|converted| boxes::judge(args.boxes_min, model, manifest, backend, evidence, converted));
        match outcome {
            Ok(converted) => return Ok((precision, converted)),
            Err(ConvertError::Refused(refusal)) => {
                let output = args.output.clone().unwrap_or_else(|| default_output(&args.model, precision));
                let folder = beside(&output, "refused");
                write_report(&folder, &stem(&args.model), &refusal.accuracy)?;
                let error = refused(&refusal, &folder);
                if args.precision == PrecisionChoice::Best {
                    warn!("{error:#}");
                }
                last = Some(error);
            }
            Err(ConvertError::NoCalibration) => {
                return Err(
                    Misuse("INT8 needs pictures to calibrate with: give a folder with `--calibration`".into()).into()
                );
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.expect("every choice tries something"))
}

/// What a conversion costs in a model that bears it well.
fn cosine_min(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 0.9999,
        Precision::Fp16 => 0.99,
        Precision::Int8 => 0.95,
    }
}

/// The sentence, whom to blame, and what to do.
fn refused(refusal: &Refusal, folder: &Path) -> anyhow::Error {
    let blamed: Vec<&str> = refusal.accuracy.layers.iter().map(|layer| layer.node.as_str()).take(5).collect();
    let hint = match &refusal.proposal {
        Some(kept) => format!("`--mixed` keeps {} layer(s) as they are and passes: {}", kept.len(), kept.join(", ")),
        None if blamed.is_empty() => "try another precision".to_owned(),
        None => format!("keeping layers does not suffice; the worst are {}", blamed.join(", ")),
    };
    let error = ConvertError::Refused(Box::new(refusal.clone()));
    anyhow::Error::new(Refused { hint: format!("{hint}; the report is in `{}`", folder.display()) })
        .context(error.to_string())
}

fn manifest(args: &Args) -> anyhow::Result<Manifest> {
    Ok(match &args.manifest {
        Some(path) => Manifest::load(path)?,
        None => Manifest::beside(&args.model)?.unwrap_or_default(),
    })
}

/// The output with a score for each class, where the model classifies: the manifest says so, or its only output
/// is a row of numbers.
fn scores(model: &OnnxModel, manifest: &Manifest) -> anyhow::Result<Option<usize>> {
    let outputs = model.outputs()?;
    let a_row = matches!(outputs.as_slice(), [only] if only.dims.len() == 2);
    Ok(match manifest.output.decoder.as_deref() {
        Some("classification") => Some(0),
        Some(_) => None,
        None => a_row.then_some(0),
    })
}

fn seal_bundle(
    output: &Path,
    index: Index,
    manifest: &Manifest,
    converted: &Converted,
    key: &revoada_bundle::sign::SecretKey,
) -> anyhow::Result<SealedBundle> {
    let mut writer = BundleWriter::create(output)?;
    writer.add(MODEL, &converted.model.encode())?;
    writer.add(MANIFEST, manifest.to_toml().as_bytes())?;
    if let Some(calibration) = &converted.calibration {
        writer.add("calibration.json", &serde_json::to_vec_pretty(calibration)?)?;
    }
    writer.add("reports/accuracy.json", &serde_json::to_vec_pretty(&converted.accuracy)?)?;
    writer.add("reports/accuracy.html", report::html(&index.name, &converted.accuracy).as_bytes())?;
    Ok(writer.seal(index, Some(key))?)
}

/// The report of a model that gets no bundle.
fn write_report(folder: &Path, name: &str, accuracy: &Accuracy) -> anyhow::Result<()> {
    let write = |file: &str, bytes: &[u8]| {
        let path = folder.join(file);
        revoada_bundle::partial::replace(&path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    write("accuracy.json", &serde_json::to_vec_pretty(accuracy)?)?;
    write("accuracy.html", report::html(name, accuracy).as_bytes())
}

/// What the plan runs: what was said, and for inputs whose batch is open a batch of up to `--batch-max`.
fn profile(args: &Args, model: &OnnxModel, manifest: &Manifest) -> anyhow::Result<ShapeProfile> {
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
        let batch = usize::from(args.batch_max);
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
        profile.insert(spec.name.clone(), revoada_bundle::plan::ShapeRange { min, opt: max.clone(), max });
    }
    Ok(profile)
}

fn stem(model: &Path) -> String {
    model.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn default_output(model: &Path, precision: Precision) -> PathBuf {
    PathBuf::from(format!("{}-{}.bundle", stem(model), precision.name()))
}

/// `a.bundle` → `a.plan`.
fn beside(bundle: &Path, extension: &str) -> PathBuf {
    match bundle.extension() {
        Some(known) if known == "bundle" => bundle.with_extension(extension),
        _ => {
            let mut name = bundle.as_os_str().to_owned();
            name.push(".");
            name.push(extension);
            name.into()
        }
    }
}
