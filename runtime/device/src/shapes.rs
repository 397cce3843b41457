//! `--shape INPUT=DIMS`, as `inspect` and `bench` take it, and `--profile`, as `build` does.

use std::collections::BTreeMap;

use revoada_bundle::manifest::InputManifest;
use revoada_bundle::plan::{ShapeProfile, ShapeRange};
use revoada_core::TensorSpec;
use revoada_engine::picture_input;

use crate::failure::Misuse;

pub(crate) fn parse(texts: &[String]) -> anyhow::Result<BTreeMap<String, Vec<usize>>> {
    let parse = |text: &String| {
        let (name, shape) = text.rsplit_once('=')?;
        Some((name.to_owned(), dims(shape)?))
    };
    texts
        .iter()
        .map(|text| {
            parse(text).ok_or_else(|| Misuse(format!("`--shape {text}` is not like `images=1x3x640x640`")).into())
        })
        .collect()
}

/// Adds the shape of the input that takes pictures, with its batch or one of 1, where none is given for it and the model
/// and its manifest say how large a picture is.
pub(crate) fn add_picture(shapes: &mut BTreeMap<String, Vec<usize>>, inputs: &[TensorSpec], manifest: &InputManifest) {
    if let Ok(picture) = picture_input(inputs, manifest) {
        shapes.entry(picture.name.clone()).or_insert_with(|| picture.shape(picture.rows_fixed.unwrap_or(1)).to_vec());
    }
}

/// `1x3x640x640`
pub(crate) fn text(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// `--profile INPUT=SMALLEST:BEST:LARGEST`, or one shape for all three.
pub(crate) fn parse_profile(texts: &[String]) -> anyhow::Result<ShapeProfile> {
    let parse = |text: &String| {
        let (name, range) = text.rsplit_once('=')?;
        let shapes: Option<Vec<Vec<usize>>> = range.split(':').map(dims).collect();
        let range = match <[Vec<usize>; 3]>::try_from(shapes?) {
            Ok([min, opt, max]) => ShapeRange { min, opt, max },
            Err(mut shapes) if shapes.len() == 1 => ShapeRange::fixed(&shapes.remove(0)),
            Err(_) => return None,
        };
        Some((name.to_owned(), range))
    };
    texts
        .iter()
        .map(|text| {
            parse(text).ok_or_else(|| {
                Misuse(format!("`--profile {text}` is not like `images=1x3x640x640:4x3x640x640:8x3x640x640`")).into()
            })
        })
        .collect()
}

fn dims(text: &str) -> Option<Vec<usize>> {
    text.split('x').map(|dim| dim.parse().ok().filter(|dim| *dim > 0)).collect()
}

/// Refuses shapes of inputs that the model does not have.
pub(crate) fn check_names(inputs: &[TensorSpec], shapes: &BTreeMap<String, Vec<usize>>) -> anyhow::Result<()> {
    if let Some(name) = shapes.keys().find(|name| !inputs.iter().any(|input| input.name == **name)) {
        let known: Vec<String> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
        return Err(Misuse(format!("the model has no input `{name}`, only {}", known.join(", "))).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_is_none_is_refused() {
        for text in ["images", "images=", "images=1x0x3", "images=1xax3"] {
            assert!(parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
