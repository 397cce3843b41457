//! Types and shapes as TensorRT has them.

use std::ffi::CStr;
use std::fmt;

use revoada_core::DType;

use crate::sys;

/// The type of a tensor's elements. TensorRT has more than the pictures and answers of Revoada need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    F32,
    F16,
    BF16,
    F8,
    F4,
    I64,
    I32,
    I8,
    I4,
    U8,
    Bool,
    /// One that this program does not know, or of a tensor that was left out.
    Other,
}

impl DataType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F8 => "f8",
            Self::F4 => "f4",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I8 => "i8",
            Self::I4 => "i4",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::Other => "other",
        }
    }

    /// The same type of an input or output, where Revoada has it.
    pub const fn dtype(self) -> Option<DType> {
        Some(match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::I64 => DType::I64,
            Self::I32 => DType::I32,
            Self::I8 => DType::I8,
            Self::U8 => DType::U8,
            Self::Bool => DType::Bool,
            Self::BF16 | Self::F8 | Self::F4 | Self::I4 | Self::Other => return None,
        })
    }

    pub(crate) fn of(code: i32) -> Self {
        match code {
            sys::TRT_TYPE_F32 => Self::F32,
            sys::TRT_TYPE_F16 => Self::F16,
            sys::TRT_TYPE_BF16 => Self::BF16,
            sys::TRT_TYPE_F8 => Self::F8,
            sys::TRT_TYPE_F4 => Self::F4,
            sys::TRT_TYPE_I64 => Self::I64,
            sys::TRT_TYPE_I32 => Self::I32,
            sys::TRT_TYPE_I8 => Self::I8,
            sys::TRT_TYPE_I4 => Self::I4,
            sys::TRT_TYPE_U8 => Self::U8,
            sys::TRT_TYPE_BOOL => Self::Bool,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An input of a network that is being built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInput {
    pub name: String,
    pub data_type: DataType,
    /// `None` is a dimension that is known only when the plan runs.
    pub dims: Vec<Option<u64>>,
}

/// An input or output of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoTensor {
    pub name: String,
    pub data_type: DataType,
    pub is_input: bool,
    /// Whether its values are read or written on the host, because they are a shape.
    pub on_host: bool,
    /// `None` is a dimension that depends on the shapes of the inputs.
    pub dims: Vec<Option<u64>>,
}

pub(crate) fn dims_of(dims: &sys::TrtDims) -> Vec<Option<u64>> {
    let count = usize::try_from(dims.count).unwrap_or(0).min(dims.values.len());
    dims.values[..count].iter().map(|value| u64::try_from(*value).ok()).collect()
}

/// `None` where TensorRT has no such shape: too many dimensions, or one too long.
pub(crate) fn to_dims(shape: &[u64]) -> Option<sys::TrtDims> {
    let mut dims = sys::TrtDims { count: i32::try_from(shape.len()).ok()?, ..sys::TrtDims::default() };
    for (index, length) in shape.iter().enumerate() {
        *dims.values.get_mut(index)? = i64::try_from(*length).ok()?;
    }
    Some(dims)
}

/// Copies a text of the shim's; a null one is empty.
///
/// # Safety
/// `text` is null or ends with a zero byte.
pub(crate) unsafe fn text(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the end.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
