//! Pictures from image files.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use revoada_core::{Clock, ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Size, StreamId, Timestamp};

use super::MediaError;
use crate::config::StreamConfig;
use crate::{Pull, Source, SourceError};

/// A picture that is wider or higher is refused before it is decoded.
const SIDE_PIXELS_MAX: u32 = 1 << 15;

/// Most memory that decoding one picture may take: 100 megapixels at four bytes, and some.
const DECODE_BYTES_MAX: u64 = 512 << 20;

/// A folder with more pictures than this is a mistake.
const PICTURES_MAX: usize = 1_000_000;

/// Pictures follow each other as the frames of a video of 25 frames a second.
const PICTURE_DURATION: Duration = Duration::from_millis(40);

const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// Reads one picture as RGB, turned upright as its EXIF data say. Transparency is dropped.
pub fn load_picture(path: &Path) -> Result<Frame, MediaError> {
    let (layout, pixels) = read(path).map_err(|reason| picture_error(path, &reason))?;
    Frame::still(layout, pixels).map_err(|error| picture_error(path, &error.to_string()))
}

fn picture_error(path: &Path, reason: &str) -> MediaError {
    MediaError::Picture { path: path.display().to_string(), reason: reason.to_owned() }
}

fn read(path: &Path) -> Result<(ImageLayout, Vec<u8>), String> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err("it is a folder".to_owned());
    }
    let mut reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(|error| error.to_string())?;
    if reader.format().is_none() {
        return Err("it is no JPEG, PNG, BMP or WebP picture".to_owned());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_PIXELS_MAX);
    limits.max_image_height = Some(SIDE_PIXELS_MAX);
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| lowercase(&error.to_string()))?;
    // Unreadable EXIF data are no reason to refuse a picture.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| lowercase(&error.to_string()))?;
    picture.apply_orientation(orientation);
    let picture = picture.into_rgb8();
    let size = Size::new(picture.width() as usize, picture.height() as usize);
    Ok((ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), size), picture.into_raw()))
}

fn lowercase(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The pictures of a folder in the order of their names, or a single one.
pub(super) struct PictureSource {
    uri: String,
    stream: StreamId,
    clock: Arc<dyn Clock>,
    paths: Vec<PathBuf>,
    next: usize,
    sequence: u64,
    plays_left: Option<u32>,
}

impl PictureSource {
    pub(super) fn open(path: &Path, stream: &StreamConfig, clock: Arc<dyn Clock>) -> Result<Self, SourceError> {
        let uri = path.display().to_string();
        let paths = list(path).map_err(|reason| SourceError::Open { uri: uri.clone(), reason })?;
        let plays_left = stream.repeat.map(|plays| plays.saturating_sub(1));
        Ok(Self { uri, stream: stream.id.clone(), clock, paths, next: 0, sequence: 0, plays_left })
    }

    fn frame(&self, path: &Path) -> Result<Frame, String> {
        let (layout, pixels) = read(path)?;
        let (captured, memory) = (self.clock.now(), Box::new(pixels));
        let at = u64::try_from(PICTURE_DURATION.as_nanos()).unwrap_or(u64::MAX).saturating_mul(self.sequence);
        let pts = Timestamp::from_nanos(at);
        Frame::new(self.stream.clone(), self.sequence, pts, captured, layout, MemoryKind::Host, memory)
            .map_err(|error| error.to_string())
    }
}

impl Source for PictureSource {
    fn pull(&mut self, _timeout: Duration) -> Result<Pull, SourceError> {
        if self.next == self.paths.len() {
            match &mut self.plays_left {
                Some(0) => return Ok(Pull::End),
                Some(left) => *left -= 1,
                None => {}
            }
            self.next = 0;
        }
        let path = self.paths[self.next].clone();
        match self.frame(&path) {
            Ok(frame) => {
                self.next += 1;
                self.sequence += 1;
                Ok(Pull::Frame(frame))
            }
            Err(reason) => {
                // After an error there is nothing more.
                (self.next, self.plays_left) = (self.paths.len(), Some(0));
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let (uri, frames) = (self.uri.clone(), self.sequence);
                Err(match frames {
                    0 => SourceError::Open { uri, reason: format!("picture `{name}`: {reason}") },
                    _ => SourceError::Broken { uri, frames, reason: format!("picture `{name}`: {reason}") },
                })
            }
        }
    }
}

fn list(path: &Path) -> Result<Vec<PathBuf>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        _ => error.to_string(),
    })?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        if extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
            if paths.len() == PICTURES_MAX {
                return Err(format!("the folder has more than {PICTURES_MAX} pictures"));
            }
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(format!("the folder has no pictures ({})", EXTENSIONS.join(", ")));
    }
    paths.sort();
    Ok(paths)
}
