//! What an operator asked for once.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use revoada_proto::{Ask, Command, CommandResult, Kind, Label};
use tokio::sync::oneshot;

use super::config::Address;
use super::identity::Identity;
use super::learner;
use super::log::Log;
use super::pipeline;
use super::service;
use super::target::Piece;
use crate::{Active, Contents, Placed, Verifier};

/// Commands that wait for the one before them; one more is refused.
const WAITING_MAX: usize = 16;
/// A picture of a camera is some megabytes at most.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What is said on a device to which nobody has told where its pictures are to lie.
pub(super) const LEARNS_NOT: &str =
    "this device keeps no pictures to learn from: its agent's configuration has no table `[learning]`";

/// Commands in their order, one at a time.
#[derive(Debug, Default)]
pub(super) struct Commands {
    waiting: VecDeque<Command>,
    is_busy: bool,
}

impl Commands {
    /// The highest number that is known, where one waits.
    pub(super) fn newest(&self) -> Option<u64> {
        self.waiting.back().map(|command| command.number)
    }

    /// Whether there was room.
    pub(super) fn push(&mut self, command: Command) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            self.waiting.push_back(command);
        }
        has_room
    }

    /// The next to be done, where none is.
    pub(super) fn begin(&mut self) -> Option<Command> {
        if self.is_busy {
            return None;
        }
        let next = self.waiting.pop_front();
        self.is_busy = next.is_some();
        next
    }

    pub(super) fn ended(&mut self) {
        self.is_busy = false;
    }
}

/// What commands are done with.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) pipeline: Sender<pipeline::Ask>,
    pub(super) verifier: Verifier,
    pub(super) contents: Contents,
    pub(super) log: Log,
    pub(super) folder: PathBuf,
    /// Where the pictures lie that the device learns from, where it learns.
    pub(super) data: Option<PathBuf>,
    /// Who forgets them.
    pub(super) lessons: Option<Sender<learner::Todo>>,
    pub(super) active: Active,
    pub(super) server: Address,
    pub(super) identity: Arc<Identity>,
}

/// Does a command, and says how it ended.
pub(super) async fn run(command: Command, means: Means) -> CommandResult {
    let number = command.number;
    let outcome = match command.ask {
        Ask::RestartPipeline => ask(&means, pipeline::Ask::Restart).await,
        Ask::SwapModel { digest } => match model(&means, digest).await {
            Ok(model) => ask(&means, |answer| pipeline::Ask::Swap { model, answer }).await,
            Err(reason) => Err(reason),
        },
        Ask::Label { stream, track, label } => match means.data.clone() {
            Some(folder) => keep_track(&means, stream, track, label, folder).await,
            None => Err(LEARNS_NOT.to_owned()),
        },
        Ask::Forget { label } => forget(&means, label).await,
        Ask::Snapshot { stream } => snapshot(number, stream, &means).await,
        Ask::FetchLogs { lines } => {
            let log = means.log.clone();
            let text = tokio::task::spawn_blocking(move || log.tail(lines)).await;
            match text.map_err(std::io::Error::other).and_then(|text| text) {
                Ok(text) => upload(&means, number, "text/plain", text).await,
                Err(error) => Err(format!("cannot read the log: {error}")),
            }
        }
    };
    CommandResult { number, outcome }
}

async fn ask(means: &Means, ask: impl FnOnce(pipeline::Answer) -> pipeline::Ask) -> Result<String, String> {
    let (answer, answered) = oneshot::channel();
    means.pipeline.send(ask(answer)).map_err(|_| "the agent is ending".to_owned())?;
    answered.await.map_err(|_| "the agent is ending".to_owned())?
}

/// A model that lies in one of the slots, verified just now.
async fn model(means: &Means, digest: revoada_core::Digest) -> Result<Piece, String> {
    let mut found = means.contents.iter().filter(|((kind, _), held)| *kind == Kind::Model && **held == digest);
    let ((_, slot), _) = found.next().ok_or("no slot of this device holds that model")?;
    let (verifier, placed) = (means.verifier.clone(), Placed { slot: *slot, digest });
    let verified = tokio::task::spawn_blocking(move || verifier.verify(Kind::Model, placed)).await;
    let verified = verified.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(Piece { path: verified.folder().to_owned(), digest: Some(digest) })
}

async fn snapshot(number: u64, stream: String, means: &Means) -> Result<String, String> {
    let path = means.folder.join(format!("snapshot-{number}.jpg"));
    let taken = ask(means, |answer| pipeline::Ask::Snapshot { stream, path: path.clone(), answer }).await;
    let (picture, tracks) = match taken {
        Ok(tracks) => (read(&path).await, tracks),
        Err(reason) => (Err(reason), String::new()),
    };
    // There may be none.
    drop(tokio::fs::remove_file(&path).await);
    let said = upload(means, number, "image/jpeg", picture?).await?;
    Ok(if tracks.is_empty() { said } else { format!("{said}, which shows {tracks}") })
}

async fn keep_track(
    means: &Means,
    stream: String,
    track: u64,
    label: Label,
    folder: PathBuf,
) -> Result<String, String> {
    // The first picture of a device comes before everything else there.
    let made = tokio::fs::create_dir_all(&folder).await;
    made.map_err(|error| format!("cannot use folder `{}`: {error}", folder.display()))?;
    ask(means, |answer| pipeline::Ask::Label { stream, track, label, folder, answer }).await
}

async fn forget(means: &Means, label: Option<Label>) -> Result<String, String> {
    let (answer, answered) = oneshot::channel();
    let lessons = means.lessons.as_ref().ok_or(LEARNS_NOT)?;
    let active = means.active.clone();
    let ending = || "the agent is ending".to_owned();
    lessons.send(learner::Todo::Forget { label, active, answer }).map_err(|_| ending())?;
    answered.await.map_err(|_| ending())?
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot_read = |error: std::io::Error| format!("cannot read the picture: {error}");
    let bytes = tokio::fs::metadata(path).await.map_err(cannot_read)?.len();
    if bytes > ANSWER_BYTES_MAX {
        return Err(format!("the picture has {bytes} bytes, and may have {ANSWER_BYTES_MAX}"));
    }
    tokio::fs::read(path).await.map_err(cannot_read)
}

async fn upload(means: &Means, number: u64, media_type: &str, bytes: Vec<u8>) -> Result<String, String> {
    let length = bytes.len();
    let uploaded = service::upload_answer(&means.server, &means.identity, number, media_type, bytes).await;
    uploaded.map(|()| format!("{length} bytes of {media_type}")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_done_one_after_another_and_few_wait() {
        let mut commands = Commands::default();
        let command = |number| Command { number, ask: Ask::RestartPipeline };
        assert!((1..=WAITING_MAX as u64).all(|number| commands.push(command(number))));
        assert!(!commands.push(command(99)));
        assert_eq!(commands.newest(), Some(WAITING_MAX as u64));
        assert_eq!(commands.begin().map(|command| command.number), Some(1));
        assert_eq!(commands.begin(), None);
        commands.ended();
        assert_eq!(commands.begin().map(|command| command.number), Some(2));
    }
}
