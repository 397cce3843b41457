//! Tensors as they cross crate borders: dense, row-major, borrowed or owned.

use std::fmt;
use std::ops::Range;

use half::f16;
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    F32,
    F16,
    U8,
    I8,
    I32,
    I64,
    Bool,
}

impl DType {
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::I64 => 8,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One dimension of a model's input or output; as data, a number or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    Fixed(usize),
    /// Chosen by the caller; dimensions of the same name are equal. Unnamed ones are `?`.
    Dynamic(String),
}

impl Dim {
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Dynamic(_) => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Dynamic(name) => f.write_str(name),
        }
    }
}

/// The declared name, element type and shape of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<Dim>,
}

impl TensorSpec {
    /// Whether a tensor of this shape may stand where the spec is asked for.
    pub fn accepts(&self, shape: &[usize]) -> bool {
        self.dims.len() == shape.len()
            && self.dims.iter().zip(shape).all(|(dim, size)| dim.fixed().is_none_or(|fixed| fixed == *size))
    }
}

/// `input f32[N,3,224,224]`
impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[", self.name, self.dtype)?;
        for (index, dim) in self.dims.iter().enumerate() {
            write!(f, "{}{dim}", if index > 0 { "," } else { "" })?;
        }
        f.write_str("]")
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum TensorError {
    #[error("a tensor of shape {shape:?} needs {expected} elements, got {got}")]
    Length { shape: Vec<usize>, expected: usize, got: usize },
    #[error("a tensor of shape {shape:?} is too large to address")]
    Overflow { shape: Vec<usize> },
}

/// The number of elements of a shape, `None` where it overflows.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))
}

/// A Rust type that is a tensor's element.
pub trait Element: Copy + Default + Send + Sync + 'static {
    const DTYPE: DType;
    fn slice<'a>(data: TensorSlice<'a>) -> Option<&'a [Self]>;
    fn slice_mut(data: &mut TensorData) -> Option<&mut [Self]>;
    fn wrap(data: &[Self]) -> TensorSlice<'_>;
    fn own(data: Vec<Self>) -> TensorData;
}

macro_rules! tensor_types {
    ($($variant:ident: $element:ty),*) => {
        /// Borrowed elements of a tensor.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum TensorSlice<'a> { $($variant(&'a [$element])),* }

        /// Owned elements of a tensor.
        #[derive(Clone, Debug, PartialEq)]
        pub enum TensorData { $($variant(Vec<$element>)),* }

        impl<'a> TensorSlice<'a> {
            /// Some of the elements; panics past the end, as slices do.
            pub fn range(self, range: Range<usize>) -> Self {
                match self { $(Self::$variant(data) => TensorSlice::$variant(&data[range])),* }
            }
        }

        impl TensorSlice<'_> {
            pub fn dtype(&self) -> DType {
                match self { $(Self::$variant(_) => DType::$variant),* }
            }

            pub fn len(&self) -> usize {
                match self { $(Self::$variant(data) => data.len()),* }
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            pub fn to_owned(&self) -> TensorData {
                match self { $(Self::$variant(data) => TensorData::$variant(data.to_vec())),* }
            }
        }

        impl TensorData {
            pub fn zeros(dtype: DType, len: usize) -> Self {
                match dtype { $(DType::$variant => Self::$variant(vec![<$element>::default(); len])),* }
            }

            pub fn as_slice(&self) -> TensorSlice<'_> {
                match self { $(Self::$variant(data) => TensorSlice::$variant(data)),* }
            }

            /// Overwrites elements from `start` on; panics where the types differ or past the end.
            pub fn write(&mut self, start: usize, source: TensorSlice<'_>) {
                match (self, source) {
                    $((Self::$variant(data), TensorSlice::$variant(source)) => {
                        data[start..start + source.len()].copy_from_slice(source)
                    })*
                    (data, source) => panic!("{} does not go into {}", source.dtype(), data.as_slice().dtype()),
                }
            }

            /// Sets elements to zero; panics past the end.
            pub fn zero(&mut self, range: Range<usize>) {
                match self { $(Self::$variant(data) => data[range].fill(<$element>::default())),* }
            }
        }

        $(impl Element for $element {
            const DTYPE: DType = DType::$variant;

            fn slice<'a>(data: TensorSlice<'a>) -> Option<&'a [Self]> {
                match data { TensorSlice::$variant(data) => Some(data), _ => None }
            }

            fn slice_mut(data: &mut TensorData) -> Option<&mut [Self]> {
                match data { TensorData::$variant(data) => Some(data), _ => None }
            }

            fn wrap(data: &[Self]) -> TensorSlice<'_> {
                TensorSlice::$variant(data)
            }

            fn own(data: Vec<Self>) -> TensorData {
                TensorData::$variant(data)
            }
        })*
    };
}

