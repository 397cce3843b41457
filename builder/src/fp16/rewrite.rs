//! The rewriting itself: decide for each node, then walk the graph and keep track of the forms in which each
//! value exists.

use std::collections::{HashMap, HashSet};

use half::f16;
use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{Attribute, ElementType, Graph, OnnxError, OnnxModel};
use revoada_core::{Tensor, TensorRef};

use super::fit::{Fit, HALF_MAX};
use super::{FadedTensor, Fp16, Fp16Options, Fp16Report, Interface, KeptBecause, KeptNode, simplify_casts};
use crate::typing::{HalfForm, half_form};

/// The first operator set in which quantisation has f16 scales.
const OPSET_HALF_SCALES: i64 = 19;

pub(super) fn rewrite(model: &OnnxModel, options: &Fp16Options) -> Result<Fp16, OnnxError> {
    let mut graph = model.edit()?;
    graph.sort()?;
    let quantised = graph.nodes().iter().any(is_quantisation);
    if quantised && graph.opset() < OPSET_HALF_SCALES && options.opset_max >= OPSET_HALF_SCALES {
        graph.lift(OPSET_HALF_SCALES)?;
    }
    let types = graph.types();
    let mut report = Fp16Report { unknown: options.keep.unknown(&graph), ..Fp16Report::default() };
    let plan = plan(&graph, &types, options, &mut report);
    report.half_nodes = plan.iter().flatten().count();

    let mut rewriter = Rewriter::new(graph, types, &plan, options.interface);
    rewriter.run(&plan);
    let Rewriter { mut graph, faded, .. } = rewriter;
    report.faded = faded;
    graph.remove_unused();
    graph.sort()?;
    simplify_casts(&mut graph);
    report.casts = graph.nodes().iter().filter(|node| node.is("Cast")).count();
    Ok(Fp16 { model: graph.finish()?, report })
}

fn is_quantisation(node: &NodeProto) -> bool {
    node.is("QuantizeLinear") || node.is("DequantizeLinear")
}

/// For each node, in which form it computes in f16; `None` where it stays as it is.
fn plan(
    graph: &Graph,
    types: &HashMap<String, ElementType>,
    options: &Fp16Options,
    report: &mut Fp16Report,
) -> Vec<Option<HalfForm>> {
    let data = data_values(graph);
    let opset = graph.opset();
    let is_float = |name: &String| types.get(name) == Some(&ElementType::FLOAT);
    let mut decide = |node: &NodeProto| {
        let floats = node.input.iter().chain(&node.output).any(is_float);
        // What is computed from shapes and constants are sizes and places, which f16 cannot count.
        let from_data = is_quantisation(node) || node.reads().iter().any(|name| data.contains(*name));
        if !floats || !from_data {
            return None;
        }
        let form = half_form(node, opset);
        let mut inputs = node.input.iter().filter(|name| !name.is_empty());
        let untyped = inputs.find(|name| !types.contains_key(*name));
        let because = match form {
            _ if options.keep.holds(node) => Some(KeptBecause::Asked),
            None => Some(KeptBecause::Operator),
            _ if untyped.is_some() => untyped.map(|value| KeptBecause::UnknownType { value: value.clone() }),
            Some(form) => misfit(graph, node, form),
        };
        match because {
            None => form,
            Some(because) => {
                report.kept.push(KeptNode { node: node.label(), op: node.op_type().to_owned(), because });
                None
            }
        }
    };
    graph.nodes().iter().map(&mut decide).collect()
}

/// The values that depend on what the caller feeds, other than on its shape.
fn data_values(graph: &Graph) -> HashSet<String> {
    let mut data: HashSet<String> = graph.inputs().iter().map(|info| info.name().to_owned()).collect();
    for node in graph.nodes() {
        let looks_at_shapes = node.is("Shape") || node.is("Size");
        if !looks_at_shapes && node.reads().iter().any(|name| data.contains(*name)) {
            data.extend(node.output.iter().cloned());
        }
    }
    data
}

/// Why a node's constants do not let it compute in f16.
fn misfit(graph: &Graph, node: &NodeProto, form: HalfForm) -> Option<KeptBecause> {
    let epsilon = node.float("epsilon").filter(|epsilon| !Fit::of(&[*epsilon]).is_good());
    if let Some(value) = epsilon {
        return Some(KeptBecause::Underflow { tensor: "epsilon".to_owned(), value });
    }
    for (index, name) in node.input.iter().enumerate() {
        if form.inputs_kept.contains(&index) || is_bound(node, index) {
            continue;
        }
        let Some(tensor) = graph.tensor(name) else { continue };
        let Some(numbers) = tensor.as_ref().as_slice::<f32>() else { continue };
        let fit = Fit::of(numbers);
        if let Some(value) = fit.overflow {
            return Some(KeptBecause::Overflow { tensor: name.clone(), value });
        }
        // A divisor that becomes zero makes infinities out of nothing.
        let divides = node.is("Div") && index == 1;
        if !fit.is_good() || (divides && fit.zeros > 0) {
            return Some(KeptBecause::Underflow { tensor: name.clone(), value: fit.largest });
        }
    }
    None
}

