//! What a node is sent, and what it sends back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use prost::bytes::Bytes;
use revoada_core::Digest;
use revoada_proto::flower::{
    Metadata, PullMessagesResponse, PushMessagesRequest, PushMessagesResponse, PushObjectRequest,
};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use super::refusal::Refusal;
use super::upload::{Put, Upload};
use super::visit::Visit;
use super::{NodeDoor, said};
use crate::flower::incoming;
use crate::flower::objects::{id_of, names, parse_id};
use crate::flower::outgoing::Outgoing;
use crate::learning::{Config, Reply, Sheet, Task, Work};

/// Smaller objects are copied, lest each hold a request that has more in it.
const COPIED_BYTES_MAX: usize = 64 << 10;
/// What is said of why a node failed.
const REASON_CHARS_MAX: usize = 500;
/// How Flower's own server is numbered.
const SERVER: u64 = 1;
/// A node gives a message up after this; long before, whoever waits for its answer has.
const MESSAGE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

impl NodeDoor {
    pub(super) async fn pull(&self, visit: &Visit) -> Result<PullMessagesResponse, Refusal> {
        let mut is_stopping = self.is_stopping.subscribe();
        let task = tokio::select! {
            task = timeout(self.limits.hold, visit.pull()) => task.ok().flatten(),
            _ = is_stopping.wait_for(|is_stopping| *is_stopping) => None,
        };
        visit.touch(Instant::now());
        let Some(task) = task else { return Ok(PullMessagesResponse::default()) };
        let Some(message) = self.message(visit, task).await? else { return Ok(PullMessagesResponse::default()) };
        self.counters.messages.fetch_add(1, Ordering::Relaxed);
        Ok(PullMessagesResponse {
            messages_list: vec![message.message.clone()],
            message_object_trees: vec![message.tree.clone()],
            reconnect: None,
        })
    }

    /// The message of a task, the same one where it was sent before.
    async fn message(&self, visit: &Visit, task: Arc<Task>) -> Result<Option<Arc<Outgoing>>, Refusal> {
        if let Some((sent, message)) = &visit.desk().sent
            && sent.number == task.number
        {
            return Ok(Some(Arc::clone(message)));
        }
        let Some((kind, sheet, config)) = order(&task.work) else { return Ok(None) };
        let arrays = self.shelf.arrays(sheet).await?;
        let metadata = Metadata {
            run_id: task.run.0,
            src_node_id: SERVER,
            dst_node_id: visit.id,
            group_id: task.round.to_string(),
            ttl: MESSAGE_LIFE.as_secs_f64(),
            message_type: kind.to_owned(),
            created_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            ..Metadata::default()
        };
        let message = Arc::new(Outgoing::new(metadata, task.round, config, arrays));
        let mut desk = visit.desk();
        desk.upload = None;
        desk.sent = Some((task, Arc::clone(&message)));
        Ok(Some(message))
    }

    pub(super) async fn push(
        &self,
        visit: &Visit,
        request: PushMessagesRequest,
    ) -> Result<PushMessagesResponse, Refusal> {
        let ([message], [tree]) = (request.messages_list.as_slice(), request.message_object_trees.as_slice()) else {
            return Err(Refusal::Malformed);
        };
        let metadata = message.metadata.as_ref().ok_or(Refusal::Malformed)?;
        let sent = visit.desk().sent.clone();
        let is_reply = |sent: &Outgoing| {
            let to = sent.message.metadata.as_ref();
            to.is_some_and(|to| to.run_id == metadata.run_id && to.message_id == metadata.reply_to_message_id)
                && metadata.src_node_id == visit.id
        };
        let (task, sent) = sent.filter(|(_, sent)| is_reply(sent)).ok_or(Refusal::NotWaited("reply"))?;
        let session = session()?;
        if let Some(error) = &message.error {
            let reason: String = error.reason.chars().take(REASON_CHARS_MAX).collect();
            let reason = format!("the SuperNode failed with code {}: {reason}", error.code);
            self.fail(visit, task, session.clone(), reason).await;
            return Ok(pushed(&metadata.message_id, Vec::new(), session));
        }
        let upload = names(tree, self.limits.reply_objects_max).map_err(Refusal::from).and_then(|names| {
            let root = *names.last().expect("a tree has a root");
            if root.hex() != metadata.message_id {
                return Err(Refusal::Malformed);
            }
            let this = (Arc::clone(&task), root, session);
            let known = |id: &_| sent.object(id).cloned();
            Ok(Upload::new(this, &names, known, self.limits.reply_bytes_max, Arc::clone(&self.room)))
        });
        let upload = match upload {
            Ok(upload) => upload,
            Err(refusal) => {
                self.fail(visit, task, String::new(), said(&refusal)).await;
                return Err(refusal);
            }
        };
        let mut desk = visit.desk();
        // A node that has not heard our answer says the same again, and goes on with what it has sent.
        let upload = match desk.upload.take() {
            Some(earlier) if earlier.root == upload.root && earlier.task.number == upload.task.number => earlier,
            _ => upload,
        };
        let lacking = upload.lacking().map(Digest::hex).collect();
        let answer = pushed(&metadata.message_id, lacking, upload.session.clone());
        desk.upload = Some(upload);
        Ok(answer)
    }

