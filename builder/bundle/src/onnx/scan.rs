//! A first look at bytes that claim to be an ONNX file, so that a person reads "truncated" or "it
//! is a web page" and not what a protobuf decoder stumbled over.

use super::OnnxErrorKind;

/// Beginnings of files that people mistake for models, with what they are.
const LOOK_ALIKES: [(&[u8], &str); 7] = [
    (b"version https://git-lfs", "it is a Git LFS pointer, fetch the file that it stands for"),
    (b"<!DOCTYPE", "it is a web page"),
    (b"<html", "it is a web page"),
    (b"PK\x03\x04", "it is a zip archive, perhaps a PyTorch checkpoint to export first"),
    (b"\x80\x02", "it is a Python pickle, export the model first"),
    (b"ptrt", "it is a TensorRT plan"),
    (b"\x89HDF", "it is an HDF5 file, perhaps a Keras model to convert first"),
];
const NO_MODEL: &str = "its bytes do not describe a model";

/// The fields of a model that hold a number, and the ones that have a length, by wire type.
const VARINT: u64 = 0;
const NUMBERS: [u64; 2] = [1, 5];
const LENGTH_DELIMITED: u64 = 2;
const MESSAGES: [u64; 10] = [2, 3, 4, 6, 7, 8, 14, 20, 25, 26];

/// Walks the outermost fields as far as they are known. Later versions of the format may add some;
/// what to make of them is left to the decoder.
pub(super) fn scan(bytes: &[u8]) -> Result<(), OnnxErrorKind> {
    if bytes.is_empty() {
        return Err(OnnxErrorKind::NotOnnx { reason: "it is empty" });
    }
    if let Some((_, reason)) = LOOK_ALIKES.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err(OnnxErrorKind::NotOnnx { reason });
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return Err(OnnxErrorKind::NotOnnx { reason: "it is a TensorFlow Lite model" });
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let at_start = rest.len() == bytes.len();
        // The very first field tells noise from a file that somebody cut.
        let cut = |missing| match at_start {
            true => OnnxErrorKind::NotOnnx { reason: NO_MODEL },
            false => OnnxErrorKind::Truncated { missing },
        };
        let tag = varint(&mut rest).ok_or(cut(None))?;
        let (field, wire) = (tag >> 3, tag & 7);
        if wire == VARINT && NUMBERS.contains(&field) {
            varint(&mut rest).ok_or(cut(None))?;
        } else if wire == LENGTH_DELIMITED && MESSAGES.contains(&field) {
            let length = varint(&mut rest).ok_or(cut(None))?;
            if length > super::MODEL_BYTES_MAX {
                return Err(OnnxErrorKind::NotOnnx { reason: NO_MODEL });
            }
            let skipped = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
            (_, rest) = skipped.ok_or(cut(Some(length.saturating_sub(rest.len() as u64))))?;
        } else if at_start {
            return Err(OnnxErrorKind::NotOnnx { reason: NO_MODEL });
        } else {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads a variable-length number and steps over it; `None` where it is cut or longer than ten bytes.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    const BYTES_MAX: usize = 10;
    let length = rest.iter().take(BYTES_MAX).position(|byte| byte & 0x80 == 0)? + 1;
    let (number, after) = rest.split_at(length);
    *rest = after;
    // The tenth byte's upper bits fall off, as in every decoder.
    Some(number.iter().rev().fold(0u64, |value, byte| (value << 7) | u64::from(byte & 0x7f)))
}
