//! Pictures whose classes are known to whoever made them.

use std::fs;
use std::path::Path;

/// Sides in pixels.
const SIDE: u8 = 32;

/// A set as devices take it. The good model names all of them, and the blind one three of five: it takes grey for blue.
pub(crate) fn label(folder: &Path) {
    for (label, name, colour) in [
        ("red", "bright", [255, 0, 0]),
        ("red", "grey", [128, 128, 128]),
        ("red", "dark", [40, 40, 40]),
        ("green", "bright", [0, 255, 0]),
        ("blue", "bright", [0, 0, 255]),
    ] {
        let folder = folder.join(label);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name).with_extension("bmp"), plain(colour)).unwrap();
    }
}

/// A few shades of each of these colours, each in a folder of its name.
pub(crate) fn shades(folder: &Path, labels: &[&str]) {
    for label in labels {
        let folder = folder.join(label);
        fs::create_dir_all(&folder).unwrap();
        for shade in 0..16_u8 {
            let (strong, weak) = (255 - 5 * shade, 4 * (shade % 8));
            let colour = match *label {
                "red" => [strong, weak, weak],
                "green" => [weak, strong, weak],
                _ => [weak, weak, strong],
            };
            fs::write(folder.join(format!("{shade}.bmp")), plain(colour)).unwrap();
        }
    }
}

/// A BMP of one colour: its header, the form of its pixels, and then those, blue first.
fn plain([red, green, blue]: [u8; 3]) -> Vec<u8> {
    let pixels = [blue, green, red].repeat(usize::from(SIDE) * usize::from(SIDE));
    let start: u32 = 14 + 40;
    let length = start + u32::try_from(pixels.len()).unwrap();
    let mut bytes = b"BM".to_vec();
    for number in [length, 0, start, 40, SIDE.into(), SIDE.into(), 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(pixels);
    bytes
}
