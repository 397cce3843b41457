//! ONNX files: read with bounds, looked at, rewritten. Nothing here runs a model.
//!
//! Foreign bytes never panic; what is wrong with them is said in one sentence. The messages of the
//! file stay reachable ([`OnnxModel::proto`]) and are written back whole.

mod build;
mod edit;
mod element;
mod external;
pub mod proto;
mod scan;
mod shape;
mod summary;

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;
use revoada_core::{Dim, TensorSpec};
use thiserror::Error;

pub use build::{Attribute, GraphBuilder};
pub use edit::{Graph, Linear, LinearError, Split, Use, Uses};
pub use element::ElementType;
use proto::{DimensionValue, GraphProto, ModelProto, TensorType, TypeValue, ValueInfoProto};
pub use summary::{CostSummary, Summary, Uncounted, ValueSummary};

/// The most that one protobuf message can hold; larger models keep their weights beside the file.
pub const MODEL_BYTES_MAX: u64 = (2 << 30) - 1;

/// An ONNX model whose graph is there and has nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxModel {
    proto: ModelProto,
    /// Where it was read from.
    path: Option<PathBuf>,
}

impl OnnxModel {
    /// Reads a file, and looks whether the external data that it names is there (without reading it).
    pub fn read(path: &Path) -> Result<Self, OnnxError> {
        let fail = |kind| OnnxError { path: Some(path.to_owned()), kind };
        let bytes = read_bounded(path).map_err(fail)?;
        let model = Self { path: Some(path.to_owned()), ..Self::decode(bytes.into()).map_err(fail)? };
        external::check(&model.proto, path.parent().unwrap_or(Path::new(""))).map_err(fail)?;
        Ok(model)
    }

    /// Reads a model from memory. Weights keep sharing the buffer.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, OnnxError> {
        Self::decode(bytes.into()).map_err(|kind| OnnxError { path: None, kind })
    }

    fn decode(bytes: Bytes) -> Result<Self, OnnxErrorKind> {
        scan::scan(&bytes)?;
        let proto = ModelProto::decode(bytes).map_err(OnnxErrorKind::Malformed)?;
        match &proto.graph {
            None => Err(OnnxErrorKind::NotOnnx { reason: "it holds no graph" }),
            Some(graph) if graph.node.is_empty() => Err(OnnxErrorKind::Empty),
            Some(_) => Ok(Self { proto, path: None }),
        }
    }

    /// The bytes of the file. What was read and not changed is written as it was, but for fields
    /// that versions of the format after [this one](proto) may add.
    pub fn encode(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }

    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }

    pub fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("a model without a graph is refused when it is read")
    }

    /// What the caller feeds: the graph's inputs that have no initialiser.
    pub fn inputs(&self) -> Result<Vec<TensorSpec>, OnnxError> {
        self.fed().map(|info| self.spec(info)).collect()
    }

    pub fn outputs(&self) -> Result<Vec<TensorSpec>, OnnxError> {
        self.graph().output.iter().map(|info| self.spec(info)).collect()
    }

    fn fed(&self) -> impl Iterator<Item = &ValueInfoProto> {
        let graph = self.graph();
        let weights: HashSet<&str> = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
        graph.input.iter().filter(move |info| !weights.contains(info.name()))
    }

    /// Versions of the operator sets by domain; the default one is `ai.onnx`.
    pub fn opsets(&self) -> BTreeMap<String, i64> {
        let opsets = self.proto.opset_import.iter();
        opsets.map(|opset| (domain_name(opset.domain()).to_owned(), opset.version())).collect()
    }

    /// Who wrote the file: `pytorch 2.5.1`.
    pub fn producer(&self) -> Option<String> {
        let producer = format!("{} {}", self.proto.producer_name(), self.proto.producer_version());
        Some(producer.trim().to_owned()).filter(|producer| !producer.is_empty())
    }

    /// Rewrites the declared dimensions of an input or output. Declared shapes of values in between
    /// are dropped, since they may no longer hold; every backend infers them anew.
    pub fn set_dims(&mut self, name: &str, dims: &[Dim]) -> Result<(), OnnxError> {
        let graph = self.proto.graph.as_mut().expect("a model without a graph is refused when it is read");
        let info = graph.input.iter_mut().chain(&mut graph.output).find(|info| info.name() == name);
        let tensor = info.and_then(|info| match &mut info.r#type.as_mut()?.value {
            Some(TypeValue::Tensor(tensor)) => Some(tensor),
            _ => None,
        });
        let Some(tensor) = tensor else {
            return Err(self.error(OnnxErrorKind::NoSuchValue { name: name.to_owned() }));
        };
        tensor.shape = Some(build::shape_proto(dims));
        graph.value_info.clear();
        Ok(())
    }

    fn spec(&self, info: &ValueInfoProto) -> Result<TensorSpec, OnnxError> {
        let name = info.name().to_owned();
        let Some(tensor) = info.tensor_type() else {
            return Err(self.error(OnnxErrorKind::NoTensor { name }));
        };
        let Some(dtype) = tensor.element_type().dtype() else {
            return Err(self.error(OnnxErrorKind::ElementType { name, element: tensor.element_type() }));
        };
        let Some(dims) = tensor.dims() else {
            return Err(self.error(OnnxErrorKind::Shapeless { name }));
        };
        Ok(TensorSpec { name, dtype, dims })
    }

    fn error(&self, kind: OnnxErrorKind) -> OnnxError {
        OnnxError { path: self.path.clone(), kind }
    }
}

