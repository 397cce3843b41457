//! Detections or tracks in KITTI's rows, a file per frame, as deepstream-app dumps them: `00_<stream>_<frame>.txt`, where
//! the stream is its place in the pipeline and the frame counts from 0.
//!
//! A detection is `label 0.0 0 0.0 left top right bottom 0.0 0.0 0.0 0.0 0.0 0.0 0.0 score`; a track has its number
//! between label and truncation. Boxes are in pixels of the picture. What has no label is called by its class's number;
//! a blank in a label becomes `_`, since columns are separated by blanks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use revoada_bundle::partial::Partial;
use revoada_core::{Detection, StreamId};

use super::SinkContext;
use super::folder::Folder;
use crate::{FrameResult, Sink, SinkError, SinkReport};

pub(super) struct KittiSink {
    folder: Folder,
    tracks: bool,
    /// In the order of their numbers; those that join later come last.
    streams: Vec<StreamId>,
}

impl KittiSink {
    pub(super) fn open(folder: &Path, tracks: bool, context: &SinkContext) -> Result<Self, SinkError> {
        Ok(Self { folder: Folder::open(folder.to_path_buf())?, tracks, streams: context.streams.clone() })
    }

    fn number(&mut self, stream: &StreamId) -> usize {
        let known = self.streams.iter().position(|known| known == stream);
        known.unwrap_or_else(|| {
            self.streams.push(stream.clone());
            self.streams.len() - 1
        })
    }
}

impl Sink for KittiSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let number = self.number(&result.frame.stream);
        let path = self.folder.path().join(format!("00_{number:03}_{:06}.txt", result.frame.sequence));
        let rows = rows(result, self.tracks);
        // Not synced one by one: what a power cut takes of a folder of frames is its end.
        let written = Partial::create(&path).and_then(|partial| {
            fs::write(partial.path(), rows)?;
            partial.commit_unsynced()
        });
        written.map(drop).map_err(|source| SinkError::Write { path, source })
    }

    /// Names the folder: there are as many files as frames.
    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.folder.keep();
        Ok(SinkReport { files: vec![self.folder.path().to_path_buf()] })
    }
}

fn rows(result: &FrameResult, tracks: bool) -> String {
    let mut rows = String::new();
    let mut row = |found: &Detection, track: &str| {
        let label = result
            .labels
            .get(found.class as usize)
            .map_or_else(|| found.class.to_string(), |label| label.replace(char::is_whitespace, "_"));
        let (left, top) = (found.bbox.x, found.bbox.y);
        let (right, bottom) = (left + found.bbox.width, top + found.bbox.height);
        writeln!(
            rows,
            "{label}{track} 0.0 0 0.0 {left:.6} {top:.6} {right:.6} {bottom:.6} 0.0 0.0 0.0 0.0 0.0 0.0 0.0 {:.6}",
            found.score
        )
        .expect("a string takes whatever is written to it");
    };
    for found in &result.prediction.detections {
        match (tracks, found.track) {
            (false, _) => row(found, ""),
            (true, Some(track)) => row(found, &format!(" {track}")),
            (true, None) => {}
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use revoada_core::{Rect, TrackId};

    use super::super::tests::{context, result};
    use super::*;

    #[test]
    fn frames_are_named_and_rows_written_as_deepstream_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut front = result("front", 7);
        front.prediction.detections.truncate(1);
        front.prediction.detections[0].bbox = Rect::new(10.5, 20.0, 30.0, 40.25);
        let mut yard = result("yard", 12);
        yard.prediction.detections[1].track = Some(TrackId(5));
        for tracks in [false, true] {
            let path = folder.path().join(format!("tracks-{tracks}"));
            let mut sink = KittiSink::open(&path, tracks, &context(&["front", "yard"])).unwrap();
            sink.write(&front).unwrap();
            sink.write(&yard).unwrap();
            assert_eq!(sink.finish().unwrap().files, [path]);
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            read("tracks-false/00_000_000007.txt"),
            "face 0.0 0 0.0 10.500000 20.000000 40.500000 60.250000 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.987654\n"
        );
        assert_eq!(read("tracks-true/00_000_000007.txt"), "");
        assert_eq!(
            read("tracks-true/00_001_000012.txt"),
            "the_\"plate\",_of_a_car 5 0.0 0 0.0 -0.001000 20.125999 29.999001 60.625999 0.0 0.0 0.0 0.0 0.0 0.0 0.0 \
             0.987654\n"
        );
    }
}
