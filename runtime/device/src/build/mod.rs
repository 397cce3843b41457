//! `revoada build MODEL`: from an ONNX model to a signed bundle and, where TensorRT is there, a plan.

pub(crate) mod boxes;
pub(crate) mod evidence;
mod offered;
pub(crate) mod plan;
pub(crate) mod steps;
mod target;
pub(crate) mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use revoada_builder::clean::{CleanOptions, Cleaned, clean};
use revoada_builder::compare::Thresholds;
use revoada_builder::convert::{Accuracy, ConvertError, Converted, Recipe, Refusal, Steps, convert};
use revoada_builder::int8::Method;
use revoada_builder::{Keep, make_golden, report};
use revoada_bundle::bundle::{
    Bundle, BundleWriter, Index, Lineage, MANIFEST, MODEL, Precision, SealedBundle, Trust, VERSION, beside,
};
use revoada_bundle::golden::{GOLDEN, Golden};
use revoada_bundle::hash;
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::sign::PublicKey;
use revoada_core::Digest;
use revoada_engine::Backend;
use serde::Serialize;
use tracing::{info, warn};

use crate::Global;
use crate::failure::{Misuse, Refused};
use crate::terminal::say;
use crate::{keys, models};

use evidence::{Evidence, find_pictures};
use plan::{BuiltPlan, Compiler, PlanArgs, Subject};
pub(crate) use plan::{CHILD_VERB, plan_cache_folder, run_child};
use steps::Timed;
use trial::Trial;
pub(crate) use trial::{VERB as TRIAL_VERB, run_trial};

pub(crate) const PRODUCER: &str = concat!("revoada ", env!("CARGO_PKG_VERSION"));
/// ONNX operator sets up to this are in what today's TensorRT reads.
pub(crate) const OPSET_MAX: i64 = 19;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada build model.onnx\n  \
    revoada build model.onnx --precision int8 --calibration photographs/ --output model.bundle\n  \
    revoada build model.onnx --target sm_86 --batch-max 8\n  \
    revoada build model-fp16.bundle --target local             only the plan, for the device that is here\n  \
    revoada build model-fp16.bundle --target local --offered other.plan    … as another device has built it\n\n\
    A model that answers too differently from the original is refused: the report says which layers\n\
    are to blame, and `--mixed` keeps them as they are.")]
