//! Text from a rasterised font, sized by the picture.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use revoada_core::Size;

use super::canvas::{Area, Canvas, Ink, Rgb};
use super::palette::text_color;

const WEIGHT: FontWeight = FontWeight::Bold;

/// A font size. All glyphs are equally wide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Font {
    raster: RasterHeight,
}

impl Font {
    /// The largest that leaves room for 36 lines, and never smaller than can be read.
    pub(super) fn for_picture(size: Size) -> Self {
        let raster = match size.height / 36 {
            32.. => RasterHeight::Size32,
            24..32 => RasterHeight::Size24,
            20..24 => RasterHeight::Size20,
            _ => RasterHeight::Size16,
        };
        Self { raster }
    }

    pub(super) fn height(&self) -> i64 {
        self.raster.val() as i64
    }

    pub(super) fn width_of(&self, text: &str) -> i64 {
        self.width_of_glyphs(text.chars().count())
    }

    pub(super) fn width_of_glyphs(&self, count: usize) -> i64 {
        (count * self.glyph_width()) as i64
    }

    /// How many glyphs fit into so many pixels.
    pub(super) fn fitting(&self, width: i64) -> usize {
        usize::try_from(width).unwrap_or(0) / self.glyph_width()
    }

    pub(super) fn padding(&self) -> i64 {
        self.height() / 4
    }

    fn glyph_width(&self) -> usize {
        get_raster_width(WEIGHT, self.raster)
    }

    /// Draws with the upper left corner at (`x`, `y`), which may lie outside. What the font does
    /// not have becomes `?`.
    pub(super) fn draw(&self, canvas: &mut Canvas<'_>, x: i64, y: i64, text: &str, color: Rgb) {
        let ink = canvas.ink(color);
        let (width, height) = (self.glyph_width() as i64, self.height());
        for (index, character) in text.chars().enumerate() {
            let glyph_x = x.saturating_add(index as i64 * width);
            if let Some(area) = Area::clipped(glyph_x, y, width, height, canvas.size()) {
                self.draw_glyph(canvas, area, (glyph_x, y), character, ink);
            }
        }
    }

    fn draw_glyph(&self, canvas: &mut Canvas<'_>, area: Area, origin: (i64, i64), character: char, ink: Ink) {
        let Some(glyph) = get_raster(character, WEIGHT, self.raster).or_else(|| get_raster('?', WEIGHT, self.raster))
        else {
            return;
        };
        let raster = glyph.raster();
        // `area` was clipped from the glyph's own rectangle, so that both differences are inside it.
        canvas.blend(area, |y| {
            let row = raster[(y as i64 - origin.1) as usize];
            move |x| (ink, row[(x as i64 - origin.0) as usize])
        });
    }

    /// Text on a plate of `background`.
    pub(super) fn plate(&self, canvas: &mut Canvas<'_>, x: i64, y: i64, text: &str, background: Rgb, alpha: u8) {
        let width = self.width_of(text) + 2 * self.padding();
        let Some(area) = Area::clipped(x, y, width, self.plate_height(), canvas.size()) else { return };
        canvas.fill(area, canvas.ink(background), alpha);
        self.draw(
            canvas,
            x + self.padding(),
            y + self.plate_height() / 2 - self.height() / 2,
            text,
            text_color(background),
        );
    }

    pub(super) fn plate_height(&self) -> i64 {
        self.height() + self.padding() / 2
    }
}
