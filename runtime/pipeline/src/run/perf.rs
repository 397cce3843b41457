//! `**PERF:` lines as DeepStream prints them: frames per second of each stream, now and on average.

use std::sync::Arc;

use revoada_core::Timestamp;

use super::stats::StreamStats;

/// The header comes back once so many lines, as in DeepStream.
const LINES_PER_HEADER: u32 = 20;

/// Remembers what the last line said.
#[derive(Debug)]
pub(crate) struct PerfLines {
    lines: u32,
    last: Timestamp,
    seen: Vec<(Arc<StreamStats>, u64)>,
}

impl PerfLines {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { lines: 0, last: now, seen: Vec::new() }
    }

    /// The text for now, header included where one is due.
    pub(crate) fn next(&mut self, streams: &[Arc<StreamStats>], now: Timestamp) -> String {
        let mut text = String::new();
        if self.lines.is_multiple_of(LINES_PER_HEADER) {
            text.push_str("\n**PERF:  ");
            for index in 0..streams.len() {
                text.push_str(&format!("FPS {index} (Avg)\t"));
            }
            text.push('\n');
        }
        self.lines += 1;
        let passed_s = now.since(self.last).as_secs_f64();
        self.last = now;
        text.push_str("**PERF:  ");
        let mut seen = Vec::with_capacity(streams.len());
        for stream in streams {
            let frames = stream.frames_out();
            let before =
                self.seen.iter().find(|(known, _)| Arc::ptr_eq(known, stream)).map_or(0, |(_, frames)| *frames);
            let since_first_s = stream.span().map_or(0.0, |(first, _)| now.since(first).as_secs_f64());
            let per_second = |frames: u64, seconds: f64| if seconds > 0.0 { frames as f64 / seconds } else { 0.0 };
            let (current, average) = (per_second(frames - before, passed_s), per_second(frames, since_first_s));
            text.push_str(&format!("{current:.2} ({average:.2})\t"));
            seen.push((Arc::clone(stream), frames));
        }
        self.seen = seen;
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use revoada_core::StreamId;

    use super::*;
    use crate::FrameTimings;

    #[test]
    fn lines_read_as_deepstream_prints_them() {
        let at = |s: u64| Timestamp::from_nanos(s * 1_000_000_000);
        let streams = ["a", "b"].map(|id| Arc::new(StreamStats::new(StreamId::new(id))));
        let mut lines = PerfLines::new(at(0));
        let write = |frames: u64, now: Timestamp| {
            for _ in 0..frames {
                streams[0].frame_decoded(now);
                streams[0].frame_written(&FrameTimings::default(), Duration::ZERO, 0, now);
            }
        };
        write(10, at(0));
        assert_eq!(
            lines.next(&streams, at(1)),
            "\n**PERF:  FPS 0 (Avg)\tFPS 1 (Avg)\t\n**PERF:  10.00 (10.00)\t0.00 (0.00)\t\n"
        );
        write(35, at(2));
        assert_eq!(lines.next(&streams, at(3)), "**PERF:  17.50 (15.00)\t0.00 (0.00)\t\n");
        let headers = (2..41).filter(|n| lines.next(&streams, at(3 + n)).contains("FPS")).count();
        assert_eq!(headers, 2);
    }
}
