//! `--target`: for which GPU a plan is compiled.

use anyhow::Context;
use revoada_core::{Architecture, DeviceClass, TensorRtFlavour};
use tracing::info;

use crate::Global;

/// As it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
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
    pub(super) fn resolve(self, global: &Global) -> anyhow::Result<Option<Resolved>> {
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
                    architecture,
                    multiprocessors: None,
                    tensorrt: crate::tensorrt::version(global)?,
                    cuda: None,
                };
                Ok(Some(Resolved { class, elsewhere: Some(architecture) }))
            }
        }
    }
}

fn local(global: &Global) -> anyhow::Result<Resolved> {
    let class = crate::tensorrt::device_class(global).context("cannot build for this device")?;
    Ok(Resolved { class, elsewhere: None })
}

/// A target of which everything is known that a plan depends on.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) class: DeviceClass,
    /// `None` where the GPU is here.
    pub(super) elsewhere: Option<Architecture>,
}

impl Resolved {
    /// Jetson Nano and TX2 have no instructions for it; Xavier, sm_72, was the first Jetson that had.
    pub(super) fn has_int8(&self) -> bool {
        let architecture = self.class.architecture;
        architecture == Architecture::new(6, 1) || architecture >= Architecture::new(7, 2)
    }

    /// Whether GPU and processor share one memory.
    pub(super) fn is_jetson(&self) -> bool {
        self.elsewhere.is_none() && self.class.module.is_some()
    }

    /// Whether kernels are timed here, while a plan is built.
    pub(super) fn times_kernels(&self) -> bool {
        self.elsewhere.is_none() && self.class.tensorrt.flavour == TensorRtFlavour::Full
    }
}
