//! The decoders at their edges: forms that no published package reads, numbers that are not finite,
//! padding, and the sentences for outputs that cannot be read.
// A test may panic: that is how it fails; so may its helpers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use revoada_bundle::manifest::{Activation, BoxFormat, OutputManifest};
use revoada_core::{
    DType, Dim, Fit, ImageTransform, Placement, Point, Prediction, Rect, Size, Tensor, TensorRef, TensorSpec, f16,
};
use revoada_engine::Readback;
use revoada_engine::cuda::CandidateSpec;
use revoada_pipeline::decode::{Built, DecodeError, DecoderContext, Decoders};

#[path = "../../engine/tests/cuda/plain_filter.rs"]
mod plain_filter;

const INPUT: Size = Size::new(64, 64);

fn spec(name: &str, dtype: DType, dims: &[usize]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, dims: dims.iter().map(|size| Dim::Fixed(*size)).collect() }
}

/// Zero stands for a dimension that the model leaves open.
fn floats(name: &str, dims: &[usize]) -> TensorSpec {
    let dim = |size: &usize| if *size == 0 { Dim::Dynamic("?".into()) } else { Dim::Fixed(*size) };
    TensorSpec { name: name.into(), dtype: DType::F32, dims: dims.iter().map(dim).collect() }
}

fn named(decoder: &str) -> OutputManifest {
    OutputManifest { decoder: Some(decoder.to_owned()), ..OutputManifest::default() }
}

fn build(manifest: &OutputManifest, outputs: &[TensorSpec], labels: usize) -> Result<Built, DecodeError> {
    Decoders::standard().build(&DecoderContext { outputs, manifest, labels, input: INPUT })
}

fn stretch() -> Placement {
    Placement::new(Rect::of(INPUT), &ImageTransform::stretch(INPUT))
}

fn decode(manifest: &OutputManifest, outputs: &[(&str, Tensor)], row: usize) -> Result<Prediction, DecodeError> {
    let specs: Vec<_> = outputs.iter().map(|(name, tensor)| spec(name, tensor.dtype(), tensor.shape())).collect();
    let tensors: Vec<TensorRef<'_>> = outputs.iter().map(|(_, tensor)| tensor.as_ref()).collect();
    build(manifest, &specs, 0)?.decoder.decode(&tensors, row, &stretch())
}

fn tensor<const N: usize>(shape: &[usize], values: [f32; N]) -> Tensor {
    Tensor::of(shape.to_vec(), values.to_vec()).unwrap()
}

/// The plugin's documentation: `num_detections [N,1]` int32, `detection_boxes [N,K,4]`,
/// `detection_scores [N,K]`, `detection_classes [N,K]` int32; YOLO exporters call them `num_dets`,
/// `det_boxes`, `det_scores`, `det_classes` and give left, top, right, bottom in pixels.
#[test]
fn efficient_nms_outputs_are_read_up_to_their_count() {
    let outputs = [
        ("num_dets", Tensor::of(vec![2, 1], vec![0i32, 2]).unwrap()),
        (
            "det_boxes",
            tensor(
                &[2, 3, 4],
                [
                    9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, //
                    1.0, 2.0, 11.0, 22.0, 30.0, 30.0, 40.0, 50.0, 0.0, 0.0, 64.0, 64.0,
                ],
            ),
        ),
        ("det_scores", tensor(&[2, 3], [0.9, 0.9, 0.9, 0.6, 0.8, 0.9])),
        ("det_classes", Tensor::of(vec![2, 3], vec![0i32, 0, 0, 7, 3, -1]).unwrap()),
    ];
    assert!(decode(&named("yolo-nms"), &outputs, 0).unwrap().detections.is_empty());
    let found = decode(&named("yolo-nms"), &outputs, 1).unwrap().detections;
    let found: Vec<_> = found.iter().map(|found| (found.class, found.score, found.bbox)).collect();
    assert_eq!(found, [(3, 0.8, Rect::new(30.0, 30.0, 10.0, 20.0)), (7, 0.6, Rect::new(1.0, 2.0, 10.0, 20.0))]);
}

