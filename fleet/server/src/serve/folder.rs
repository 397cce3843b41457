//! What a service keeps in its folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use revoada_bundle::partial::sync_folder_of;
use revoada_bundle::sign::{PublicKey, TrustedKeys};
use rustix::fs::{FlockOperation, flock};

use super::ServeError;
use crate::blobs::{BlobLimits, Blobs};
use crate::identity::{Authority, OrderKey};
use crate::service::{Fleet, Principal, now};
use crate::settings::Settings;
use crate::store::{Role, Store, sqlite::Sqlite};

pub(super) const ADMIN_TOKEN: &str = "admin.token";
const ADMIN_PASSWORD: &str = "admin.password";
const ADMIN: &str = "admin";
pub(crate) const DATABASE: &str = "fleet.db";
const LOCK: &str = "lock";
const ORDER_KEY: &str = "orders.key.pem";
const BLOBS: &str = "blobs";
/// Updates of rounds that are under way.
pub(super) const LEARNING: &str = "learning";
/// A package with everything that it brings along is smaller.
const BLOB_BYTES_MAX: u64 = 8 << 30;
const UPLOADS_MAX: usize = 256;
/// How long an upload waits to be resumed.
const UPLOAD_KEPT: Duration = Duration::from_hours(24);

/// An opened folder, which nobody else opens meanwhile.
pub(super) struct Folder {
    pub(super) authority: Authority,
    pub(super) orders: OrderKey,
    pub(super) store: Arc<dyn Store>,
    /// Decides which devices are canaries, where no policy was stored yet.
    pub(super) seed: u64,
    /// Held for as long as the folder is used.
    pub(super) lock: File,
}

impl Folder {
    /// Opens a folder, and makes what is missing in it.
    pub(super) fn open(path: &Path) -> Result<Self, ServeError> {
        let folder_error = |source| ServeError::Folder { path: path.to_owned(), source };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(folder_error)?;
        let lock = lock(path)?;
        let authority = match Authority::load(path) {
            Err(error) if error.is_missing() => Authority::create(path)?,
            authority => authority?,
        };
        let orders = path.join(ORDER_KEY);
        let orders = if orders.exists() { OrderKey::load(&orders)? } else { OrderKey::create(&orders)? };
        let store = Arc::new(Sqlite::open(&path.join(DATABASE))?);
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| folder_error(io::Error::other(error.to_string())))?;
        Ok(Self { authority, orders, store, seed: u64::from_le_bytes(seed), lock })
    }

    pub(super) fn blobs(&self, settings: &Settings) -> Result<Blobs, ServeError> {
        let folder = settings.folder.join(BLOBS);
        fs::create_dir_all(&folder).map_err(|source| ServeError::Folder { path: folder.clone(), source })?;
        let limits = BlobLimits {
            quota_bytes: settings.blob_bytes_max,
            blob_bytes_max: BLOB_BYTES_MAX,
            uploads_max: UPLOADS_MAX,
            kept: UPLOAD_KEPT,
        };
        Ok(Blobs::open(&folder, Arc::clone(&self.store), limits, now())?)
    }
}

/// Takes a folder for this process, for as long as the file is open.
pub(crate) fn lock(path: &Path) -> Result<File, ServeError> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK));
    let lock = opened.map_err(|source| ServeError::Folder { path: path.to_owned(), source })?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(error) => Err(ServeError::Folder { path: path.to_owned(), source: error.into() }),
    }
}

/// Who may sign what is rolled out.
pub(super) fn trusted(settings: &Settings) -> Result<Vec<PublicKey>, ServeError> {
    Ok(TrustedKeys::read_all(&settings.trusted)?)
}

/// Makes an administrator where nobody is there yet: a user `admin` with a password in a file, whose path is returned, and
/// an API token in another one.
pub(super) fn make_administrator(fleet: &Fleet, folder: &Path) -> Result<Option<PathBuf>, ServeError> {
    let by = Principal::service();
    let token = folder.join(ADMIN_TOKEN);
    if !fleet.api_tokens(&by)?.iter().any(|token| token.name == ADMIN) {
        let text = fleet.add_api_token(&by, ADMIN, Role::Admin, None)?;
        write_secret(&token, &text)?;
    }
    if !fleet.users(&by)?.is_empty() {
        return Ok(None);
    }
    let password = folder.join(ADMIN_PASSWORD);
    let text = crate::service::secret()?[..24].to_owned();
    write_secret(&password, &text)?;
    fleet.add_user(&by, ADMIN, Role::Admin, &text)?;
    Ok(Some(password))
}

fn write_secret(path: &Path, text: &str) -> Result<(), ServeError> {
    let folder_error = |source| ServeError::Folder { path: path.to_owned(), source };
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        sync_folder_of(path)
    };
    write().map_err(folder_error)
}
