//! Arrays in NumPy's file format, as clients of Flower send them (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use std::fmt::Write as _;
use std::ops::Range;

use thiserror::Error;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Data begin at a multiple of it.
const ALIGNMENT: usize = 64;
/// NumPy itself refuses longer ones.
const HEADER_BYTES_MAX: usize = 10_000;
/// NumPy's own bound.
const DIMENSIONS_MAX: usize = 64;

/// What an array's numbers are. All are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
}

use Element::{Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};

impl Element {
    pub const ALL: [Self; 12] = [Bool, I8, I16, I32, I64, U8, U16, U32, U64, F16, F32, F64];

    /// As NumPy writes it.
    pub fn descriptor(self) -> &'static str {
        match self {
            Bool => "|b1",
            I8 => "|i1",
            I16 => "<i2",
            I32 => "<i4",
            I64 => "<i8",
            U8 => "|u1",
            U16 => "<u2",
            U32 => "<u4",
            U64 => "<u8",
            F16 => "<f2",
            F32 => "<f4",
            F64 => "<f8",
        }
    }

    /// As NumPy names it.
    pub fn name(self) -> &'static str {
        match self {
            Bool => "bool",
            I8 => "int8",
            I16 => "int16",
            I32 => "int32",
            I64 => "int64",
            U8 => "uint8",
            U16 => "uint16",
            U32 => "uint32",
            U64 => "uint64",
            F16 => "float16",
            F32 => "float32",
            F64 => "float64",
        }
    }

    pub fn size(self) -> usize {
        match self {
            Bool | I8 | U8 => 1,
            I16 | U16 | F16 => 2,
            I32 | U32 | F32 => 4,
            I64 | U64 | F64 => 8,
        }
    }
}

/// An array in a file that is in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<'a> {
    pub element: Element,
    pub shape: Vec<usize>,
    /// The first index changes fastest.
    pub is_fortran: bool,
    /// As many as the shape says.
    pub data: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NpyError {
    #[error("it is no array of NumPy")]
    Magic,
    #[error("version {major}.{minor} of NumPy's format is not known")]
    Version { major: u8, minor: u8 },
    #[error("the array's header makes no sense: {what}")]
    Header { what: &'static str },
    #[error("an array of `{descriptor}` cannot be learned")]
    Element { descriptor: String },
    #[error("the array has {found} bytes of numbers, and its shape needs {expected}")]
    Length { expected: usize, found: usize },
}

impl<'a> Array<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NpyError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(NpyError::Magic)?;
        let (&[major, minor], rest) = rest.split_first_chunk().ok_or(NpyError::Magic)?;
        let (length, rest) = match (major, minor) {
            (1, 0) => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_le_bytes(*length)), rest)),
            (2 | 3, 0) => rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length) as usize, rest)),
            _ => return Err(NpyError::Version { major, minor }),
        }
        .ok_or(NpyError::Header { what: "it is cut off" })?;
        if length > HEADER_BYTES_MAX {
            return Err(NpyError::Header { what: "it is too long" });
        }
        let (header, data) = rest.split_at_checked(length).ok_or(NpyError::Header { what: "it is cut off" })?;
        let Header { descriptor, is_fortran, shape } = Header::parse(header)?;
        let element = Element::ALL.into_iter().find(|element| element.descriptor() == descriptor);
        let element = element.ok_or_else(|| NpyError::Element { descriptor: descriptor.to_owned() })?;
        let expected = shape
            .iter()
            .try_fold(element.size(), |bytes, length| bytes.checked_mul(*length))
            .ok_or(NpyError::Header { what: "its shape is too large" })?;
        if data.len() != expected {
            return Err(NpyError::Length { expected, found: data.len() });
        }
        Ok(Self { element, shape, is_fortran, data })
    }

    /// How many numbers there are.
    pub fn count(&self) -> usize {
        self.data.len() / self.element.size()
    }

    /// Its numbers as they lie there, where they are F32 in row-major order.
    pub fn as_f32(&self) -> Option<&'a [u8]> {
        let is_row_major = !self.is_fortran || self.shape.len() < 2;
        (self.element == F32 && is_row_major).then_some(self.data)
    }

    /// Adds its numbers to a row of them, in row-major order.
    pub fn extend(&self, values: &mut Vec<f32>) {
        let at = values.len();
        fn each<const SIZE: usize>(data: &[u8], number: impl Fn([u8; SIZE]) -> f32, values: &mut Vec<f32>) {
            let numbers = data.chunks_exact(SIZE);
            values.extend(numbers.map(|bytes| number(bytes.try_into().expect("chunks are of that size"))));
        }
        match self.element {
            Bool => each(self.data, |[byte]| f32::from(u8::from(byte != 0)), values),
            I8 => each(self.data, |bytes| f32::from(i8::from_le_bytes(bytes)), values),
            U8 => each(self.data, |[byte]| f32::from(byte), values),
            I16 => each(self.data, |bytes| f32::from(i16::from_le_bytes(bytes)), values),
            U16 => each(self.data, |bytes| f32::from(u16::from_le_bytes(bytes)), values),
            F16 => each(self.data, |bytes| half::f16::from_le_bytes(bytes).to_f32(), values),
            I32 => each(self.data, |bytes| i32::from_le_bytes(bytes) as f32, values),
            U32 => each(self.data, |bytes| u32::from_le_bytes(bytes) as f32, values),
            F32 => each(self.data, f32::from_le_bytes, values),
            I64 => each(self.data, |bytes| i64::from_le_bytes(bytes) as f32, values),
            U64 => each(self.data, |bytes| u64::from_le_bytes(bytes) as f32, values),
            F64 => each(self.data, |bytes| f64::from_le_bytes(bytes) as f32, values),
        }
        if self.is_fortran && self.shape.len() > 1 {
            to_row_major(&mut values[at..], &self.shape);
        }
    }
}

