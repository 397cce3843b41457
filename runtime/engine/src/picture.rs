//! Which input of a model takes pictures, and what a picture has to become for it.

use revoada_bundle::manifest::InputManifest;
use revoada_core::{ChannelOrder, DType, Dim, ImageTransform, Layout, Size, TensorSpec};

use crate::{EngineError, Shapes};

/// The input that takes pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureInput {
    pub index: usize,
    pub name: String,
    pub dtype: DType,
    pub transform: ImageTransform,
    /// The batch, where the model fixes it.
    pub rows_fixed: Option<usize>,
}

impl PictureInput {
    /// The input's shape for a batch of `rows`.
    pub fn shape(&self, rows: usize) -> [usize; 4] {
        let Size { width, height } = self.transform.size;
        let channels = self.transform.channels.channels();
        match self.transform.layout {
            Layout::Nchw => [rows, channels, height, width],
            Layout::Nhwc => [rows, height, width, channels],
        }
    }

    /// Shapes for a session of up to `rows_max` pictures; the other inputs follow.
    pub fn shapes(&self, rows_max: usize) -> Shapes {
        let rows = self.rows_fixed.unwrap_or(rows_max);
        Shapes::rows(rows_max).with(&self.name, &self.shape(rows))
    }
}

/// Finds the picture input of a model and how pictures are staged into it.
///
/// It is the one that the manifest names, else the first of four dimensions and f32, f16 or u8. What
/// the model says is taken from the model; the manifest says the rest and may not contradict:
/// - the layout: the dimension of 1 or 3 is the channels; where both could be, channels come first;
/// - the channels: one is always grey, three are RGB unless the manifest says BGR;
/// - width and height: where the model leaves them open, the manifest's.
pub fn picture_input(specs: &[TensorSpec], manifest: &InputManifest) -> Result<PictureInput, EngineError> {
    let (index, spec) = find(specs, manifest)?;
    let refuse = |reason: String| EngineError::NotAPicture { spec: spec.to_string(), reason };
    let [batch, one, two, three] = spec.dims.as_slice() else {
        return Err(refuse("it does not have four dimensions".to_owned()));
    };
    if !takes_pixels(spec.dtype) {
        return Err(refuse("its elements are not f32, f16 or u8".to_owned()));
    }
    let is_channels = |dim: &Dim| matches!(dim, Dim::Fixed(1 | 3));
    let layout = match manifest.layout {
        Some(layout) => layout,
        None if is_channels(one) => Layout::Nchw,
        None if is_channels(three) => Layout::Nhwc,
        None => return Err(refuse("no dimension is 1 or 3; set `input.layout` in the model's manifest".to_owned())),
    };
    let (channels, height, width) = match layout {
        Layout::Nchw => (one, two, three),
        Layout::Nhwc => (three, one, two),
    };
    let channels = match (channels.fixed(), manifest.channels) {
        (Some(1), _) => ChannelOrder::Gray,
        (Some(3), ChannelOrder::Gray) => {
            return Err(refuse("it has 3 channels, and the manifest says `gray`".to_owned()));
        }
        (Some(3) | None, order) => order,
        (Some(other), _) => return Err(refuse(format!("in {layout:?} order it has {other} channels"))),
    };
    let side = |dim: &Dim, wanted: Option<usize>, what: &str| match (dim.fixed(), wanted) {
        (Some(fixed), Some(wanted)) if fixed != wanted => {
            Err(refuse(format!("its {what} is {fixed}, and the manifest says {wanted}")))
        }
        (Some(0), _) | (None, Some(0)) => Err(refuse(format!("its {what} is 0"))),
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) => Err(refuse(format!("it leaves its {what} open; set `input.size` in the model's manifest"))),
    };
    let size = Size::new(
        side(width, manifest.size.map(|size| size.width), "width")?,
        side(height, manifest.size.map(|size| size.height), "height")?,
    );
    Ok(PictureInput {
        index,
        name: spec.name.clone(),
        dtype: spec.dtype,
        transform: ImageTransform {
            size,
            layout,
            channels,
            fit: manifest.fit,
            mean: manifest.mean,
            scale: manifest.scale,
        },
        rows_fixed: batch.fixed(),
    })
}

