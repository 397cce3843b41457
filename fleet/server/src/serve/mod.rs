//! The running service: the folder that it keeps, the ports that it opens, and the threads between them.
//!
//! A folder that is empty becomes a service: an authority, a key that signs orders, a database, an administrator. All ports
//! are taken before anything is served, so that one in use is found at once.

mod carrier;
mod desk;
mod flower;
mod folder;
mod housekeeping;
mod metrics;
mod operators;
mod shelf;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use revoada_bundle::sign::{PublicKey, SecretKey};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::acceptor::AcceptorLimits;
use crate::api::Api;
use crate::broker::{Broker, BrokerLimits, BrokerOptions, BrokerStats, Incoming};
use crate::device_port::{DevicePort, DevicePortLimits, DevicePortOptions, DevicePortStats};
use crate::identity::IdentityError;
use crate::learning::{Board, Examiner, ExaminerDesk, Learners, Releaser};
use crate::service::{Fleet, ServiceError, Validity, tell_webhooks};
use crate::settings::Settings;
use crate::store::sqlite::{self, Sqlite};
use crate::store::{StoreError, Upkeep};
use crate::tls::{self, Admission, TlsError};

use carrier::Carrier;
use desk::Desk;
use flower::Doors;
use folder::Folder;
use housekeeping::House;
use shelf::Shelf;

/// What is taken from the broker at once and kept in one transaction.
const BATCH_MAX: usize = 512;
/// How long what is under way may take to end once the service is told to stop.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(5);
/// Of all that learn at once.
const PARTICIPANTS_MAX: usize = 100_000;
/// How old figures of `/metrics` may be.
const STATS_EVERY: Duration = Duration::from_secs(1);
/// Of a command that nobody said more of.
const COMMAND_VALIDITY: Duration = Duration::from_mins(10);

/// A service that runs.
#[derive(Debug)]
pub struct Service {
    pub fleet: Arc<Fleet>,
    /// Where those who learn wait.
    pub board: Arc<Board>,
    pub addresses: Addresses,
    /// Where the administrator's API token is.
    pub admin_token: PathBuf,
    /// Where the password of the user `admin` is; `None` where there were users before.
    pub admin_password: Option<PathBuf>,
    stop: watch::Sender<bool>,
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
}

/// Where it listens: with the ports it was given where 0 was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub mqtt: SocketAddr,
    pub devices: SocketAddr,
    pub operators: SocketAddr,
    /// For clients of Flower, where it is open.
    pub join: Option<SocketAddr>,
    /// For SuperNodes of Flower, where it is open.
    pub nodes: Option<SocketAddr>,
}

