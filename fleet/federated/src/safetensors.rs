//! Weights as bytes in the safetensors format, for files and for the wire.

use std::collections::HashMap;
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use thiserror::Error;

use crate::weights::{Layout, LayoutError, Weights};

#[derive(Debug, Error)]
pub enum SafetensorsError {
    #[error("it is no safetensors file")]
    Format(#[source] SafeTensorError),
    #[error("tensor `{tensor}` is of type {found}, and only F32 is learned")]
    Type { tensor: String, found: String },
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// The same bytes for the same weights: tensors of one type lie by name in such a file, so weights that are read again may have
/// another order than those that were written.
pub fn to_safetensors(weights: &Weights, metadata: &[(&str, &str)]) -> Vec<u8> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .tensors()
        .map(|(name, shape, values)| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.to_owned(), shape.to_vec(), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("there are four bytes for each number");
        (name.as_str(), view)
    });
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    safetensors::serialize(views, metadata).expect("each name stands once in a layout")
}

/// Reads weights. `layout` gives their order where it is known; whether they are of it is not checked here.
pub fn from_safetensors(bytes: &[u8], layout: Option<&Arc<Layout>>) -> Result<Weights, SafetensorsError> {
    let file = SafeTensors::deserialize(bytes).map_err(SafetensorsError::Format)?;
    let mut tensors: Vec<(String, TensorView<'_>)> = file.tensors();
    let place = |name: &str| {
        let known = layout.and_then(|layout| layout.tensors().iter().position(|(known, _)| known == name));
        known.unwrap_or(usize::MAX)
    };
    tensors.sort_by(|(left, _), (right, _)| (place(left), left).cmp(&(place(right), right)));
    let mut values = Vec::new();
    for (name, view) in &tensors {
        if view.dtype() != Dtype::F32 {
            return Err(SafetensorsError::Type { tensor: name.clone(), found: view.dtype().to_string() });
        }
        let numbers = view.data().chunks_exact(size_of::<f32>());
        values.extend(numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("a chunk has four bytes"))));
    }
    let found = Arc::new(Layout::new(tensors.iter().map(|(name, view)| (name.clone(), view.shape().to_vec())))?);
    let layout = layout.filter(|known| **known == found).cloned().unwrap_or(found);
    Ok(Weights::new(layout, values).expect("the file has a number for each place of its shapes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(names: [&str; 2]) -> Arc<Layout> {
        Arc::new(Layout::new(names.map(|name| (name.to_owned(), vec![2, 1]))).unwrap())
    }

    #[test]
    fn weights_are_read_as_they_were_written() {
        let weights = Weights::new(layout(["weight", "bias"]), vec![1.0, 2.0, 3.0, -0.5]).unwrap();
        let bytes = to_safetensors(&weights, &[("round", "3")]);
        assert_eq!(bytes, to_safetensors(&weights, &[("round", "3")]));
        assert_eq!(from_safetensors(&bytes, Some(weights.layout())).unwrap(), weights);
        // Nobody says in which order, so it is that of names.
        let by_name = from_safetensors(&bytes, None).unwrap();
        assert_eq!((by_name.layout(), by_name.values()), (&layout(["bias", "weight"]), &[3.0, -0.5, 1.0, 2.0][..]));
    }

    #[test]
    fn what_is_not_learned_is_refused_by_name() {
        let view = TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
        let bytes = safetensors::serialize([("steps", view)], None).unwrap();
        let refusal = from_safetensors(&bytes, None).unwrap_err();
        assert_eq!(refusal.to_string(), "tensor `steps` is of type I64, and only F32 is learned");
        assert!(matches!(from_safetensors(&bytes[..9], None), Err(SafetensorsError::Format(_))));
        let nothing = safetensors::serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap();
        assert!(matches!(from_safetensors(&nothing, None), Err(SafetensorsError::Layout(LayoutError::Empty))));
    }
}
