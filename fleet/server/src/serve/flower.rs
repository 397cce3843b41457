//! The doors for clients of Flower, where the settings open them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};
use tracing::{error, warn};

use super::{STATS_EVERY, ServeError, until};
use crate::acceptor::AcceptorLimits;
use crate::flower::nodes::{NodesError, new_id};
use crate::flower::{
    Allowed, JoinDoor, JoinDoorLimits, JoinDoorOptions, JoinDoorStats, NodeDoor, NodeKey, NodeLimits, NodeStats, Nodes,
};
use crate::identity::ServerIdentity;
use crate::learning::Board;
use crate::service::now;
use crate::settings::FlowerDoors;
use crate::store::Store;
use crate::tls;

/// Ports that were taken.
pub(super) struct Listeners {
    pub(super) join: Option<TcpListener>,
    pub(super) nodes: Option<TcpListener>,
}

/// Doors that are open.
pub(super) struct Doors {
    join: Option<JoinDoor>,
    nodes: Option<OpenNodes>,
}

struct OpenNodes {
    door: Arc<NodeDoor>,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<usize>,
}

/// What the doors have counted: nothing of one that is closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DoorStats {
    pub(super) join: JoinDoorStats,
    pub(super) nodes: NodeStats,
}

impl Doors {
    pub(super) fn open(
        listeners: Listeners,
        settings: &FlowerDoors,
        identity: &ServerIdentity,
        (board, store): (&Arc<Board>, Arc<dyn Store>),
        acceptor: &AcceptorLimits,
    ) -> Result<Self, ServeError> {
        let bytes_max = settings.message_bytes_max;
        let join = match listeners.join {
            None => None,
            Some(listener) => {
                let tls = settings.is_encrypted.then(|| tls::flower_config(identity)).transpose()?;
                let limits = JoinDoorLimits {
                    acceptor: acceptor.clone(),
                    message_bytes_max: bytes_max,
                    ..JoinDoorLimits::default()
                };
                Some(JoinDoor::start(JoinDoorOptions { listener, tls, board: Arc::clone(board), limits }))
            }
        };
        let nodes = match listeners.nodes {
            None => None,
            Some(listener) => {
                let tls = settings.is_encrypted.then(|| tls::node_config(identity)).transpose()?;
                let allowed = match &settings.node_keys {
                    Some(path) => Allowed::Listed(read_keys(path)?),
                    None => Allowed::Any,
                };
                let limits = NodeLimits {
                    acceptor: acceptor.clone(),
                    reply_bytes_max: bytes_max as u64,
                    ..NodeLimits::default()
                };
                let door = NodeDoor::new(Arc::clone(board), Arc::new(KnownNodes { store, allowed }), limits);
                let (stop, stopped) = watch::channel(None);
                let task = tokio::spawn(Arc::clone(&door).serve(listener, tls, stopped));
                Some(OpenNodes { door, stop, task })
            }
        };
        Ok(Self { join, nodes })
    }

    fn stats(&self) -> DoorStats {
        DoorStats {
            join: self.join.as_ref().map(JoinDoor::stats).unwrap_or_default(),
            nodes: self.nodes.as_ref().map(|nodes| nodes.door.stats()).unwrap_or_default(),
        }
    }

    /// Keeps them open until the service is told to stop, and sends everybody away.
    pub(super) async fn keep(
        self,
        stats: watch::Sender<DoorStats>,
        mut stopped: watch::Receiver<bool>,
        time: Duration,
    ) {
        let mut seconds = interval(STATS_EVERY);
        loop {
            tokio::select! {
                _ = seconds.tick() => drop(stats.send_replace(self.stats())),
                () = until(&mut stopped) => break,
            }
        }
        let join = async {
            match self.join {
                Some(door) => door.shutdown(time).await,
                None => 0,
            }
        };
        let nodes = async {
            let Some(OpenNodes { stop, task, .. }) = self.nodes else { return 0 };
            stop.send_replace(Some(Instant::now() + time));
            task.await.unwrap_or_else(|error| {
                error!(%error, "the door for SuperNodes ended in a panic");
                0
            })
        };
        let (join, nodes) = tokio::join!(join, nodes);
        if join + nodes > 0 {
            warn!(join, nodes, "connections of Flower's clients were cut");
        }
    }
}

/// SuperNodes that the store knows.
struct KnownNodes {
    store: Arc<dyn Store>,
    allowed: Allowed,
}

impl Nodes for KnownNodes {
    fn id_of(&self, key: &NodeKey) -> Result<u64, NodesError> {
        Ok(self.store.node(key.as_der(), new_id()?, now())?)
    }

    fn key_of(&self, id: u64) -> Result<Option<NodeKey>, NodesError> {
        Ok(self.store.node_key(id)?.map(|key| NodeKey::from_der(&key)).transpose()?)
    }

    fn is_allowed(&self, key: &NodeKey) -> Result<bool, NodesError> {
        Ok(self.allowed.includes(key))
    }

    fn forget(&self, id: u64) -> Result<(), NodesError> {
        Ok(self.store.forget_node(id)?)
    }
}

/// Public keys in a file: in PEM, or a line each as `ssh-keygen` writes them.
fn read_keys(path: &Path) -> Result<BTreeSet<NodeKey>, ServeError> {
    let text = fs::read_to_string(path).map_err(|source| ServeError::Read { path: path.to_owned(), source })?;
    let wrong = || ServeError::Pem { path: path.to_owned(), what: "public keys on P-256 or P-384" };
    let mut keys = BTreeSet::new();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    while let Some(line) = lines.next() {
        let key = if line.starts_with("-----BEGIN") {
            let mut pem = format!("{line}\n");
            for line in lines.by_ref() {
                pem.push_str(&format!("{line}\n"));
                if line.starts_with("-----END") {
                    break;
                }
            }
            NodeKey::from_pem(pem.as_bytes())
        } else {
            NodeKey::from_openssh(line)
        };
        keys.insert(key.map_err(|_| wrong())?);
    }
    if keys.is_empty() { Err(wrong()) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn keys_are_read_and_a_file_without_any_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.pem");
        let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
        let text = format!("# those of the gate\n{}\n{}", keys[0].public_key_pem(), keys[1].public_key_pem());
        fs::write(&path, &text).unwrap();
        let known = read_keys(&path).unwrap();
        assert_eq!(known.len(), 2);
        assert!(known.contains(&NodeKey::from_der(&keys[1].subject_public_key_info()).unwrap()));
        for wrong in ["", "# none\n", "ssh-rsa AAAA", &text[..100]] {
            fs::write(&path, wrong).unwrap();
            assert!(matches!(read_keys(&path), Err(ServeError::Pem { .. })), "{wrong}");
        }
    }
}
