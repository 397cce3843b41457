//! The filter of candidates against a plain loop.

use half::f16;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use revoada_core::DType;
use revoada_engine::cuda::{CandidateLayout, CandidateSpec, Candidates, CudaError, SharedBuffer, Stream};

use crate::machine::Machine;
use crate::plain_filter;

/// What a network said about a batch.
#[derive(Clone, Debug)]
struct Output {
    spec: CandidateSpec,
    rows: usize,
    numbers: Vec<f32>,
}

impl Output {
    fn channels(&self) -> usize {
        self.spec.classes + if self.spec.layout == CandidateLayout::Objectness { 5 } else { 4 }
    }

    fn bytes(&self) -> Vec<u8> {
        match self.spec.dtype {
            DType::F16 => self.numbers.iter().flat_map(|number| f16::from_f32(*number).to_ne_bytes()).collect(),
            _ => self.numbers.iter().flat_map(|number| number.to_ne_bytes()).collect(),
        }
    }

    fn expected(&self, row: usize) -> Candidates {
        let length = self.channels() * self.spec.cells;
        plain_filter::candidates(&self.spec, &self.numbers[row * length..(row + 1) * length])
    }
}

fn outputs() -> impl Strategy<Value = Output> {
    let layout = prop_oneof![
        Just(CandidateLayout::ChannelsFirst),
        Just(CandidateLayout::CellsFirst),
        Just(CandidateLayout::Objectness)
    ];
    let dtype = prop_oneof![Just(DType::F32), Just(DType::F16)];
    (layout, dtype, 1usize..300, 1usize..7, 1usize..4, 0.05f32..0.95).prop_flat_map(
        |(layout, dtype, cells, classes, rows, score_min)| {
            let spec = CandidateSpec { layout, dtype, cells, classes, score_min };
            let channels = classes + if layout == CandidateLayout::Objectness { 5 } else { 4 };
            let number = prop_oneof![
                20 => 0f32..1.0,
                // Often equal, so that the first of the best is told from the last.
                4 => prop::sample::select(vec![0.0, 0.25, 0.5, 1.0]),
                1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 6e-8, 70_000.0]),
            ];
            // A half holds exactly what the plain loop compares.
            let number = number.prop_map(move |number| match dtype {
                DType::F16 => f16::from_f32(number).to_f32(),
                _ => number,
            });
            prop::collection::vec(number, rows * cells * channels).prop_map(move |numbers| Output {
                spec,
                rows,
                numbers,
            })
        },
    )
}

/// The network's output as the device holds it.
fn uploaded(machine: &Machine, bytes: &[u8]) -> (SharedBuffer, Stream) {
    let context = machine.context();
    let stream = Stream::new(&context).unwrap();
    let mut buffer = SharedBuffer::new(&context, bytes.len()).unwrap();
    buffer.host_mut().unwrap().copy_from_slice(bytes);
    buffer.upload(&stream, 0..bytes.len()).unwrap();
    (buffer, stream)
}

pub(crate) fn the_filter_finds_what_a_plain_loop_finds(machine: &Machine) {
    let context = machine.context();
    let mut filter = machine.kernels(&context).candidate_filter(4, 300).unwrap();
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let filter = std::cell::RefCell::new(&mut filter);
    let result = runner.run(&outputs(), |output| {
        let (buffer, stream) = uploaded(machine, &output.bytes());
        let mut filter = filter.borrow_mut();
        filter.launch(&stream, buffer.device(), output.rows, &output.spec).unwrap();
        let found = filter.wait().unwrap();
        prop_assert_eq!(found.len(), output.rows);
        for (row, found) in found.iter().enumerate() {
            // As text, in which what is no number equals itself.
            prop_assert_eq!(format!("{:?}", found), format!("{:?}", Some(output.expected(row))));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) fn more_candidates_than_fit_are_not_guessed(machine: &Machine) {
    let context = machine.context();
    let mut filter = machine.kernels(&context).candidate_filter(2, 5).unwrap();
    let spec =
        CandidateSpec { layout: CandidateLayout::CellsFirst, dtype: DType::F32, cells: 6, classes: 1, score_min: 0.5 };
    // In the first picture all six pass, in the second five.
    let mut numbers = vec![1.0; 2 * 6 * 5];
    numbers[6 * 5 + 4] = 0.4;
    let output = Output { spec, rows: 2, numbers };
    let (buffer, stream) = uploaded(machine, &output.bytes());
    filter.launch(&stream, buffer.device(), 2, &spec).unwrap();
    let found = filter.wait().unwrap();
    assert_eq!(found, [None, Some(output.expected(1))]);
}

pub(crate) fn outputs_that_are_too_short_are_refused(machine: &Machine) {
    let context = machine.context();
    let mut filter = machine.kernels(&context).candidate_filter(2, 5).unwrap();
    let (buffer, stream) = uploaded(machine, &[0; 2 * 6 * 5 * 4]);
    let spec =
        |dtype, cells| CandidateSpec { layout: CandidateLayout::CellsFirst, dtype, cells, classes: 1, score_min: 0.5 };
    filter.launch(&stream, buffer.device(), 2, &spec(DType::F32, 6)).unwrap();
    for spec in [spec(DType::F32, 7), spec(DType::F32, usize::MAX), spec(DType::I32, 6)] {
        let error = filter.launch(&stream, buffer.device(), 2, &spec).unwrap_err();
        assert!(matches!(error, CudaError::Output { got: 240, .. }), "{error}");
        assert_eq!(filter.wait().unwrap(), []);
    }
    let error = filter.launch(&stream, buffer.device(), 3, &spec(DType::F32, 6)).unwrap_err();
    assert!(matches!(error, CudaError::Batch { rows: 3, rows_max: 2 }), "{error}");
}
