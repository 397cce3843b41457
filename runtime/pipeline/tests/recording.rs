//! Recordings made by the sink, read back by our own source.
#![allow(clippy::unwrap_used)] // Helpers of tests fail as tests do.

mod media_clips;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use media_clips::{assert_step, clock, drain, luma, open_file, skipped, step};
use revoada_core::{
    Clock, ColorSpec, Frame, ImageLayout, MemoryKind, PixelFormat, Point, Prediction, Size, StreamId, Timestamp,
};
use revoada_pipeline::analyse::{Analysis, Counts, Event, EventKind, Rules};
use revoada_pipeline::config::{
    AnalyticsConfig, Container, CrossingMode, LineConfig, RecordingConfig, Scope, SinkConfig,
};
use revoada_pipeline::sink::record::RecordingRecord;
use revoada_pipeline::sink::{self, Deliveries, RecordingSummary, Recordings, SinkContext};
use revoada_pipeline::{FrameResult, FrameTimings, Sink, SinkError};
use tempfile::TempDir;

const NEEDED: [&str; 4] = ["x264enc", "mp4mux", "matroskamux", "avdec_h264"];
const FPS: u64 = 25;
const INTERVAL: Duration = Duration::from_millis(40);
/// A recording begins no more than a group of pictures before the time that is asked for.
const KEYS: Duration = Duration::from_millis(1040);

fn config(folder: &Path) -> RecordingConfig {
    RecordingConfig {
        folder: folder.to_owned(),
        streams: Vec::new(),
        before: Duration::from_secs(2),
        after: Duration::from_secs(1),
        length_max: Duration::from_secs(60),
        on: EventKind::NAMES.to_vec(),
        rules: Vec::new(),
        mb_max: 100,
        keep_days: None,
        buffer_mb_max: 32,
        bitrate_kbps: None,
        container: Container::Mp4,
    }
}

/// A sink, and what it tells of itself.
struct Recording {
    sink: Box<dyn Sink>,
    recordings: Recordings,
}

fn open_at(config: RecordingConfig, wall_clock: Arc<dyn Clock>) -> Result<Recording, SinkError> {
    let recordings = Recordings::default();
    let context = SinkContext {
        deterministic: false,
        streams: Vec::new(),
        model: "fake".into(),
        labels: Vec::new().into(),
        hub: None,
        deliveries: Deliveries::default(),
        recordings: recordings.clone(),
        wall_clock,
    };
    let sink = sink::open(&SinkConfig::Recording(config), &context)?;
    Ok(Recording { sink, recordings })
}

fn open(config: RecordingConfig) -> Recording {
    open_at(config, clock()).unwrap()
}

/// Why a folder is refused.
fn refusal(config: RecordingConfig) -> String {
    let error = open_at(config, clock()).err().expect("the folder is refused");
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

impl Recording {
    fn summary(&self) -> RecordingSummary {
        self.recordings.summaries().remove(0)
    }

    /// Waits for the thread that completes recordings.
    fn wait_for_completed(&self) {
        let begun = std::time::Instant::now();
        while self.summary().recordings < 1 {
            assert!(begun.elapsed() < media_clips::DEADLINE, "it is not completed");
            std::thread::yield_now();
        }
    }

    /// Frames of a stream by their numbers; what is told of each of `events`.
    fn play(&mut self, stream: &str, frames: std::ops::Range<u64>, events: &[(u64, EventKind)]) {
        for number in frames {
            let events = events.iter().filter(|(frame, _)| *frame == number).map(|(_, kind)| *kind);
            self.sink.write(&result(frame(stream, number, SIZE), events.collect())).unwrap();
        }
    }
}

const SIZE: Size = Size { width: 160, height: 90 };

fn frame(stream: &str, number: u64, size: Size) -> Frame {
    let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), size);
    let mut memory = vec![128u8; layout.bytes().unwrap()];
    memory[..size.width * size.height].fill(step(number));
    of(stream, number, layout, memory)
}

fn noise(stream: &str, number: u64) -> Frame {
    let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), Size::new(320, 240));
    let mut random = fastrand::Rng::with_seed(number);
    let memory = std::iter::repeat_with(|| random.u8(..)).take(layout.bytes().unwrap()).collect();
    of(stream, number, layout, memory)
}

