//! Nodes that compute the same each time, computed once.

use std::collections::{BTreeMap, HashSet};

use revoada_bundle::onnx::proto::{NodeProto, ValueInfoProto};
use revoada_bundle::onnx::{ElementType, Graph, OnnxModel};
use revoada_core::{DType, Tensor, TensorRef, TensorSlice};
use revoada_engine::{Backend, EngineError};

use crate::BuilderError;
use crate::run::Runner;

/// Operators whose answers differ from time to time, and those that compilers look for.
const NEVER: &[&str] = &[
    "Bernoulli",
    "DequantizeLinear",
    "Multinomial",
    "QuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// Element types and shapes by name.
type Known = BTreeMap<String, (ElementType, Vec<usize>)>;

/// Replaces what follows from constants alone, and shapes where the model leaves none open, by initialisers.
/// `graph` is `model`, opened. Says how many nodes went.
pub(super) fn fold(
    backend: &dyn Backend,
    model: &OnnxModel,
    graph: &mut Graph,
    bytes_max: u64,
) -> Result<usize, BuilderError> {
    let shapes = fold_shapes(model, graph)?;
    // Only constants matter here, so that inputs of unknown shape do no harm.
    let known = model.value_shapes(&BTreeMap::new())?;
    let foldable = foldable(graph, &known, bytes_max);
    if foldable.is_empty() {
        graph.remove_unused();
        return Ok(shapes);
    }
    let computed = compute(backend, graph, &foldable, &known)?;
    for (name, tensor) in &computed {
        graph.set_tensor(name, tensor.as_ref());
    }
    let mut index = 0..;
    graph.nodes_mut().retain(|_| index.next().is_some_and(|index| !foldable.contains(&index)));
    graph.remove_unused();
    Ok(shapes + foldable.len())
}

/// `Shape` and `Size` of values whose shape does not depend on what is fed.
fn fold_shapes(model: &OnnxModel, graph: &mut Graph) -> Result<usize, BuilderError> {
    let is_closed = |info: &ValueInfoProto| {
        let dims = info.tensor_type().and_then(|tensor| tensor.dims());
        dims.is_some_and(|dims| dims.iter().all(|dim| dim.fixed().is_some()))
    };
    if !graph.inputs().iter().all(is_closed) {
        return Ok(0);
    }
    let known = model.value_shapes(&BTreeMap::new())?;
    let mut folded = Vec::new();
    for node in graph.nodes() {
        let ([input], [output]) = (node.input.as_slice(), node.output.as_slice()) else { continue };
        let Some((_, shape)) = known.get(input).filter(|_| !graph.is_output(output)) else { continue };
        let sizes: Vec<i64> = shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
        if node.is("Size") {
            folded.push((output.clone(), Vec::new(), vec![sizes.iter().product()]));
        } else if node.is("Shape") {
            let rank = i64::try_from(sizes.len()).unwrap_or(i64::MAX);
            let place =
                |value: i64| (if value < 0 { value.saturating_add(rank) } else { value }).clamp(0, rank) as usize;
            let (start, end) = (place(node.int("start").unwrap_or(0)), place(node.int("end").unwrap_or(rank)));
            let part = sizes.get(start..end).unwrap_or_default().to_vec();
            folded.push((output.clone(), vec![part.len()], part));
        }
    }
    for (name, shape, sizes) in &folded {
        graph.set_tensor(name, TensorRef::of(shape, sizes).map_err(EngineError::from)?);
    }
    graph.nodes_mut().retain(|node| folded.iter().all(|(name, ..)| node.output.first() != Some(name)));
    Ok(folded.len())
}

/// The nodes that are computed from constants, in order, none of whose answers is too large.
fn foldable(graph: &Graph, known: &Known, bytes_max: u64) -> HashSet<usize> {
    let fits = |name: &String| {
        let Some((element, shape)) = known.get(name) else { return false };
        let bits = element.dtype().and_then(|_| element.bits());
        let bits = bits.and_then(|bits| shape.iter().try_fold(bits, |bits, dim| bits.checked_mul(*dim as u64)));
        bits.is_some_and(|bits| bits / 8 <= bytes_max)
    };
    let mut constant: HashSet<&str> = HashSet::new();
    let mut foldable = HashSet::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        let is_constant = |name: &&String| match graph.initializer(name) {
            Some(_) => !is_huge(graph, name),
            None => constant.contains(name.as_str()),
        };
        let inputs = node.input.iter().filter(|name| !name.is_empty()).all(|name| is_constant(&name));
        let outputs = node.output.iter().filter(|name| !name.is_empty());
        if is_pure(node) && inputs && outputs.clone().all(|name| fits(name) && !graph.is_output(name)) {
            constant.extend(outputs.map(String::as_str));
            foldable.insert(index);
        }
    }
    foldable
}

fn is_pure(node: &NodeProto) -> bool {
    node.is_standard() && !NEVER.contains(&node.op_type()) && node.nested().next().is_none()
}

/// Whether a constant holds integers beyond 32 bits, in which some backends compute 64.
fn is_huge(graph: &Graph, name: &str) -> bool {
    let tensor = graph.tensor(name);
    let huge = |tensor: &Tensor| match tensor.as_ref().data() {
        TensorSlice::I64(numbers) => numbers.iter().any(|number| i32::try_from(*number).is_err()),
        _ => false,
    };
    tensor.as_ref().is_none_or(huge)
}

/// The answers of foldable nodes that others read.
///
/// Each answer is chosen by a flag that is fed: backends compute what depends on nothing while they load a
/// model, and do not all remember that it was an output.
fn compute(
    backend: &dyn Backend,
    graph: &Graph,
    foldable: &HashSet<usize>,
    known: &Known,
) -> Result<Vec<(String, Tensor)>, BuilderError> {
    let uses = graph.uses();
    let types = graph.types();
    let mut part = graph.clone();
    part.clear_interface();
    let flag = part.add_input("flag", DType::Bool, &[]);
    let mut wanted = Vec::new();
    for index in (0..graph.nodes().len()).filter(|index| foldable.contains(index)) {
        for name in graph.nodes()[index].output.iter().filter(|name| !name.is_empty()) {
            let read = uses.consumers(name).iter().any(|reader| !foldable.contains(&reader.node));
            if let Some(element) = types.get(name).filter(|_| read) {
                let chosen = part.fresh(&format!("{name}_chosen"));
                let node = part.fresh(&format!("{name}/choose"));
                part.nodes_mut().push(NodeProto::new("Where", &node, &[&flag, name, name], &[&chosen], &[]));
                part.expose(&chosen, *element);
                wanted.push(name.clone());
            }
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    part.remove_unused();
    let mut runner = Runner::load(backend, &part.finish()?)?;
    let flag = Tensor::of(Vec::new(), vec![true]).map_err(EngineError::from)?;
    let answers = runner.run(0, &[flag])?;
    // A shape that inference did not foresee is some backend's mistake, and not to be written down.
    for (name, answer) in wanted.iter().zip(&answers) {
        let expected = known.get(name).map(|(element, shape)| format!("{element}{shape:?}")).unwrap_or_default();
        let got = format!("{}{:?}", answer.dtype(), answer.shape());
        if expected != got {
            return Err(BuilderError::Outputs { output: name.clone(), left: expected, right: got });
        }
    }
    Ok(wanted.into_iter().zip(answers.iter().map(TensorRef::to_owned)).collect())
}
