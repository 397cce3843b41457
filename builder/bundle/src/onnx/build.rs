//! Small ONNX models written in Rust: for tests, and for whoever generates a model.

use revoada_core::{DType, Dim, Tensor, TensorRef, TensorSpec};

use prost::Message;

use super::ElementType;
use super::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto, attribute_type,
};

/// Builds a model, step by step.
///
/// ```
/// use revoada_bundle::onnx::{Attribute, GraphBuilder, OnnxModel};
/// use revoada_core::{DType, TensorRef};
///
/// let bytes = GraphBuilder::new("edges")
///     .input("x", DType::F32, "N,1,8,8")
///     .initializer("w", TensorRef::of(&[1, 1, 3, 3], &[1f32, 0.0, -1.0, 1.0, 0.0, -1.0, 1.0, 0.0, -1.0])?)
///     .node_with("Conv", &["x", "w"], &["c"], &[("pads", Attribute::Ints(vec![1, 1, 1, 1]))])
///     .node("Relu", &["c"], &["y"])
///     .output("y", DType::F32, "N,1,8,8")
///     .encode();
/// assert_eq!(OnnxModel::parse(bytes)?.outputs()?[0].to_string(), "y f32[N,1,8,8]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The graph is not checked: tests build wrong ones, too.
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    graph: GraphProto,
    opset: i64,
}

/// The value of a node's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Int(i64),
    Float(f32),
    String(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Tensor(Tensor),
    /// The body of an `If` or `Loop`.
    Graph(GraphProto),
}

impl GraphBuilder {
    /// Every backend here knows this version of the operators.
    const OPSET: i64 = 17;
    /// The oldest that allows [`OPSET`](Self::OPSET).
    const IR_VERSION: i64 = 8;

    pub fn new(name: &str) -> Self {
        Self { graph: GraphProto { name: Some(name.to_owned()), ..GraphProto::default() }, opset: Self::OPSET }
    }

    /// The version of the default operator set; 17 unless said.
    pub fn opset(mut self, version: i64) -> Self {
        self.opset = version;
        self
    }

    /// `dims` is a list such as `N,3,224,224`, where words are dynamic dimensions (`?` unnamed ones);
    /// empty for a scalar.
    pub fn input(mut self, name: &str, dtype: DType, dims: &str) -> Self {
        self.graph.input.push(value_info(&TensorSpec { name: name.to_owned(), dtype, dims: parse_dims(dims) }));
        self
    }

    pub fn output(mut self, name: &str, dtype: DType, dims: &str) -> Self {
        self.graph.output.push(value_info(&TensorSpec { name: name.to_owned(), dtype, dims: parse_dims(dims) }));
        self
    }

    pub fn initializer(mut self, name: &str, tensor: TensorRef<'_>) -> Self {
        self.graph.initializer.push(TensorProto::of(name, tensor));
        self
    }

    pub fn node(self, op_type: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.node_with(op_type, inputs, outputs, &[])
    }

    /// A node with attributes. It is called after its operator and its place: `Conv_0`.
    pub fn node_with(
        mut self,
        op_type: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Self {
        let name = format!("{op_type}_{}", self.graph.node.len());
        self.graph.node.push(NodeProto::new(op_type, &name, inputs, outputs, attributes));
        self
    }

    /// The graph alone, for the body of an `If` or `Loop`.
    pub fn graph(self) -> GraphProto {
        self.graph
    }

    pub fn model(self) -> ModelProto {
        ModelProto {
            ir_version: Some(Self::IR_VERSION),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(self.opset) }],
            producer_name: Some("revoada".to_owned()),
            graph: Some(self.graph),
            ..ModelProto::default()
        }
    }

    /// The bytes of the `.onnx` file.
    pub fn encode(self) -> Vec<u8> {
        self.model().encode_to_vec()
    }
}

fn parse_dims(dims: &str) -> Vec<Dim> {
    let words = dims.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_or_else(|_| Dim::Dynamic(word.to_owned()), Dim::Fixed)).collect()
}

pub(super) fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    proto.r#type = Some(match value {
        Attribute::Int(value) => {
            proto.i = Some(*value);
            attribute_type::INT
        }
        Attribute::Float(value) => {
            proto.f = Some(*value);
            attribute_type::FLOAT
        }
        Attribute::String(value) => {
            proto.s = Some(value.clone().into());
            attribute_type::STRING
        }
        Attribute::Ints(values) => {
            proto.ints.clone_from(values);
            attribute_type::INTS
        }
        Attribute::Floats(values) => {
            proto.floats.clone_from(values);
            attribute_type::FLOATS
        }
        Attribute::Tensor(tensor) => {
            proto.t = Some(TensorProto::of("", tensor.as_ref()));
            attribute_type::TENSOR
        }
        Attribute::Graph(graph) => {
            proto.g = Some(graph.clone());
            attribute_type::GRAPH
        }
    });
    proto
}

pub(super) fn value_info(spec: &TensorSpec) -> ValueInfoProto {
    let tensor = TensorType { elem_type: Some(ElementType::from(spec.dtype).0), shape: Some(shape_proto(&spec.dims)) };
    ValueInfoProto {
        name: Some(spec.name.clone()),
        r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None }),
        ..ValueInfoProto::default()
    }
}

pub(super) fn shape_proto(dims: &[Dim]) -> TensorShapeProto {
    let value = |dim: &Dim| match dim {
        Dim::Fixed(size) => Some(DimensionValue::Value(i64::try_from(*size).unwrap_or(i64::MAX))),
        Dim::Dynamic(name) if name == "?" => None,
        Dim::Dynamic(name) => Some(DimensionValue::Param(name.clone())),
    };
    TensorShapeProto { dim: dims.iter().map(|dim| Dimension { value: value(dim), denotation: None }).collect() }
}