/// Two cells of one class: the first sees a box from 1 pixel left of and above its centre to 3 right of and below it.
#[test]
fn cells_of_detectnet_measure_their_boxes_from_their_centres() {
    let unit = 1.0 / 35.0;
    let mut boxes = [0f32; 16];
    for (side, distance) in [1.0, 1.0, 3.0, 3.0].into_iter().enumerate() {
        boxes[side * 4 + 1] = distance * unit;
        boxes[side * 4 + 2] = 1000.0;
    }
    let coverage = tensor(&[1, 1, 2, 2], [0.1, 0.9, f32::NAN, 0.0]);
    let outputs = [("b", tensor(&[1, 4, 2, 2], boxes)), ("a", coverage)];
    let found = decode(&OutputManifest::default(), &outputs, 0).unwrap().detections;
    let [only] = &found[..] else { panic!("one cell is covered: {found:?}") };
    // The grid of 2 by 2 has strides of half the picture.
    let (x, y) = (INPUT.width as f32 / 2.0 + 0.5, 0.5);
    let expected = Rect::new(x - 1.0, y - 1.0, 4.0, 4.0);
    let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
    assert!((only.class, only.score) == (0, 0.9), "{only:?}");
    assert!(near(only.bbox.x, expected.x) && near(only.bbox.y, expected.y), "{only:?}");
    assert!(near(only.bbox.width, 4.0) && near(only.bbox.height, 4.0), "{only:?}");
}

#[test]
fn a_list_of_every_cell_is_suppressed_where_the_manifest_says_how() {
    let rows = [0.0, 0.0, 10.0, 10.0, 0.9, 0.0, 1.0, 0.0, 11.0, 10.0, 0.8, 0.0, 0.0, 0.0, 10.0, 10.0, 0.7, 1.0];
    let outputs = [("output", tensor(&[1, 3, 6], rows))];
    let count = |nms_iou_max| {
        decode(&OutputManifest { nms_iou_max, ..named("yolo-nms") }, &outputs, 0).unwrap().detections.len()
    };
    assert_eq!((count(None), count(Some(0.5)), count(Some(1.0))), (3, 2, 3));
}

#[test]
fn a_flat_list_is_shared_out_to_the_rows_of_the_batch() {
    let rows = [
        1.0, 0.0, 0.0, 8.0, 8.0, 5.0, 0.9, //
        0.0, 4.0, 4.0, 8.0, 8.0, 2.0, 0.7,
    ];
    let outputs = [("output", tensor(&[2, 7], rows))];
    let classes = |row| decode(&named("yolo-nms"), &outputs, row).unwrap().detections.iter().map(|d| d.class).collect();
    let (first, second): (Vec<u32>, Vec<u32>) = (classes(0), classes(1));
    assert_eq!((first, second), (vec![2], vec![5]));
}

#[test]
fn numbers_that_are_not_finite_are_counted_and_never_results() {
    // One cell per row: NaN score, infinite score, NaN box, sound.
    let values = [
        8.0,
        8.0,
        4.0,
        4.0,
        f32::NAN, //
        8.0,
        8.0,
        4.0,
        4.0,
        f32::INFINITY, //
        f32::NAN,
        8.0,
        4.0,
        4.0,
        0.9, //
        32.0,
        32.0,
        4.0,
        4.0,
        0.8,
    ];
    let outputs = [spec("output0", DType::F32, &[1, 4, 5])];
    let decoder = build(&named("yolo-v8"), &outputs, 1).unwrap().decoder;
    let found = decoder.decode(&[TensorRef::of(&[1, 4, 5], &values).unwrap()], 0, &stretch()).unwrap();
    assert_eq!(found.detections.len(), 1);
    assert_eq!(found.detections[0].bbox, Rect::new(30.0, 30.0, 4.0, 4.0));
    assert_eq!(decoder.non_finite(), 3);

    let outputs = [spec("scores", DType::F32, &[1, 3])];
    let decoder = build(&named("classification"), &outputs, 0).unwrap().decoder;
    let found = decoder.decode(&[TensorRef::of(&[1, 3], &[1.0, f32::NAN, 1.0]).unwrap()], 0, &stretch()).unwrap();
    let found: Vec<_> = found.classifications.iter().map(|found| (found.class, found.score)).collect();
    assert_eq!((found, decoder.non_finite()), (vec![(0, 0.5), (2, 0.5)], 1));
}

