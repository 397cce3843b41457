//! Colours of classes and tracks.

use revoada_core::TrackId;

use super::canvas::Rgb;

/// Neighbouring classes get hues far apart; all are bright enough to read over dark video. Classes
/// past the end begin again.
const PALETTE: [Rgb; 20] = [
    Rgb(38, 208, 124),
    Rgb(255, 159, 28),
    Rgb(58, 134, 255),
    Rgb(255, 89, 94),
    Rgb(138, 92, 246),
    Rgb(255, 221, 51),
    Rgb(0, 187, 212),
    Rgb(240, 98, 182),
    Rgb(156, 204, 61),
    Rgb(198, 124, 78),
    Rgb(0, 150, 136),
    Rgb(255, 179, 186),
    Rgb(111, 168, 255),
    Rgb(158, 157, 36),
    Rgb(186, 104, 200),
    Rgb(224, 224, 224),
    Rgb(141, 110, 99),
    Rgb(255, 112, 67),
    Rgb(92, 107, 192),
    Rgb(0, 230, 118),
];

/// The colour in which a class is drawn, the same in every picture and run.
pub fn class_color(class: u32) -> Rgb {
    PALETTE[class as usize % PALETTE.len()]
}

/// The colour in which a track is drawn; neighbouring tracks differ.
pub fn track_color(track: TrackId) -> Rgb {
    PALETTE[(track.0 % PALETTE.len() as u64) as usize]
}

/// Black or white, whichever is easier to read on `background`.
pub(super) fn text_color(background: Rgb) -> Rgb {
    if background.brightness() > 0.45 { Rgb::BLACK } else { Rgb::WHITE }
}
