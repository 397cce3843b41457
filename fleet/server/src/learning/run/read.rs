//! Weights as participants send them.

use std::collections::BTreeMap;
use std::sync::Arc;

use revoada_core::Digest;
use revoada_federated::npy::{self, Element};
use revoada_federated::{Contribution, Layout, Weights};

use crate::learning::task::Tensor;

/// Weights of a known layout, by name where the tensors are named as it says, else by place.
pub(super) fn read(tensors: &[Tensor], layout: &Arc<Layout>) -> Result<Weights, String> {
    let names: BTreeMap<&str, &Tensor> =
        tensors.iter().filter_map(|tensor| Some((tensor.name.as_deref()?, tensor))).collect();
    let is_named = !names.is_empty() && layout.tensors().iter().all(|(name, _)| names.contains_key(name.as_str()));
    if tensors.len() != layout.tensors().len() {
        return Err(format!("the update has {} tensors, and the model has {}", tensors.len(), layout.tensors().len()));
    }
    let mut values = Vec::with_capacity(layout.count());
    for ((name, shape), by_place) in layout.tensors().iter().zip(tensors) {
        let tensor = if is_named { names[name.as_str()] } else { by_place };
        let array = npy::Array::parse(&tensor.array).map_err(|error| format!("tensor `{name}`: {error}"))?;
        if array.shape != *shape {
            return Err(format!("tensor `{name}` has the shape {:?}, and in the model {shape:?}", array.shape));
        }
        array.extend(&mut values);
    }
    Ok(Weights::new(Arc::clone(layout), values).expect("each tensor has the numbers of its shape"))
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

pub(super) fn digest_of(content: &Contribution) -> Digest {
    use sha2::{Digest as _, Sha256};
    let mut hasher = Sha256::new();
    hasher.update([u8::from(matches!(content, Contribution::Delta(_)))]);
    let mut bytes = Vec::with_capacity(1 << 14);
    for values in content.weights().values().chunks(1 << 12) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        hasher.update(&bytes);
    }
    Digest::new(hasher.finalize().into())
}
