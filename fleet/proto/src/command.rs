//! What a device is to do once.

use revoada_core::Digest;
use serde::{Deserialize, Serialize};

use crate::Label;

/// Something that an operator asks of a device. It changes nothing of what is desired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Rises with every command to the device; one that is not higher than the last that was done is refused.
    pub number: u64,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask")]
pub enum Ask {
    RestartPipeline,
    /// Run a model that one of the device's slots holds, until the next start of the pipeline.
    SwapModel {
        digest: Digest,
    },
    /// Upload the next picture of a stream.
    Snapshot {
        stream: String,
    },
    /// Upload the newest lines of the log.
    FetchLogs {
        lines: u32,
    },
    /// Keep pictures of a track that a stream shows, as examples of a label; they stay on the device.
    Label {
        stream: String,
        track: u64,
        label: Label,
    },
    /// Erase the labelled pictures, all of them or those of one label, and everything that was made of any.
    Forget {
        label: Option<Label>,
    },
}

impl Ask {
    /// What it is called in the audit log and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RestartPipeline => "restart-pipeline",
            Self::SwapModel { .. } => "swap-model",
            Self::Snapshot { .. } => "snapshot",
            Self::FetchLogs { .. } => "fetch-logs",
            Self::Label { .. } => "label",
            Self::Forget { .. } => "forget",
        }
    }
}
