//! What a run says at its end.

use std::fmt::Write as _;

use revoada_pipeline::run::RunSummary;

use crate::terminal::table;

/// Tables of streams, of latencies and of recordings, and where the outputs are.
pub(crate) fn render(summary: &RunSummary) -> String {
    let mut text = String::from("\n");
    text.push_str(&table(&streams(summary)));
    text.push('\n');
    text.push_str(&table(&latencies(summary)));
    if !summary.recordings.is_empty() {
        text.push('\n');
        text.push_str(&table(&recordings(summary)));
    }
    for recording in &summary.recordings {
        if let Some(error) = &recording.error {
            let _ = writeln!(text, "{}: the latest failed: {error}", recording.sink);
        }
    }
    if !summary.files.is_empty() {
        text.push('\n');
    }
    for file in &summary.files {
        let _ = writeln!(text, "wrote {}", file.display());
    }
    text
}

fn streams(summary: &RunSummary) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["stream", "state", "frames", "dropped", "found", "fps", "median ms", "p99 ms"].map(str::to_owned).to_vec(),
    ];
    for stream in &summary.streams {
        rows.push(vec![
            stream.id.clone(),
            stream.state.name().to_owned(),
            stream.frames_out.to_string(),
            stream.frames_dropped.total().to_string(),
            stream.detections.to_string(),
            format!("{:.1}", stream.fps),
            format!("{:.1}", stream.latency.total.p50_ms),
            format!("{:.1}", stream.latency.total.p99_ms),
        ]);
    }
    if summary.streams.len() > 1 {
        rows.push(vec![
            "all".to_owned(),
            String::new(),
            summary.frames_out.to_string(),
            summary.frames_dropped.to_string(),
            summary.detections.to_string(),
            format!("{:.1}", summary.fps),
            format!("{:.1}", summary.latency.total.p50_ms),
            format!("{:.1}", summary.latency.total.p99_ms),
        ]);
    }
    rows
}

fn latencies(summary: &RunSummary) -> Vec<Vec<String>> {
    let mut rows = vec![["a frame's time", "mean", "median", "p90", "p99", "max ms"].map(str::to_owned).to_vec()];
    // A step that most pipelines do not have.
    let takes_place = |stage: &str| stage != "tracking" || summary.tracks > 0;
    for (stage, latency) in summary.latency.stages().into_iter().filter(|(stage, _)| takes_place(stage)) {
        let figures = [latency.mean_ms, latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms];
        let figures = figures.map(|figure| format!("{figure:.2}"));
        rows.push(std::iter::once(stage.to_owned()).chain(figures).collect());
    }
    rows
}

fn recordings(summary: &RunSummary) -> Vec<Vec<String>> {
    let mut rows = vec![["recordings", "complete", "MB", "open", "failed", "deleted"].map(str::to_owned).to_vec()];
    for recording in &summary.recordings {
        rows.push(vec![
            recording.sink.clone(),
            recording.recordings.to_string(),
            format!("{:.1}", recording.bytes as f64 / 1e6),
            recording.open.to_string(),
            recording.failed.to_string(),
            recording.deleted.to_string(),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use revoada_pipeline::sink::RecordingSummary;

    use super::*;

    #[test]
    fn recordings_are_listed_with_why_the_latest_is_not_there() {
        let recordings = vec![
            RecordingSummary {
                sink: "recording".into(),
                recordings: 12,
                bytes: 3_450_000,
                open: 1,
                deleted: 3,
                ..RecordingSummary::default()
            },
            RecordingSummary {
                sink: "recording-2".into(),
                failed: 2,
                error: Some("no space left on device".into()),
                ..RecordingSummary::default()
            },
        ];
        let files = vec!["recordings".into()];
        let text = render(&RunSummary { recordings, files, ..RunSummary::default() });
        let expected = "\n\
            recordings   complete   MB  open  failed  deleted\n\
            recording          12  3.5     1       0        3\n\
            recording-2         0  0.0     0       2        0\n\
            recording-2: the latest failed: no space left on device\n\
            \n\
            wrote recordings\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(!render(&RunSummary::default()).contains("recordings"));
    }
}