    pub(super) async fn put(&self, visit: &Visit, request: PushObjectRequest) -> Result<bool, Refusal> {
        let id = parse_id(&request.object_id).map_err(|_| Refusal::Malformed)?;
        let content = match request.object_content.len() {
            length if length <= COPIED_BYTES_MAX => Bytes::copy_from_slice(&request.object_content),
            _ => request.object_content,
        };
        let hashed = content.clone();
        let is_it = match content.len() {
            length if length <= COPIED_BYTES_MAX => id_of(&hashed) == id,
            _ => spawn_blocking(move || id_of(&hashed) == id).await.unwrap_or(false),
        };
        let (put, ended) = {
            let mut desk = visit.desk();
            let is_done = desk.done.as_ref() == Some(&request.session_id);
            match &mut desk.upload {
                Some(upload) if upload.session == request.session_id => {
                    let put = if is_it { upload.put(id, content) } else { Put::Wrong };
                    (put, if put.ends() { desk.upload.take() } else { None })
                }
                _ if is_done => return Ok(true),
                _ => return Err(Refusal::NotWaited("object")),
            }
        };
        let refusal = match put {
            Put::Kept => return Ok(true),
            Put::Unwanted => return Ok(false),
            Put::Full => return Err(Refusal::Busy("too many replies are coming in".to_owned())),
            Put::Whole => None,
            Put::TooLarge => Some(Refusal::TooLarge { max: self.limits.reply_bytes_max }),
            Put::Wrong => Some(Refusal::WrongObject),
        };
        let upload = ended.expect("it was taken for what ends it");
        match refusal {
            None => {
                self.finish(visit, upload).await;
                Ok(true)
            }
            Some(refusal) => {
                // Whoever waits for it learns now that it will not come.
                self.fail(visit, Arc::clone(&upload.task), String::new(), said(&refusal)).await;
                Err(refusal)
            }
        }
    }

    /// Hands in a reply that is whole.
    async fn finish(&self, visit: &Visit, mut upload: Upload) {
        let (task, root, contents) = (Arc::clone(&upload.task), upload.root, upload.take_contents());
        let (bytes_max, asked) = (self.limits.reply_bytes_max, Arc::clone(&task));
        let read = spawn_blocking(move || match &asked.work {
            Work::Evaluate { .. } => incoming::evaluate(&root, &contents),
            _ => incoming::fit(&root, &contents, bytes_max),
        });
        let reply = match read.await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => Reply::Failed(said(&error)),
            Err(error) => {
                error!(%error, "a reply of a SuperNode could not be read");
                Reply::Failed("the reply could not be read".to_owned())
            }
        };
        self.hand_in(visit, task, std::mem::take(&mut upload.session), reply).await;
    }

    async fn fail(&self, visit: &Visit, task: Arc<Task>, session: String, reason: String) {
        warn!(node = visit.id, task = task.number, reason, "a SuperNode has no answer to a task");
        self.hand_in(visit, task, session, Reply::Failed(reason)).await;
    }

    /// The task is done with, and so is what the node was sent with it.
    async fn hand_in(&self, visit: &Visit, task: Arc<Task>, session: String, reply: Reply) {
        {
            let mut desk = visit.desk();
            desk.done = Some(session).filter(|session| !session.is_empty());
            desk.upload = None;
            if desk.sent.as_ref().is_some_and(|(sent, _)| sent.number == task.number) {
                desk.sent = None;
            }
        }
        self.counters.replies.fetch_add(1, Ordering::Relaxed);
        visit.answer(task, reply).await;
    }
}

/// What a node is asked, for which weights and with what.
pub(super) fn order(work: &Work) -> Option<(&'static str, &Arc<Sheet>, &Config)> {
    match work {
        Work::Fit { weights, config } => Some(("train", weights, config)),
        Work::Evaluate { weights, config } => Some(("evaluate", weights, config)),
        Work::Parameters { .. } | Work::Leave => None,
    }
}

fn session() -> Result<String, Refusal> {
    let number = getrandom::u64().map_err(|_| Refusal::Busy("the system has no random numbers".to_owned()))?;
    Ok(format!("{number:016x}"))
}

fn pushed(message_id: &str, objects_to_push: Vec<String>, session_id: String) -> PushMessagesResponse {
    let results = [(message_id.to_owned(), 0)].into();
    PushMessagesResponse { results, objects_to_push, session_id, reconnect: None }
}
