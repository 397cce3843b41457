//! Every decoder against vectors from an independent published implementation, which each case
//! names (`reference`). `vectors/make_vectors.py` wrote them.
//!
//! No published package reads the four outputs of TensorRT's EfficientNMS, so that form is checked
//! in `decode_forms.rs` against the plugin's documented layout.
// A test may panic: that is how it fails; so may its helpers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use revoada_bundle::manifest::OutputManifest;
use revoada_core::{
    Anchor, DType, Dim, Fit, ImageTransform, Placement, Prediction, Rect, Size, Tensor, TensorRef, TensorSpec, f16,
};
use revoada_pipeline::decode::{Built, DecodeError, DecoderContext, Decoders};
use serde::Deserialize;

/// Scores come through an exponential in single precision, or through FP16 where the case says so.
const SCORE_TOLERANCE: f32 = 2e-5;
const SCORE_TOLERANCE_FP16: f32 = 1e-3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    reference: String,
    decoder: String,
    manifest: CaseManifest,
    labels: usize,
    input: (usize, usize),
    source: (usize, usize),
    fit: String,
    tolerance_px: f32,
    outputs: Vec<CaseTensor>,
    /// Class, score, left, top, right, bottom, landmarks.
    #[serde(default)]
    detections: Vec<Vec<f32>>,
    #[serde(default)]
    classifications: Vec<(u32, f32)>,
    #[serde(default)]
    segmentation: Vec<u8>,
    #[serde(default)]
    grid: (usize, usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseManifest {
    score_min: Option<f32>,
    nms_iou_max: Option<f32>,
    results_max: Option<usize>,
    #[serde(default)]
    anchors: Vec<Vec<[f32; 2]>>,
    #[serde(default)]
    background: bool,
}

#[derive(Deserialize)]
struct CaseTensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

impl Case {
    fn load(path: &Path) -> (Self, Vec<Tensor>) {
        let case: Self = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let bytes = fs::read(path.with_extension("bin")).unwrap();
        let mut rest = bytes.as_slice();
        let tensors = case.outputs.iter().map(|tensor| tensor.take(&mut rest)).collect();
        assert!(rest.is_empty(), "{path:?} has bytes left over");
        (case, tensors)
    }

    fn manifest(&self) -> OutputManifest {
        OutputManifest {
            decoder: Some(self.decoder.clone()),
            score_min: self.manifest.score_min,
            nms_iou_max: self.manifest.nms_iou_max,
            results_max: self.manifest.results_max,
            anchors: self.manifest.anchors.clone(),
            background: self.manifest.background,
            ..OutputManifest::default()
        }
    }

    fn specs(&self, tensors: &[Tensor]) -> Vec<TensorSpec> {
        let spec = |(case, tensor): (&CaseTensor, &Tensor)| TensorSpec {
            name: case.name.clone(),
            dtype: tensor.dtype(),
            dims: tensor.shape().iter().map(|size| Dim::Fixed(*size)).collect(),
        };
        self.outputs.iter().zip(tensors).map(spec).collect()
    }

    fn placement(&self) -> Placement {
        let fit = match self.fit.as_str() {
            "stretch" => Fit::Stretch,
            "letterbox" => Fit::Letterbox { anchor: Anchor::TopLeft, fill: 0.0 },
            "letterbox-centered" => Fit::letterbox_centered(),
            other => panic!("unknown fit `{other}`"),
        };
        let transform = ImageTransform { fit, ..ImageTransform::stretch(self.input()) };
        Placement::new(Rect::of(Size::new(self.source.0, self.source.1)), &transform)
    }

    fn input(&self) -> Size {
        Size::new(self.input.0, self.input.1)
    }

    fn build(&self, manifest: &OutputManifest, specs: &[TensorSpec]) -> Result<Built, DecodeError> {
        let context = DecoderContext { outputs: specs, manifest, labels: self.labels, input: self.input() };
        Decoders::standard().build(&context)
    }

    fn decode(&self, manifest: &OutputManifest, specs: &[TensorSpec], tensors: &[Tensor], row: usize) -> Prediction {
        let built = self.build(manifest, specs).unwrap();
        assert_eq!(built.decoder.name(), self.decoder);
        let outputs: Vec<TensorRef<'_>> = tensors.iter().map(Tensor::as_ref).collect();
        let prediction = built.decoder.decode(&outputs, row, &self.placement()).unwrap();
        assert_eq!(built.decoder.non_finite(), 0);
        prediction
    }

    fn check(&self, name: &str, prediction: &Prediction) {
        let fp16 = self.outputs.iter().any(|tensor| tensor.dtype == "float16");
        let score_tolerance = if fp16 { SCORE_TOLERANCE_FP16 } else { SCORE_TOLERANCE };
        let context = format!("{name}, against {}", self.reference);

        assert_eq!(prediction.detections.len(), self.detections.len(), "{context}");
        for (index, (found, expected)) in prediction.detections.iter().zip(&self.detections).enumerate() {
            let context = format!("{context}, detection {index}: {found:?} is not {expected:?}");
            assert_eq!(found.class, expected[0] as u32, "{context}");
            assert!((found.score - expected[1]).abs() <= score_tolerance, "{context}");
            let corners = [found.bbox.x, found.bbox.y, found.bbox.right(), found.bbox.bottom()];
            let points = found.landmarks.iter().flat_map(|point| [point.x, point.y]);
            let numbers: Vec<f32> = corners.into_iter().chain(points).collect();
            assert_eq!(numbers.len(), expected.len() - 2, "{context}");
            for (found, expected) in numbers.iter().zip(&expected[2..]) {
                assert!((found - expected).abs() <= self.tolerance_px, "{context}");
            }
        }

        assert_eq!(prediction.classifications.len(), self.classifications.len(), "{context}");
        for (found, (class, score)) in prediction.classifications.iter().zip(&self.classifications) {
            assert_eq!(found.class, *class, "{context}");
            assert!((found.score - score).abs() <= score_tolerance, "{context}");
        }

        match &prediction.segmentation {
            None => assert!(self.segmentation.is_empty(), "{context}"),
            Some(found) => {
                assert_eq!((found.width, found.height), self.grid, "{context}");
                assert_eq!(found.classes, self.segmentation, "{context}");
                assert_eq!(found.area, Rect::of(Size::new(self.source.0, self.source.1)), "{context}");
            }
        }
    }
}

impl CaseTensor {
    fn take(&self, bytes: &mut &[u8]) -> Tensor {
        fn split<const N: usize, T>(bytes: &mut &[u8], count: usize, read: fn([u8; N]) -> T) -> Vec<T> {
            let (mine, rest) = bytes.split_at(count * N);
            *bytes = rest;
            mine.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
        }
        let count = self.shape.iter().product();
        let shape = self.shape.clone();
        match self.dtype.as_str() {
            "float32" => Tensor::of(shape, split(bytes, count, f32::from_le_bytes)),
            "float16" => Tensor::of(shape, split(bytes, count, f16::from_le_bytes)),
            "int64" => Tensor::of(shape, split(bytes, count, i64::from_le_bytes)),
            other => panic!("unknown dtype `{other}`"),
        }
        .unwrap()
    }
}

fn cases() -> BTreeMap<String, PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let cases = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    cases.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

/// Read in no package of a registry but by NVIDIA's own programs; its definition is checked in `decode_forms`.
const UNPUBLISHED: &str = "detectnet";

#[test]
fn every_decoder_agrees_with_a_published_implementation() {
    let cases = cases();
    let mut decoders: Vec<String> = Vec::new();
    for (name, path) in &cases {
        let (case, tensors) = Case::load(path);
        let prediction = case.decode(&case.manifest(), &case.specs(&tensors), &tensors, 0);
        case.check(name, &prediction);
        decoders.push(case.decoder);
    }
    for name in Decoders::standard().names().filter(|name| *name != UNPUBLISHED) {
        assert!(decoders.iter().any(|decoder| decoder == name), "no case checks `{name}`");
    }
}

/// A second picture in the batch, and sizes that the model leaves open, change nothing.
#[test]
fn a_row_of_a_batch_with_dynamic_dimensions_decodes_alike() {
    for (name, path) in &cases() {
        if name == "yolo_v7_end2end" {
            continue; // Its rows carry their picture's number; `decode_forms.rs` has that form.
        }
        let (case, tensors) = Case::load(path);
        let tensors: Vec<Tensor> = tensors.iter().map(behind_zeros).collect();
        let mut specs = case.specs(&tensors);
        for spec in &mut specs {
            // The decoders may rely on what stays fixed when a network's input changes its size.
            spec.dims[0] = Dim::Dynamic("batch".into());
            if matches!(case.decoder.as_str(), "centerface" | "segmentation") && spec.dims.len() == 4 {
                spec.dims[2] = Dim::Dynamic("height".into());
            }
        }
        let prediction = case.decode(&case.manifest(), &specs, &tensors, 1);
        case.check(name, &prediction);
    }
}

/// A batch of two whose first picture is all zeros.
fn behind_zeros(tensor: &Tensor) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    shape[0] *= 2;
    let empty = Tensor::zeros(tensor.dtype(), tensor.shape().to_vec()).unwrap();
    macro_rules! joined {
        ($element:ty) => {{
            let (a, b) = (empty.as_ref(), tensor.as_ref());
            Tensor::of(shape, [a.as_slice::<$element>().unwrap(), b.as_slice().unwrap()].concat()).unwrap()
        }};
    }
    match tensor.dtype() {
        DType::F32 => joined!(f32),
        DType::F16 => joined!(f16),
        DType::I64 => joined!(i64),
        other => panic!("no case has {other}"),
    }
}

/// Without a manifest the registry finds the same decoder, and says why.
#[test]
fn the_guess_is_the_decoder_that_the_case_names() {
    for (name, path) in &cases() {
        let (case, tensors) = Case::load(path);
        let specs = case.specs(&tensors);
        let silent = OutputManifest { decoder: None, ..case.manifest() };
        match name.as_str() {
            // Sizes of a toy: 84 rows for 84 cells, of 9 numbers that are no anchor's.
            "yolo_v5_decoded" | "yolo_v7_end2end" | "yolo_v5_planes" => continue,
            // Of the anchors, a guess knows nothing; the manifest still gives them.
            _ => {}
        }
        let built = case.build(&silent, &specs);
        let built = built.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(built.decoder.name(), case.decoder, "{name}");
        let guessed = built.guessed.unwrap();
        assert!(guessed.starts_with(&format!("guessed decoder `{}`: ", case.decoder)), "{guessed}");
    }
}
