//! Weights as participants send them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use revoada_core::Digest;
use revoada_federated::npy::{self, Element};
use revoada_federated::{Contribution, Layout, SentWeights, Weights};

use crate::learning::task::Tensor;

/// Weights of a known layout, by name where the tensors are named as it says, else by place.
/// Numbers that were sent as they are reckoned with are not copied.
pub(super) fn read<'a>(tensors: &'a [Tensor], layout: &Arc<Layout>) -> Result<Contribution<'a>, String> {
    let names: BTreeMap<&str, &Tensor> =
        tensors.iter().filter_map(|tensor| Some((tensor.name.as_deref()?, tensor))).collect();
    let is_named = !names.is_empty() && layout.tensors().iter().all(|(name, _)| names.contains_key(name.as_str()));
    if tensors.len() != layout.tensors().len() {
        return Err(format!("the update has {} tensors, and the model has {}", tensors.len(), layout.tensors().len()));
    }
    let mut arrays = Vec::with_capacity(tensors.len());
    for ((name, shape), by_place) in layout.tensors().iter().zip(tensors) {
        let tensor = if is_named { names[name.as_str()] } else { by_place };
        let array = npy::Array::parse(&tensor.array).map_err(|error| format!("tensor `{name}`: {error}"))?;
        if array.shape != *shape {
            return Err(format!("tensor `{name}` has the shape {:?}, and in the model {shape:?}", array.shape));
        }
        arrays.push(array);
    }
    let whole = "each tensor has the numbers of its shape";
    if let Some(sent) = arrays.iter().map(npy::Array::as_f32).collect() {
        return Ok(Contribution::Sent(SentWeights::new(Arc::clone(layout), sent).expect(whole)));
    }
    let mut values = Vec::with_capacity(layout.count());
    arrays.iter().for_each(|array| array.extend(&mut values));
    Ok(Contribution::Full(Weights::new(Arc::clone(layout), values).expect(whole)))
}

/// Weights that somebody begins with.
pub(super) fn read_first(tensors: &[Tensor]) -> Result<(Weights, Vec<Element>), String> {
    let (mut values, mut named, mut elements) = (Vec::new(), Vec::new(), Vec::new());
    for (place, tensor) in tensors.iter().enumerate() {
        let name = tensor.name.clone().unwrap_or_else(|| place.to_string());
        let array = npy::Array::parse(&tensor.array).map_err(|error| format!("tensor `{name}`: {error}"))?;
        array.extend(&mut values);
        elements.push(array.element);
        named.push((name, array.shape));
    }
    let layout = Layout::new(named).map_err(|error| error.to_string())?;
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!("number {place} of the weights to begin with is not finite"));
    }
    Ok((Weights::new(Arc::new(layout), values).expect("there are as many as the shapes say"), elements))
}

pub(super) fn digest_of(content: &Contribution<'_>) -> Digest {
    use sha2::{Digest as _, Sha256};
    let mut hasher = Sha256::new();
    hasher.update([u8::from(content.is_delta())]);
    let hashed: Result<(), Infallible> = content.each_piece(|bytes| {
        hasher.update(bytes);
        Ok(())
    });
    let Ok(()) = hashed;
    Digest::new(hasher.finalize().into())
}
