//! Image files, one by one and as a stream.
#![allow(clippy::unwrap_used)] // Helpers of tests fail as tests do.

mod media_clips;

use std::io::Write;
use std::path::Path;

use media_clips::{clock, drain, stream};
use revoada_core::{PixelFormat, Size};
use revoada_pipeline::config::SourceConfig;
use revoada_pipeline::{SourceError, media};

fn write(path: &Path, width: u32, height: u32, color: [u8; 3]) {
    image::RgbImage::from_pixel(width, height, image::Rgb(color)).save(path).unwrap();
}

#[test]
fn a_picture_is_read_as_rgb() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "a.bmp", "a.jpg"] {
        let path = folder.path().join(name);
        write(&path, 31, 17, [200, 100, 50]);
        let frame = media::load_picture(&path).unwrap();
        assert_eq!((frame.size(), frame.layout().format), (Size::new(31, 17), PixelFormat::Rgb), "{name}");
        let pixel = &frame.view().plane(0).row(8)[..3];
        assert!(pixel.iter().zip([200, 100, 50]).all(|(&got, want)| got.abs_diff(want) < 4), "{name}: {pixel:?}");
    }
}

#[test]
fn a_picture_taken_sideways_stands_upright() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turned.jpg");
    write(&path, 40, 20, [9, 9, 9]);
    let plain = std::fs::read(&path).unwrap();
    // After the start of the image: EXIF with one entry, orientation 6 (turn right by 90°).
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&plain[..2]).unwrap();
    file.write_all(&[0xff, 0xe1]).unwrap();
    file.write_all(&(exif.len() as u16 + 2).to_be_bytes()).unwrap();
    file.write_all(exif).unwrap();
    file.write_all(&plain[2..]).unwrap();
    drop(file);
    assert_eq!(media::load_picture(&path).unwrap().size(), Size::new(20, 40));
}

#[test]
fn what_is_no_picture_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.jpg");
    std::fs::write(&text, "no picture").unwrap();
    let cut = folder.path().join("cut.png");
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8])).save(&cut).unwrap();
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let cases = [
        (folder.path().join("absent.png"), "there is no such file"),
        (folder.path().to_owned(), "it is a folder"),
        (text, "it is no JPEG, PNG, BMP or WebP picture"),
        (cut, "cut.png"),
    ];
    for (path, expected) in cases {
        let error = media::load_picture(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.starts_with("cannot read picture `"), "{error}");
    }
}

#[test]
fn a_picture_too_large_to_decode_is_refused_before_it_takes_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.bmp");
    // A header that claims 60000×60000 pixels, and nothing behind it.
    let mut header = b"BM".to_vec();
    header.extend([0; 8]);
    header.extend(54u32.to_le_bytes());
    header.extend(40u32.to_le_bytes());
    header.extend(60_000u32.to_le_bytes());
    header.extend(60_000u32.to_le_bytes());
    header.extend([1, 0, 24, 0]);
    header.extend([0; 24]);
    std::fs::write(&path, header).unwrap();
    let error = media::load_picture(&path).unwrap_err().to_string();
    assert!(error.contains("bomb.bmp"), "{error}");
}

#[test]
fn a_folder_of_pictures_is_a_stream_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, width) in [("b.png", 20), ("a.JPG", 10), ("c.bmp", 30)] {
        let path = folder.path().join(name);
        let format = if name.ends_with("JPG") {
            image::ImageFormat::Jpeg
        } else {
            image::ImageFormat::from_path(&path).unwrap()
        };
        image::RgbImage::new(width, 8).save_with_format(&path, format).unwrap();
    }
    std::fs::write(folder.path().join("notes.txt"), "not a picture").unwrap();
    let mut config = stream(SourceConfig::Images(folder.path().to_owned()));
    config.repeat = Some(2);
    let (frames, error) = drain(&mut *media::open(&config, clock()).unwrap());
    assert!(error.is_none(), "{error:?}");
    let seen: Vec<_> = frames.iter().map(|frame| (frame.sequence, frame.size().width)).collect();
    assert_eq!(seen, [(0, 10), (1, 20), (2, 30), (3, 10), (4, 20), (5, 30)]);
    assert!(frames.windows(2).all(|pair| pair[0].pts < pair[1].pts));
}

#[test]
fn a_broken_picture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.png"), 8, 8, [1, 2, 3]);
    std::fs::write(folder.path().join("b.png"), "no picture").unwrap();
    let config = stream(SourceConfig::Images(folder.path().to_owned()));
    let (frames, error) = drain(&mut *media::open(&config, clock()).unwrap());
    assert_eq!(frames.len(), 1);
    let error = error.expect("b.png is broken");
    assert!(matches!(&error, SourceError::Broken { frames: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("picture `b.png`"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let config = stream(SourceConfig::Images(empty.path().to_owned()));
    let error = media::open(&config, clock()).err().expect("it is empty").to_string();
    assert!(error.contains("the folder has no pictures"), "{error}");
}
