//! What is asked for, and what comes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::tensor::{DataType, NetworkInput};

/// An ONNX model.
#[derive(Clone, Copy, Debug)]
pub enum Model<'a> {
    /// Weights outside it are looked for beside `path`, where that is given; nothing is read from `path` itself.
    Bytes {
        bytes: &'a [u8],
        path: Option<&'a Path>,
    },
    File(&'a Path),
}

/// A plan that is wanted. Precision is no part of it: the types of the graph's tensors decide. TensorRT before 10,
/// where types are hints, is told to obey them.
#[derive(Clone, Debug)]
pub struct BuildRequest<'a> {
    pub model: Model<'a>,
    /// Needed for inputs with dimensions that are not known; the plan runs within one of them at a time.
    pub profiles: Vec<Profile>,
    /// How much device memory a layer may use as scratch; `None` leaves it to TensorRT, which takes all there is.
    pub workspace_bytes_max: Option<u64>,
    /// The timings of earlier builds: `None` keeps none, empty ones begin.
    pub timing_cache: Option<&'a [u8]>,
    pub target: Target,
    pub hardware: Hardware,
    /// Lets later versions run the plan (8.6 to 10, and 10 to 11), which then carries code of its own.
    pub version_compatible: bool,
    /// The DLA core to build for; what it cannot do goes to the GPU.
    pub dla_core: Option<u32>,
}

impl<'a> BuildRequest<'a> {
    /// A plan for this device alone, with every choice left to TensorRT.
    pub fn new(model: Model<'a>) -> Self {
        Self {
            model,
            profiles: Vec::new(),
            workspace_bytes_max: None,
            timing_cache: None,
            target: Target::ThisDevice,
            hardware: Hardware::Same,
            version_compatible: false,
            dla_core: None,
        }
    }
}

/// The ranges of shapes that a plan is optimised for, by the name of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub ranges: BTreeMap<String, Range>,
}

impl Profile {
    pub fn with(mut self, input: &str, range: Range) -> Self {
        self.ranges.insert(input.to_owned(), range);
        self
    }
}

/// The shapes of one input: each dimension of `opt`, the one to be fastest at, lies between those of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub min: Vec<u64>,
    pub opt: Vec<u64>,
    pub max: Vec<u64>,
}

/// Which device is to run the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    ThisDevice,
    /// Devices that need not be here, by compute capability: 86 for 8.6. Only TensorRT for RTX builds for them.
    ComputeCapabilities(Vec<u32>),
}

/// Which devices may run a plan beside the one that it was built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// Those of the same model.
    Same,
    /// Those of the Ampere generation and later, but for Jetsons.
    AmperePlus,
    /// Those of the same compute capability.
    SameComputeCapability,
}

/// A plan and what is known of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Built {
    pub plan: Vec<u8>,
    /// To be kept for the next build, where the request asked for one and this TensorRT has one.
    pub timing_cache: Option<Vec<u8>>,
    pub inputs: Vec<NetworkInput>,
    /// The network as it was parsed, before TensorRT fused its layers.
    pub layers: Vec<Layer>,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built")
            .field("plan_bytes", &self.plan.len())
            .field("timing_cache_bytes", &self.timing_cache.as_ref().map(Vec::len))
            .field("inputs", &self.inputs)
            .field("layers", &self.layers)
            .finish()
    }
}

/// One layer of a parsed network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub name: String,
    /// TensorRT's word for what it does, in lower case: `convolution`.
    pub kind: String,
    pub inputs: Vec<DataType>,
    pub outputs: Vec<DataType>,
}