#[test]
fn scores_that_are_logits_are_refused_and_the_remedy_named() {
    let output = [8.0, 0.0, 0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0];
    let logits = [6.5, -9.0, -9.0, -9.0, -9.0];
    let values: Vec<f32> = output.into_iter().chain(logits).collect();
    let outputs = [("output0", Tensor::of(vec![1, 5, 5], values).unwrap())];
    let error = decode(&named("yolo-v8"), &outputs, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "decoder `yolo-v8` cannot read these outputs: a score of 6.5 is no confidence; say `activation` if these are \
         logits"
    );
    let sigmoid = OutputManifest { activation: Some(Activation::Sigmoid), ..named("yolo-v8") };
    let found = decode(&sigmoid, &outputs, 0).unwrap().detections;
    assert!((found[0].score - 0.998_5).abs() < 1e-4);
}

#[test]
fn a_classifier_is_activated_as_told_and_else_as_its_values_look() {
    let scores = |activation, values: [f32; 3]| {
        let manifest = OutputManifest { activation, ..named("classification") };
        let found = decode(&manifest, &[("scores", tensor(&[1, 3], values))], 0).unwrap().classifications;
        found.iter().map(|found| (found.class, (found.score * 1000.0).round() / 1000.0)).collect::<Vec<_>>()
    };
    // Not a distribution: logits.
    assert_eq!(scores(None, [0.5, 0.0, 1.0]), [(2, 0.506), (0, 0.307), (1, 0.186)]);
    // Sums to one, but the negative number shows logits.
    assert_eq!(scores(None, [0.5, -0.5, 1.0]), [(2, 0.547), (0, 0.331), (1, 0.122)]);
    assert_eq!(scores(None, [0.25, 0.0, 0.75]), [(2, 0.75), (0, 0.25), (1, 0.0)]);
    assert_eq!(scores(Some(Activation::None), [0.5, 0.0, 1.0]), [(2, 1.0), (0, 0.5), (1, 0.0)]);
    assert_eq!(scores(Some(Activation::Sigmoid), [0.0, 0.0, 2.0]), [(2, 0.881), (0, 0.5), (1, 0.5)]);
    assert_eq!(scores(Some(Activation::Softmax), [0.25, 0.0, 0.75]), [(2, 0.481), (0, 0.292), (1, 0.227)]);
}

#[test]
fn the_labels_of_an_ssd_may_name_the_background_or_leave_it_out() {
    let outputs =
        [("scores", tensor(&[1, 1, 3], [0.1, 0.2, 0.7])), ("boxes", tensor(&[1, 1, 4], [0.25, 0.0, 0.75, 1.0]))];
    let specs = [spec("scores", DType::F32, &[1, 1, 3]), spec("boxes", DType::F32, &[1, 1, 4])];
    let manifest = OutputManifest { background: true, ..named("ssd") };
    let class = |labels| {
        let decoder = build(&manifest, &specs, labels).unwrap().decoder;
        let found = decoder.decode(&[outputs[0].1.as_ref(), outputs[1].1.as_ref()], 0, &stretch()).unwrap();
        assert_eq!(found.detections[0].bbox, Rect::new(16.0, 0.0, 32.0, 64.0));
        found.detections[0].class
    };
    assert_eq!((class(0), class(2), class(3)), (1, 1, 2));
    let refused = build(&manifest, &specs, 5).unwrap_err();
    assert_eq!(refused, DecodeError::Labels { classes: 2, labels: 5 });

    let pixels = OutputManifest { box_format: Some(BoxFormat::Yxyx), ..named("ssd") };
    let boxes = ("boxes", tensor(&[1, 1, 4], [4.0, 8.0, 20.0, 40.0]));
    let found = decode(&pixels, &[outputs[0].clone(), boxes], 0).unwrap().detections;
    assert_eq!(found[0].bbox, Rect::new(8.0, 4.0, 32.0, 16.0));
}

