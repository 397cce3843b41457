//! What operators and devices can ask of the fleet service, whatever they ask it through.
//!
//! [`Fleet`] is the service without its sockets: what operators may ask are its methods, each of which takes who asks and
//! refuses what that role may not; what devices say comes in by [`Fleet::ingest`], and [`Fleet::plan`] turns all of it into
//! the next blueprint and its orders. It blocks, and is called from threads that may.
//!
//! What it keeps in memory, the store has too: a service that was killed goes on where it was.

mod alerting;
mod commands;
mod devices;
mod enrolment;
mod ingest;
mod learning;
mod live;
mod password;
mod people;
mod planning;
mod post;
mod registry;
mod rollout_form;
mod rollouts;
mod run_form;
mod throttle;

use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use revoada_core::{Timestamp, causes, sentence_of};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc};

use crate::identity::OrderKey;
use crate::learning::Board;
use crate::planner::Limits;
use crate::store::{Actor, Role, Store, StoreError};

pub(crate) use crate::planner::kind_name;
pub use alerting::{Condition, Notice, tell_webhooks};
pub use devices::{DeviceSummary, DeviceView, Health};
pub use ingest::Counts;
pub use live::Change;
pub(crate) use password::secret;
pub use people::SignedIn;
pub use planning::{Outcome, RolloutProgress};
pub use post::Post;
pub use rollout_form::{
    DurationText, GateForm, MeasureName, RetryForm, RolloutForm, RolloutFormError, SizeText, WaveForm,
};
pub use rollouts::{MemberView, RolloutView, WaveView};
pub use run_form::{
    AppForm, ConfigValue, DevicesForm, PrivacyForm, ReleaseForm, ReleaseRolloutForm, RunForm, RunFormError, SampleText,
    SampleTextError, StrategyForm,
};

use alerting::Raised;
use live::Live;
use throttle::Throttle;

/// Watchers of changes that fall so far behind miss some, and are told.
const CHANGES_MAX: usize = 1024;

/// How long an order or a command holds once it is sent. It is sent again, renewed, as long as it is not followed.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    pub orders: Duration,
    /// Of a command that nobody said more of.
    pub commands: Duration,
    /// A certificate is renewed once so much of its time is left.
    pub certificate_renewal: Duration,
}

/// The service without its sockets.
pub struct Fleet {
    store: Arc<dyn Store>,
    post: Arc<dyn Post>,
    /// Where those who learn wait.
    board: Arc<Board>,
    orders: OrderKey,
    validity: Validity,
    live: RwLock<Live>,
    /// Whether something happened that may change the plan.
    is_due: Mutex<bool>,
    due: Condvar,
    changes: broadcast::Sender<Change>,
    sign_ins: Throttle,
    raised: Mutex<Raised>,
    /// `None` once the service is closed.
    notices: Mutex<Option<mpsc::Sender<Notice>>>,
    counts: Mutex<Counts>,
}

/// Who asks, and what that role may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub actor: Actor,
    pub role: Role,
}

impl Principal {
    /// The service itself, and whoever may read its folder.
    pub fn service() -> Self {
        Self { actor: Actor::Service, role: Role::Admin }
    }

    /// Refuses who may not do what this role may.
    pub fn require(&self, role: Role) -> Result<()> {
        if self.role >= role { Ok(()) } else { Err(ServiceError::Forbidden { needs: role }) }
    }
}

/// Why something was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServiceError {
    #[error("sign in first")]
    Unknown,
    #[error("the name or the password is wrong")]
    SignIn,
    #[error("too many attempts: try again in {} seconds", .wait.as_secs().max(1))]
    TooMany { wait: Duration },
    #[error("this needs the role `{}`", .needs.name())]
    Forbidden { needs: Role },
    #[error("there is no {what} `{name}`")]
    Missing { what: &'static str, name: String },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing { what, name } => Self::Missing { what, name },
            error @ (StoreError::Exists { .. } | StoreError::InUse { .. } | StoreError::LastAdministrator { .. }) => {
                Self::Conflict(error.to_string())
            }
            error @ (StoreError::TooMany { .. } | StoreError::Policy(_)) => Self::Invalid(error.to_string()),
            error => Self::Store(error),
        }
    }
}

pub type Result<T> = std::result::Result<T, ServiceError>;

impl Fleet {
    /// A service that goes on where its store says that it was, and what it has to tell webhooks. `limits` hold from now
    /// on; `seed` only where none was ever set.
    pub fn open(
        store: Arc<dyn Store>,
        post: Arc<dyn Post>,
        board: Arc<Board>,
        orders: OrderKey,
        validity: Validity,
        limits: &Limits,
        seed: u64,
    ) -> Result<(Self, mpsc::Receiver<Notice>)> {
        let now = now();
        let live = Live::load(store.as_ref(), limits, seed, now)?;
        let (notices, to_tell) = mpsc::channel(alerting::NOTICES_MAX);
        let fleet = Self {
            raised: Mutex::new(Raised::load(store.raised_alerts()?)),
            notices: Mutex::new(Some(notices)),
            store,
            post,
            board,
            orders,
            validity,
            live: RwLock::new(live),
            // What was left undone is looked at first.
            is_due: Mutex::new(true),
            due: Condvar::new(),
            changes: broadcast::Sender::new(CHANGES_MAX),
            sign_ins: Throttle::default(),
            counts: Mutex::default(),
        };
        Ok((fleet, to_tell))
    }

    /// What is kept.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Changes from now on, for who watches.
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// What has been counted since the start.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells webhooks nothing any more, so that who does ends.
    pub fn close(&self) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn live(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_mut(&self) -> RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever watches; nobody may.
    pub(crate) fn announce(&self, change: Change) {
        drop(self.changes.send(change));
    }

    /// Has the plan made again soon.
    fn wake(&self) {
        *self.is_due.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.due.notify_one();
    }

    /// Waits until something happened that may change the plan, for no longer than `time_max`. Whether it did.
    pub fn wait(&self, time_max: Duration) -> bool {
        let is_due = self.is_due.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.due.wait_timeout_while(is_due, time_max, |is_due| !*is_due);
        let (mut is_due, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *is_due)
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

/// The service's clock: nanoseconds since the Unix epoch.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A moment of the service's clock as the system's.
pub(crate) fn wall(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(at.as_nanos())
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    sentence_of(causes(error))
}
