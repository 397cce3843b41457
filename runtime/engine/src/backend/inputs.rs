//! The input side of a session: what was recorded for staging, which rows are filled, and a buffer for
//! each input. Where the buffers lie and how pictures get into them is the backend's own ([`Store`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use revoada_core::{DType, Dim, ImageTransform, Layout, Placement, Rect, TensorRef, TensorSlice, TensorSpec};

use crate::{EngineError, Shapes, Surface};

/// More than any batch of pictures that a machine of this kind would hold: a larger input is a
/// mistake in the model or in the shapes, and would end the process rather than fail.
const INPUT_BYTES_MAX: usize = 1 << 31;

/// What dimension 0 of an input means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// As many rows run as are submitted, or `rows_min` of the session where that is more; those not submitted hold zeros.
    Open,
    /// All rows run; those not submitted hold zeros.
    Fixed,
    /// No batch: the tensor is one thing.
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowState {
    /// Never written, or cleared.
    Zero,
    /// Holds a picture of an earlier `submit`.
    Spent,
    /// Set as a tensor; stays until replaced.
    Set,
    /// Recorded for the coming `submit`.
    Recorded,
}

/// The numbers of one input.
pub(super) trait Store: Send {
    /// Whether pictures can come from this surface.
    fn reads(surface: &Surface) -> bool;

    /// Writes a tensor at the beginning.
    fn write(&mut self, data: TensorSlice<'_>) -> Result<(), EngineError>;

    /// Makes these elements zeros.
    fn zero(&mut self, elements: Range<usize>) -> Result<(), EngineError>;
}

/// A picture that goes into a row at the coming `submit`.
pub(super) struct Recorded {
    pub(super) row: usize,
    pub(super) surface: Surface,
    pub(super) placement: Placement,
    pub(super) transform: ImageTransform,
}

struct Input<S> {
    spec: TensorSpec,
    rows: Rows,
    /// Of the buffer; what runs has fewer rows where the batch is open.
    shape: Vec<usize>,
    /// Of the latest `submit`.
    shape_run: Vec<usize>,
    row_elements: usize,
    data: S,
    /// One per row; a whole input and a scalar have one.
    states: Vec<RowState>,
    recorded: Vec<Recorded>,
}

/// The inputs of one session.
pub(super) struct Inputs<S> {
    inputs: Vec<Input<S>>,
    rows_max: usize,
    /// Of an open batch, fewer do not run.
    rows_min: usize,
}

impl<S: Store> Inputs<S> {
    /// Takes a buffer of zeros for each input from `allocate`, after `shapes` was checked against what the
    /// model declares.
    pub(super) fn new(
        specs: &[TensorSpec],
        shapes: &Shapes,
        mut allocate: impl FnMut(DType, usize) -> Result<S, EngineError>,
    ) -> Result<Self, EngineError> {
        if shapes.rows_max == 0 {
            return Err(EngineError::Batch { rows: 0, rows_max: usize::MAX });
        }
        for name in shapes.inputs.keys() {
            if specs.iter().all(|spec| spec.name != *name) {
                return Err(EngineError::NoSuchInput { input: format!("`{name}`"), count: specs.len() });
            }
        }
        let resolved = resolve(specs, shapes)?;
        let open = specs.iter().any(open_batch);
        let inputs = specs
            .iter()
            .zip(resolved)
            .map(|(spec, shape)| Input::new(spec, shape, shapes.rows_max, open, &mut allocate))
            .collect::<Result<_, _>>()?;
        Ok(Self { inputs, rows_max: shapes.rows_max, rows_min: 1 })
    }

    /// Runs at least so many rows of an open batch, whatever is submitted; at most `rows_max`.
    pub(super) fn set_rows_min(&mut self, rows_min: usize) {
        debug_assert!((1..=self.rows_max).contains(&rows_min), "a session has been opened with as many rows");
        self.rows_min = rows_min;
    }

    /// See [`crate::Session::stage`].
    pub(super) fn stage(
        &mut self,
        input: usize,
        row: usize,
        surface: &Surface,
        region: Rect,
        transform: &ImageTransform,
    ) -> Result<Placement, EngineError> {
        let input = self.input_mut(input)?;
        input.check_picture(transform)?;
        let rows = input.shape[0];
        if row >= rows {
            return Err(EngineError::Row { row, rows });
        }
        if !S::reads(surface) {
            return Err(EngineError::ForeignSurface);
        }
        let size = surface.size();
        let seen = region.clamped_to(size);
        let finite = [region.x, region.y, region.width, region.height].iter().all(|number| number.is_finite());
        if !finite || seen.width <= 0.0 || seen.height <= 0.0 {
            return Err(EngineError::Region { region, size });
        }
        let placement = Placement::new(seen, transform);
        let record = Recorded { row, surface: surface.clone(), placement, transform: *transform };
        match input.recorded.iter_mut().find(|recorded| recorded.row == row) {
            Some(earlier) => *earlier = record,
            None => input.recorded.push(record),
        }
        input.mark(row..row + 1, RowState::Recorded);
        Ok(placement)
    }

