//! Element types of ONNX tensors, and their elements as numbers.

use std::fmt;

use prost::bytes::Bytes;
use revoada_core::{DType, Element, Tensor, TensorRef, f16};

use super::proto::TensorProto;

/// The type of a tensor's elements, as an ONNX file numbers it. Any number is kept, so that a model
/// with types of tomorrow can still be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementType(pub i32);

impl ElementType {
    pub const FLOAT: Self = Self(1);
    pub const UINT8: Self = Self(2);
    pub const INT8: Self = Self(3);
    pub const INT32: Self = Self(6);
    pub const INT64: Self = Self(7);
    pub const BOOL: Self = Self(9);
    pub const FLOAT16: Self = Self(10);
    pub const DOUBLE: Self = Self(11);

    /// Name and bits of an element, by number; strings have no size.
    const KNOWN: [(&'static str, u64); 28] = [
        ("f32", 32),
        ("u8", 8),
        ("i8", 8),
        ("u16", 16),
        ("i16", 16),
        ("i32", 32),
        ("i64", 64),
        ("string", 0),
        ("bool", 8),
        ("f16", 16),
        ("f64", 64),
        ("u32", 32),
        ("u64", 64),
        ("complex64", 64),
        ("complex128", 128),
        ("bf16", 16),
        ("f8e4m3fn", 8),
        ("f8e4m3fnuz", 8),
        ("f8e5m2", 8),
        ("f8e5m2fnuz", 8),
        ("u4", 4),
        ("i4", 4),
        ("f4e2m1", 4),
        ("f8e8m0", 8),
        ("u2", 2),
        ("i2", 2),
        ("f6e2m3", 6),
        ("f6e3m2", 6),
    ];

    fn known(self) -> Option<(&'static str, u64)> {
        let index = usize::try_from(self.0).ok()?.checked_sub(1)?;
        Self::KNOWN.get(index).copied()
    }

    /// Bits of one element; `None` for strings and unknown types.
    pub fn bits(self) -> Option<u64> {
        self.known().map(|(_, bits)| bits).filter(|bits| *bits > 0)
    }

    pub fn is_integer(self) -> bool {
        matches!(self.0, 2..=7 | 9 | 12 | 13)
    }

    /// The type as the rest of Revoada knows it; `None` where it does not.
    pub fn dtype(self) -> Option<DType> {
        Some(match self {
            Self::FLOAT => DType::F32,
            Self::FLOAT16 => DType::F16,
            Self::UINT8 => DType::U8,
            Self::INT8 => DType::I8,
            Self::INT32 => DType::I32,
            Self::INT64 => DType::I64,
            Self::BOOL => DType::Bool,
            _ => return None,
        })
    }
}

impl From<DType> for ElementType {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::FLOAT,
            DType::F16 => Self::FLOAT16,
            DType::U8 => Self::UINT8,
            DType::I8 => Self::INT8,
            DType::I32 => Self::INT32,
            DType::I64 => Self::INT64,
            DType::Bool => Self::BOOL,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

impl TensorProto {
    pub fn element_type(&self) -> ElementType {
        ElementType(self.data_type.unwrap_or_default())
    }

    /// The shape; `None` where a dimension is negative or too large for this machine.
    pub fn shape(&self) -> Option<Vec<usize>> {
        self.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect()
    }

    /// The number of elements; `None` where there is no such number.
    pub fn element_count(&self) -> Option<usize> {
        self.shape()?.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim))
    }

    /// A tensor that holds a copy of `tensor`.
    pub fn of(name: &str, tensor: TensorRef<'_>) -> Self {
        Self {
            name: Some(name.to_owned()),
            dims: tensor.shape().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect(),
            data_type: Some(ElementType::from(tensor.dtype()).0),
            raw_data: Some(tensor.data().to_le_bytes().into()),
            ..Self::default()
        }
    }

    /// The elements as numbers, where there are at most `count_max` and they are of a numeric type and in the
    /// file. An `f64` holds every `i32`, and every `i64` that is a size or an index; the huge ones
    /// that stand for "to the end" stay huge.
    pub fn numbers(&self, count_max: usize) -> Option<Vec<f64>> {
        let count = self.element_count().filter(|count| *count <= count_max)?;
        if self.data_location == Some(Self::EXTERNAL) {
            return None;
        }
        let numbers = match &self.raw_data {
            Some(raw) => self.raw_numbers(raw)?,
            None => self.typed_numbers()?,
        };
        (numbers.len() == count).then_some(numbers)
    }

    /// A copy of the elements with their type. `None` where that type is none that [`Tensor`] holds, where the
    /// elements lie in another file, and where there are more or fewer than the shape says.
    pub fn tensor(&self) -> Option<Tensor> {
        if self.data_location == Some(Self::EXTERNAL) {
            return None;
        }
        let shape = self.shape()?;
        let raw = self.raw_data.as_ref();
        match self.element_type().dtype()? {
            DType::F32 => owned(shape, raw, f32::from_le_bytes, || self.float_data.clone()),
            DType::I64 => owned(shape, raw, i64::from_le_bytes, || self.int64_data.clone()),
            DType::I32 => owned(shape, raw, i32::from_le_bytes, || self.int32_data.clone()),
            // Narrow types lie in `int32_data`, half floats as their bits.
            DType::F16 => owned(shape, raw, f16::from_le_bytes, || self.narrow(|x| f16::from_bits(x as u16))),
            DType::I8 => owned(shape, raw, i8::from_le_bytes, || self.narrow(|x| x as i8)),
            DType::U8 => owned(shape, raw, u8::from_le_bytes, || self.narrow(|x| x as u8)),
            DType::Bool => owned(shape, raw, |[byte]: [u8; 1]| byte != 0, || self.narrow(|x| x != 0)),
        }
    }