fn of(stream: &str, number: u64, layout: ImageLayout, memory: Vec<u8>) -> Frame {
    let pts = Timestamp::ZERO + INTERVAL * u32::try_from(number).unwrap();
    Frame::new(StreamId::new(stream), number, pts, pts, layout, MemoryKind::Host, Box::new(memory)).unwrap()
}

fn result(frame: Frame, events: Vec<EventKind>) -> FrameResult {
    let line = LineConfig {
        scope: Scope { name: "door".into(), ..Scope::default() },
        points: [Point::new(0.0, 0.0), Point::new(9.0, 9.0)],
        direction: None,
        mode: CrossingMode::Loose,
        extended: false,
    };
    let rules = AnalyticsConfig { lines: vec![line], ..AnalyticsConfig::default() };
    let rules = Arc::new(Rules::of(&rules, &frame.stream, &[]).unwrap().unwrap());
    let event = |kind| Event { rule: "door".into(), kind, track: None, class: None, bbox: None };
    let events = events.into_iter().map(event).collect();
    FrameResult {
        frame: Arc::new(frame),
        wall: None,
        drawn: None,
        prediction: Prediction::default(),
        analysis: Some(Arc::new(Analysis { rules, events, counts: Counts::default(), marked: Vec::new() })),
        labels: Vec::new().into(),
        timings: FrameTimings::default(),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The recordings of a folder in the order of their names: what stands beside each, and its frames.
fn recorded(folder: &Path) -> Vec<(RecordingRecord, Vec<Frame>)> {
    let about = names(folder).into_iter().filter(|name| name.ends_with(".recording.json"));
    let read = |name: String| {
        let about: RecordingRecord = serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
        let (frames, error) = drain(&mut *open_file(&folder.join(&about.file)).unwrap());
        assert!(error.is_none(), "{about:?}: {error:?}");
        assert_eq!(frames.len() as u64, about.frames, "{about:?}");
        (about, frames)
    };
    about.map(read).collect()
}

/// The numbers of a recording's first and last frames, between which none is missing.
fn span((about, frames): &(RecordingRecord, Vec<Frame>)) -> (u64, u64) {
    let number = |ms: f64| (ms / 40.0).round() as u64;
    let (first, last) = (number(about.start_pts_ms), number(about.end_pts_ms));
    assert_eq!(frames.len() as u64, last - first + 1, "{about:?}");
    for (number, frame) in (first..).zip(frames) {
        assert_step(frame, number);
        let expected = (number - first) as f64 * 0.04;
        assert!((frame.pts.as_secs_f64() - expected).abs() < 0.002, "{number} at {}", frame.pts);
    }
    (first, last)
}

/// Whether a recording that is to begin with a frame does, up to a group of pictures.
#[track_caller]
fn assert_begins(first: u64, wanted: u64) {
    let early = wanted.checked_sub(first).expect("it begins too late");
    assert!(INTERVAL * u32::try_from(early).unwrap() <= KEYS, "it begins at {first} and not {wanted}");
}

#[test]
fn the_seconds_around_an_event_are_recorded() {
    if skipped("the_seconds_around_an_event_are_recorded", &NEEDED) {
        return;
    }
    for container in [Container::Mp4, Container::Matroska] {
        let folder = TempDir::new().unwrap();
        let mut recording = open(RecordingConfig { container, ..config(folder.path()) });
        recording.play("front", 0..250, &[(130, EventKind::Took)]);
        let files = recording.sink.finish().unwrap().files;
        assert_eq!(files, [folder.path()]);
        let recorded = recorded(folder.path());
        let [one] = &recorded[..] else { panic!("one event, one recording: {:?}", names(folder.path())) };
        let (first, last) = span(one);
        assert_begins(first, 130 - 2 * FPS);
        assert_eq!(last, 130 + FPS);
        let about = &one.0;
        assert_eq!((about.stream.as_str(), about.cause.as_str()), ("front", "direction-taken"));
        assert_eq!(about.events.iter().map(|event| event.frame).collect::<Vec<_>>(), [130]);
        let extension = if container == Container::Mp4 { "mp4" } else { "mkv" };
        assert_eq!(about.file, format!("front_0000005.200s_direction-taken.recording.{extension}"));
        let summary = recording.summary();
        let bytes = fs::metadata(folder.path().join(&about.file)).unwrap().len();
        let expected =
            RecordingSummary { sink: "recording".into(), recordings: 1, bytes, ..RecordingSummary::default() };
        assert_eq!(summary, expected);
    }
}

#[test]
fn the_index_of_an_mp4_is_in_front_and_ffprobe_counts_its_frames() {
    let test = "the_index_of_an_mp4_is_in_front_and_ffprobe_counts_its_frames";
    if skipped(test, &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(config(folder.path()));
    recording.play("front", 0..100, &[(50, EventKind::Took)]);
    recording.sink.finish().unwrap();
    let (about, frames) = recorded(folder.path()).remove(0);
    let path = folder.path().join(about.file);
    let bytes = fs::read(&path).unwrap();
    let at = |kind: &[u8]| bytes.windows(4).position(|four| four == kind).expect("an MP4 has this box");
    assert!(at(b"moov") < at(b"mdat"), "the index is behind the pictures");
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-of", "default=noprint_wrappers=1", "-show_entries"])
        .args(["stream=codec_name,width,height,nb_read_frames,duration,has_b_frames"])
        .arg(&path)
        .output();
    let Ok(probe) = probe else { return println!("skipped: {test}: there is no `ffprobe`") };
    let text = String::from_utf8(probe.stdout).unwrap();
    assert!(probe.stderr.is_empty(), "{}", String::from_utf8_lossy(&probe.stderr));
    for line in ["codec_name=h264", "width=160", "height=90", &format!("nb_read_frames={}", frames.len())] {
        assert!(text.lines().any(|got| got == line), "no `{line}` in\n{text}");
    }
    let duration = text.lines().find_map(|line| line.strip_prefix("duration=")?.parse::<f64>().ok()).unwrap();
    assert!((duration - frames.len() as f64 * 0.04).abs() < 0.09, "it lasts {duration} s");
}

#[test]
fn an_event_within_a_recording_makes_it_longer_and_one_behind_it_makes_another() {
    if skipped("an_event_within_a_recording_makes_it_longer_and_one_behind_it_makes_another", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(config(folder.path()));
    let kind = EventKind::Took;
    recording.play("front", 0..300, &[(60, kind), (75, kind), (75, kind), (100, kind), (200, kind)]);
    recording.sink.finish().unwrap();
    let recorded = recorded(folder.path());
    let spans: Vec<_> = recorded.iter().map(span).collect();
    let [(first, 125), (second, 225)] = spans[..] else { panic!("two recordings: {spans:?}") };
    assert_begins(first, 10);
    assert_begins(second, 150);
    assert_eq!(recorded.iter().map(|(about, _)| about.events.len()).collect::<Vec<_>>(), [4, 1]);
}

#[test]
fn a_recording_that_reaches_its_length_goes_on_in_another() {
    if skipped("a_recording_that_reaches_its_length_goes_on_in_another", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(RecordingConfig { length_max: Duration::from_secs(4), ..config(folder.path()) });
    let kind = EventKind::Took;
    recording.play("front", 0..300, &[(100, kind), (120, kind), (140, kind)]);
    recording.sink.finish().unwrap();
    let recorded = recorded(folder.path());
    let spans: Vec<_> = recorded.iter().map(span).collect();
    // Four seconds from the second before, and what the last event still wants behind that.
    let [(first, 150), (second, 165)] = spans[..] else { panic!("two recordings: {spans:?}") };
    assert_begins(first, 50);
    assert_begins(second, 151);
    let causes: Vec<_> = recorded.iter().map(|(about, _)| (about.cause.as_str(), about.events.len())).collect();
    assert_eq!(causes, [("direction-taken", 3), ("continued", 0)]);
}

#[test]
fn only_the_events_that_are_asked_for_are_recorded() {
    if skipped("only_the_events_that_are_asked_for_are_recorded", &NEEDED) {
        return;
    }
    let entered = (50, EventKind::Entered);
    for (on, rules, streams, expected) in [
        (vec!["region-entered"], vec![], vec![], 1),
        (vec!["region-left"], vec![], vec![], 0),
        (vec![], vec![], vec![], 0),
        (vec!["region-entered"], vec!["gate".to_owned()], vec![], 0),
        (vec!["region-entered"], vec!["gate".to_owned(), "door".to_owned()], vec!["front"], 1),
        (vec!["region-entered"], vec![], vec!["back"], 0),
    ] {
        let folder = TempDir::new().unwrap();
        let streams = streams.into_iter().map(StreamId::new).collect();
        let mut recording = open(RecordingConfig { on, rules, streams, ..config(folder.path()) });
        recording.play("front", 0..60, &[entered]);
        recording.sink.finish().unwrap();
        assert_eq!(recording.summary().recordings, expected);
        assert_eq!(names(folder.path()).len() as u64, 2 * expected);
    }
}

#[test]
fn what_is_recorded_is_the_picture_as_drawn() {
    if skipped("what_is_recorded_is_the_picture_as_drawn", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(config(folder.path()));
    for number in 0..30 {
        let events = if number == 10 { vec![EventKind::Took] } else { Vec::new() };
        let mut result = result(frame("front", number, SIZE), events);
        result.drawn = Some(Arc::new(frame("front", 0, SIZE)));
        let drawn = result.drawn.take().unwrap();
        // At its own time.
        let bytes = drawn.view().bytes().to_vec();
        result.drawn = Some(Arc::new(of("front", number, *drawn.layout(), bytes)));
        recording.sink.write(&result).unwrap();
    }
    recording.sink.finish().unwrap();
    let recorded = recorded(folder.path());
    assert!(
        !recorded[0].1.is_empty() && recorded[0].1.iter().all(|frame| (luma(frame) - f64::from(step(0))).abs() < 3.0)
    );
}

#[test]
fn streams_do_not_mix_and_the_end_of_one_completes_its_recording() {
    if skipped("streams_do_not_mix_and_the_end_of_one_completes_its_recording", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(config(folder.path()));
    let kind = EventKind::Took;
    for number in 0..100 {
        recording.play("a", number..number + 1, &[(80, kind)]);
        // Its pictures are other ones at any time.
        recording.play("b", number + 1000..number + 1001, &[(1085, kind), (1095, kind)]);
    }
    let (a, b) = (StreamId::new("a"), StreamId::new("b"));
    assert_eq!(recording.summary().open, 2);
    recording.sink.end_stream(&a).unwrap();
    recording.wait_for_completed();
    let done: Vec<_> = names(folder.path()).into_iter().filter(|name| !name.starts_with('.')).collect();
    assert!(done.len() == 2 && done.iter().all(|name| name.starts_with("a_")), "{done:?}");
    // It comes again.
    recording.play("a", 200..210, &[(205, kind)]);
    recording.sink.end_stream(&b).unwrap();
    recording.sink.finish().unwrap();
    let recorded = recorded(folder.path());
    let spans: Vec<_> = recorded.iter().map(|one| (one.0.stream.as_str(), span(one))).collect();
    let [("a", (first, 99)), ("a", (200, 209)), ("b", (second, 1099))] = spans[..] else { panic!("{spans:?}") };
    assert_begins(first, 30);
    assert_begins(second, 1035);
}

#[test]
fn a_sink_that_is_dropped_leaves_nothing() {
    if skipped("a_sink_that_is_dropped_leaves_nothing", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(config(folder.path()));
    recording.play("front", 0..60, &[(50, EventKind::Took)]);
    assert!(!names(folder.path()).is_empty() && names(folder.path()).iter().all(|name| name.starts_with('.')));
    drop(recording);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_picture_of_another_size_goes_on_in_another_recording() {
    if skipped("a_picture_of_another_size_goes_on_in_another_recording", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(config(folder.path()));
    recording.play("front", 0..60, &[(55, EventKind::Took)]);
    let large = Size::new(320, 180);
    (60..200).for_each(|number| recording.sink.write(&result(frame("front", number, large), Vec::new())).unwrap());
    recording.sink.finish().unwrap();
    let recorded = recorded(folder.path());
    let spans: Vec<_> = recorded.iter().map(|one| (one.1[0].size(), span(one))).collect();
    let [(SIZE, (first, 59)), (second, (60, 80))] = spans[..] else { panic!("{spans:?}") };
    assert_begins(first, 5);
    assert_eq!(second, large);
}

/// A file that was last written at that time.
fn write_at(path: PathBuf, bytes: usize, written: SystemTime) {
    fs::write(&path, vec![0; bytes]).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
}

#[test]
fn the_oldest_recording_makes_room_and_nothing_else() {
    if skipped("the_oldest_recording_makes_room_and_nothing_else", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3600);
    write_at(folder.path().join("x_2_y.recording.mp4"), 399_000, ago(1));
    write_at(folder.path().join("x_1_y.recording.mp4"), 599_000, ago(2));
    write_at(folder.path().join("x_1_y.recording.json"), 10, ago(2));
    write_at(folder.path().join("holiday.mp4"), 3_000_000, ago(9));
    let mut recording = open(RecordingConfig { mb_max: 1, buffer_mb_max: 1, ..config(folder.path()) });
    recording.play("front", 0..80, &[(50, EventKind::Took)]);
    recording.sink.finish().unwrap();
    let stem = "front_0000002.000s_direction-taken.recording";
    let expected = [format!("{stem}.json"), format!("{stem}.mp4"), "holiday.mp4".into(), "x_2_y.recording.mp4".into()];
    assert_eq!(names(folder.path()), expected);
    assert_eq!((recording.summary().recordings, recording.summary().deleted), (1, 1));
}

/// Says what it was told.
struct Told(SystemTime);

impl Clock for Told {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap()
    }
}

#[test]
fn recordings_are_kept_for_so_many_days() {
    let folder = TempDir::new().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    for days in [1, 6, 8, 30] {
        let path = folder.path().join(format!("x_{days}_y.recording.mkv"));
        write_at(path, 10, now - Duration::from_secs(days * 86_400));
    }
    write_at(folder.path().join("old.mkv"), 10, now - Duration::from_secs(99 * 86_400));
    let config = RecordingConfig { keep_days: Some(7), ..config(folder.path()) };
    let recording = open_at(config, Arc::new(Told(now))).unwrap();
    assert_eq!(names(folder.path()), ["old.mkv", "x_1_y.recording.mkv", "x_6_y.recording.mkv"]);
    assert_eq!(recording.summary().deleted, 2);
}

#[test]
fn a_folder_that_goes_away_costs_recordings_and_no_frames() {
    let test = "a_folder_that_goes_away_costs_recordings_and_no_frames";
    if skipped(test, &NEEDED) {
        return;
    }
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("recordings");
    assert!(
        refusal(config(&folder)).contains("recordings`: there is no such folder; create it, or mount its disk"),
        "{}",
        refusal(config(&folder))
    );
    fs::create_dir(&folder).unwrap();
    let mut recording = open(config(&folder));
    fs::remove_dir(&folder).unwrap();
    recording.play("front", 0..100, &[(10, EventKind::Took), (80, EventKind::Took)]);
    let summary = recording.summary();
    assert_eq!((summary.failed, summary.open), (2, 0));
    assert!(summary.error.unwrap().contains("there is no folder"));
    fs::create_dir(&folder).unwrap();
    recording.play("front", 100..200, &[(150, EventKind::Took)]);
    recording.sink.finish().unwrap();
    let summary = recording.summary();
    assert_eq!((summary.recordings, summary.failed, summary.error), (1, 2, None));
}

#[test]
fn a_full_disk_costs_recordings_and_no_frames() {
    let test = "a_full_disk_costs_recordings_and_no_frames";
    if skipped(test, &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"]).arg(folder.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: {test}: a small file system cannot be mounted here");
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
        }
    }
    let _unmount = Unmount(folder.path());
    let mut recording = open(config(folder.path()));
    for number in 0..200 {
        let events = if number % 60 == 30 { vec![EventKind::Took] } else { Vec::new() };
        recording.sink.write(&result(noise("front", number), events)).unwrap();
    }
    recording.sink.finish().unwrap();
    let summary = recording.summary();
    assert!(summary.failed > 0 && summary.recordings == 0 && summary.open == 0, "{summary:?}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_is_counted() {
    if skipped("memory_is_bounded_and_what_does_not_fit_is_counted", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(RecordingConfig {
        before: Duration::from_secs(60),
        length_max: Duration::from_secs(99),
        buffer_mb_max: 1,
        ..config(folder.path())
    });
    for number in 0..150 {
        let events = if number == 140 { vec![EventKind::Took] } else { Vec::new() };
        recording.sink.write(&result(noise("front", number), events)).unwrap();
    }
    recording.sink.finish().unwrap();
    let summary = recording.summary();
    assert!(summary.groups_dropped > 0 && summary.recordings == 1 && summary.failed == 0, "{summary:?}");
    let (about, _) = recorded(folder.path()).remove(0);
    assert!(about.start_pts_ms > 0.0 && about.start_pts_ms <= 140.0 * 40.0, "{about:?}");
}

#[test]
fn a_folder_is_one_pipelines_and_what_a_killed_one_left_is_removed() {
    let folder = TempDir::new().unwrap();
    for left in [".x_1_y.recording.mp4.partial", ".x_1_y.recording.mp4.media.partial", ".x_1_y.recording.json.partial"]
    {
        fs::write(folder.path().join(left), "x").unwrap();
    }
    fs::write(folder.path().join(".other.mp4.partial"), "x").unwrap();
    let recording = open(config(folder.path()));
    assert_eq!(names(folder.path()), [".other.mp4.partial"]);
    let refused = refusal(config(folder.path()));
    assert!(refused.contains("another pipeline records into this folder"), "{refused}");
    drop(recording);
    drop(open(config(folder.path())));
}

#[test]
fn no_recording_takes_the_place_of_another() {
    if skipped("no_recording_takes_the_place_of_another", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    for _ in 0..3 {
        let mut recording = open(config(folder.path()));
        recording.play("front", 0..40, &[(25, EventKind::Took)]);
        recording.sink.finish().unwrap();
    }
    let stem = "front_0000001.000s_direction-taken";
    let films: Vec<_> = names(folder.path()).into_iter().filter(|name| name.ends_with(".mp4")).collect();
    assert_eq!(films, ["-2", "-3", ""].map(|number| format!("{stem}{number}.recording.mp4")));
}

/// A live stream's frames, which are captured when they are shown.
fn play_live(recording: &mut Recording, frames: std::ops::Range<u64>, event: u64) {
    for number in frames {
        let events = if number == event { vec![EventKind::Took] } else { Vec::new() };
        let mut result = result(frame("front", number, SIZE), events);
        result.wall = Some(result.frame.pts + Duration::from_secs(1_764_380_920));
        recording.sink.write(&result).unwrap();
    }
}

#[test]
fn a_live_recording_is_named_by_the_time_of_day() {
    if skipped("a_live_recording_is_named_by_the_time_of_day", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(config(folder.path()));
    play_live(&mut recording, 0..40, 25);
    recording.sink.finish().unwrap();
    let (about, _) = recorded(folder.path()).remove(0);
    assert_eq!(about.file, "front_20251129T014841.000Z_direction-taken.recording.mp4");
    assert_eq!(about.start_time.as_deref(), Some("2025-11-29T01:48:40.000Z"));
}

#[test]
fn a_recording_ends_in_time_where_a_live_stream_falls_silent() {
    if skipped("a_recording_ends_in_time_where_a_live_stream_falls_silent", &NEEDED) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut recording = open(config(folder.path()));
    play_live(&mut recording, 0..60, 50);
    let at = |ms: u64| Timestamp::ZERO + Duration::from_millis(ms);
    // Its second behind the event is over, but frames may be on their way.
    recording.sink.idle(at(3500)).unwrap();
    assert_eq!(recording.summary().open, 1);
    recording.sink.idle(at(6000)).unwrap();
    recording.wait_for_completed();
    // Those that were late are recorded all the same, and what comes later is not.
    play_live(&mut recording, 60..100, 0);
    recording.sink.finish().unwrap();
    let recorded = recorded(folder.path());
    let spans: Vec<_> = recorded.iter().map(span).collect();
    let [(0, last), (second, 75)] = spans[..] else { panic!("{spans:?}") };
    // What the encoder had not done by then is among those that were late.
    assert!(last >= 50, "{spans:?}");
    assert_begins(second, last + 1);
}
