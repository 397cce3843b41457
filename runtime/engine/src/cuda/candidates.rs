//! Finds on the device what of a YOLO output can become a detection, so that only that travels to the CPU.

use std::sync::Arc;

use revoada_core::DType;

use super::context::CudaContext;
use super::error::CudaError;
use super::memory::DeviceSlice;
use super::module::{Grid, Kernel};
use super::nvrtc::KernelSource;
use super::shared::SharedBuffer;
use super::stream::Stream;
use crate::CandidateQuery;

pub const CANDIDATES: KernelSource =
    KernelSource { name: "candidates.cu", text: include_str!("candidates.cu"), entry: "filter_candidates" };

/// How one picture's output lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CandidateLayout {
    /// `[4 + classes, cells]`: YOLOv8 and later.
    ChannelsFirst,
    /// `[cells, 4 + classes]`: the same, transposed.
    CellsFirst,
    /// `[cells, 5 + classes]`, objectness before the classes: YOLOv5 and v7, decoded in the graph.
    Objectness,
}

impl CandidateLayout {
    /// How many numbers a cell has before the scores of its classes.
    fn channels_before(self) -> usize {
        match self {
            Self::ChannelsFirst | Self::CellsFirst => 4,
            Self::Objectness => 5,
        }
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CandidateSpec {
    pub layout: CandidateLayout,
    /// f32 or f16.
    pub dtype: DType,
    pub cells: usize,
    pub classes: usize,
    /// On the scale of the output. A cell's score is its best class's, times its objectness where there is one;
    /// neither the objectness nor the product may be below.
    pub score_min: f32,
}

/// One cell that passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub cell: usize,
    /// The first of those with the best score.
    pub class: usize,
    pub score: f32,
    /// The four numbers before the scores, as the network gave them.
    pub values: [f32; 4],
}

/// What was found in one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    /// In the order of their cells.
    pub list: Vec<Candidate>,
    /// Cells whose objectness or best score is no finite number.
    pub non_finite: usize,
}

/// Filters batches; owns the memory for what is found.
#[derive(Debug)]
pub struct CandidateFilter {
    kernel: Kernel,
    /// Two counters for every picture, then the candidates of every picture.
    results: SharedBuffer,
    rows_max: usize,
    candidates_max: usize,
    /// Of the latest launch.
    rows: usize,
}

/// The fields of `Filter` in `candidates.cu`, in its order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct FilterParameters {
    input: u64,
    found: u64,
    counts: u64,
    element: u32,
    layout: u32,
    cells: u32,
    classes: u32,
    candidates_max: u32,
    score_min: f32,
}

const _: () = assert!(size_of::<FilterParameters>() == 48, "the size that `candidates.cu` asserts");

const COUNTS_BYTES: usize = 8;
const CANDIDATE_BYTES: usize = 28;
const THREADS: usize = 128;

/// What the second dimension of a grid can be.
const ROWS_MAX: usize = 65_535;

impl CandidateFilter {
    /// For up to `rows_max` pictures with room for `candidates_max` candidates each; `kernel` is that of
    /// [`CANDIDATES`].
    pub(super) fn new(
        context: &Arc<CudaContext>,
        kernel: Kernel,
        rows_max: usize,
        candidates_max: usize,
    ) -> Result<Self, CudaError> {
        let rows_max = rows_max.min(ROWS_MAX);
        let results = SharedBuffer::new(context, rows_max * (COUNTS_BYTES + candidates_max * CANDIDATE_BYTES))?;
        Ok(Self { kernel, results, rows_max, candidates_max, rows: 0 })
    }

    /// Enqueues one launch over the first `rows` pictures of a network's output, and the way back of what it finds.
    /// Waits for the launch before it.
    pub fn launch(
        &mut self,
        stream: &Stream,
        output: DeviceSlice<'_>,
        rows: usize,
        spec: &CandidateSpec,
    ) -> Result<(), CudaError> {
        if rows > self.rows_max {
            return Err(CudaError::Batch { rows, rows_max: self.rows_max });
        }
        self.rows = 0;
        self.results.host_mut()?[..rows * COUNTS_BYTES].fill(0);
        if rows == 0 || spec.cells == 0 {
            self.rows = rows;
            return Ok(());
        }
        let pointers = (output.pointer(), self.results.address());
        let parameters = spec.parameters(output.bytes(), rows, pointers, self.rows_max, self.candidates_max)?;
        let grid =
            Grid { blocks: [spec.cells.div_ceil(THREADS) as u32, rows as u32, 1], threads: [THREADS as u32, 1, 1] };

        self.results.upload(stream, 0..rows * COUNTS_BYTES)?;
        // SAFETY: the kernel takes `Filter`, whose fields these are. It reads no more of `output` than `parameters`
        // found to be there, and writes no further than the room for `rows` pictures; freeing either waits.
        let launched = unsafe { self.kernel.launch(stream, grid, &parameters) };
        let end = self.found_at() + rows * self.candidates_max * CANDIDATE_BYTES;
        launched.and(self.results.download(stream, 0..end))?;
        self.rows = rows;
        Ok(())
    }