/// An array as NumPy saves it. Numbers are rounded and kept within what their type can say.
pub fn write(element: Element, shape: &[usize], values: &[f32]) -> Vec<u8> {
    let mut file = header(element, shape);
    file.reserve_exact(values.len() * element.size());
    fn each<const SIZE: usize>(values: &[f32], bytes: impl Fn(f32) -> [u8; SIZE], file: &mut Vec<u8>) {
        file.extend(values.iter().flat_map(|value| bytes(*value)));
    }
    match element {
        Bool => each(values, |value| [u8::from(value >= 0.5)], &mut file),
        I8 => each(values, |value| (value.round() as i8).to_le_bytes(), &mut file),
        U8 => each(values, |value| [value.round() as u8], &mut file),
        I16 => each(values, |value| (value.round() as i16).to_le_bytes(), &mut file),
        U16 => each(values, |value| (value.round() as u16).to_le_bytes(), &mut file),
        F16 => each(values, |value| half::f16::from_f32(value).to_le_bytes(), &mut file),
        I32 => each(values, |value| (value.round() as i32).to_le_bytes(), &mut file),
        U32 => each(values, |value| (value.round() as u32).to_le_bytes(), &mut file),
        F32 => each(values, f32::to_le_bytes, &mut file),
        I64 => each(values, |value| (value.round() as i64).to_le_bytes(), &mut file),
        U64 => each(values, |value| (value.round() as u64).to_le_bytes(), &mut file),
        F64 => each(values, |value| f64::from(value).to_le_bytes(), &mut file),
    }
    file
}

