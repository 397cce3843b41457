//! Makes models out of what was fetched, and puts their manifests beside them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::step;
use crate::stamp::{Made, replace};
use crate::workspace::Workspace;
use crate::{process, python};

/// What `make_models.py` makes: its word for it, the source and the result, both in the cache.
const RECIPES: &[(&str, &str, &str)] = &[
    ("centerface", "sources/centerface.onnx", "models/centerface.onnx"),
    ("efficientnet-lite0", "sources/efficientnet-lite0.pth", "models/efficientnet-lite0.onnx"),
    ("imagenet-labels", "sources/imagenet.json", "models/imagenet.txt"),
];

const MANIFESTS: &[&str] = &["centerface.toml", "efficientnet-lite0.toml"];

pub(crate) fn make(workspace: &Workspace) -> Result<()> {
    let script = workspace.file("tests/models/make_models.py");
    let reader = workspace.file("tests/models/torch_weights.py");
    let requirements = workspace.file("tests/models/requirements.txt");
    for (recipe, source, target) in RECIPES {
        let (source, target) = (workspace.cached(source), workspace.cached(target));
        let inputs = [script.clone(), reader.clone(), requirements.clone(), source.clone()];
        Made { name: recipe, inputs: &inputs, outputs: std::slice::from_ref(&target) }.ensure(workspace, || {
            step(&format!("make {recipe}"), || {
                let folder = target.parent().expect("a model lies in a folder of the cache");
                fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
                let beside = target.with_added_extension("part");
                let mut command = Command::new(python::executable(workspace));
                // -B leaves no compiled modules in the repository.
                process::output(command.arg("-B").arg(&script).arg(recipe).arg(&source).arg(&beside))?;
                fs::rename(&beside, &target).with_context(|| format!("cannot put `{}` in place", target.display()))
            })
        })?;
    }
    for name in MANIFESTS {
        let source = workspace.file(&format!("tests/models/{name}"));
        let text = fs::read_to_string(&source).with_context(|| format!("cannot read `{}`", source.display()))?;
        let target = workspace.cached(&format!("models/{name}"));
        if fs::read_to_string(&target).is_ok_and(|there| there == text) {
            continue;
        }
        replace(&target, &text)?;
    }
    Ok(())
}