#[derive(Debug, Error)]
pub enum ServeError {
    #[error("cannot use the folder `{path}`")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("there is no fleet service in `{path}`")]
    NoService { path: PathBuf },
    #[error("another service uses the folder `{path}`")]
    InUse { path: PathBuf },
    #[error("cannot listen on `{address}`")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use the certificate or the key of the operators' port")]
    OperatorsTls(#[source] TlsError),
    #[error("cannot read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{path}` holds no {what} in PEM")]
    Pem { path: PathBuf, what: &'static str },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Key(#[from] revoada_bundle::sign::KeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Blobs(#[from] crate::blobs::BlobError),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl Service {
    /// Opens everything and serves, until it is [stopped](Self::stop).
    pub async fn start(settings: &Settings) -> Result<Self, ServeError> {
        let folder = Folder::open(&settings.folder)?;
        let folder_seed = folder.seed;
        let mqtt = listen(settings.mqtt).await?;
        let devices = listen(settings.devices).await?;
        let operators = listen(settings.operators.address).await?;
        let doors = flower::Listeners {
            join: listen_where(settings.flower.join).await?,
            nodes: listen_where(settings.flower.nodes).await?,
        };
        let learning_key = settings.learning_key.as_deref().map(SecretKey::load).transpose()?;
        let operators_tls = operators::tls(&settings.operators)?;
        let local = |listener: &TcpListener, address| {
            listener.local_addr().map_err(|source| ServeError::Listen { address, source })
        };
        let addresses = Addresses {
            mqtt: local(&mqtt, settings.mqtt)?,
            devices: local(&devices, settings.devices)?,
            operators: local(&operators, settings.operators.address)?,
            join: doors.join.as_ref().and_then(|listener| listener.local_addr().ok()),
            nodes: doors.nodes.as_ref().and_then(|listener| listener.local_addr().ok()),
        };

        let identity = folder.authority.issue_server(&settings.names)?;
        let (broker_tls, devices_tls) =
            (tls::broker_config(&folder.authority, &identity)?, tls::device_port_config(&folder.authority, &identity)?);
        let root = folder.authority.fingerprint();
        let order_key = folder.orders.public();
        let (carrier, outgoing) = Carrier::new();
        let validity = Validity {
            orders: settings.order_validity,
            commands: COMMAND_VALIDITY,
            certificate_renewal: settings.certificate_renewal,
        };
        let blobs = Arc::new(folder.blobs(settings)?);
        let (board, heard) = Board::new(PARTICIPANTS_MAX);
        let (fleet, notices) = Fleet::open(
            Arc::clone(&folder.store),
            Arc::new(carrier),
            Arc::clone(&board),
            folder.orders,
            validity,
            &settings.limits,
            folder.seed,
        )?;
        let fleet = Arc::new(fleet);
        let admin_password = folder::make_administrator(&fleet, &settings.folder)?;

        let acceptor = AcceptorLimits {
            connections_max: settings.connections_max,
            connections_per_second_max: settings.connects_per_second_max,
            ..AcceptorLimits::default()
        };
        let admission: Arc<dyn Admission> = Arc::<Fleet>::clone(&fleet);
        let limits = BrokerLimits { acceptor: acceptor.clone(), ..BrokerLimits::default() };
        let options = BrokerOptions { listener: mqtt, tls: broker_tls, admission: Arc::clone(&admission), limits };
        let (broker, incoming) = Broker::start(options);
        let doors = Doors::open(doors, &settings.flower, &identity, (&board, Arc::clone(&folder.store)), &acceptor)?;
        let desk = Desk {
            fleet: Arc::clone(&fleet),
            blobs: Arc::clone(&blobs),
            board: Arc::clone(&board),
            authority: folder.authority,
            order_key,
            validity: settings.certificate_validity,
            broker_port: addresses.mqtt.port(),
        };
        let port = DevicePort::start(DevicePortOptions {
            listener: devices,
            tls: devices_tls,
            admission,
            service: Arc::new(desk),
            blobs: Arc::new(Shelf { fleet: Arc::clone(&fleet), blobs: Arc::clone(&blobs) }),
            limits: DevicePortLimits {
                plan_bytes_max: desk::PLAN_BYTES_MAX as u64,
                update_bytes_max: desk::UPDATE_BYTES_MAX as u64,
                acceptor,
                enrolments_per_second_max: settings.enrolments_per_second_max,
                download_bytes_per_second: settings.download_bytes_per_second_max,
                ..DevicePortLimits::default()
            },
        });
        let trusted: Arc<[PublicKey]> = folder::trusted(settings)?.into();
        let releaser = Arc::new(Releaser {
            fleet: Arc::clone(&fleet),
            blobs: Arc::clone(&blobs),
            trusted: Arc::clone(&trusted),
            key: learning_key,
        });
        let (examiner_desk, requests) = ExaminerDesk::new();
        let examiner = Examiner {
            fleet: Arc::clone(&fleet),
            board: Arc::clone(&board),
            releaser: Arc::clone(&releaser),
            pictures: settings.pictures.clone(),
            requests,
            runtime: Handle::current(),
        };
        let api = Api {
            fleet: Arc::clone(&fleet),
            blobs: Arc::clone(&blobs),
            root,
            trusted,
            is_encrypted: settings.operators.tls.is_some(),
            releaser,
            pictures: Arc::new(settings.pictures.clone()),
        };

        let (broker_stats, port_stats, door_stats, ports) = metrics::stats();
        let (stop, stopped) = watch::channel(false);
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = vec![
            spawn("ingest", {
                let fleet = Arc::clone(&fleet);
                move || ingest(&fleet, incoming)
            })?,
            spawn("planner", {
                let (fleet, is_over) = (Arc::clone(&fleet), Arc::clone(&is_over));
                move || fleet.keep_planning(|| is_over.load(Ordering::Relaxed))
            })?,
            spawn("learning", {
                let (fleet, blobs, runtime) = (Arc::clone(&fleet), Arc::clone(&blobs), Handle::current());
                let folder = settings.folder.join(folder::LEARNING);
                let board = Arc::clone(&board);
                let (seed, examiner) = (folder_seed, examiner_desk);
                let learners = Learners { fleet, blobs, board, heard, folder, runtime, seed, examiner };
                let is_over = Arc::clone(&is_over);
                move || learners.keep(|| is_over.load(Ordering::Relaxed))
            })?,
            spawn("examiner", {
                let is_over = Arc::clone(&is_over);
                move || examiner.keep(|| is_over.load(Ordering::Relaxed))
            })?,
            spawn("webhooks", move || tell_webhooks(notices))?,
            spawn("housekeeping", {
                let house = House { fleet: Arc::clone(&fleet), blobs, runtime: Handle::current() };
                let is_over = Arc::clone(&is_over);
                move || house.keep(|| is_over.load(Ordering::Relaxed))
            })?,
        ];
        let task = tokio::spawn(run(
            (broker, broker_stats),
            (port, port_stats),
            outgoing,
            doors.keep(door_stats, stopped.clone(), SHUTDOWN_TIME_MAX),
            operators::serve(operators, operators_tls, api, ports, stopped.clone()),
            stopped,
            folder.lock,
        ));
        info!(mqtt = %addresses.mqtt, devices = %addresses.devices, operators = %addresses.operators, "serving");
        let admin_token = settings.folder.join(folder::ADMIN_TOKEN);
        Ok(Self { fleet, board, addresses, admin_token, admin_password, stop, is_over, task, threads })
    }

    /// Lets nobody in any more, ends what is under way, and waits for it.
    pub async fn stop(self) {
        let Self { fleet, stop, is_over, task, threads, .. } = self;
        stop.send_replace(true);
        is_over.store(true, Ordering::Relaxed);
        fleet.close();
        if let Err(error) = task.await {
            error!(%error, "the service ended in a panic");
        }
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    error!("a thread of the service panicked");
                }
            }
        });
        if let Err(error) = joined.await {
            error!(%error, "cannot wait for the service's threads");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

async fn listen_where(address: Option<SocketAddr>) -> Result<Option<TcpListener>, ServeError> {
    match address {
        Some(address) => listen(address).await.map(Some),
        None => Ok(None),
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServeError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(ServeError::Thread)
}

/// Serves until it is told to stop, then ends everything in order: operators, devices, broker.
async fn run(
    (broker, broker_stats): (Broker, watch::Sender<BrokerStats>),
    (port, port_stats): (DevicePort, watch::Sender<DevicePortStats>),
    outgoing: mpsc::Receiver<carrier::Outgoing>,
    doors: impl Future<Output = ()>,
    operators: impl Future<Output = ()>,
    mut stopped: watch::Receiver<bool>,
    _lock: std::fs::File,
) {
    let carried = carrier::carry(broker, outgoing, broker_stats, stopped.clone());
    let port = async {
        let mut seconds = tokio::time::interval(STATS_EVERY);
        loop {
            tokio::select! {
                _ = seconds.tick() => drop(port_stats.send_replace(port.stats())),
                () = until(&mut stopped) => break,
            }
        }
        let cut = port.shutdown(SHUTDOWN_TIME_MAX).await;
        if cut > 0 {
            warn!(cut, "connections of the device port were cut");
        }
    };
    tokio::join!(operators, port, doors, carried);
}

/// Until the service is told to stop, or is dropped, which is the same.
async fn until(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stop| *stop).await);
}

/// Takes what devices say, as much at once as has come, until the broker is gone.
fn ingest(fleet: &Fleet, mut incoming: mpsc::Receiver<Incoming>) {
    while let Some(first) = incoming.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = incoming.try_recv()
        {
            batch.push(next);
        }
        fleet.ingest(batch);
    }
}

/// Copies a service's database while it is in use, or not.
pub fn backup(folder: &Path, target: &Path) -> Result<(), ServeError> {
    let database = folder.join(folder::DATABASE);
    if !database.is_file() {
        return Err(ServeError::NoService { path: folder.to_owned() });
    }
    Ok(Sqlite::open(&database)?.backup(target)?)
}

/// Puts a backup where a service has no database, while nobody uses the folder.
pub fn restore(folder: &Path, source: &Path) -> Result<(), ServeError> {
    std::fs::create_dir_all(folder).map_err(|source| ServeError::Folder { path: folder.to_owned(), source })?;
    let _lock = folder::lock(folder)?;
    Ok(sqlite::restore(source, &folder.join(folder::DATABASE))?)
}
