//! What `classify` and `detect` have in common: pictures in, one record a picture out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_core::StreamId;
use revoada_pipeline::run::{Model, ModelSession, SystemClock};
use revoada_pipeline::sink::record::FrameRecord;
use revoada_pipeline::{FrameResult, FrameTimings, media};
use tracing::error;

use crate::Global;
use crate::models::{self, ModelArgs};

/// What both verbs take.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pictures: JPEG, PNG, BMP or WebP.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Print one JSON object a picture, as `run --results FILE.jsonl` writes them.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the model over every picture and hands each record, its `stream` the picture's path, to
/// `show`. A picture that cannot be read does not keep the others from being read; it fails the
/// command at the end.
pub(crate) fn each(
    args: &Args,
    global: &Global,
    mut show: impl FnMut(&FrameRecord) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let model = models::loader(global).load(&args.model.config(), 1)?;
    let mut session = model.session(1)?;
    let mut failed = 0;
    for path in &args.images {
        match record(path, &model, &mut session) {
            Ok(record) => show(&record)?,
            Err(cause) => {
                error!("{cause:#}");
                failed += 1;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} picture(s) failed", args.images.len());
    Ok(())
}

fn record(path: &Path, model: &Arc<Model>, session: &mut ModelSession) -> anyhow::Result<FrameRecord> {
    let mut picture = media::load_picture(path)?;
    picture.stream = StreamId::new(&path.to_string_lossy());
    let frame = Arc::new(picture);
    let answers = session.run(std::slice::from_ref(&frame), &SystemClock::start())?;
    let answer = answers.into_iter().next().expect("one picture has one answer");
    let timings = FrameTimings {
        staging: answer.staging,
        inference: answer.inference,
        decoding: answer.decoding,
        total: answer.staging + answer.inference + answer.decoding,
        ..FrameTimings::default()
    };
    let labels = Arc::clone(model.labels());
    let prediction = answer.prediction;
    let result = FrameResult { frame, wall: None, drawn: None, prediction, analysis: None, labels, timings };
    Ok(FrameRecord::from(&result))
}
