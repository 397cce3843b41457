//! Small ONNX models: just the messages of the format that these tests need, with its own field numbers.

use prost::Message;
use revoada_core::f16;

/// Operators of version 17, which every parser since TensorRT 8.6 knows.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;
const FLOAT: i32 = 1;
const HALF: i32 = 10;
const OUTSIDE: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    weights: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    operator: String,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    kind: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw: Vec<u8>,
    #[prost(message, repeated, tag = "13")]
    outside: Vec<Entry>,
    #[prost(int32, tag = "14")]
    location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorKind>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorKind {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
}

impl Graph {
    pub(crate) fn new() -> Self {
        Self { name: "test".to_owned(), ..Self::default() }
    }

    /// `dims` such as `N,3,32,32`, of 32-bit floats.
    pub(crate) fn input(mut self, name: &str, dims: &str) -> Self {
        self.inputs.push(Value::of(name, dims));
        self
    }

    pub(crate) fn output(mut self, name: &str, dims: &str) -> Self {
        self.outputs.push(Value::of(name, dims));
        self
    }

    /// Weights that differ from each other, so that nothing about them can be simplified.
    pub(crate) fn weights(mut self, name: &str, dims: &[i64]) -> Self {
        let count = dims.iter().product::<i64>();
        let value = |index: i64| ((index * 37 % 101) as f32 / 101.0 - 0.5) / 8.0;
        let raw = (0..count).flat_map(|index| value(index).to_le_bytes()).collect();
        self.weights.push(Tensor { dims: dims.to_vec(), kind: FLOAT, name: name.to_owned(), raw, ..Tensor::default() });
        self
    }

    /// The same graph in half precision.
    pub(crate) fn halved(mut self) -> Self {
        for value in self.inputs.iter_mut().chain(&mut self.outputs) {
            if let Some(tensor) = value.kind.as_mut().and_then(|kind| kind.tensor.as_mut()) {
                tensor.element = HALF;
            }
        }
        for weights in &mut self.weights {
            let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("floats have four bytes"));
            weights.raw = weights.raw.chunks_exact(4).flat_map(|raw| f16::from_f32(float(raw)).to_le_bytes()).collect();
            weights.kind = HALF;
        }
        self
    }

    pub(crate) fn node(mut self, name: &str, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.nodes.push(Node {
            inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
            outputs: vec![output.to_owned()],
            name: name.to_owned(),
            operator: operator.to_owned(),
        });
        self
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let opsets = vec![Opset { domain: String::new(), version: OPSET }];
        Model { ir_version: IR_VERSION, opsets, graph: Some(self) }.encode_to_vec()
    }
}

impl Value {
    fn of(name: &str, dims: &str) -> Self {
        let dimension = |word: &str| match word.parse() {
            Ok(value) => Dimension { value: Some(value), name: None },
            Err(_) => Dimension { value: None, name: Some(word.to_owned()) },
        };
        let shape = Shape { dims: dims.split(',').map(dimension).collect() };
        let tensor = TensorKind { element: FLOAT, shape: Some(shape) };
        Self { name: name.to_owned(), kind: Some(Kind { tensor: Some(tensor) }) }
    }
}

/// A model whose kernel lies in a file of that name beside it, and what is in the file.
pub(crate) fn with_weights_outside(file: &str) -> (Vec<u8>, Vec<u8>) {
    let mut graph = Graph::new()
        .input("x", "1,3,8,8")
        .weights("kernel", &[2, 3, 3, 3])
        .node("narrow", "Conv", &["x", "kernel"], "y")
        .output("y", "1,2,6,6");
    let kernel = &mut graph.weights[0];
    kernel.location = OUTSIDE;
    kernel.outside = vec![Entry { key: "location".to_owned(), value: file.to_owned() }];
    let weights = std::mem::take(&mut kernel.raw);
    (graph.encode(), weights)
}

/// A convolution and what follows it, over pictures of three channels.
pub(crate) fn convolution(batch: &str) -> Vec<u8> {
    convolution_graph(batch).encode()
}

pub(crate) fn convolution_graph(batch: &str) -> Graph {
    Graph::new()
        .input("pictures", &format!("{batch},3,32,32"))
        .weights("kernel", &[8, 3, 3, 3])
        .weights("bias", &[8])
        .node("sharpen", "Conv", &["pictures", "kernel", "bias"], "edges")
        .node("clip", "Relu", &["edges"], "maps")
        .output("maps", &format!("{batch},8,30,30"))
}

/// Several convolutions, so that a build has many steps.
pub(crate) fn deep(layers: usize) -> Vec<u8> {
    let mut graph = Graph::new().input("pictures", "1,8,64,64").weights("kernel", &[8, 8, 1, 1]);
    let mut last = "pictures".to_owned();
    for index in 0..layers {
        let (edges, maps) = (format!("edges{index}"), format!("maps{index}"));
        graph = graph.node(&format!("sharpen{index}"), "Conv", &[&last, "kernel"], &edges).node(
            &format!("squash{index}"),
            "Softplus",
            &[&edges],
            &maps,
        );
        last = maps;
    }
    graph.output(&last, "1,8,64,64").encode()
}
