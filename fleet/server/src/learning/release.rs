//! What devices have learned as a bundle, which is deployed as any other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::bytes::Bytes;
use revoada_bundle::bundle::{Bundle, BundleError, BundleErrorKind, BundleWriter, Index, Lineage, MANIFEST, MODEL};
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::{Linear, LinearError, OnnxError, OnnxModel};
use revoada_bundle::sign::{PublicKey, SecretKey};
use revoada_core::Digest;
use revoada_federated::{SafetensorsError, Weights, from_safetensors};
use thiserror::Error;
use tokio::runtime::Handle;

use super::FILE_BYTES_MAX;
use super::head::{HEAD_BIAS, HEAD_WEIGHT, HIDDEN_BIAS, HIDDEN_WEIGHT, read_manifest};
use super::plan::{HeadPlan, HeldWeights, Participants};
use super::task::RunId;
use crate::blobs::{BlobError, Blobs};
use crate::blocking::blocking;
use crate::registry::{Import, ImportError, Importer, check_names};
use crate::service::{Change, Fleet, Principal, ServiceError, now};
use crate::store::{ArtefactVersion, Role, RunRecord, StoreError};

/// Why no bundle was made.
#[derive(Debug, Error)]
pub enum ReleaseError {
    #[error("run {0} is none of devices: its weights are its clients' own, and there is no bundle to put them into")]
    NotOfDevices(RunId),
    #[error("run {0} has learned nothing yet")]
    Nothing(RunId),
    #[error("bundle `{0}`, of which the run learns the head, is not registered any more")]
    NoModel(Digest),
    #[error("the model's manifest cannot be read: {0}")]
    Manifest(String),
    #[error("the model's index cannot be read: {0}")]
    Index(BundleErrorKind),
    #[error("the weights are no head")]
    Head(#[from] LinearError),
    #[error("the weights lack `{0}`")]
    Lacks(&'static str),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Weights(#[from] SafetensorsError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("this service has no key for what is learned: name one in `learning.key`")]
    NoKey,
    #[error("cannot use a temporary folder")]
    Folder(#[source] std::io::Error),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which bundle a run learns the head of.
pub fn learned_model(record: &RunRecord) -> Option<Digest> {
    match &record.plan.participants {
        Participants::Devices { head, .. } => Some(head.model),
        Participants::Flower { .. } => None,
    }
}

/// Makes versions of models of what was learned.
pub struct Releaser {
    pub fleet: Arc<Fleet>,
    pub blobs: Arc<Blobs>,
    /// The owner's public keys.
    pub trusted: Arc<[PublicKey]>,
    /// What the owner has made for what is learned; without it there is no release.
    pub key: Option<SecretKey>,
}

impl Releaser {
    /// Registers the newest weights of a run as a version of the model that they are the head of. Where they are one already,
    /// it is that.
    pub async fn release(
        self: &Arc<Self>,
        by: &Principal,
        id: RunId,
        version: &str,
    ) -> Result<ArtefactVersion, ReleaseError> {
        by.require(Role::Operator)?;
        check_names("model", version).map_err(ServiceError::Invalid)?;
        let folder = tempfile::tempdir().map_err(ReleaseError::Folder)?;
        let path = folder.path().to_owned();
        let (releaser, asker, runtime) = (Arc::clone(self), by.clone(), Handle::current());
        let made = blocking(move || releaser.make(&asker, id, &path, &runtime)).await;
        let (name, bundle) = made.map_err(ReleaseError::Folder)??;
        let digest = Bundle::open(&bundle)?.digest();
        let store = self.fleet.shared_store();
        if let Some(known) = store.version(&digest)?.filter(|known| known.version == version) {
            return Ok(known);
        }
        let importer = Importer { store, blobs: Arc::clone(&self.blobs), trusted: Arc::clone(&self.trusted) };
        let import = Import { name: Some(name), version: version.to_owned(), parents: Vec::new() };
        let made = importer.folder(&bundle, import, by.actor.clone(), now()).await?;
        self.fleet.tell(Change::Registry);
        Ok(made)
    }

    /// A whole blob, on a thread that may wait.
    pub(super) fn read(&self, digest: Digest, runtime: &Handle) -> Result<Bytes, BlobError> {
        runtime.block_on(self.blobs.read_whole(digest, FILE_BYTES_MAX))
    }

    /// Puts the newest weights of a run into the model that it learns the head of, and signs the bundle. It has no golden
    /// answers: those of its parent are another head's. With the model's name.
    fn make(
        &self,
        by: &Principal,
        id: RunId,
        folder: &Path,
        runtime: &Handle,
    ) -> Result<(String, PathBuf), ReleaseError> {
        let record = self.fleet.run(by, id)?;
        let Participants::Devices { head, .. } = &record.plan.participants else {
            return Err(ReleaseError::NotOfDevices(id));
        };
        let key = self.key.as_ref().ok_or(ReleaseError::NoKey)?;
        let held = record.state.weights.as_ref().filter(|_| record.state.round > 0).ok_or(ReleaseError::Nothing(id))?;
        let version = self.fleet.store().version(&head.model)?.ok_or(ReleaseError::NoModel(head.model))?;
        let read = |digest| self.read(digest, runtime);
        let file = |name: &str| {
            let found = version.files.get(name).ok_or(ReleaseError::NoModel(head.model))?;
            Ok::<_, ReleaseError>(read(found.digest)?)
        };
        let parent = Index::parse(&read(head.model)?).map_err(ReleaseError::Index)?;
        let manifest = read_manifest(&file(MANIFEST)?).map_err(ReleaseError::Manifest)?;
        let manifest = Manifest { labels: held.labels.clone(), ..manifest };
        let weights = from_safetensors(&read(held.digest)?, Some(&Arc::new(held.layout.clone())))?;
        let model = OnnxModel::parse(file(MODEL)?)?.merge_head(None, &layers(&weights)?)?.encode();
        let path = folder.join(format!("run-{id}.bundle"));
        let mut writer = BundleWriter::create(&path)?;
        writer.add(MODEL, &model)?;
        writer.add(MANIFEST, manifest.to_toml().as_bytes())?;
        let index = Index {
            lineage: Lineage {
                source: Some(revoada_bundle::hash(&model)),
                parent: Some(head.model),
                steps: steps(id, &record, head, held),
            },
            producer: format!("revoada-fleet {}", env!("CARGO_PKG_VERSION")),
            ..parent
        };
        writer.seal(index, Some(key))?.publish()?;
        Ok((version.name, path))
    }
}

/// How it came about: whoever looks at the bundle later has nothing else.
fn steps(id: RunId, record: &RunRecord, head: &HeadPlan, held: &HeldWeights) -> Vec<String> {
    let (round, strategy) = (record.state.round, record.plan.recipe.strategy.name());
    let mut steps = vec![format!("run {id}, {:?}: {round} rounds of {strategy} by devices", record.title)];
    if let Some(hidden) = head.settings.hidden {
        steps.push(format!("a hidden layer of {hidden}"));
    }
    if let (Some(epsilon), Some(privacy)) = (record.state.epsilon, record.plan.recipe.privacy) {
        steps.push(format!("differentially private: ε {epsilon:.3} at δ {:e}", privacy.delta));
    }
    steps.push(format!("weights {}", held.digest));
    steps
}

fn layers(weights: &Weights) -> Result<Vec<Linear>, ReleaseError> {
    let tensor =
        |wanted: &'static str| weights.tensors().find(|(name, ..)| *name == wanted).ok_or(ReleaseError::Lacks(wanted));
    let layer = |weight, bias| {
        let ((_, shape, weight), (_, _, bias)) = (tensor(weight)?, tensor(bias)?);
        let inputs = shape.last().copied().unwrap_or_default();
        Ok::<_, ReleaseError>(Linear::new(inputs, weight.to_vec(), bias.to_vec())?)
    };
    let last = layer(HEAD_WEIGHT, HEAD_BIAS)?;
    match tensor(HIDDEN_WEIGHT) {
        Ok(_) => Ok(vec![layer(HIDDEN_WEIGHT, HIDDEN_BIAS)?, last]),
        Err(_) => Ok(vec![last]),
    }
}
