//! Golden inputs: written and read back, and what is and is not the same answer.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::Path;
use std::sync::Arc;

use revoada_bundle::bundle::{Bundle, Trust};
use revoada_bundle::golden::{BYTES_MAX, Golden, GoldenError, GoldenInputs, GoldenOutput};
use revoada_core::{ColorSpec, DType, Dim, Element, Frame, ImageLayout, PixelFormat, Size, Tensor, TensorSpec, f16};

fn picture(luma: u8) -> Arc<Frame> {
    let layout = ImageLayout::packed(PixelFormat::Nv12, ColorSpec::default(), Size::new(4, 2));
    Arc::new(Frame::still(layout, vec![luma; layout.bytes().unwrap()]).unwrap())
}

fn golden(inputs: GoldenInputs) -> Golden {
    let answers = vec![vec![1.0, 2.0, 9.0], vec![7.0, 3.0, 1.0]];
    let output = GoldenOutput { name: "y".to_owned(), shape: vec![1, 6], step: 2, answers, cosine_min: 0.99 };
    Golden { inputs, outputs: vec![output] }
}

fn with_pictures() -> Golden {
    golden(GoldenInputs::Pictures(vec![picture(30), picture(200)]))
}

#[test]
fn golden_inputs_are_read_back_as_they_were_written() {
    let written = with_pictures();
    let bytes = written.encode();
    assert_eq!(bytes, with_pictures().encode(), "the same bytes every time");
    let read = Golden::parse(&bytes).unwrap();
    assert_eq!(read.outputs, written.outputs);
    let GoldenInputs::Pictures(pictures) = read.inputs else { panic!("they were pictures") };
    assert_eq!(pictures[1].view().bytes(), picture(200).view().bytes());
    assert_eq!((pictures[1].size(), pictures[1].layout().format), (Size::new(4, 2), PixelFormat::Nv12));

    fn of<T: Element>(numbers: [T; 2]) -> Tensor {
        Tensor::of(vec![1, 2], numbers.to_vec()).unwrap()
    }
    let case = || {
        let halves = of([f16::from_f32(0.5), f16::MAX]);
        vec![
            of([1.5f32, -2.0]),
            halves,
            of([1u8, 255]),
            of([-1i8, 7]),
            of([-1i32, 7]),
            of([i64::MIN, 7]),
            of([true, false]),
        ]
    };
    let read = Golden::parse(&golden(GoldenInputs::Tensors(vec![case(), case()])).encode()).unwrap();
    let GoldenInputs::Tensors(cases) = read.inputs else { panic!("they were tensors") };
    assert_eq!(cases, [case(), case()]);
}

#[test]
fn every_way_of_answering_otherwise_is_named() {
    let golden = with_pictures();
    let spec =
        |name: &str| TensorSpec { name: name.to_owned(), dtype: DType::F32, dims: vec![Dim::Fixed(1), Dim::Fixed(6)] };
    let judge = |name: &str, answers: [[f32; 6]; 2]| {
        let answers = answers.map(|answer| vec![Tensor::of(vec![1, 6], answer.to_vec()).unwrap()]);
        golden.judge(&[spec(name)], &answers).map_err(|fault| fault.to_string())
    };
    // Only every second number is kept.
    let right = [[1.0, 50.0, 2.0, -5.0, 9.0, 0.0], [7.0, 0.0, 3.0, 8.0, 1.0, 0.0]];
    assert_eq!(judge("y", right), Ok(()));
    let (mut not_finite, mut other) = (right, right);
    not_finite[1][2] = f32::NAN;
    other[1] = [0.0, 0.0, 9.0, 0.0, 4.0, 0.0];
    for (name, answers, expected) in [
        ("z", right, "there is no output `y`"),
        ("y", not_finite, "output `y` has NaN or infinity where there was a number"),
        ("y", [[0.0; 6]; 2], "the cosine of output `y` is 0.0000, at least 0.9900 is asked"),
        ("y", [right[1], right[0]], "the cosine of output `y` is -1.0000, at least 0.9900 is asked"),
    ] {
        assert_eq!(judge(name, answers), Err(expected.to_owned()));
    }
    assert!(judge("y", other).unwrap_err().starts_with("the cosine of output `y` is 0."));
    let narrow =
        [vec![Tensor::of(vec![1, 5], vec![0f32; 5]).unwrap()], vec![Tensor::of(vec![1, 5], vec![0f32; 5]).unwrap()]];
    let fault = golden.judge(&[spec("y")], &narrow).unwrap_err();
    assert_eq!(fault.to_string(), "output `y` has the shape [1, 5], not [1, 6]");
    // In a larger batch the first row counts.
    let rows: Vec<Vec<Tensor>> =
        right.iter().map(|answer| vec![Tensor::of(vec![2, 6], [*answer, [0.0; 6]].concat()).unwrap()]).collect();
    assert_eq!(golden.judge(&[spec("y")], &rows), Ok(()));
}

#[test]
fn what_is_no_golden_input_is_refused_in_a_sentence() {
    let whole = with_pictures().encode();
    let text = String::from_utf8_lossy(&whole).into_owned();
    assert!(text.contains(r#"\"version\":1"#), "{text}");
    let version = |bytes: &[u8]| {
        let place = bytes.windows(12).position(|window| window == br#"\"version\":1"#.get(..12).unwrap()).unwrap();
        let mut changed = bytes.to_vec();
        changed[place + 12] = b'9';
        changed
    };
    let error = Golden::parse(&version(&whole)).unwrap_err();
    assert_eq!(error, GoldenError::Version { version: 9 });
    for bytes in [&whole[..whole.len() - 1], &whole[..20], &[][..], &vec![0; BYTES_MAX + 1][..]] {
        assert!(matches!(Golden::parse(bytes), Err(GoldenError::Damaged { reason }) if !reason.is_empty()));
    }
}

#[test]
fn random_bytes_and_damaged_files_never_panic() {
    let whole = with_pictures().encode();
    bolero::check!().with_type::<Vec<(u16, u8)>>().with_iterations(5_000).with_max_len(32).for_each(|edits| {
        let mut bytes = whole.clone();
        for (at, value) in edits {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *value;
        }
        if let Ok(golden) = Golden::parse(&bytes) {
            assert_eq!(golden.inputs.cases(), golden.outputs[0].answers.len());
        }
    });
    bolero::check!().with_iterations(5_000).for_each(|noise: &[u8]| drop(Golden::parse(noise)));
}

#[test]
fn bundles_of_every_released_format_are_read() {
    let open = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bundle-v1").join(name);
        Bundle::open(&folder).unwrap().verify(Trust::Anybody).unwrap()
    };
    assert!(open("plain.bundle").golden().unwrap().is_none(), "it was built before there were golden inputs");
    let golden = open("golden.bundle").golden().unwrap().unwrap();
    assert_eq!((golden.inputs.cases(), golden.outputs[0].name.as_str()), (3, "y"));
    let GoldenInputs::Tensors(cases) = &golden.inputs else { panic!("they are tensors") };
    let answers: Vec<Vec<Tensor>> = cases
        .iter()
        .map(|case| {
            let numbers = case[0].as_ref().as_slice::<f32>().unwrap().iter().map(|number| number + 1.0).collect();
            vec![Tensor::of::<f32>(vec![1, 3], numbers).unwrap()]
        })
        .collect();
    let spec = TensorSpec { name: "y".to_owned(), dtype: DType::F32, dims: vec![Dim::Fixed(1), Dim::Fixed(3)] };
    assert_eq!(golden.judge(&[spec], &answers), Ok(()));
}