    /// What the latest launch found, one entry for each picture; none where there was no launch or it failed. `None`
    /// where there were more than fit: which of them came first is chance, so that the output itself must be read.
    pub fn wait(&mut self) -> Result<Vec<Option<Candidates>>, CudaError> {
        let (found_at, candidates_max, rows) = (self.found_at(), self.candidates_max, self.rows);
        let bytes = self.results.host()?;
        let (counts, found) = bytes.split_at(found_at);
        Ok((0..rows)
            .map(|row| {
                let [count, non_finite] = [0, 4].map(|at| number(counts, row * COUNTS_BYTES + at) as usize);
                (count <= candidates_max).then(|| {
                    let start = row * candidates_max * CANDIDATE_BYTES;
                    let found = &found[start..start + count * CANDIDATE_BYTES];
                    let mut list: Vec<_> = found.chunks_exact(CANDIDATE_BYTES).map(Candidate::from_bytes).collect();
                    list.sort_unstable_by_key(|candidate| candidate.cell);
                    Candidates { list, non_finite }
                })
            })
            .collect())
    }

    /// Where the candidates begin.
    fn found_at(&self) -> usize {
        self.rows_max * COUNTS_BYTES
    }
}

impl CandidateSpec {
    /// What is looked for in an output of this shape; `None` where it is no batch of cells.
    pub fn of(query: &CandidateQuery, dtype: DType, shape: &[usize]) -> Option<Self> {
        let [_, first, second] = *shape else { return None };
        let (cells, channels) = match query.layout {
            CandidateLayout::ChannelsFirst => (second, first),
            CandidateLayout::CellsFirst | CandidateLayout::Objectness => (first, second),
        };
        let classes = channels.checked_sub(query.layout.channels_before())?;
        let readable = matches!(dtype, DType::F32 | DType::F16);
        readable.then_some(Self { layout: query.layout, dtype, cells, classes, score_min: query.score_min })
    }

    /// Numbers in one picture's output; `None` where that cannot be addressed.
    fn numbers(&self) -> Option<usize> {
        self.classes.checked_add(self.layout.channels_before())?.checked_mul(self.cells)
    }

    fn parameters(
        &self,
        output_bytes: usize,
        rows: usize,
        (input, results): (u64, u64),
        rows_max: usize,
        candidates_max: usize,
    ) -> Result<FilterParameters, CudaError> {
        let refused = |expected: &str| CudaError::Output { expected: expected.to_owned(), got: output_bytes };
        let element = match self.dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            other => return Err(refused(&format!("f32 or f16; {other} is no type for scores"))),
        };
        let needed = self.numbers().and_then(|numbers| numbers.checked_mul(rows)?.checked_mul(self.dtype.size()));
        if needed.is_none_or(|needed| needed > output_bytes) || input % self.dtype.size() as u64 != 0 {
            return Err(refused(&format!("{rows} pictures of {} cells and {} classes", self.cells, self.classes)));
        }
        let small =
            |number: usize| i32::try_from(number).map(i32::unsigned_abs).map_err(|_| refused("sizes that fit 31 bits"));
        Ok(FilterParameters {
            input,
            found: results + (rows_max * COUNTS_BYTES) as u64,
            counts: results,
            element,
            layout: match self.layout {
                CandidateLayout::ChannelsFirst => 0,
                CandidateLayout::CellsFirst => 1,
                CandidateLayout::Objectness => 2,
            },
            cells: small(self.cells)?,
            classes: small(self.classes)?,
            candidates_max: small(candidates_max)?,
            score_min: self.score_min,
        })
    }
}

impl Candidate {
    /// Reads the fields of `Candidate` in `candidates.cu`.
    fn from_bytes(bytes: &[u8]) -> Self {
        let float = |at: usize| f32::from_bits(number(bytes, at));
        Self {
            cell: number(bytes, 0) as usize,
            class: number(bytes, 4) as usize,
            score: float(8),
            values: [12, 16, 20, 24].map(float),
        }
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes are four bytes"))
}
