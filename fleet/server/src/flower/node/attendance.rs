//! Which nodes are there, and who may be.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use revoada_federated::Participant;
use revoada_proto::flower::{Node, SendNodeHeartbeatRequest, SendNodeHeartbeatResponse};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;
use tracing::{error, info};

use super::refusal::Refusal;
use super::visit::{Visit, attend};
use super::{NodeDoor, said};
use crate::flower::node_auth::NodeKey;
use crate::flower::nodes::{Nodes, NodesError};
use crate::learning::Door;

/// Where a node does not say how often it is heard of.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

impl NodeDoor {
    /// Asks what is kept of nodes.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Nodes) -> Result<T, NodesError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let nodes = Arc::clone(&self.nodes);
        let answered = spawn_blocking(move || question(&*nodes)).await;
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                error!(error = %said(&*error), "cannot read or keep what is known of SuperNodes");
                Err(Refusal::Busy("what is known of SuperNodes cannot be read or kept now".to_owned()))
            }
            Err(error) => {
                error!(%error, "a question about SuperNodes ended in a panic");
                Err(Refusal::Busy("what is known of SuperNodes cannot be read now".to_owned()))
            }
        }
    }

    /// The number of a node that may take part.
    pub(super) async fn admit(&self, key: &NodeKey, sent: &[u8]) -> Result<u64, Refusal> {
        if NodeKey::from_pem(sent).as_ref() != Ok(key) {
            return Err(Refusal::Foreign);
        }
        let key = key.clone();
        let asked = move |nodes: &dyn Nodes| Ok(if nodes.is_allowed(&key)? { Some(nodes.id_of(&key)?) } else { None });
        self.ask(asked).await?.ok_or(Refusal::NotListed)
    }

    pub(super) fn silence_max(&self, interval_s: f64) -> Duration {
        let interval = match Duration::try_from_secs_f64(interval_s) {
            Ok(Duration::ZERO) => HEARTBEAT_INTERVAL,
            Ok(interval) => interval,
            // Beyond what a duration holds, for those who would rather not say.
            Err(_) if interval_s > 0.0 => Duration::MAX,
            Err(_) => HEARTBEAT_INTERVAL,
        };
        let interval = interval.min(self.limits.heartbeat_interval_max);
        // Who waits for messages is there.
        interval.saturating_mul(self.limits.heartbeats_missed_max).max(self.limits.hold * 2)
    }

    pub(super) fn arrive(
        self: &Arc<Self>,
        id: u64,
        key: NodeKey,
        silence_max: Duration,
    ) -> Result<Arc<Visit>, Refusal> {
        let participant = Participant(format!("node/{id}"));
        let presence = self.board.arrive(participant, Door::Node).map_err(|error| Refusal::Busy(said(&error)))?;
        let (visit, attendance) = Visit::new((id, key), presence, silence_max, Instant::now());
        if let Some(earlier) = self.visits().insert(id, Arc::clone(&visit)) {
            earlier.leave();
        }
        info!(node = id, "a SuperNode has come");
        let (door, attended) = (Arc::downgrade(self), Arc::clone(&visit));
        let mut attending = self.attending.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = attending.try_join_next() {
            report(ended);
        }
        attending.spawn(async move {
            attend(Arc::clone(&attended), attendance).await;
            if let Some(door) = door.upgrade() {
                door.forget(&attended);
            }
        });
        Ok(visit)
    }

    /// Of the visits of a node only the one that is over.
    fn forget(&self, visit: &Arc<Visit>) {
        let mut visits = self.visits();
        if visits.get(&visit.id).is_some_and(|known| Arc::ptr_eq(known, visit)) {
            visits.remove(&visit.id);
            info!(node = visit.id, "a SuperNode has gone");
        }
    }

    /// The visit of whoever asks, which after a restart of ours begins with it.
    pub(super) async fn visit(self: &Arc<Self>, node: Option<Node>, key: NodeKey) -> Result<Arc<Visit>, Refusal> {
        let id = node.ok_or(Refusal::Malformed)?.node_id;
        let known = self.visits().get(&id).cloned();
        if let Some(visit) = known.filter(|visit| !visit.is_over()) {
            if visit.key != key {
                return Err(Refusal::Foreign);
            }
            visit.touch(Instant::now());
            return Ok(visit);
        }
        let owner = key.clone();
        let asked = move |nodes: &dyn Nodes| {
            let is_it = nodes.key_of(id)?.as_ref() == Some(&owner);
            Ok((is_it, is_it && nodes.is_allowed(&owner)?))
        };
        match self.ask(asked).await? {
            (false, _) => Err(Refusal::Foreign),
            (true, false) => Err(Refusal::Revoked),
            (true, true) => self.arrive(id, key, self.silence_max(HEARTBEAT_INTERVAL.as_secs_f64())),
        }
    }

    pub(super) async fn depart(&self, id: u64, key: &NodeKey) -> Result<(), Refusal> {
        let known = self.visits().get(&id).cloned();
        let owner = match &known {
            Some(visit) => Some(visit.key.clone()),
            None => self.ask(move |nodes| nodes.key_of(id)).await?,
        };
        if owner.as_ref() != Some(key) {
            return Err(Refusal::Foreign);
        }
        if let Some(visit) = known {
            visit.leave();
            self.forget(&visit);
        }
        Ok(())
    }

    pub(super) async fn heartbeat(
        self: &Arc<Self>,
        request: SendNodeHeartbeatRequest,
        key: NodeKey,
    ) -> Result<SendNodeHeartbeatResponse, Refusal> {
        let visit = self.visit(request.node, key.clone()).await?;
        // A list may have changed since the node came.
        if !self.ask(move |nodes| nodes.is_allowed(&key)).await? {
            visit.leave();
            self.forget(&visit);
            return Err(Refusal::Revoked);
        }
        visit.set_silence_max(self.silence_max(request.heartbeat_interval));
        visit.touch(Instant::now());
        self.shelf.tidy();
        Ok(SendNodeHeartbeatResponse { success: true })
    }

    /// Sends everybody away, and waits until they have gone.
    pub(super) async fn close(&self) {
        for (_, visit) in std::mem::take(&mut *self.visits()) {
            visit.leave();
        }
        let mut attending = std::mem::take(&mut *self.attending.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = attending.join_next().await {
            report(ended);
        }
    }
}

pub(super) fn report(ended: Result<(), JoinError>) {
    if let Err(failed) = ended
        && failed.is_panic()
    {
        error!(error = %failed, "the visit of a SuperNode ended in a panic");
    }
}
