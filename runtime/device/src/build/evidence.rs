//! What a converted model is calibrated with and judged on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use revoada_builder::Samples;
use revoada_builder::samples::{Noise, Pictures};
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_core::Frame;
use revoada_pipeline::media;
use tracing::{info, warn};

/// Beyond it more pictures take time and tell little more.
const PICTURES_MAX: usize = 1000;
/// Without pictures.
const NOISE_SAMPLES: usize = 4;

pub(crate) struct Evidence {
    calibration: Option<Pictures>,
    evaluation: Evaluation,
}

enum Evaluation {
    Pictures { samples: Pictures, frames: Vec<Arc<Frame>>, paths: Vec<PathBuf> },
    Noise(Noise),
}

impl Evidence {
    pub(crate) fn gather(
        model: &OnnxModel,
        manifest: &Manifest,
        calibration: Option<&Path>,
        evaluation: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let find = |folder: Option<&Path>| folder.map(find_pictures).transpose();
        let (calibrated, evaluated) = match (find(calibration)?, find(evaluation)?) {
            // No picture is in both halves.
            (Some(all), None) if all.len() > 1 => {
                let halves = all.into_iter().enumerate().partition::<Vec<_>, _>(|(index, _)| index % 2 == 0);
                let strip = |half: Vec<(usize, PathBuf)>| half.into_iter().map(|(_, path)| path).collect();
                (Some(strip(halves.0)), Some(strip(halves.1)))
            }
            pair => pair,
        };
        if evaluated.is_none() {
            warn!("without pictures the model is compared on noise, which says little; give some with `--evaluation`");
        }
        let inputs = model.inputs()?;
        let pictures =
            |paths: Vec<PathBuf>| anyhow::Ok(Pictures::new(&inputs, &manifest.input, load_pictures(&paths)?)?);
        let calibration = calibrated.map(pictures).transpose()?;
        Ok(Self { calibration, ..Self::of_pictures(model, manifest, evaluated.unwrap_or_default())? })
    }

    /// For judging on these pictures, or on noise where there are none.
    pub(crate) fn of_pictures(model: &OnnxModel, manifest: &Manifest, paths: Vec<PathBuf>) -> anyhow::Result<Self> {
        let inputs = model.inputs()?;
        let evaluation = match paths.is_empty() {
            true => Evaluation::Noise(Noise::new(&inputs, &manifest.input, NOISE_SAMPLES)),
            false => {
                let frames = load_pictures(&paths)?;
                let samples = Pictures::new(&inputs, &manifest.input, frames.clone())?;
                Evaluation::Pictures { samples, frames, paths }
            }
        };
        Ok(Self { calibration: None, evaluation })
    }

    pub(crate) fn calibration(&self) -> Option<&dyn Samples> {
        self.calibration.as_ref().map(|pictures| pictures as &dyn Samples)
    }

    pub(crate) fn evaluation(&self) -> &dyn Samples {
        match &self.evaluation {
            Evaluation::Pictures { samples, .. } => samples,
            Evaluation::Noise(noise) => noise,
        }
    }

    /// Where the pictures of the evaluation lie; none where it is noise.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        match &self.evaluation {
            Evaluation::Pictures { paths, .. } => paths,
            Evaluation::Noise(_) => &[],
        }
    }

    /// The pictures on which the model is judged; none where that is noise.
    pub(crate) fn frames(&self) -> &[Arc<Frame>] {
        match &self.evaluation {
            Evaluation::Pictures { frames, .. } => frames,
            Evaluation::Noise(_) => &[],
        }
    }
}

fn load_pictures(paths: &[PathBuf]) -> anyhow::Result<Vec<Arc<Frame>>> {
    paths.iter().map(|path| Ok(Arc::new(media::load_picture(path)?))).collect()
}

/// The pictures of a folder, by name.
pub(crate) fn find_pictures(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read the pictures in `{}`", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        if matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png" | "bmp" | "webp")) {
            paths.push(path);
        }
    }
    ensure!(!paths.is_empty(), "there is no picture in `{}` (JPEG, PNG, BMP or WebP)", folder.display());
    paths.sort();
    if paths.len() > PICTURES_MAX {
        // Spread over the folder: its beginning may be all alike.
        let every = paths.len() as f64 / PICTURES_MAX as f64;
        paths = (0..PICTURES_MAX).map(|index| paths[(index as f64 * every) as usize].clone()).collect();
    }
    info!(pictures = paths.len(), folder = %folder.display(), "pictures");
    Ok(paths)
}