    /// See [`crate::Session::set_input`].
    pub(super) fn set(&mut self, input: usize, tensor: TensorRef<'_>) -> Result<(), EngineError> {
        let input = self.input_mut(input)?;
        if tensor.dtype() != input.spec.dtype {
            return Err(EngineError::InputType {
                input: input.spec.name.clone(),
                expected: input.spec.dtype,
                got: tensor.dtype(),
            });
        }
        if !input.fits(tensor.shape()) {
            return Err(EngineError::Shape { spec: input.spec.to_string(), shape: tensor.shape().to_vec() });
        }
        input.data.write(tensor.data())?;
        input.recorded.clear();
        match input.rows {
            Rows::Whole => input.states.fill(RowState::Set),
            Rows::Open | Rows::Fixed => {
                let rows = tensor.shape()[0];
                input.states[..rows].fill(RowState::Set);
                for state in &mut input.states[rows..] {
                    if *state != RowState::Zero {
                        *state = RowState::Spent;
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that `rows` rows are filled, lets `stage` move what was recorded for each input, whose rows are
    /// so many elements apart, and says how long that took. The records are forgotten even where this fails,
    /// so that no frame is held any longer.
    pub(super) fn prepare(
        &mut self,
        rows: usize,
        mut stage: impl FnMut(&mut S, usize, &[Recorded]) -> Result<(), EngineError>,
    ) -> Result<Duration, EngineError> {
        let started = Instant::now();
        let mut result = self.check_filled(rows);
        for input in &mut self.inputs {
            if result.is_ok() {
                result = input.prepare(rows, self.rows_min, &mut stage);
            }
            input.forget_recorded();
        }
        result.map(|()| started.elapsed())
    }

    /// How many pictures the input of the most rows takes.
    pub(super) fn picture_rows(&self) -> usize {
        self.inputs.iter().filter(|input| input.shape.len() == 4).map(|input| input.shape[0]).max().unwrap_or(0)
    }

    /// Every input with its shape in the latest `prepare` and its buffer, in the model's order.
    pub(super) fn filled(&self) -> impl Iterator<Item = (&TensorSpec, &[usize], &S)> {
        self.inputs.iter().map(|input| (&input.spec, input.shape_run.as_slice(), &input.data))
    }

    fn input_mut(&mut self, index: usize) -> Result<&mut Input<S>, EngineError> {
        let count = self.inputs.len();
        self.inputs.get_mut(index).ok_or_else(|| EngineError::NoSuchInput { input: index.to_string(), count })
    }

    fn check_filled(&self, rows: usize) -> Result<(), EngineError> {
        if rows == 0 || rows > self.rows_max {
            return Err(EngineError::Batch { rows, rows_max: self.rows_max });
        }
        for input in &self.inputs {
            let needed = if input.rows == Rows::Whole { input.states.len() } else { rows };
            let empty = |state: &RowState| matches!(state, RowState::Zero | RowState::Spent);
            if let Some(row) = input.states[..needed].iter().position(empty) {
                return Err(EngineError::Unfilled { input: input.spec.name.clone(), row });
            }
            if let Some(beyond) = input.recorded.iter().find(|recorded| recorded.row >= needed) {
                return Err(EngineError::Row { row: beyond.row, rows });
            }
        }
        Ok(())
    }
}

impl<S: Store> Input<S> {
    fn new(
        spec: &TensorSpec,
        shape: Vec<usize>,
        rows_max: usize,
        open: bool,
        allocate: &mut impl FnMut(DType, usize) -> Result<S, EngineError>,
    ) -> Result<Self, EngineError> {
        let rows = match (open_batch(spec), open, spec.dims.len()) {
            (true, _, _) if shape[0] == rows_max => Rows::Open,
            (true, _, 4) => return Err(EngineError::Shape { spec: spec.to_string(), shape }),
            (false, false, 4) if shape[0] < rows_max => {
                return Err(EngineError::FixedBatch { spec: spec.to_string(), rows_max });
            }
            (false, false, 4) => Rows::Fixed,
            _ => Rows::Whole,
        };
        let bytes = shape.iter().try_fold(spec.dtype.size(), |bytes, size| bytes.checked_mul(*size));
        if bytes.is_none_or(|bytes| bytes > INPUT_BYTES_MAX) {
            return Err(EngineError::TooLarge { spec: spec.to_string(), shape, bytes_max: INPUT_BYTES_MAX });
        }
        let row_elements = shape.iter().skip(1).product();
        // A picture can be staged into the rows of a whole input of four dimensions; in any other
        // whole input there is nothing to tell apart.
        let states = if rows == Rows::Whole && shape.len() != 4 { 1 } else { shape[0] };
        Ok(Self {
            spec: spec.clone(),
            rows,
            data: allocate(spec.dtype, shape.iter().product())?,
            shape_run: shape.clone(),
            shape,
            row_elements,
            states: vec![RowState::Zero; states],
            recorded: Vec::new(),
        })
    }

    fn fits(&self, shape: &[usize]) -> bool {
        match self.rows {
            Rows::Whole => shape == self.shape,
            Rows::Open | Rows::Fixed => {
                shape.len() == self.shape.len()
                    && shape[1..] == self.shape[1..]
                    && (1..=self.shape[0]).contains(&shape[0])
            }
        }
    }

    fn check_picture(&self, transform: &ImageTransform) -> Result<(), EngineError> {
        let refuse = |reason: String| EngineError::NotAPicture { spec: self.spec.to_string(), reason };
        if !matches!(self.spec.dtype, DType::F32 | DType::F16 | DType::U8) {
            return Err(refuse("its elements are not f32, f16 or u8".to_owned()));
        }
        let &[_, one, two, three] = self.shape.as_slice() else {
            return Err(refuse("it does not have four dimensions".to_owned()));
        };
        let (channels, height, width) = match transform.layout {
            Layout::Nchw => (one, two, three),
            Layout::Nhwc => (three, one, two),
        };
        let wanted = (transform.channels.channels(), transform.size.height, transform.size.width);
        if (channels, height, width) != wanted {
            return Err(refuse(format!(
                "the transform makes {} channels of {} in {:?} order, the session's shape is {:?}",
                wanted.0, transform.size, transform.layout, self.shape
            )));
        }
        Ok(())
    }

    fn mark(&mut self, rows: Range<usize>, state: RowState) {
        self.states[rows].fill(state);
    }

    fn prepare(
        &mut self,
        rows: usize,
        rows_min: usize,
        stage: &mut impl FnMut(&mut S, usize, &[Recorded]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        if !self.recorded.is_empty() {
            stage(&mut self.data, self.row_elements, &self.recorded)?;
        }
        let run = match self.rows {
            Rows::Open => rows.max(rows_min),
            Rows::Fixed => self.shape[0],
            Rows::Whole => return Ok(()),
        };
        self.shape_run[0] = run;
        for row in rows..run {
            if self.states[row] != RowState::Zero {
                self.data.zero(row * self.row_elements..(row + 1) * self.row_elements)?;
                self.states[row] = RowState::Zero;
            }
        }
        Ok(())
    }

    fn forget_recorded(&mut self) {
        for recorded in self.recorded.drain(..) {
            self.states[recorded.row] = RowState::Spent;
        }
    }
}

fn open_batch(spec: &TensorSpec) -> bool {
    matches!(spec.dims.first(), Some(Dim::Dynamic(_)))
}

/// Settles every dimension: explicit shapes first, then the batch, then what shares a name.
fn resolve(specs: &[TensorSpec], shapes: &Shapes) -> Result<Vec<Vec<usize>>, EngineError> {
    let mut named = BTreeMap::<&str, BTreeSet<usize>>::new();
    for spec in specs {
        let Some(shape) = shapes.inputs.get(&spec.name) else {
            if let Some(Dim::Dynamic(name)) = spec.dims.first() {
                named.entry(name).or_default().insert(shapes.rows_max);
            }
            continue;
        };
        if !spec.accepts(shape) {
            return Err(EngineError::Shape { spec: spec.to_string(), shape: shape.clone() });
        }
        for (dim, size) in spec.dims.iter().zip(shape) {
            if let Dim::Dynamic(name) = dim {
                named.entry(name).or_default().insert(*size);
            }
        }
    }
    // Unnamed dimensions have nothing to do with each other.
    named.remove("?");
    let settle = |spec: &TensorSpec, index: usize, dim: &Dim| match dim {
        Dim::Fixed(size) => Ok(*size),
        Dim::Dynamic(_) if index == 0 => Ok(shapes.rows_max),
        Dim::Dynamic(name) => named
            .get(name.as_str())
            .and_then(|sizes| sizes.first().copied())
            .ok_or_else(|| EngineError::OpenDim { spec: spec.to_string(), dim: name.clone() }),
    };
    specs
        .iter()
        .map(|spec| {
            let shape = match shapes.inputs.get(&spec.name) {
                Some(shape) => shape.clone(),
                None => spec
                    .dims
                    .iter()
                    .enumerate()
                    .map(|(index, dim)| settle(spec, index, dim))
                    .collect::<Result<_, _>>()?,
            };
            let contradicts = spec.dims.iter().any(
                |dim| matches!(dim, Dim::Dynamic(name) if named.get(name.as_str()).is_some_and(|sizes| sizes.len() > 1)),
            );
            if contradicts { Err(EngineError::Shape { spec: spec.to_string(), shape }) } else { Ok(shape) }
        })
        .collect()
}
