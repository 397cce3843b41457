//! The calls of `Fleet`: from bytes to what is asked, and back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use prost::Message as _;
use prost::bytes::Bytes;
use revoada_proto::flower::{
    ActivateNodeRequest, ActivateNodeResponse, ConfirmMessageReceivedRequest, ConfirmMessageReceivedResponse,
    DeactivateNodeRequest, DeactivateNodeResponse, Fab, GetFabRequest, GetFabResponse, GetRunRequest, GetRunResponse,
    PullMessagesRequest, PullObjectRequest, PullObjectResponse, PushMessagesRequest, PushObjectRequest,
    PushObjectResponse, RegisterNodeFleetRequest, RegisterNodeFleetResponse, Run, RunStatus, SendNodeHeartbeatRequest,
    UnregisterNodeFleetRequest, UnregisterNodeFleetResponse,
};
use tokio::time::timeout;
use tracing::debug;

use super::messages::order;
use super::refusal::Refusal;
use super::visit::Visit;
use super::{NodeDoor, said};
use crate::flower::node_auth::authenticate;
use crate::flower::objects::parse_id;
use crate::learning::App;

/// A request that carries no object has a key and a few names.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// So many times what a body may have is read before its sender is cut off.
const EXCESS_MAX: usize = 16;
/// How long the body of a request may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Register,
    Activate,
    Deactivate,
    Unregister,
    Heartbeat,
    PullMessages,
    PushMessages,
    GetRun,
    GetFab,
    PushObject,
    PullObject,
    Confirm,
}

impl Call {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "register-node" => Self::Register,
            "activate-node" => Self::Activate,
            "deactivate-node" => Self::Deactivate,
            "unregister-node" => Self::Unregister,
            "send-node-heartbeat" => Self::Heartbeat,
            "pull-messages" => Self::PullMessages,
            "push-messages" => Self::PushMessages,
            "get-run" => Self::GetRun,
            "get-fab" => Self::GetFab,
            "push-object" => Self::PushObject,
            "pull-object" => Self::PullObject,
            "confirm-message-received" => Self::Confirm,
            _ => return None,
        })
    }
}

