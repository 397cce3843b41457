//! What a person wants to know of a model before running it.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::external::tensors;
use super::proto::ValueInfoProto;
use super::shape::{self, Cost, Inference, Unknown, Value};
use super::{ElementType, OnnxError, OnnxErrorKind, OnnxModel};

/// A model at a glance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub producer: Option<String>,
    pub ir_version: i64,
    /// Versions of the operator sets by domain.
    pub opsets: BTreeMap<String, i64>,
    pub inputs: Vec<ValueSummary>,
    pub outputs: Vec<ValueSummary>,
    /// Nodes of the main graph.
    pub nodes: usize,
    /// How many nodes there are of each operator.
    pub ops: BTreeMap<String, usize>,
    /// Elements of all constant tensors: weights, and the few that shapes are made of.
    pub parameters: u64,
    pub parameter_bytes: u64,
    pub cost: CostSummary,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValueSummary {
    pub name: String,
    pub dtype: String,
    /// As declared: numbers, names and `?`; `None` where not even their number is declared.
    pub dims: Option<Vec<String>>,
    /// As it is in one inference of the shapes that the cost is told for; `None` where unknown.
    pub shape: Option<Vec<usize>>,
}

/// The arithmetic of one inference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CostSummary {
    /// Multiply-accumulates of convolutions and matrix products.
    pub macs: u64,
    /// Two for each multiply-accumulate, and one for every other operation on a number. Moving data is
    /// free, and so is what is computed once from constants.
    pub flops: u64,
    /// Nodes that are not in the numbers above.
    pub uncounted: Vec<Uncounted>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uncounted {
    pub op: String,
    pub nodes: usize,
    pub reason: &'static str,
}

impl OnnxModel {
    /// Looks at the model with inputs of `shapes`, by name. An input that is left out takes its
    /// declared shape with a batch of 1; where that leaves dimensions open, what depends on it is
    /// not counted.
    pub fn summary(&self, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Summary, OnnxError> {
        let graph = self.graph();
        let inference = shape::infer(graph, self.input_values(shapes)?);
        let constants = tensors(&self.proto);
        let sum = |number: fn(&super::proto::TensorProto) -> Option<u64>| {
            constants.iter().filter_map(|tensor| number(tensor)).fold(0u64, u64::saturating_add)
        };
        Ok(Summary {
            producer: self.producer(),
            ir_version: self.proto.ir_version(),
            opsets: self.opsets(),
            inputs: self.fed().map(|info| value_summary(info, &inference)).collect(),
            outputs: graph.output.iter().map(|info| value_summary(info, &inference)).collect(),
            nodes: graph.node.len(),
            ops: graph.node.iter().fold(BTreeMap::new(), |mut ops, node| {
                *ops.entry(shape::operator(node)).or_default() += 1;
                ops
            }),
            parameters: sum(|tensor| u64::try_from(tensor.element_count()?).ok()),
            parameter_bytes: sum(|tensor| {
                let bits = tensor.element_type().bits()?.checked_mul(u64::try_from(tensor.element_count()?).ok()?)?;
                Some(bits.div_ceil(8))
            }),
            cost: cost_summary(graph.node.iter().map(shape::operator), &inference.costs),
        })
    }

    /// The element type and shape of every value that inference knows whole, by name, with inputs as for
    /// [`summary`](Self::summary).
    pub fn value_shapes(
        &self,
        inputs: &BTreeMap<String, Vec<usize>>,
    ) -> Result<BTreeMap<String, (ElementType, Vec<usize>)>, OnnxError> {
        let inference = shape::infer(self.graph(), self.input_values(inputs)?);
        let values = inference.values.into_iter();
        Ok(values.map(|(name, value)| (name.to_owned(), (value.element, value.shape))).collect())
    }

    /// The inputs whose shape is known whole.
    fn input_values(&self, shapes: &BTreeMap<String, Vec<usize>>) -> Result<HashMap<&str, Value>, OnnxError> {
        let mut values = HashMap::new();
        let mut unused: BTreeMap<&str, &Vec<usize>> =
            shapes.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
        for info in self.fed() {
            let Some(tensor) = info.tensor_type() else { continue };
            let dims = tensor.dims();
            let shape = match (unused.remove(info.name()), &dims) {
                (Some(shape), Some(dims)) => {
                    let fits = dims.len() == shape.len()
                        && dims.iter().zip(shape).all(|(dim, size)| dim.fixed().is_none_or(|fixed| fixed == *size));
                    if !fits {
                        let spec = summarize(info).to_string();
                        return Err(self.error(OnnxErrorKind::Shape { spec, shape: shape.clone() }));
                    }
                    Some(shape.clone())
                }
                (Some(shape), None) => Some(shape.clone()),
                (None, Some(dims)) => {
                    let sizes = dims.iter().enumerate();
                    sizes.map(|(index, dim)| dim.fixed().or((index == 0).then_some(1))).collect()
                }
                (None, None) => None,
            };
            if let Some(shape) = shape {
                values.insert(info.name(), Value::new(tensor.element_type(), shape));
            }
        }
        match unused.into_keys().next() {
            Some(name) => Err(self.error(OnnxErrorKind::NoSuchValue { name: name.to_owned() })),
            None => Ok(values),
        }
    }
}

fn value_summary(info: &ValueInfoProto, inference: &Inference<'_>) -> ValueSummary {
    let shape = inference.values.get(info.name()).map(|value| value.shape.clone());
    ValueSummary { shape, ..summarize(info) }
}

fn summarize(info: &ValueInfoProto) -> ValueSummary {
    let tensor = info.tensor_type();
    ValueSummary {
        name: info.name().to_owned(),
        dtype: tensor.map_or_else(|| "no tensor".to_owned(), |tensor| tensor.element_type().to_string()),
        dims: tensor.and_then(|tensor| tensor.dims()).map(|dims| dims.iter().map(ToString::to_string).collect()),
        shape: None,
    }
}

/// `x f32[N,3,224,224]`
impl std::fmt::Display for ValueSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims = self.dims.as_ref().map_or_else(|| "…".to_owned(), |dims| dims.join(","));
        write!(f, "{} {}[{dims}]", self.name, self.dtype)
    }
}

fn cost_summary(ops: impl Iterator<Item = String>, costs: &[Result<Cost, Unknown>]) -> CostSummary {
    let mut summary = CostSummary::default();
    let mut uncounted: BTreeMap<(String, Unknown), usize> = BTreeMap::new();
    for (op, cost) in ops.zip(costs) {
        match cost {
            Ok(cost) => {
                summary.macs = summary.macs.saturating_add(cost.macs);
                let flops = cost.macs.saturating_mul(2).saturating_add(cost.other);
                summary.flops = summary.flops.saturating_add(flops);
            }
            Err(unknown) => *uncounted.entry((op, *unknown)).or_default() += 1,
        }
    }
    let reason = |unknown| match unknown {
        Unknown::Operator => "its cost is not known here",
        Unknown::Input => "the shape of an input is not known",
        Unknown::Mismatch => "its inputs do not fit together",
    };
    let list = uncounted.into_iter().map(|((op, unknown), nodes)| Uncounted { op, nodes, reason: reason(unknown) });
    summary.uncounted = list.collect();
    summary
}
