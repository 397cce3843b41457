//! A plan for the GPU of this machine, for as long as it is measured.

use std::io;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use indicatif::ProgressBar;
use revoada_builder::compile::{
    Cancel, CompileOptions, Event, MemoryGuard, Workshop, available_bytes, check_precision,
};
use revoada_bundle::bundle::Precision;
use revoada_bundle::hash;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::{Plan, PlanFacts, PlanKey, ShapeProfile, ShapeRange};
use revoada_bundle::sign::SecretKey;
use revoada_core::{Compatibility, DeviceClass, Dim};
use revoada_engine::{Backend, Engine, LoadOptions, ModelSource, Shapes};

use crate::Global;
use crate::build::{CHILD_VERB, PRODUCER};
use crate::terminal::progress;

/// An engine, and how large its plan is.
pub(super) struct Compiled {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) bytes: usize,
}

/// Compiles `model` for `shapes` alone, and loads it. Nothing is kept: plans that stay are `revoada build`'s.
pub(super) fn compile(
    model: &OnnxModel,
    precision: Precision,
    shapes: &Shapes,
    class: &DeviceClass,
    backend: &dyn Backend,
    options: &LoadOptions,
    global: &Global,
) -> anyhow::Result<Compiled> {
    let mut profile = ShapeProfile::new();
    for spec in model.inputs()?.iter().filter(|spec| spec.dims.iter().any(|dim| matches!(dim, Dim::Dynamic(_)))) {
        profile.insert(spec.name.clone(), ShapeRange::fixed(&shapes.inputs[&spec.name]));
    }
    let compile_options = CompileOptions {
        tensorrt: global.tensorrt.clone(),
        target: None,
        compatibility: Compatibility::default(),
        profile: profile.clone(),
        // On a Jetson what TensorRT takes is taken from everybody.
        workspace_bytes_max: available_bytes().map(|bytes| bytes / 2),
        dla_core: None,
        timing_cache: None,
    };
    let folder = tempfile::tempdir().context("cannot create a folder for the plan")?;
    let command = || -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD_VERB);
        Ok(command)
    };
    let guard = MemoryGuard::default();
    let shop = Workshop { command: &command, scratch: folder.path(), guard, cancel: Cancel::default() };
    let mut bar: Option<ProgressBar> = None;
    let compiled = shop.compile(model, &compile_options, &mut |event| match event {
        Event::Started { steps, .. } if bar.is_none() && *steps > 1 => {
            bar = Some(progress(u64::from(*steps), &format!("plan, {}", precision.name())));
        }
        Event::Step { .. } => bar.iter().for_each(|bar| bar.inc(1)),
        _ => {}
    });
    bar.iter().for_each(ProgressBar::finish_and_clear);
    let compiled = compiled.with_context(|| format!("cannot compile a plan of the {} model", precision.name()))?;
    check_precision(model, &compiled.layers)??;

    let key = PlanKey {
        bundle: hash(&model.encode()),
        device: class.clone(),
        compatibility: Compatibility::default(),
        precision,
        profile,
        builder: PRODUCER.to_owned(),
    };
    let facts = PlanFacts { inputs: model.inputs()?, outputs: model.outputs()?, speed: None };
    let plan = Plan::seal(key, facts, &compiled.engine, &SecretKey::generate()?);
    let path = folder.path().join("model.plan");
    std::fs::write(&path, plan.bytes()).with_context(|| format!("cannot write `{}`", path.display()))?;
    let engine = backend.load(ModelSource::Plan(&path), options)?;
    Ok(Compiled { engine, bytes: compiled.engine.len() })
}