impl TensorSlice<'_> {
    /// The elements as numbers; `true` is 1.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Self::F32(data) => data.iter().map(|x| f64::from(*x)).collect(),
            Self::F16(data) => data.iter().map(|x| x.to_f64()).collect(),
            Self::U8(data) => data.iter().map(|x| f64::from(*x)).collect(),
            Self::I8(data) => data.iter().map(|x| f64::from(*x)).collect(),
            Self::I32(data) => data.iter().map(|x| f64::from(*x)).collect(),
            Self::I64(data) => data.iter().map(|x| *x as f64).collect(),
            Self::Bool(data) => data.iter().map(|x| f64::from(u8::from(*x))).collect(),
        }
    }

    /// The elements' bytes, as files have them.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U8(data) => data.to_vec(),
            Self::I8(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Bool(data) => data.iter().map(|x| u8::from(*x)).collect(),
        }
    }
}

tensor_types!(F32: f32, F16: f16, U8: u8, I8: i8, I32: i32, I64: i64, Bool: bool);

/// A borrowed tensor whose length matches its shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorRef<'a> {
    shape: &'a [usize],
    data: TensorSlice<'a>,
}

impl<'a> TensorRef<'a> {
    pub fn new(shape: &'a [usize], data: TensorSlice<'a>) -> Result<Self, TensorError> {
        check_length(shape, data.len())?;
        Ok(Self { shape, data })
    }

    pub fn of<T: Element>(shape: &'a [usize], data: &'a [T]) -> Result<Self, TensorError> {
        Self::new(shape, T::wrap(data))
    }

    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    pub fn data(&self) -> TensorSlice<'a> {
        self.data
    }

    /// The elements, `None` where they are of another type.
    pub fn as_slice<T: Element>(&self) -> Option<&'a [T]> {
        T::slice(self.data)
    }

    pub fn to_owned(&self) -> Tensor {
        Tensor { shape: self.shape.to_vec(), data: self.data.to_owned() }
    }
}

/// An owned tensor whose length matches its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: TensorData,
}

impl Tensor {
    pub fn new(shape: Vec<usize>, data: TensorData) -> Result<Self, TensorError> {
        check_length(&shape, data.as_slice().len())?;
        Ok(Self { shape, data })
    }

    pub fn of<T: Element>(shape: Vec<usize>, data: Vec<T>) -> Result<Self, TensorError> {
        Self::new(shape, T::own(data))
    }

    pub fn zeros(dtype: DType, shape: Vec<usize>) -> Result<Self, TensorError> {
        let len = element_count(&shape).ok_or_else(|| TensorError::Overflow { shape: shape.clone() })?;
        Ok(Self { data: TensorData::zeros(dtype, len), shape })
    }

    /// The tensor so often behind itself that its first dimension is `rows`, or what of that it can be without a part
    /// of it.
    pub fn repeated_to(&self, rows: usize) -> Self {
        let times = rows / self.shape.first().copied().unwrap_or(rows).max(1);
        if times < 2 {
            return self.clone();
        }
        let elements = self.data.as_slice().len();
        let mut data = TensorData::zeros(self.dtype(), elements * times);
        (0..times).for_each(|time| data.write(time * elements, self.data.as_slice()));
        let mut shape = self.shape.clone();
        shape[0] *= times;
        Self { shape, data }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn dtype(&self) -> DType {
        self.data.as_slice().dtype()
    }

    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// The elements, for filling in place; `None` where they are of another type.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        T::slice_mut(&mut self.data)
    }

    pub fn as_ref(&self) -> TensorRef<'_> {
        TensorRef { shape: &self.shape, data: self.data.as_slice() }
    }
}

fn check_length(shape: &[usize], got: usize) -> Result<(), TensorError> {
    match element_count(shape) {
        Some(expected) if expected == got => Ok(()),
        Some(expected) => Err(TensorError::Length { shape: shape.to_vec(), expected, got }),
        None => Err(TensorError::Overflow { shape: shape.to_vec() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_of_the_wrong_length_is_refused() {
        let error = TensorRef::of(&[2, 3], &[0f32; 5]).unwrap_err();
        assert_eq!(error.to_string(), "a tensor of shape [2, 3] needs 6 elements, got 5");
        assert!(matches!(Tensor::zeros(DType::U8, vec![usize::MAX, 2]), Err(TensorError::Overflow { .. })));
    }

    #[test]
    fn a_spec_accepts_any_size_only_where_it_is_dynamic() {
        let spec =
            TensorSpec { name: "input".into(), dtype: DType::F32, dims: vec![Dim::Dynamic("N".into()), Dim::Fixed(3)] };
        assert_eq!(spec.to_string(), "input f32[N,3]");
        assert!(spec.accepts(&[7, 3]));
        assert!(!spec.accepts(&[7, 4]));
        assert!(!spec.accepts(&[7]));
    }
}