fn find<'a>(specs: &'a [TensorSpec], manifest: &InputManifest) -> Result<(usize, &'a TensorSpec), EngineError> {
    let mut specs_indexed = specs.iter().enumerate();
    match &manifest.name {
        Some(name) => specs_indexed
            .find(|(_, spec)| spec.name == *name)
            .ok_or_else(|| EngineError::NoSuchInput { input: format!("`{name}`"), count: specs.len() }),
        None => specs_indexed.find(|(_, spec)| spec.dims.len() == 4 && takes_pixels(spec.dtype)).ok_or_else(|| {
            let inputs = specs.iter().map(|spec| format!("`{spec}`")).collect::<Vec<_>>().join(", ");
            EngineError::NoPictureInput { inputs }
        }),
    }
}

fn takes_pixels(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::U8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: DType, dims: &str) -> TensorSpec {
        let dims = dims.split(',').map(|word| word.parse().map_or_else(|_| Dim::Dynamic(word.into()), Dim::Fixed));
        TensorSpec { name: name.into(), dtype, dims: dims.collect() }
    }

    fn sized(width: usize, height: usize) -> InputManifest {
        InputManifest { size: Some(Size::new(width, height)), ..InputManifest::default() }
    }

    #[test]
    fn layout_size_and_channels_come_from_the_model() {
        let cases = [
            ("N,3,224,320", Layout::Nchw, ChannelOrder::Rgb, None, [2, 3, 224, 320]),
            ("1,224,320,3", Layout::Nhwc, ChannelOrder::Rgb, Some(1), [2, 224, 320, 3]),
            ("N,1,28,28", Layout::Nchw, ChannelOrder::Gray, None, [2, 1, 28, 28]),
            ("4,28,28,1", Layout::Nhwc, ChannelOrder::Gray, Some(4), [2, 28, 28, 1]),
            ("N,3,224,3", Layout::Nchw, ChannelOrder::Rgb, None, [2, 3, 224, 3]),
        ];
        for (dims, layout, channels, rows_fixed, shape) in cases {
            let input = picture_input(&[spec("x", DType::F32, dims)], &InputManifest::default()).unwrap();
            assert_eq!((input.transform.layout, input.transform.channels), (layout, channels), "{dims}");
            assert_eq!((input.rows_fixed, input.shape(2)), (rows_fixed, shape), "{dims}");
        }
    }

    #[test]
    fn the_manifest_settles_what_the_model_leaves_open() {
        let specs = [spec("scale", DType::F32, "2"), spec("x", DType::U8, "N,3,H,W")];
        let input = picture_input(&specs, &sized(640, 480)).unwrap();
        assert_eq!((input.index, input.shape(8)), (1, [8, 3, 480, 640]));
        let shapes = Shapes::rows(8).with("x", &[8, 3, 480, 640]);
        assert_eq!(input.shapes(8), shapes);
        let manifest = InputManifest { layout: Some(Layout::Nhwc), ..sized(640, 480) };
        let input = picture_input(&[spec("x", DType::F32, "?,?,?,?")], &manifest).unwrap();
        assert_eq!(input.shape(1), [1, 480, 640, 3]);
    }

    #[test]
    fn what_cannot_be_settled_is_said_with_what_to_set() {
        let gray = InputManifest { channels: ChannelOrder::Gray, ..InputManifest::default() };
        let named = InputManifest { name: Some("y".into()), ..InputManifest::default() };
        let plain = InputManifest::default();
        let cases = [
            (
                "N,3,H,W",
                &plain,
                "input `x f32[N,3,H,W]` cannot take a picture: it leaves its width open; set `input.size` in the model's manifest",
            ),
            (
                "N,C,H,W",
                &plain,
                "input `x f32[N,C,H,W]` cannot take a picture: no dimension is 1 or 3; set `input.layout` in the model's manifest",
            ),
            (
                "N,3,8,8",
                &sized(8, 16),
                "input `x f32[N,3,8,8]` cannot take a picture: its height is 8, and the manifest says 16",
            ),
            (
                "N,3,8,8",
                &gray,
                "input `x f32[N,3,8,8]` cannot take a picture: it has 3 channels, and the manifest says `gray`",
            ),
            ("N,3,8,8", &named, "there is no input `y`; the model has 1"),
            (
                "N,10",
                &plain,
                "the model has no input for pictures (four dimensions of f32, f16 or u8), only `x f32[N,10]`",
            ),
        ];
        for (dims, manifest, expected) in cases {
            let error = picture_input(&[spec("x", DType::F32, dims)], manifest).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
