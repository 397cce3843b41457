//! A stream's `uri`: what may be written, and how a source is written back.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CameraMode, RtspTransport, SourceConfig};

/// Pictures that an `images` source reads, by extension.
const IMAGE_EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// A network camera's jitter is mostly below this.
pub(super) const RTSP_LATENCY: Duration = Duration::from_millis(200);

/// `videotestsrc` makes pictures of this size and rate where nothing else is said.
const TEST_MODE: CameraMode = CameraMode { width: 640, height: 480, fps: 30 };

/// Schemes that a source may have, for messages.
const SCHEMES: &str =
    "a path, `file://`, `images:`, `rtsp://`, `rtsps://`, `http://`, `https://`, `v4l2://`, `csi://` or `test://`";

impl SourceConfig {
    /// Reads a `uri`; paths stay as they are written. Pure: whether the source exists is found out
    /// when it is opened, and a path to a folder without a trailing slash reads as a file until then.
    pub fn parse(uri: &str) -> Result<Self, String> {
        if uri.is_empty() {
            return Err(format!("expected {SCHEMES}, got nothing"));
        }
        if let Some(folder) = uri.strip_prefix("images:") {
            return match folder {
                "" => Err("`images:` is followed by a folder".into()),
                folder => Ok(Self::Images(folder.into())),
            };
        }
        // What comes before `://` in a path has a slash in it.
        let Some((scheme, rest)) = uri.split_once("://").filter(|(scheme, _)| !scheme.contains('/')) else {
            return Ok(Self::of_path(uri));
        };
        if rest.is_empty() {
            return Err(format!("`{scheme}://` is followed by nothing"));
        }
        match scheme {
            "file" if rest.contains('%') => Err("a `file://` path is read as it is; write `%` escapes out".into()),
            "file" if rest.starts_with('/') => Ok(Self::of_path(rest)),
            "file" => Err(format!("expected an absolute path such as `file:///clip.mp4`, got `{uri}`")),
            "rtsp" | "rtsps" => {
                Ok(Self::Rtsp { url: uri.into(), transport: RtspTransport::default(), latency: RTSP_LATENCY })
            }
            "http" | "https" => Ok(Self::Http(uri.into())),
            "v4l2" if rest.starts_with('/') => Ok(Self::V4l2 { device: rest.into(), mode: CameraMode::default() }),
            "v4l2" => Err(format!("expected a device such as `v4l2:///dev/video0`, got `{uri}`")),
            "csi" => match rest.parse() {
                Ok(sensor) => Ok(Self::Csi { sensor, mode: CameraMode::default() }),
                Err(_) => Err(format!("expected a sensor's number such as `csi://0`, got `{uri}`")),
            },
            "test" => parse_test(rest),
            _ => Err(format!("unknown scheme `{scheme}://`, choose {SCHEMES}")),
        }
    }

    fn of_path(text: &str) -> Self {
        let path = PathBuf::from(text);
        if text.ends_with('/') || is_image(&path) { Self::Images(path) } else { Self::File(path) }
    }

    /// As it is written in a file, in full: an RTSP URL's password included.
    pub fn uri(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Rtsp { url, .. } | Self::Http(url) => url.clone(),
            Self::V4l2 { device, .. } => format!("v4l2://{}", device.display()),
            Self::Csi { sensor, .. } => format!("csi://{sensor}"),
            Self::Images(path) => format!("images:{}", path.display()),
            Self::Test { pattern, mode: CameraMode { width, height, fps }, live } => {
                format!("test://{pattern}?width={width}&height={height}&fps={fps}&live={live}")
            }
        }
    }

    /// Whether the source comes to an end by itself; one that does not was lost when it ends.
    pub fn ends(&self) -> bool {
        match self {
            Self::File(_) | Self::Http(_) | Self::Images(_) | Self::Test { .. } => true,
            Self::Rtsp { .. } | Self::V4l2 { .. } | Self::Csi { .. } => false,
        }
    }

    /// Resolves a relative path against `folder`.
    pub fn relative_to(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(folder.join(path)),
            Self::Images(path) => Self::Images(folder.join(path)),
            other => other,
        }
    }

    /// A name for a stream that was given none: `clip` for `videos/clip.mp4`.
    pub(super) fn default_id(&self, index: usize) -> String {
        let name = match self {
            Self::File(path) | Self::Images(path) | Self::V4l2 { device: path, .. } => {
                path.file_stem().map(|stem| stem.to_string_lossy().into_owned())
            }
            Self::Csi { sensor, .. } => Some(format!("csi{sensor}")),
            Self::Test { pattern, .. } => Some(pattern.clone()),
            Self::Rtsp { .. } | Self::Http(_) => None,
        };
        let name = name.unwrap_or_else(|| format!("stream{index}"));
        let name: String = name.chars().map(|c| if super::is_id_char(c) { c } else { '-' }).collect();
        let name = name.trim_matches(['-', '.']);
        match name.is_empty() {
            true => format!("stream{index}"),
            false => name.chars().take(super::ID_CHARS_MAX).collect(),
        }
    }
}

