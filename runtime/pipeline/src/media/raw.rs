//! Frames as GStreamer's buffers, without touching a pixel.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;
use revoada_core::{ColorMatrix, ColorRange, ColorSpec, Frame, ImageLayout, PixelFormat, Size};

use super::encoder::FrameRate;

/// Keeps a frame alive for as long as GStreamer reads it.
struct FrameBytes(Arc<Frame>);

impl AsRef<[u8]> for FrameBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.view().bytes()
    }
}

/// The largest size that H.264 with halved chroma can have: a last odd column or row is left out.
pub(super) fn even(size: Size) -> Size {
    Size::new(size.width & !1, size.height & !1)
}

pub(super) fn caps(layout: &ImageLayout, rate: FrameRate) -> Result<gst::Caps, String> {
    let size = even(layout.size);
    if size.width == 0 || size.height == 0 {
        return Err(format!("pictures of {} are too small", layout.size));
    }
    let (width, height) = dimensions(size)?;
    let mut info = gst_video::VideoInfo::builder(format(layout.format), width, height)
        .fps(gst::Fraction::new(rate.numerator, rate.denominator));
    let colorimetry = colorimetry(layout.color);
    if layout.format.is_yuv() {
        info = info.colorimetry(&colorimetry);
    }
    let caps = info.build().and_then(|info| info.to_caps());
    caps.map_err(|_| format!("pictures of {} cannot be encoded", layout.size))
}

pub(super) fn buffer(frame: &Arc<Frame>) -> Result<gst::Buffer, String> {
    let layout = *frame.layout();
    let (width, height) = dimensions(even(layout.size))?;
    let planes = &layout.planes[..layout.format.planes(layout.size).as_slice().len()];
    let offsets: Vec<usize> = planes.iter().map(|plane| plane.offset).collect();
    let strides = planes.iter().map(|plane| i32::try_from(plane.stride)).collect::<Result<Vec<_>, _>>();
    let strides = strides.map_err(|_| format!("rows of {} are too long", layout.size))?;
    let mut buffer = gst::Buffer::from_slice(FrameBytes(Arc::clone(frame)));
    let target = buffer.get_mut().expect("nobody else has the buffer yet");
    gst_video::VideoMeta::add_full(
        target,
        gst_video::VideoFrameFlags::empty(),
        format(layout.format),
        width,
        height,
        &offsets,
        &strides,
    )
    .map_err(|error| error.to_string())?;
    Ok(buffer)
}

/// The colours that a video of such frames has: theirs, or what players assume where they are not YUV.
pub(super) fn video_color(layout: &ImageLayout) -> String {
    let color = match layout.color {
        color if layout.format.is_yuv() => color,
        _ if layout.size.height >= 720 => ColorSpec { matrix: ColorMatrix::Bt709, range: ColorRange::Limited },
        _ => ColorSpec { matrix: ColorMatrix::Bt601, range: ColorRange::Limited },
    };
    colorimetry(color).to_string()
}

fn dimensions(size: Size) -> Result<(u32, u32), String> {
    let too_large = || format!("pictures of {size} are too large");
    Ok((u32::try_from(size.width).map_err(|_| too_large())?, u32::try_from(size.height).map_err(|_| too_large())?))
}

fn format(format: PixelFormat) -> gst_video::VideoFormat {
    match format {
        PixelFormat::Nv12 => gst_video::VideoFormat::Nv12,
        PixelFormat::I420 => gst_video::VideoFormat::I420,
        PixelFormat::Rgb => gst_video::VideoFormat::Rgb,
        PixelFormat::Bgr => gst_video::VideoFormat::Bgr,
        PixelFormat::Gray => gst_video::VideoFormat::Gray8,
    }
}

fn colorimetry(color: ColorSpec) -> gst_video::VideoColorimetry {
    let range = match color.range {
        ColorRange::Limited => gst_video::VideoColorRange::Range16_235,
        ColorRange::Full => gst_video::VideoColorRange::Range0_255,
    };
    let (matrix, primaries) = match color.matrix {
        ColorMatrix::Bt601 => (gst_video::VideoColorMatrix::Bt601, gst_video::VideoColorPrimaries::Smpte170m),
        ColorMatrix::Bt709 => (gst_video::VideoColorMatrix::Bt709, gst_video::VideoColorPrimaries::Bt709),
    };
    gst_video::VideoColorimetry::new(range, matrix, gst_video::VideoTransferFunction::Bt709, primaries)
}