#[test]
fn segmentation_covers_the_picture_and_not_its_padding() {
    // 64×64, a picture of 128×64 in its middle: rows 16 to 48 of pixels, 4 to 12 of cells.
    let transform = ImageTransform { fit: Fit::letterbox_centered(), ..ImageTransform::stretch(INPUT) };
    let placement = Placement::new(Rect::new(0.0, 0.0, 128.0, 64.0), &transform);
    let ids: Vec<i64> = (0..256).map(|cell| cell / 16).collect();
    let outputs = [spec("ids", DType::I64, &[1, 16, 16])];
    let decoder = build(&named("segmentation"), &outputs, 0).unwrap().decoder;
    let shape = [1, 16, 16];
    let found = decoder.decode(&[TensorRef::of(&shape, &ids).unwrap()], 0, &placement).unwrap();
    let found = found.segmentation.unwrap();
    assert_eq!((found.width, found.height), (16, 8));
    assert_eq!(found.area, Rect::new(0.0, 0.0, 128.0, 64.0));
    let rows: Vec<u8> = found.classes.chunks(16).map(|row| row[0]).collect();
    assert_eq!(rows, (4..12).collect::<Vec<u8>>());

    let ids = vec![300i64; 256];
    let error = decoder.decode(&[TensorRef::of(&shape, &ids).unwrap()], 0, &placement).unwrap_err();
    assert!(error.to_string().ends_with("300 is no class id below 256"), "{error}");
}

#[test]
fn landmarks_go_back_to_the_source_picture() {
    let at = |values: &[(usize, f32)], channels: usize| {
        let mut map = vec![0f32; channels * 256];
        values.iter().for_each(|(index, value)| map[*index] = *value);
        Tensor::of(vec![1, channels, 16, 16], map).unwrap()
    };
    // Row 4, column 8: the centre is (34, 18); e⁰ · 4 = 4 wide.
    let cell = 4 * 16 + 8;
    let landmarks: Vec<(usize, f32)> = (0..10).map(|channel| (channel * 256 + cell, channel as f32 / 10.0)).collect();
    let outputs =
        [("537", at(&[(cell, 0.9)], 1)), ("538", at(&[], 2)), ("539", at(&[], 2)), ("540", at(&landmarks, 10))];
    let face = decode(&named("centerface"), &outputs, 0).unwrap().detections.remove(0);
    assert_eq!(face.bbox, Rect::new(32.0, 16.0, 4.0, 4.0));
    // Channels come as y, x.
    assert_eq!(face.landmarks.len(), 5);
    let near = |a: Point, b: Point| (a.x - b.x).abs() < 1e-4 && (a.y - b.y).abs() < 1e-4;
    assert!(near(face.landmarks[0], Point::new(32.4, 16.0)), "{:?}", face.landmarks);
    assert!(near(face.landmarks[4], Point::new(35.6, 19.2)), "{:?}", face.landmarks);
}

