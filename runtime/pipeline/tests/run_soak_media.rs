//! Nothing adds up over many short streams of real sources. Alone in its process, whose memory it
//! measures.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use fakes::{Usage, draft};
use revoada_engine::BackendOptions;
use revoada_pipeline::run::{Parts, StopFlag, run};

#[test]
fn many_short_streams_of_real_sources_leave_nothing_behind() {
    // `cargo xtask test --full` asks for the long one.
    let full = std::env::var_os("REVOADA_FULL").is_some();
    let rounds = if full { 1000 } else { 30 };
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.jpg"] {
        image::RgbImage::new(64, 48).save(folder.path().join(name)).unwrap();
    }
    let test = |pattern: &str| {
        format!("[[stream]]\nuri = \"test://{pattern}?width=320&height=240&fps=30\"\nframes_max = 30\n")
    };
    let text = format!(
        "[model]\npath = \"fake.onnx\"\ndecoder = \"brightness\"\n{}{}[[stream]]\nuri = \"images:{}\"\nrepeat = 20\n\
         [[sink]]\ntype = \"jsonl\"\npath = \"{}\"\n[batch]\nframes_max = 4\n",
        test("smpte"),
        test("ball"),
        folder.path().display(),
        folder.path().join("out.jsonl").display(),
    );
    let config = draft(&text).check().unwrap();
    let mut before = None;
    for round in 0..rounds {
        let (fake, _) = fakes::Script::new(&[]).parts();
        let real = Parts::new(&BackendOptions::default());
        let parts = Parts { loader: fake.loader, ..real };
        let summary = run(config.clone(), parts, &StopFlag::new()).unwrap();
        assert_eq!((summary.frames_in, summary.frames_out), (100, 100));
        // The first rounds fill what is kept: allocator arenas, GStreamer's registry and types.
        if round == rounds / 3 {
            before = Some(Usage::now());
        }
    }
    let before = before.unwrap();
    let after = Usage::settled(&before);
    assert!(after.rss_kib <= before.rss_kib + 16 * 1024, "{before:?} → {after:?}");
    assert!(after.threads <= before.threads && after.descriptors <= before.descriptors, "{before:?} → {after:?}");
}