impl NodeDoor {
    pub(super) async fn respond(self: &Arc<Self>, call: &str, headers: &HeaderMap, body: Body) -> Response {
        match self.answer(call, headers, body).await {
            Ok(message) => {
                let kind = (header::CONTENT_TYPE, "application/protobuf");
                (StatusCode::OK, [kind], message).into_response()
            }
            Err(refusal) => {
                let counter = match refusal.status() {
                    StatusCode::UNAUTHORIZED => &self.counters.refused_peers,
                    _ if matches!(refusal, Refusal::NotListed) => &self.counters.refused_peers,
                    StatusCode::SERVICE_UNAVAILABLE => &self.counters.busy,
                    _ => &self.counters.refused_requests,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                debug!(call, error = %said(&refusal), "a SuperNode was refused");
                refusal.into_response()
            }
        }
    }

    async fn answer(self: &Arc<Self>, call: &str, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
        let call = Call::named(call).ok_or(Refusal::NoCall)?;
        // Before the body is read: a stranger's costs nothing.
        let key = authenticate(headers, SystemTime::now())?;
        let body = self.read(call, body).await?;
        Ok(match call {
            Call::Register => {
                let request: RegisterNodeFleetRequest = decode(body)?;
                let node_id = self.admit(&key, &request.public_key).await?;
                RegisterNodeFleetResponse { node_id }.encode_to_vec()
            }
            Call::Activate => {
                let request: ActivateNodeRequest = decode(body)?;
                let node_id = self.admit(&key, &request.public_key).await?;
                self.arrive(node_id, key, self.silence_max(request.heartbeat_interval))?;
                ActivateNodeResponse { node_id }.encode_to_vec()
            }
            Call::Deactivate => {
                let request: DeactivateNodeRequest = decode(body)?;
                self.depart(request.node_id, &key).await?;
                DeactivateNodeResponse {}.encode_to_vec()
            }
            Call::Unregister => {
                let request: UnregisterNodeFleetRequest = decode(body)?;
                self.depart(request.node_id, &key).await?;
                self.ask(move |nodes| nodes.forget(request.node_id)).await?;
                UnregisterNodeFleetResponse {}.encode_to_vec()
            }
            Call::Heartbeat => {
                let request: SendNodeHeartbeatRequest = decode(body)?;
                self.heartbeat(request, key).await?.encode_to_vec()
            }
            Call::PullMessages => {
                let request: PullMessagesRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                self.pull(&visit).await?.encode_to_vec()
            }
            Call::PushMessages => {
                let request: PushMessagesRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                self.push(&visit, request).await?.encode_to_vec()
            }
            Call::GetRun => {
                let request: GetRunRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let app = app_of(&visit, request.run_id)?;
                GetRunResponse { run: Some(run(request.run_id, &app)) }.encode_to_vec()
            }
            Call::GetFab => {
                let request: GetFabRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let app = app_of(&visit, request.run_id)?;
                if request.hash_str != app.digest.hex() {
                    return Err(Refusal::NotWaited("program"));
                }
                let fab = Fab { hash_str: request.hash_str, content: app.content.clone(), ..Fab::default() };
                GetFabResponse { fab: Some(fab) }.encode_to_vec()
            }
            Call::PushObject => {
                let request: PushObjectRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let stored = self.put(&visit, request).await?;
                PushObjectResponse { stored }.encode_to_vec()
            }
            Call::PullObject => {
                let request: PullObjectRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let id = parse_id(&request.object_id).map_err(|_| Refusal::Malformed)?;
                let sent = visit.desk().sent.as_ref().map(|(_, message)| Arc::clone(message));
                let content = sent.and_then(|message| message.object(&id).cloned());
                let is_there = content.is_some();
                PullObjectResponse {
                    object_found: is_there,
                    object_available: is_there,
                    object_content: content.unwrap_or_default(),
                }
                .encode_to_vec()
            }
            Call::Confirm => {
                let request: ConfirmMessageReceivedRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let sent = visit.desk().sent.as_ref().map(|(task, message)| (task.number, message.id().hex()));
                if let Some((number, _)) = sent.filter(|(_, id)| *id == request.message_object_id) {
                    visit.confirm(number).await;
                }
                ConfirmMessageReceivedResponse {}.encode_to_vec()
            }
        })
    }

    async fn read(&self, call: Call, body: Body) -> Result<Bytes, Refusal> {
        let is_large = matches!(call, Call::PushObject | Call::PushMessages);
        let max = if is_large { self.limits.body_bytes_max } else { REQUEST_BYTES_MAX };
        let _place = match is_large {
            true => Some(self.bodies.acquire().await.expect("it is never closed")),
            false => None,
        };
        let read = timeout(BODY_TIME_MAX, read_body(body, max)).await;
        read.unwrap_or_else(|_| Err(Refusal::Busy("the request takes too long".to_owned())))
    }
}

/// A body of at most so many bytes. More is read and forgotten, since whoever is cut off while it sends has not heard why and
/// comes again with the same.
async fn read_body(body: Body, max: usize) -> Result<Bytes, Refusal> {
    let said = body.size_hint().exact().and_then(|said| usize::try_from(said).ok()).unwrap_or(0);
    let (mut read, mut length) = (Vec::with_capacity(said.min(max)), 0);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        // The connection is gone, and nobody reads the answer.
        let piece = piece.map_err(|_| Refusal::Malformed)?;
        length += piece.len();
        match length <= max {
            true => read.extend_from_slice(&piece),
            false => read = Vec::new(),
        }
        if length > max.saturating_mul(EXCESS_MAX) {
            break;
        }
    }
    if length > max { Err(Refusal::TooLarge { max: max as u64 }) } else { Ok(read.into()) }
}

fn decode<T: prost::Message + Default>(body: Bytes) -> Result<T, Refusal> {
    T::decode(body).map_err(|_| Refusal::Malformed)
}

/// The program of the run that a node works for.
fn app_of(visit: &Visit, run: u64) -> Result<Arc<App>, Refusal> {
    let sent = visit.desk().sent.as_ref().map(|(task, _)| Arc::clone(task)).filter(|task| task.run.0 == run);
    let app = sent.as_ref().and_then(|task| order(&task.work)).and_then(|(_, sheet, _)| sheet.app().cloned());
    app.ok_or(Refusal::NotWaited("run"))
}

fn run(id: u64, app: &App) -> Run {
    Run {
        run_id: id,
        fab_id: app.id.clone(),
        fab_version: app.version.clone(),
        fab_hash: app.digest.hex(),
        status: Some(RunStatus { status: "running".to_owned(), ..RunStatus::default() }),
        primary_task_type: "flwr-serverapp".to_owned(),
        series_id: id,
    }
}