    fn narrow<T>(&self, convert: impl Fn(i32) -> T) -> Vec<T> {
        self.int32_data.iter().map(|number| convert(*number)).collect()
    }

    fn raw_numbers(&self, raw: &[u8]) -> Option<Vec<f64>> {
        fn each<const N: usize>(raw: &[u8], number: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
            let (chunks, rest) = raw.as_chunks::<N>();
            rest.is_empty().then(|| chunks.iter().map(|chunk| number(*chunk)).collect())
        }
        match self.element_type() {
            ElementType::FLOAT => each(raw, |bytes| f32::from_le_bytes(bytes).into()),
            ElementType::DOUBLE => each(raw, f64::from_le_bytes),
            ElementType::FLOAT16 => each(raw, |bytes| f16::from_le_bytes(bytes).into()),
            ElementType::INT64 => each(raw, |bytes| i64::from_le_bytes(bytes) as f64),
            ElementType::INT32 => each(raw, |bytes| i32::from_le_bytes(bytes).into()),
            ElementType::INT8 => each(raw, |bytes: [u8; 1]| i8::from_le_bytes(bytes).into()),
            ElementType::UINT8 | ElementType::BOOL => each(raw, |bytes: [u8; 1]| bytes[0].into()),
            _ => None,
        }
    }

    fn typed_numbers(&self) -> Option<Vec<f64>> {
        Some(match self.element_type() {
            ElementType::FLOAT => self.float_data.iter().map(|x| f64::from(*x)).collect(),
            ElementType::DOUBLE => self.double_data.clone(),
            ElementType::INT64 => self.int64_data.iter().map(|x| *x as f64).collect(),
            // Half floats lie in `int32_data` as their bits.
            ElementType::FLOAT16 => {
                self.int32_data.iter().map(|x| f16::from_bits((*x & 0xffff) as u16).to_f64()).collect()
            }
            ElementType::INT32 | ElementType::INT8 | ElementType::UINT8 | ElementType::BOOL => {
                self.int32_data.iter().map(|x| f64::from(*x)).collect()
            }
            _ => return None,
        })
    }
}

/// From raw bytes where there are any, else from a field of its own.
fn owned<T: Element, const N: usize>(
    shape: Vec<usize>,
    raw: Option<&Bytes>,
    element: impl Fn([u8; N]) -> T,
    typed: impl Fn() -> Vec<T>,
) -> Option<Tensor> {
    let data = match raw.filter(|raw| !raw.is_empty()) {
        None => typed(),
        Some(raw) => {
            let (chunks, rest) = raw.as_chunks::<N>();
            rest.is_empty().then(|| chunks.iter().map(|chunk| element(*chunk)).collect())?
        }
    };
    Tensor::of(shape, data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_from_raw_and_typed_data_alike() {
        let raw = TensorProto::of("a", TensorRef::of(&[2], &[3i64, -1]).unwrap());
        assert_eq!(raw.numbers(8), Some(vec![3.0, -1.0]));
        assert_eq!(raw.numbers(1), None);
        let typed = TensorProto { raw_data: None, int64_data: vec![3, -1], ..raw.clone() };
        assert_eq!(typed.numbers(8), Some(vec![3.0, -1.0]));
        let short = TensorProto { raw_data: Some(vec![0; 15].into()), ..raw.clone() };
        assert_eq!(short.numbers(8), None);
        let negative = TensorProto { dims: vec![-2], ..raw };
        assert_eq!(negative.numbers(8), None);
        let half = TensorProto { data_type: Some(10), dims: vec![1], int32_data: vec![0x3c00], ..Default::default() };
        assert_eq!(half.numbers(8), Some(vec![1.0]));
    }

    #[test]
    fn tensors_keep_their_type_from_raw_and_typed_data_alike() {
        fn check<T: Element + PartialEq + std::fmt::Debug>(values: &[T], typed: TensorProto) {
            let expected = Tensor::of(vec![values.len()], values.to_vec()).unwrap();
            let raw = TensorProto::of("a", expected.as_ref());
            assert_eq!(raw.tensor(), Some(expected.clone()), "{}", T::DTYPE);
            let typed = TensorProto { dims: raw.dims.clone(), data_type: raw.data_type, ..typed };
            assert_eq!(typed.tensor(), Some(expected), "{}", T::DTYPE);
        }
        let ints = |ints: &[i32]| TensorProto { int32_data: ints.to_vec(), ..Default::default() };
        check(&[0.5f32, -1.0], TensorProto { float_data: vec![0.5, -1.0], ..Default::default() });
        check(&[3i64, i64::MIN], TensorProto { int64_data: vec![3, i64::MIN], ..Default::default() });
        check(&[3i32, -1], ints(&[3, -1]));
        check(&[f16::ONE, f16::NEG_ONE], ints(&[0x3c00, 0xbc00]));
        check(&[3i8, -1], ints(&[3, -1]));
        check(&[3u8, 255], ints(&[3, 255]));
        check(&[true, false], ints(&[1, 0]));
        let short = TensorProto { dims: vec![3], data_type: Some(1), float_data: vec![1.0], ..Default::default() };
        assert_eq!(short.tensor(), None);
        let double = TensorProto { dims: vec![1], data_type: Some(11), double_data: vec![1.0], ..Default::default() };
        assert_eq!(double.tensor(), None);
    }

    #[test]
    fn an_unknown_type_is_named_by_its_number() {
        assert_eq!(ElementType(99).to_string(), "type 99");
        assert_eq!(ElementType(0).to_string(), "type 0");
        assert_eq!(ElementType(-1).bits(), None);
        assert_eq!(ElementType::FLOAT.to_string(), "f32");
        assert_eq!(ElementType(28).to_string(), "f6e3m2");
    }
}
