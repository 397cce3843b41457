//! The threads with real sources and real sinks; only the model is a fake.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::io::BufRead;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use fakes::draft;
use revoada_engine::BackendOptions;
use revoada_pipeline::config::Draft;
use revoada_pipeline::control::{Client, Command};
use revoada_pipeline::run::{Parts, RunError, RunSummary, StopFlag, run};

const MODEL: &str = "[model]\npath = \"fake.onnx\"\ndecoder = \"brightness\"\n";

/// The fake model between real sources and sinks.
fn parts() -> Parts {
    let (fake, _) = fakes::Script::new(&[]).parts();
    Parts { loader: fake.loader, ..Parts::new(&BackendOptions::default()) }
}

fn play(draft: &Draft) -> Result<RunSummary, RunError> {
    run(draft.check().unwrap(), parts(), &StopFlag::new())
}

fn lines(path: &Path) -> usize {
    std::io::BufReader::new(std::fs::File::open(path).unwrap()).lines().count()
}

#[test]
fn test_pictures_and_an_image_folder_become_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.png", "c.png"] {
        image::RgbImage::new(40, 30).save(folder.path().join(name)).unwrap();
    }
    let out = folder.path().join("out.jsonl");
    let text = format!(
        "{MODEL}[[stream]]\nuri = \"test://smpte?width=64&height=48&fps=30\"\nframes_max = 20\n\
         [[stream]]\nuri = \"images:{}\"\nrepeat = 2\n[[sink]]\ntype = \"jsonl\"\npath = \"{}\"\n[batch]\nframes_max = 4\n",
        folder.path().display(),
        out.display(),
    );
    let summary = play(&draft(&text)).unwrap();
    assert_eq!((summary.frames_in, summary.frames_out, summary.frames_dropped), (26, 26, 0));
    assert_eq!(summary.files, std::slice::from_ref(&out));
    assert!(lines(&out) >= 26);
}

#[test]
fn a_missing_video_is_a_sentence_and_leaves_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let text = format!(
        "{MODEL}[[stream]]\nuri = \"{}\"\n[[sink]]\ntype = \"jsonl\"\npath = \"{}\"\n",
        folder.path().join("no.mp4").display(),
        out.display()
    );
    let error = play(&draft(&text)).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("no.mp4"), "{cause}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_absent_rtsp_server_is_waited_for_and_the_run_still_drains() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "{MODEL}[[stream]]\nid = \"away\"\nuri = \"rtsp://{free}/x\"\nreconnect = {{ delay_ms_min = 10, delay_ms_max = 50 }}\n\
         [[sink]]\ntype = \"none\"\n[control]\nsocket = \"{}\"\n",
        socket.display()
    );
    let (config, stop) = (draft(&text).check().unwrap(), StopFlag::new());
    let stopping = stop.clone();
    let thread = std::thread::spawn(move || run(config, parts(), &stopping));
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < fakes::DEADLINE, "never reconnects");
        let stats = Client::connect(&socket).and_then(|mut client| client.request(Command::Stats));
        if stats.is_ok_and(|stats| stats["streams"][0]["reconnects"].as_u64() >= Some(3)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.request();
    let summary = thread.join().unwrap().unwrap();
    assert_eq!((summary.frames_in, summary.failures().count()), (0, 0));
}