pub(crate) struct Args {
    /// The ONNX model; its manifest is looked for beside it (`model.toml`). Or a bundle, of which only a plan is made.
    model: PathBuf,
    /// The model's manifest, where it is not beside it.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// What the model computes in; FP16 when not given.
    #[arg(long, value_enum)]
    precision: Option<PrecisionChoice>,
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
    /// 99.99 when not given.
    #[arg(long, value_name = "METHOD", value_parser = parse_method)]
    calibration_method: Option<Method>,
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
    #[command(flatten)]
    plan: PlanArgs,
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
    let summary = match Bundle::is_at(&args.model) {
        true => plan_of_bundle(args, global)?,
        false => bundle_of_model(args, global)?,
    };
    if args.json {
        return Ok(say(&serde_json::to_string_pretty(&summary)?)?);
    }
    let made = match &summary.plan {
        Some(plan) if summary.accuracy.is_none() => &plan.path,
        _ => &summary.bundle,
    };
    Ok(say(&made.display().to_string())?)
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Built {
    bundle: PathBuf,
    digest: Digest,
    precision: Precision,
    /// Of the bundle.
    signer: Option<PublicKey>,
    /// Of a bundle that was made here.
    accuracy: Option<Accuracy>,
    plan: Option<BuiltPlan>,
}

/// Of a bundle only a plan can be made: everything else of it stands.
fn plan_of_bundle(args: &Args, global: &Global) -> anyhow::Result<Built> {
    let bundle = args.model.display();
    let without_effect = |said: &[(bool, &str)], why: &str| match said.iter().find(|(said, _)| *said) {
        Some((_, option)) => Err(Misuse(format!("`{option}` has no effect: {why}"))),
        None => Ok(()),
    };
    let of_conversion = [
        (args.precision.is_some(), "--precision"),
        (args.manifest.is_some(), "--manifest"),
        (args.output.is_some(), "--output"),
        (args.calibration.is_some(), "--calibration"),
        (args.calibration_method.is_some(), "--calibration-method"),
        (!args.keep.is_empty(), "--keep"),
        (args.mixed, "--mixed"),
    ];
    without_effect(&of_conversion, &format!("bundle `{bundle}` is converted already"))?;
    let of_trial = [
        (args.evaluation.is_some(), "--evaluation"),
        (args.cosine_min.is_some(), "--cosine-min"),
        (args.top1_min.is_some(), "--top1-min"),
        (args.boxes_min.is_some(), "--boxes-min"),
    ];
    let bundle = Bundle::open(&args.model)?.verify(Trust::Anybody)?;
    let keys = keys::owner(args.key.as_deref())?;
    let Some(compiler) = Compiler::new(&args.plan, global)? else {
        return Err(Misuse("there is nothing to do: of a bundle only a plan can be built".into()).into());
    };
    if !compiler.tries_plans() {
        without_effect(&of_trial, "a plan for a GPU elsewhere cannot be tried")?;
    }
    let (model, manifest) = (OnnxModel::read(&bundle.model_path())?, bundle.manifest()?);
    let index = bundle.index();
    let (precision, scores) = (index.precision, scores(&model, &manifest)?);
    let asked = |golden: Golden| golden.asking_at_most(args.cosine_min.unwrap_or(1.0)).encode();
    let trial = Trial {
        pictures: args.evaluation.as_deref().map(find_pictures).transpose()?.unwrap_or_default(),
        golden: bundle.golden()?.map(asked),
        ..trial(args, &bundle.model_path(), precision, scores)
    };
    let subject = Subject { model: &model, manifest: &manifest, bundle: bundle.digest(), precision, trial };
    let plan = compiler.plan(&subject, &keys, &plan_path(args, &args.model))?;
    Ok(Built {
        bundle: args.model.clone(),
        digest: bundle.digest(),
        precision,
        signer: bundle.signer(),
        accuracy: None,
        plan: Some(plan),
    })
}

fn bundle_of_model(args: &Args, global: &Global) -> anyhow::Result<Built> {
    if args.plan.offered.is_some() {
        let model = args.model.display();
        return Err(
            Misuse(format!("`--offered` has no effect: it is a plan of a bundle, and `{model}` is none yet")).into()
        );
    }
    let source = fs::read(&args.model).with_context(|| format!("cannot read model `{}`", args.model.display()))?;
    let model = OnnxModel::read(&args.model)?;
    let manifest = manifest(args)?;
    let backend = models::any_backend(global)?;
    let keys = keys::owner(args.key.as_deref())?;
    args.plan.check_profile(&model, &manifest)?;
    let compiler = Compiler::new(&args.plan, global)?;
    let cleaned = cleaned(&*backend, &model)?;
    if let Some(compiler) = &compiler {
        compiler.check(&cleaned.model)?;
    }
    let evidence = Evidence::gather(&model, &manifest, args.calibration.as_deref(), args.evaluation.as_deref())?;

    let (precision, converted) =
        convert_best(args, &model, &cleaned, &manifest, &backend, &evidence, compiler.as_ref())?;
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
    let scores = scores(&model, &manifest)?;
    let cosine_min = thresholds(args, precision, scores).cosine_min.unwrap_or(0.0);
    let steps = Timed::default();
    steps.step("note golden inputs");
    let golden = make_golden(&*backend, &model, &converted.model, &manifest.input, cosine_min)?;
    drop(steps);
    let golden = golden.as_ref().map(Golden::encode);
    // In its place only when all that was asked for is there.
    let sealed = seal_bundle(&output, index, &manifest, &converted, golden.as_deref(), &keys)?;
    let pictures = evidence.paths().to_vec();
    let trial = Trial { pictures, golden, ..trial(args, &args.model, precision, scores) };
    let subject = Subject { model: &converted.model, manifest: &manifest, bundle: sealed.digest(), precision, trial };
    let plan = compiler.map(|compiler| compiler.plan(&subject, &keys, &plan_path(args, &output))).transpose()?;
    let bundle = sealed.publish()?;
    info!(bundle = %output.display(), digest = %bundle.digest(), signer = %keys.public(), "signed");
    Ok(Built {
        bundle: output,
        digest: bundle.digest(),
        precision,
        signer: Some(keys.public()),
        accuracy: Some(converted.accuracy),
        plan,
    })
}

fn plan_path(args: &Args, bundle: &Path) -> PathBuf {
    args.plan.plan.clone().unwrap_or_else(|| beside(bundle, "plan"))
}

/// Cleaned before anything else: nodes that do nothing need not be read by anybody.
pub(crate) fn cleaned(backend: &dyn Backend, model: &OnnxModel) -> anyhow::Result<Cleaned> {
    let steps = Timed::default();
    steps.step("fold and clean the graph");
    Ok(clean(backend, model, &CleanOptions::default())?)
}

/// Of a plan that has to answer as `model` does.
fn trial(args: &Args, model: &Path, precision: Precision, scores: Option<usize>) -> Trial {
    Trial {
        model: model.to_owned(),
        manifest: args.manifest.clone(),
        pictures: Vec::new(),
        scores,
        thresholds: thresholds(args, precision, scores),
        golden: None,
        precise: true,
    }
}

/// The first precision whose model passes its gate.
fn convert_best(
    args: &Args,
    model: &OnnxModel,
    cleaned: &Cleaned,
    manifest: &Manifest,
    backend: &Arc<dyn Backend>,
    evidence: &Evidence,
    compiler: Option<&Compiler<'_>>,
) -> anyhow::Result<(Precision, Converted)> {
    let choice = args.precision.unwrap_or(PrecisionChoice::Fp16);
    let tries: Vec<Precision> = match choice {
        PrecisionChoice::Best => {
            let able = |precision: &Precision| match precision {
                Precision::Int8 if evidence.calibration().is_none() => {
                    info!("no pictures to calibrate with: INT8 is left out");
                    false
                }
                Precision::Int8 => compiler.is_none_or(Compiler::has_int8),
                Precision::Fp32 | Precision::Fp16 => true,
            };
            choice.tries().iter().copied().filter(able).collect()
        }
        other => other.tries().to_vec(),
    };
    let scores = scores(model, manifest)?;
    let mut last = None;
    for precision in tries {
        let recipe = Recipe {
            precision,
            keep: Keep { nodes: args.keep.iter().cloned().collect(), ..Keep::default() },
            mixed: args.mixed || choice == PrecisionChoice::Best,
            thresholds: Thresholds { boxes_min: None, ..thresholds(args, precision, scores) },
            scores,
            method: args.calibration_method.unwrap_or(Method::Percentile(99.99)),
            calibration: evidence.calibration(),
            evaluation: evidence.evaluation(),
            opset_max: OPSET_MAX,
        };
        let outcome = convert(&**backend, model, cleaned, &recipe, &Timed::default())
            .and_then(|converted| boxes::judge(args.boxes_min, model, manifest, backend, evidence, converted));
        match outcome {
            Ok(converted) => return Ok((precision, converted)),
            Err(ConvertError::Refused(refusal)) => {
                let output = args.output.clone().unwrap_or_else(|| default_output(&args.model, precision));
                let folder = beside(&output, "refused");
                write_report(&folder, &stem(&args.model), &refusal.accuracy)?;
                let error = refused(&refusal, &folder);
                if choice == PrecisionChoice::Best {
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

/// What the answers of a converted model must reach.
fn thresholds(args: &Args, precision: Precision, scores: Option<usize>) -> Thresholds {
    Thresholds {
        cosine_min: args.cosine_min.or(Some(cosine_min(precision))),
        top1_min: args.top1_min.filter(|_| scores.is_some()),
        boxes_min: args.boxes_min,
        ..Thresholds::default()
    }
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
pub(crate) fn scores(model: &OnnxModel, manifest: &Manifest) -> anyhow::Result<Option<usize>> {
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
    golden: Option<&[u8]>,
    key: &revoada_bundle::sign::SecretKey,
) -> anyhow::Result<SealedBundle> {
    let mut writer = BundleWriter::create(output)?;
    writer.add(MODEL, &converted.model.encode())?;
    writer.add(MANIFEST, manifest.to_toml().as_bytes())?;
    if let Some(golden) = golden {
        writer.add(GOLDEN, golden)?;
    }
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

fn stem(model: &Path) -> String {
    model.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn default_output(model: &Path, precision: Precision) -> PathBuf {
    PathBuf::from(format!("{}-{}.bundle", stem(model), precision.name()))
}