/// All that stands before the numbers.
fn header(element: Element, shape: &[usize]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': (", element.descriptor());
    for length in shape {
        write!(text, "{length}, ").expect("a string takes everything");
    }
    if shape.len() > 1 {
        text.truncate(text.len() - 2);
    } else {
        text.truncate(text.trim_end().len());
    }
    text.push_str("), }");
    let before = MAGIC.len() + 4;
    let padded = (before + text.len() + 1).next_multiple_of(ALIGNMENT) - before - 1;
    let text = format!("{text:padded$}\n");
    let length = u16::try_from(text.len()).expect("a shape is short");
    [MAGIC, &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat()
}

/// Brings numbers whose first index changes fastest into the order in which the last does.
fn to_row_major(values: &mut [f32], shape: &[usize]) {
    let source = values.to_vec();
    let mut index = vec![0_usize; shape.len()];
    for value in values {
        let place = index.iter().zip(shape).rev().fold(0, |place, (index, length)| place * length + index);
        *value = source[place];
        for (index, length) in index.iter_mut().zip(shape).rev() {
            *index += 1;
            if *index < *length {
                break;
            }
            *index = 0;
        }
    }
}

/// What a header says: a dictionary of Python with three keys, in any order.
struct Header<'a> {
    descriptor: &'a str,
    is_fortran: bool,
    shape: Vec<usize>,
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, NpyError> {
        let wrong = |what| NpyError::Header { what };
        let text = str::from_utf8(bytes).map_err(|_| wrong("it is no text"))?;
        let mut scan = Scan { text, at: 0 };
        let (mut descriptor, mut is_fortran, mut shape) = (None, None, None);
        scan.take("{").ok_or(wrong("it is no dictionary"))?;
        while scan.take("}").is_none() {
            let key = scan.quoted().ok_or(wrong("a key is missing"))?;
            scan.take(":").ok_or(wrong("a key has no value"))?;
            match key {
                "descr" => descriptor = Some(scan.quoted().ok_or(wrong("the type is no plain one"))?),
                "fortran_order" => is_fortran = Some(scan.boolean().ok_or(wrong("the order is no boolean"))?),
                "shape" => shape = Some(scan.tuple().ok_or(wrong("the shape is no tuple of numbers"))?),
                _ => return Err(wrong("it has a key that is not known")),
            }
            if scan.take(",").is_none() {
                scan.take("}").ok_or(wrong("it does not end"))?;
                break;
            }
        }
        if !scan.rest().trim().is_empty() {
            return Err(wrong("something follows it"));
        }
        match (descriptor, is_fortran, shape) {
            (Some(descriptor), Some(is_fortran), Some(shape)) => Ok(Self { descriptor, is_fortran, shape }),
            _ => Err(wrong("a key is missing")),
        }
    }
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self, range: Range<usize>) -> &'a str {
        let start = self.at + range.start;
        self.at += range.end;
        &self.text[start..self.at]
    }

    fn take(&mut self, token: &str) -> Option<()> {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        if !rest[blank..].starts_with(token) {
            return None;
        }
        self.skip(0..blank + token.len());
        Some(())
    }

    fn quoted(&mut self) -> Option<&'a str> {
        let quote = if self.take("'").is_some() { '\'' } else { self.take("\"").map(|()| '"')? };
        let end = self.rest().find(quote)?;
        let text = self.skip(0..end);
        self.take(if quote == '"' { "\"" } else { "'" })?;
        Some(text)
    }

    fn boolean(&mut self) -> Option<bool> {
        if self.take("True").is_some() { Some(true) } else { self.take("False").map(|()| false) }
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        self.take("(")?;
        let mut numbers = Vec::new();
        while self.take(")").is_none() {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            let digits = rest[blank..].bytes().take_while(u8::is_ascii_digit).count();
            numbers.push(self.skip(blank..blank + digits).parse().ok()?);
            if numbers.len() > DIMENSIONS_MAX {
                return None;
            }
            if self.take(",").is_none() {
                self.take(")")?;
                break;
            }
        }
        Some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> (Element, Vec<usize>, Vec<f32>) {
        let array = Array::parse(bytes).unwrap();
        let mut values = Vec::new();
        array.extend(&mut values);
        assert_eq!(values.len(), array.count());
        (array.element, array.shape, values)
    }

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap();
        [MAGIC, &[1, 0], &length.to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn headers_are_those_that_numpy_writes() {
        // numpy.save of zeros((3,), 'f8'), zeros((2, 3), 'f4') and float16(0), version 2.4.
        for (element, shape, text) in [
            (F64, &[3][..], "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }"),
            (F32, &[2, 3], "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"),
            (F16, &[], "{'descr': '<f2', 'fortran_order': False, 'shape': (), }"),
        ] {
            let header = header(element, shape);
            assert_eq!(header.len(), 128);
            assert_eq!(str::from_utf8(&header[10..]).unwrap().trim_end(), text);
            assert_eq!((header[127], &header[..8]), (b'\n', &b"\x93NUMPY\x01\x00"[..]));
        }
    }

    #[test]
    fn each_type_is_read_as_it_was_written() {
        let values = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        for element in Element::ALL {
            assert_eq!(read(&write(element, &[2, 3], &values)), (element, vec![2, 3], values.to_vec()), "{element:?}");
        }
        assert_eq!(read(&write(I8, &[2], &[-0.6, 300.0])).2, [-1.0, 127.0]);
        assert_eq!(read(&write(F64, &[], &[0.1])).2, [0.1]);
    }

    #[test]
    fn columns_are_brought_into_rows() {
        let numbers: Vec<u8> = [1_f32, 4.0, 2.0, 5.0, 3.0, 6.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let bytes = file("{'shape': (2, 3), \"descr\": '<f4', 'fortran_order': True}  \n", &numbers);
        assert_eq!(read(&bytes).2, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let bytes = file("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 2, 2)}", &[0, 4, 2, 6, 1, 5, 3, 7]);
        assert_eq!(read(&bytes).2, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn what_is_no_array_is_refused() {
        let header = |text: &str| Array::parse(&file(text, &[0; 8])).unwrap_err();
        for (text, refusal) in [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
                "the array has 8 bytes of numbers, and its shape needs 12",
            ),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "an array of `|O` cannot be learned"),
            ("{'descr': '>f8', 'fortran_order': False, 'shape': (1,)}", "an array of `>f8` cannot be learned"),
            (
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
                "the array's header makes no sense: the type is no plain one",
            ),
            ("{'descr': '<f8', 'fortran_order': False}", "the array's header makes no sense: a key is missing"),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999)}",
                "the array's header makes no sense: its shape is too large",
            ),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
                "the array's header makes no sense: the shape is no tuple of numbers",
            ),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)} + 1",
                "the array's header makes no sense: something follows it",
            ),
            ("[]", "the array's header makes no sense: it is no dictionary"),
        ] {
            assert_eq!(header(text).to_string(), refusal);
        }
        assert_eq!(Array::parse(b"PK\x03\x04"), Err(NpyError::Magic));
        assert_eq!(Array::parse(b"\x93NUMPY\x09\x00\x00\x00"), Err(NpyError::Version { major: 9, minor: 0 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0_usize..200) {
            let _ = Array::parse(&bytes);
            let mut whole = write(F32, &[2, 3], &[1.0; 6]);
            let at = at.min(whole.len());
            bytes.truncate(whole.len() - at);
            whole[at..at + bytes.len()].copy_from_slice(&bytes);
            if let Ok(array) = Array::parse(&whole) {
                array.extend(&mut Vec::new());
            }
        }

        #[test]
        fn arrays_are_read_as_they_were_written(shape in prop::collection::vec(0_usize..5, 0..5), seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.f32()).collect();
            prop_assert_eq!(read(&write(F32, &shape, &values)), (F32, shape, values));
        }
    }
}