#[test]
fn what_cannot_be_read_is_refused_before_the_first_picture() {
    let heads = [floats("a", &[1, 24, 8, 8]), floats("b", &[1, 24, 4, 4])];
    let anchors = |count| vec![vec![[8.0, 8.0]; count]; 2];
    let table: Vec<(OutputManifest, Vec<TensorSpec>, usize, &str)> = vec![
        (
            named("yolo"),
            vec![],
            0,
            "there is no decoder `yolo`; choose one of `centerface`, `classification`, `detectnet`, `segmentation`, `ssd`, `yolo-nms`, `yolo-v5`, `yolo-v8`, `yolo-x`",
        ),
        (
            named("yolo-v8"),
            vec![floats("out", &[1, 1000])],
            0,
            "decoder `yolo-v8` cannot read these outputs: expected an output `[N,4+classes,cells]` or `[N,cells,4+classes]`, found `out f32[1,1000]`",
        ),
        (
            named("yolo-v8"),
            vec![floats("out", &[1, 4, 8400])],
            0,
            "decoder `yolo-v8` cannot read these outputs: expected an output `[N,4+classes,cells]` or `[N,cells,4+classes]`, found `out f32[1,4,8400]`",
        ),
        (named("yolo-v8"), vec![floats("out", &[1, 84, 84])], 3, "the model has 80 classes but there are 3 labels"),
        (named("yolo-v5"), vec![floats("out", &[1, 252, 85])], 3, "the model has 80 classes but there are 3 labels"),
        (
            named("yolo-v5"),
            heads.to_vec(),
            0,
            "decoder `yolo-v5` cannot read these outputs: 2 raw heads need `anchors` in the manifest: a list of [width, height] in pixels for each, from the smallest stride; there are 0",
        ),
        (
            OutputManifest { anchors: anchors(5), ..named("yolo-v5") },
            heads.to_vec(),
            0,
            "decoder `yolo-v5` cannot read these outputs: there are 5 anchors per head, but an output is `a f32[1,24,8,8]`",
        ),
        (
            OutputManifest { anchors: anchors(3), ..named("yolo-v5") },
            heads.to_vec(),
            2,
            "the model has 3 classes but there are 2 labels",
        ),
        (
            named("yolo-x"),
            vec![floats("out", &[1, 100, 85])],
            0,
            "decoder `yolo-x` cannot read these outputs: strides 8, 16, 32 have 84 cells at 64×64, the output has 100",
        ),
        (
            OutputManifest { strides: vec![8, 0], ..named("yolo-x") },
            vec![floats("out", &[1, 84, 85])],
            0,
            "decoder `yolo-x` cannot read these outputs: a stride of 0 is no stride",
        ),
        (
            named("ssd"),
            vec![floats("boxes", &[1, 10, 5])],
            0,
            "decoder `ssd` cannot read these outputs: expected boxes `[N,K,4]` with classes `[N,K]` and scores `[N,K]`, or boxes `[N,K,4]` with scores `[N,K,classes]`, found `boxes f32[1,10,5]`",
        ),
        (
            named("centerface"),
            vec![floats("537", &[1, 1, 8, 8])],
            0,
            "decoder `centerface` cannot read these outputs: expected heatmap `[N,1,h,w]`, size `[N,2,h,w]`, offset `[N,2,h,w]`, landmarks `[N,10,h,w]`, found `537 f32[1,1,8,8]`",
        ),
        (
            named("classification"),
            vec![floats("out", &[1, 10, 8, 8])],
            0,
            "decoder `classification` cannot read these outputs: expected scores `[N,classes]`, found `out f32[1,10,8,8]`",
        ),
        (
            named("classification"),
            vec![floats("out", &[0, 1000])],
            10,
            "the model has 1000 classes but there are 10 labels",
        ),
        (
            named("segmentation"),
            vec![floats("out", &[1, 300, 400, 400])],
            0,
            "decoder `segmentation` cannot read these outputs: expected an output `[N,classes,H,W]`, `[N,H,W,classes]`, `[N,H,W]` or `[N,1,H,W]` with at most 256 classes, got [300, 400, 400] per picture",
        ),
        (
            named("yolo-nms"),
            vec![],
            0,
            "decoder `yolo-nms` cannot read these outputs: expected an output `[N,K,6]` (left, top, right, bottom, score, class), an output `[K,7]` (row, left, top, right, bottom, class, score), or the outputs `num_dets`, `det_boxes`, `det_scores`, `det_classes`, found no output",
        ),
        (
            OutputManifest { tensors: BTreeMap::from([("scores".into(), "prob".into())]), ..named("classification") },
            vec![floats("out", &[1, 10])],
            0,
            "decoder `classification` cannot read these outputs: `scores` shall be output `prob`, but there are only `out f32[1,10]`",
        ),
        (
            OutputManifest { tensors: BTreeMap::from([("score".into(), "out".into())]), ..named("classification") },
            vec![floats("out", &[1, 10])],
            0,
            "decoder `classification` cannot read these outputs: there is no role `score` in `tensors`; the roles are `scores`",
        ),
        (
            OutputManifest::default(),
            vec![floats("a", &[0, 0, 0]), floats("b", &[0, 0])],
            0,
            "cannot guess a decoder from the outputs (`a f32[?,?,?]`, `b f32[?,?]`); name one in the manifest, as `[output] decoder = …`",
        ),
    ];
    for (manifest, outputs, labels, sentence) in table {
        let error = build(&manifest, &outputs, labels).expect_err(sentence);
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn shapes_that_differ_from_the_declared_ones_are_refused() {
    let outputs = [floats("out", &[0, 0, 0])];
    for (name, shape, end) in [
        ("yolo-v8", vec![1, 3, 2], "got [3, 2] per picture"),
        ("yolo-v5", vec![1, 6, 5], "got [6, 5] per picture"),
        ("yolo-x", vec![1, 6, 9], "strides 8, 16, 32 have 84 cells at 64×64, the output has 6"),
        ("yolo-nms", vec![1, 5, 9], "expected `[K,6]` per picture, got [5, 9]"),
    ] {
        let decoder = build(&named(name), &outputs, 0).unwrap().decoder;
        let tensor = Tensor::zeros(DType::F32, shape).unwrap();
        let error = decoder.decode(&[tensor.as_ref()], 0, &stretch()).unwrap_err();
        assert!(error.to_string().ends_with(end), "{error}");
        let error = decoder.decode(&[tensor.as_ref()], 1, &stretch()).unwrap_err();
        assert!(error.to_string().contains("there is no row 1 in output 0"), "{error}");
        let error = decoder.decode(&[], 0, &stretch()).unwrap_err();
        assert!(error.to_string().ends_with("output 0 is missing, there are 0"), "{error}");
    }
}

#[test]
fn a_guess_comes_from_shapes_and_names() {
    let input = Size::new(640, 640);
    let ids = |dims: &[usize]| spec("ids", DType::I64, dims);
    let table: Vec<(&str, Vec<TensorSpec>, usize)> = vec![
        ("classification", vec![floats("logits", &[0, 1000])], 1000),
        ("classification", vec![floats("logits", &[1, 1000, 1, 1])], 0),
        ("yolo-v5", vec![floats("output0", &[1, 25200, 85])], 0),
        (
            "yolo-v5",
            vec![floats("output", &[1, 25200, 85]), floats("a", &[1, 3, 80, 80, 85]), floats("b", &[1, 3, 40, 40, 85])],
            80,
        ),
        ("yolo-v8", vec![floats("output0", &[1, 84, 8400])], 80),
        ("yolo-v8", vec![floats("output0", &[0, 84, 0])], 0),
        ("yolo-v8", vec![floats("output0", &[1, 8400, 84])], 80),
        ("yolo-x", vec![floats("output", &[1, 8400, 85])], 80),
        ("yolo-x", vec![floats("output", &[1, 8400, 85])], 0),
        ("yolo-nms", vec![floats("output0", &[1, 300, 6])], 80),
        (
            "yolo-nms",
            ["num_dets", "det_boxes", "det_scores", "det_classes"].map(|name| floats(name, &[1, 100])).to_vec(),
            0,
        ),
        (
            "ssd",
            vec![
                floats("detection_boxes", &[1, 100, 4]),
                floats("detection_classes", &[1, 100]),
                floats("detection_scores", &[1, 100]),
                floats("num_detections", &[1]),
            ],
            0,
        ),
        ("ssd", vec![floats("confidences", &[1, 4420, 2]), floats("locations", &[1, 4420, 4])], 2),
        (
            "centerface",
            vec![
                floats("537", &[0, 1, 0, 0]),
                floats("538", &[0, 2, 0, 0]),
                floats("539", &[0, 2, 0, 0]),
                floats("540", &[0, 10, 0, 0]),
            ],
            1,
        ),
        ("segmentation", vec![floats("out", &[1, 21, 520, 520])], 21),
        ("segmentation", vec![ids(&[1, 1, 512, 512])], 19),
        ("segmentation", vec![ids(&[1, 512, 512])], 19),
    ];
    let silent = OutputManifest::default();
    let guess = |outputs: &[TensorSpec], labels| {
        Decoders::standard().build(&DecoderContext { outputs, manifest: &silent, labels, input })
    };
    for (name, outputs, labels) in table {
        let built = guess(&outputs, labels).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(built.decoder.name(), name);
        assert!(built.guessed.is_some());
    }
    let built = guess(&[floats("output0", &[1, 84, 8400])], 80).unwrap();
    assert_eq!(
        built.guessed.unwrap(),
        "guessed decoder `yolo-v8`: output `output0 f32[1,84,8400]` has one column per cell of strides 8, 16, 32 at \
         640×640"
    );
    // Raw heads are recognised, but only a manifest can know their anchors.
    let heads = [80, 40, 20].map(|side| floats("head", &[1, 3, side, side, 85]));
    let error = guess(&heads, 80).unwrap_err();
    assert!(error.to_string().contains("3 raw heads need `anchors` in the manifest"), "{error}");
}

/// Outputs that each decoder accepts, with any number in them.
fn readable() -> Vec<(OutputManifest, Vec<Vec<usize>>)> {
    let anchors = vec![vec![[8.0, 8.0]; 3], vec![[16.0, 16.0]; 3], vec![[32.0, 32.0]; 3]];
    let raw = OutputManifest { anchors, ..named("yolo-v5") };
    let with = |activation, manifest: OutputManifest| OutputManifest { activation: Some(activation), ..manifest };
    vec![
        (named("classification"), vec![vec![2, 7]]),
        (with(Activation::Sigmoid, named("classification")), vec![vec![2, 7]]),
        (named("yolo-v5"), vec![vec![2, 20, 8]]),
        (raw.clone(), vec![vec![2, 24, 8, 8], vec![2, 24, 4, 4], vec![2, 24, 2, 2]]),
        (raw, vec![vec![2, 3, 8, 8, 7], vec![2, 3, 4, 4, 7], vec![2, 3, 2, 2, 7]]),
        (named("yolo-v8"), vec![vec![2, 9, 84]]),
        (with(Activation::Sigmoid, named("yolo-v8")), vec![vec![2, 84, 9]]),
        (named("yolo-x"), vec![vec![2, 84, 8]]),
        (named("yolo-nms"), vec![vec![2, 20, 6]]),
        (named("yolo-nms"), vec![vec![20, 7]]),
        (named("ssd"), vec![vec![2, 20, 4], vec![2, 20, 5]]),
        (with(Activation::Softmax, named("ssd")), vec![vec![2, 20, 4], vec![2, 20, 5]]),
        (named("centerface"), vec![vec![2, 1, 16, 16], vec![2, 2, 16, 16], vec![2, 2, 16, 16], vec![2, 10, 16, 16]]),
        (named("segmentation"), vec![vec![2, 3, 16, 16]]),
        (named("segmentation"), vec![vec![2, 1, 16, 16]]),
        (named("segmentation"), vec![vec![2, 16, 16]]),
    ]
}

/// A decoder that is content with the candidates of its output finds in them what it finds in all of it.
fn candidates_decode_as_the_whole_output(
    (manifest, shape): &(OutputManifest, Vec<usize>),
    numbers: &[f32],
) -> Result<(), TestCaseError> {
    let numbers: Vec<f32> = numbers.iter().copied().cycle().take(shape.iter().product()).collect();
    let specs = [spec("out", DType::F32, shape), floats("behind", &[1, 9])];
    let build = || build(manifest, &specs, 0).unwrap().decoder;
    let (whole, filtered) = (build(), build());
    prop_assert_eq!(whole.reads(1), Readback::Nothing);
    let Readback::Candidates(query) = whole.reads(0) else { panic!("{manifest:?} reads {:?}", whole.reads(0)) };
    let candidates = plain_filter::candidates(&CandidateSpec::of(&query, DType::F32, shape).unwrap(), &numbers);
    let tensors = [TensorRef::of(shape, &numbers).unwrap()];
    prop_assert_eq!(filtered.decode_candidates(&candidates, &stretch()), whole.decode(&tensors, 0, &stretch()));
    prop_assert_eq!(filtered.non_finite(), whole.non_finite());
    Ok(())
}

fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => 0f32..1.0,
        3 => -4f32..70.0,
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(f32::MAX), any::<f32>()],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a network says, a decoder answers with a sentence or with sound results.
    #[test]
    fn no_tensor_makes_a_decoder_panic(numbers in prop::collection::vec(number(), 61..400), half: bool, row in 0usize..3) {
        for (manifest, shapes) in readable() {
            let mut endless = numbers.iter().copied().cycle();
            let tensors: Vec<Tensor> = shapes.iter().map(|shape| {
                let values = endless.by_ref().take(shape.iter().product());
                if half {
                    Tensor::of(shape.clone(), values.map(f16::from_f32).collect::<Vec<_>>()).unwrap()
                } else {
                    Tensor::of(shape.clone(), values.collect::<Vec<_>>()).unwrap()
                }
            }).collect();
            let specs: Vec<_> = tensors.iter().map(|tensor| spec("out", tensor.dtype(), tensor.shape())).collect();
            let refs: Vec<_> = tensors.iter().map(Tensor::as_ref).collect();
            let decoder = build(&manifest, &specs, 0).unwrap().decoder;
            let Ok(found) = decoder.decode(&refs, row, &stretch()) else { continue };
            prop_assert!(found.detections.len() <= 300);
            prop_assert!(found.detections.is_sorted_by(|a, b| a.score >= b.score));
            for detection in &found.detections {
                prop_assert!((0.25..=1.0).contains(&detection.score));
                let bbox = detection.bbox;
                prop_assert!([bbox.x, bbox.y, bbox.width, bbox.height].iter().all(|number| number.is_finite()));
            }
            prop_assert!(found.classifications.iter().all(|found| found.score.is_finite()));
            prop_assert!(found.segmentation.is_none_or(|found| found.classes.len() == found.width * found.height));
        }
    }

    #[test]
    fn candidates_are_enough_for_yolo(numbers in prop::collection::vec(number(), 61..400)) {
        let sigmoid = OutputManifest { activation: Some(Activation::Sigmoid), ..named("yolo-v8") };
        for case in [
            (named("yolo-v8"), vec![1, 9, 84]),
            (sigmoid, vec![1, 84, 9]),
            (named("yolo-v5"), vec![1, 20, 8]),
            (named("yolo-x"), vec![1, 84, 8]),
        ] {
            candidates_decode_as_the_whole_output(&case, &numbers)?;
        }
    }

    /// Any shape at all, declared openly: an error or an answer.
    #[test]
    fn no_shape_makes_a_decoder_panic(shape in prop::collection::vec(0usize..12, 0..6), labels in 0usize..9) {
        let tensor = Tensor::zeros(DType::F32, shape.clone()).unwrap();
        for name in Decoders::standard().names() {
            let open = [floats("out", &vec![0; shape.len()])];
            let exact = [spec("out", DType::F32, &shape)];
            for specs in [open, exact] {
                if let Ok(built) = build(&named(name), &specs, labels) {
                    let _ = built.decoder.decode(&[tensor.as_ref()], 0, &stretch());
                }
                let _ = build(&OutputManifest::default(), &specs, labels);
            }
        }
    }
}