impl ValueInfoProto {
    pub fn tensor_type(&self) -> Option<&TensorType> {
        match self.r#type.as_ref()?.value.as_ref()? {
            TypeValue::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

impl TensorType {
    pub fn element_type(&self) -> ElementType {
        ElementType(self.elem_type.unwrap_or_default())
    }

    /// The declared dimensions; `None` where not even their number is declared. Old exporters write
    /// 0 or −1 for a dimension that they leave open.
    pub fn dims(&self) -> Option<Vec<Dim>> {
        let unnamed = || Dim::Dynamic("?".to_owned());
        let dim = |value: &Option<DimensionValue>| match value {
            Some(DimensionValue::Value(size)) if *size > 0 => {
                usize::try_from(*size).map_or_else(|_| unnamed(), Dim::Fixed)
            }
            Some(DimensionValue::Param(name)) if !name.is_empty() => Dim::Dynamic(name.clone()),
            _ => unnamed(),
        };
        Some(self.shape.as_ref()?.dim.iter().map(|dimension| dim(&dimension.value)).collect())
    }
}

/// The default domain has two spellings.
fn domain_name(domain: &str) -> &str {
    if domain.is_empty() { "ai.onnx" } else { domain }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, OnnxErrorKind> {
    let file = File::open(path).map_err(OnnxErrorKind::Read)?;
    let bytes = file.metadata().map_err(OnnxErrorKind::Read)?.len();
    if bytes > MODEL_BYTES_MAX {
        return Err(OnnxErrorKind::TooLarge { bytes });
    }
    let mut buffer = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    // One byte more than is allowed, so that a file that grows meanwhile (or a pipe) is noticed.
    file.take(MODEL_BYTES_MAX + 1).read_to_end(&mut buffer).map_err(OnnxErrorKind::Read)?;
    match buffer.len() as u64 {
        bytes if bytes > MODEL_BYTES_MAX => Err(OnnxErrorKind::TooLarge { bytes }),
        _ => Ok(buffer),
    }
}

/// Why a model could not be read or looked at.
#[derive(Debug)]
pub struct OnnxError {
    /// `None` for a model in memory.
    pub path: Option<PathBuf>,
    pub kind: OnnxErrorKind,
}

/// ``model `a.onnx` is truncated``
impl fmt::Display for OnnxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "model `{}` {}", path.display(), self.kind),
            None => write!(f, "the model in memory {}", self.kind),
        }
    }
}

impl Error for OnnxError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

/// What is wrong with a model; reads on after the model's name.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnnxErrorKind {
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("has {bytes} bytes, at most {MODEL_BYTES_MAX} are read")]
    TooLarge { bytes: u64 },
    #[error("is not an ONNX model: {reason}")]
    NotOnnx { reason: &'static str },
    #[error("is truncated{}", missing.map(|bytes| format!(": {bytes} bytes are missing")).unwrap_or_default())]
    Truncated { missing: Option<u64> },
    #[error("is damaged")]
    Malformed(#[source] prost::DecodeError),
    #[error("has an empty graph")]
    Empty,
    #[error("keeps tensor `{tensor}` in external data that cannot be used: {reason}")]
    ExternalData { tensor: String, reason: String },
    #[error("has no tensor input or output `{name}`")]
    NoSuchValue { name: String },
    #[error("has an input or output `{name}` that is no tensor")]
    NoTensor { name: String },
    #[error("has an input or output `{name}` of {element}, which cannot be passed")]
    ElementType { name: String, element: ElementType },
    #[error("does not declare the shape of `{name}`")]
    Shapeless { name: String },
    #[error("makes value `{value}` more than once")]
    MadeTwice { value: String },
    #[error("does not make value `{value}`, which {reader} needs")]
    Unmade { value: String, reader: String },
    #[error("has a cycle through node `{node}`")]
    Cycle { node: String },
    #[error("cannot be lifted from operator set {from} to {to}: {reason}")]
    Opset { from: i64, to: i64, reason: String },
    #[error("has no head that can be taken off: {reason}")]
    Head { reason: String },
    #[error("has input `{spec}`, which cannot take the shape {shape:?}")]
    Shape { spec: String, shape: Vec<usize> },
}