/// Bounds of a `Clip` may be clamped: no f16 lies beyond.
fn is_bound(node: &NodeProto, index: usize) -> bool {
    node.is("Clip") && index > 0
}

/// The names under which a value exists.
#[derive(Clone, Debug, Default)]
struct Forms {
    single: Option<String>,
    half: Option<String>,
}

struct Rewriter {
    graph: Graph,
    /// Of the graph as it was.
    types: HashMap<String, ElementType>,
    interface: Interface,
    forms: HashMap<String, Forms>,
    /// Values that must be f32 under their own name.
    pinned: HashSet<String>,
    /// Initialisers that some node reads as f32.
    read_single: HashSet<String>,
    nodes: Vec<NodeProto>,
    faded: Vec<FadedTensor>,
}

impl Rewriter {
    fn new(graph: Graph, types: HashMap<String, ElementType>, plan: &[Option<HalfForm>], interface: Interface) -> Self {
        let outputs = graph.outputs().iter().filter(|_| interface == Interface::F32).map(|info| info.name().to_owned());
        let mut pinned: HashSet<String> = outputs.collect();
        let mut read_single = HashSet::new();
        for (node, form) in graph.nodes().iter().zip(plan) {
            pinned.extend(node.captures().into_iter().map(str::to_owned));
            for (index, name) in node.input.iter().enumerate() {
                if form.is_none_or(|form| form.inputs_kept.contains(&index)) || is_bound(node, index) {
                    read_single.insert(name.clone());
                }
            }
        }
        read_single.extend(pinned.iter().cloned());
        Self {
            graph,
            types,
            interface,
            forms: HashMap::new(),
            pinned,
            read_single,
            nodes: Vec::new(),
            faded: Vec::new(),
        }
    }

    fn run(&mut self, plan: &[Option<HalfForm>]) {
        let inputs: Vec<String> = self.graph.inputs().iter().map(|info| info.name().to_owned()).collect();
        for name in inputs {
            if !self.is_float(&name) {
                continue;
            }
            // An input that a nested graph reads keeps its type, since the graph reads it by name.
            let half = self.interface == Interface::F16 && !self.pinned.contains(&name);
            if half {
                self.retype(&name);
            }
            let name_of = |wanted: bool| wanted.then(|| name.clone());
            self.forms.insert(name.clone(), Forms { single: name_of(!half), half: name_of(half) });
        }
        let nodes = std::mem::take(self.graph.nodes_mut());
        for (node, form) in nodes.into_iter().zip(plan) {
            match form {
                Some(form) => self.half_node(node, *form),
                None => self.single_node(node),
            }
        }
        *self.graph.nodes_mut() = std::mem::take(&mut self.nodes);
    }

    fn is_float(&self, name: &str) -> bool {
        self.types.get(name) == Some(&ElementType::FLOAT)
    }

    fn retype(&mut self, name: &str) {
        self.graph.set_element_type(name, ElementType::FLOAT16).expect("the name is that of an input or output");
    }

    fn half_node(&mut self, mut node: NodeProto, form: HalfForm) {
        for index in 0..node.input.len() {
            let name = node.input[index].clone();
            if !self.is_float(&name) {
                continue;
            }
            node.input[index] = match () {
                () if form.inputs_kept.contains(&index) => self.single(&name),
                () if is_bound(&node, index) => self.bound(&name),
                // A cast takes what is there, and loses nothing on the way.
                () if node.is("Cast") => self.any(&name),
                () => self.half(&name),
            };
        }
        if node.is("Cast") && node.int("to") == Some(ElementType::FLOAT.0.into()) {
            node.set_attribute("to", &Attribute::Int(ElementType::FLOAT16.0.into()));
        }
        let mut after = Vec::new();
        for index in 0..node.output.len() {
            let name = node.output[index].clone();
            if !self.is_float(&name) {
                continue;
            }
            if form.outputs_kept.contains(&index) {
                self.forms.insert(name.clone(), Forms { single: Some(name), half: None });
            } else if self.pinned.contains(&name) {
                let half = self.graph.fresh(&format!("{name}_f16"));
                node.output[index] = half.clone();
                after.push(self.cast(&half, &name, ElementType::FLOAT));
                self.forms.insert(name.clone(), Forms { single: Some(name), half: Some(half) });
            } else {
                if self.graph.is_output(&name) {
                    self.retype(&name);
                }
                self.forms.insert(name.clone(), Forms { single: None, half: Some(name) });
            }
        }
        self.nodes.push(node);
        self.nodes.extend(after);
    }