/// For people and logs: a password in a URL is not shown.
impl fmt::Display for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.uri();
        if let Self::Rtsp { .. } | Self::Http(_) = self
            && let Some((scheme, rest)) = uri.split_once("://")
        {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if let Some((login, host)) = authority.rsplit_once('@')
                && let Some((user, _)) = login.split_once(':')
            {
                return write!(f, "{scheme}://{user}:***@{host}{}", &rest[authority.len()..]);
            }
        }
        f.write_str(&uri)
    }
}

/// As it is displayed: a password must not come into a log by way of `{:?}` either.
impl fmt::Debug for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceConfig({self})")
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    IMAGE_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// `smpte?width=640&height=480&fps=30&live=false`
fn parse_test(rest: &str) -> Result<SourceConfig, String> {
    let (pattern, query) = rest.split_once('?').unwrap_or((rest, ""));
    if pattern.is_empty() || !pattern.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(format!("expected a pattern such as `test://smpte`, got `test://{rest}`"));
    }
    let (mut mode, mut live) = (TEST_MODE, false);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = |range: std::ops::RangeInclusive<u32>| match value.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("`{key}` is an integer from {} to {}, got `{value}`", range.start(), range.end())),
        };
        match key {
            "width" => mode.width = number(16..=super::SIDE_PIXELS_MAX)?,
            "height" => mode.height = number(16..=super::SIDE_PIXELS_MAX)?,
            "fps" => mode.fps = number(1..=super::FPS_MAX)?,
            "live" => live = value.parse().map_err(|_| format!("`live` is `true` or `false`, got `{value}`"))?,
            _ => return Err(format!("unknown parameter `{key}`, choose from `width`, `height`, `fps`, `live`")),
        }
    }
    Ok(SourceConfig::Test { pattern: pattern.into(), mode, live })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_source_is_read_and_written_back() {
        let file = |path: &str| SourceConfig::File(path.into());
        let images = |path: &str| SourceConfig::Images(path.into());
        let rtsp =
            |url: &str| SourceConfig::Rtsp { url: url.into(), transport: RtspTransport::Tcp, latency: RTSP_LATENCY };
        let mode = CameraMode { width: 320, height: 240, fps: 5 };
        let cases = [
            ("clip.mp4", file("clip.mp4")),
            ("file:///a/clip.mkv", file("/a/clip.mkv")),
            ("photos/", images("photos/")),
            ("cat.JPG", images("cat.JPG")),
            ("images:photos", images("photos")),
            ("rtsp://host:8554/a", rtsp("rtsp://host:8554/a")),
            ("https://host/a.mp4", SourceConfig::Http("https://host/a.mp4".into())),
            ("v4l2:///dev/video0", SourceConfig::V4l2 { device: "/dev/video0".into(), mode: CameraMode::default() }),
            ("csi://1", SourceConfig::Csi { sensor: 1, mode: CameraMode::default() }),
            ("test://ball", SourceConfig::Test { pattern: "ball".into(), mode: TEST_MODE, live: false }),
            (
                "test://smpte?width=320&height=240&fps=5&live=true",
                SourceConfig::Test { pattern: "smpte".into(), mode, live: true },
            ),
        ];
        for (uri, source) in cases {
            assert_eq!(SourceConfig::parse(uri), Ok(source.clone()), "{uri}");
            assert_eq!(SourceConfig::parse(&source.uri()), Ok(source), "{uri}");
        }
    }

    #[test]
    fn what_is_no_source_is_refused_with_what_would_be() {
        for (uri, expected) in [
            ("", "got nothing"),
            ("rtps://host", "unknown scheme `rtps://`"),
            ("rtsp://", "followed by nothing"),
            ("csi://a", "such as `csi://0`"),
            ("v4l2://video0", "such as `v4l2:///dev/video0`"),
            ("images:", "followed by a folder"),
            ("test://smpte?fps=0", "`fps` is an integer from 1"),
            ("test://smpte?speed=3", "choose from `width`"),
            ("file:///a%20b.mp4", "write `%` escapes out"),
        ] {
            let error = SourceConfig::parse(uri).unwrap_err();
            assert!(error.contains(expected), "{uri}: {error}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        for (uri, shown) in [
            ("rtsp://me:secret@host/a@b", "rtsp://me:***@host/a@b"),
            ("rtsp://me:se@cret@host:1/a?x=y", "rtsp://me:***@host:1/a?x=y"),
            ("rtsp://host/a:b@c", "rtsp://host/a:b@c"),
        ] {
            assert_eq!(SourceConfig::parse(uri).expect("a URL").to_string(), shown);
        }
    }

    #[test]
    fn a_stream_is_named_after_its_source() {
        for (uri, id) in [
            ("videos/my clip.mp4", "my-clip"),
            ("v4l2:///dev/video0", "video0"),
            ("csi://3", "csi3"),
            ("rtsp://host/a", "stream7"),
            ("/", "stream7"),
            ("photos/", "photos"),
        ] {
            assert_eq!(SourceConfig::parse(uri).expect("a source").default_id(7), id);
        }
    }
}
