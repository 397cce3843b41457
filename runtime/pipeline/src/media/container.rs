//! Whether a file is as long as its container says.
//!
//! Demuxers take the end of a truncated file for the end of the video, without a word. The outermost
//! headers of the common containers say how long the file ought to be; reading them is cheap and,
//! unlike comparing durations, exact.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// MP4 files have a handful of top-level boxes, fragmented ones two for each fragment.
const BOXES_MAX: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The file ends before its container does; without an index nothing of it can be read.
    CutShort { bytes_missing: u64, readable: bool },
    /// An MP4 without `moov`: its recording was not completed.
    NoIndex,
}

impl Damage {
    /// Whether some frames can be read all the same.
    pub(super) fn leaves_frames(self) -> bool {
        matches!(self, Self::CutShort { readable: true, .. })
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CutShort { bytes_missing, .. } => {
                write!(f, "the file is cut short, {bytes_missing} bytes are missing")
            }
            Self::NoIndex => f.write_str("the file has no index (`moov`): its recording was not completed"),
        }
    }
}

/// Looks for damage that the outermost structure shows; `None` where there is none or the container
/// is of another kind.
pub(super) fn damage(path: &Path) -> io::Result<Option<Damage>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0u8; 12];
    let read = read_up_to(&mut file, &mut head)?;
    let head = &head[..read];
    if head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        return matroska(&mut file, length);
    }
    if read == 12 && head.starts_with(b"RIFF") {
        let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        // Recorders write 0 or all ones until they know better.
        return Ok(if matches!(size, 0 | u32::MAX) { None } else { cut_short(u64::from(size) + 8, length, true) });
    }
    if read >= 8
        && [*b"ftyp", *b"moov", *b"mdat", *b"wide", *b"free", *b"skip", *b"styp"].iter().any(|kind| head[4..8] == *kind)
    {
        return mp4(&mut file, length);
    }
    Ok(None)
}

fn cut_short(expected: u64, length: u64, readable: bool) -> Option<Damage> {
    let bytes_missing = expected.checked_sub(length).filter(|&missing| missing > 0)?;
    Some(Damage::CutShort { bytes_missing, readable })
}

fn mp4(file: &mut File, length: u64) -> io::Result<Option<Damage>> {
    let mut position = 0u64;
    let mut indexed = false;
    for _ in 0..BOXES_MAX {
        file.seek(SeekFrom::Start(position))?;
        let mut header = [0u8; 16];
        let read = read_up_to(file, &mut header)?;
        if read < 8 {
            break;
        }
        let size = match u32::from_be_bytes([header[0], header[1], header[2], header[3]]) {
            // The last box, to the end of the file.
            0 => {
                indexed |= header[4..8] == *b"moov";
                break;
            }
            1 if read == 16 => u64::from_be_bytes(header[8..16].try_into().expect("eight bytes are eight bytes")),
            size => u64::from(size),
        };
        let Some(end) = position.checked_add(size).filter(|_| size >= 8) else { break };
        if end > length {
            return Ok(cut_short(end, length, indexed));
        }
        indexed |= header[4..8] == *b"moov";
        position = end;
    }
    Ok((!indexed).then_some(Damage::NoIndex))
}

fn matroska(file: &mut File, length: u64) -> io::Result<Option<Damage>> {
    let mut head = [0u8; 4096];
    file.seek(SeekFrom::Start(0))?;
    let read = read_up_to(file, &mut head)?;
    let head = &head[..read];
    let Some((header_size, header_at)) = ebml_size(head, 4) else { return Ok(None) };
    let Some(segment_at) = header_size.and_then(|size| usize::try_from(size).ok()?.checked_add(header_at)) else {
        return Ok(None);
    };
    if head.get(segment_at..).is_none_or(|rest| !rest.starts_with(&[0x18, 0x53, 0x80, 0x67])) {
        return Ok(None);
    }
    // A segment of unknown size was recorded live; any length is right.
    let Some((Some(size), start)) = ebml_size(head, segment_at + 4) else { return Ok(None) };
    Ok(size.checked_add(start as u64).and_then(|end| cut_short(end, length, true)))
}

/// An EBML size and the position after it; the size is `None` where it is "unknown".
fn ebml_size(bytes: &[u8], at: usize) -> Option<(Option<u64>, usize)> {
    let first = *bytes.get(at)?;
    let extra = first.leading_zeros() as usize;
    if extra > 7 {
        return None;
    }
    let mut value = u64::from(first) & (0x7f >> extra);
    for &byte in bytes.get(at + 1..at + 1 + extra)? {
        value = value << 8 | u64::from(byte);
    }
    let unknown = (1u64 << (7 * (extra + 1))) - 1;
    Some(((value != unknown).then_some(value), at + 1 + extra))
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