    fn single_node(&mut self, mut node: NodeProto) {
        for index in 0..node.input.len() {
            let name = node.input[index].clone();
            if self.is_float(&name) {
                // A shape is the same in every form.
                let shape = node.is("Shape") || node.is("Size");
                node.input[index] = if shape { self.any(&name) } else { self.single(&name) };
            }
        }
        let mut after = Vec::new();
        for index in 0..node.output.len() {
            let name = node.output[index].clone();
            if !self.is_float(&name) {
                continue;
            }
            if self.interface == Interface::F16 && self.graph.is_output(&name) && !self.pinned.contains(&name) {
                let single = self.graph.fresh(&format!("{name}_f32"));
                node.output[index] = single.clone();
                self.retype(&name);
                after.push(self.cast(&single, &name, ElementType::FLOAT16));
                self.forms.insert(name.clone(), Forms { single: Some(single), half: Some(name) });
            } else {
                self.forms.insert(name.clone(), Forms { single: Some(name), half: None });
            }
        }
        self.nodes.push(node);
        self.nodes.extend(after);
    }

    fn cast(&mut self, from: &str, to: &str, element: ElementType) -> NodeProto {
        let name = self.graph.fresh(&format!("{to}/cast"));
        NodeProto::new("Cast", &name, &[from], &[to], &[("to", Attribute::Int(element.0.into()))])
    }

    /// The name of a value in f32.
    fn single(&mut self, name: &str) -> String {
        let forms = self.forms.get(name).cloned().unwrap_or_default();
        match (forms.single, forms.half) {
            (Some(single), _) => single,
            (None, Some(half)) => {
                let single = self.graph.fresh(&format!("{name}_f32"));
                let cast = self.cast(&half, &single, ElementType::FLOAT);
                self.nodes.push(cast);
                self.forms.entry(name.to_owned()).or_default().single = Some(single.clone());
                single
            }
            (None, None) => name.to_owned(),
        }
    }

    /// The name of a value in f32 where it exists in f32, else in f16.
    fn any(&mut self, name: &str) -> String {
        match self.forms.get(name) {
            Some(Forms { single: None, half: Some(half) }) => half.clone(),
            _ => self.single(name),
        }
    }

    /// The name of a value in f16.
    fn half(&mut self, name: &str) -> String {
        if let Some(half) = self.forms.get(name).and_then(|forms| forms.half.clone()) {
            return half;
        }
        let half = match self.graph.tensor(name) {
            Some(tensor) => self.half_initializer(name, &tensor),
            None => {
                let single = self.single(name);
                let half = self.graph.fresh(&format!("{name}_f16"));
                let cast = self.cast(&single, &half, ElementType::FLOAT16);
                self.nodes.push(cast);
                half
            }
        };
        self.forms.entry(name.to_owned()).or_default().half = Some(half.clone());
        half
    }

    /// An initialiser in f16, under its own name where nothing reads it as f32.
    fn half_initializer(&mut self, name: &str, tensor: &Tensor) -> String {
        let numbers = tensor.as_ref().as_slice::<f32>().unwrap_or_default();
        let zeros = Fit::of(numbers).zeros;
        if zeros > 0 {
            self.faded.push(FadedTensor { tensor: name.to_owned(), zeros, elements: numbers.len() });
        }
        let halves: Vec<f16> = numbers.iter().map(|number| f16::from_f32(*number)).collect();
        let halves = TensorRef::of(tensor.shape(), &halves).expect("each element has one");
        if self.read_single.contains(name) {
            return self.graph.add_tensor(&format!("{name}_f16"), halves);
        }
        self.graph.set_tensor(name, halves);
        name.to_owned()
    }

    fn bound(&mut self, name: &str) -> String {
        let Some(tensor) = self.graph.tensor(name) else { return self.half(name) };
        let numbers = tensor.as_ref().as_slice::<f32>().unwrap_or_default();
        let halves: Vec<f16> = numbers.iter().map(|bound| f16::from_f32(bound.clamp(-HALF_MAX, HALF_MAX))).collect();
        let halves = TensorRef::of(tensor.shape(), &halves).expect("each element has one");
        let key = format!("{name} as a bound");
        if let Some(half) = self.forms.get(&key).and_then(|forms| forms.half.clone()) {
            return half;
        }
        let half = self.graph.add_tensor(&format!("{name}_f16"), halves);
        self.forms.insert(key, Forms { single: None, half: Some(half.clone()) });
        half
    }
}
