//! The answering end of the control socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use tracing::{debug, warn};

use super::{Command, MESSAGE_BYTES_MAX, Refusal, Request, VERSION};

/// Clients at once; one more is refused with a sentence.
const CLIENTS_MAX: usize = 8;

/// A client that is silent for so long is hung up on, so that forgotten ones do not add up.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// A client that does not read its answers for so long is hung up on.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a command, or says why not. Called on the clients' threads.
pub type Handler = dyn Fn(Command) -> Result<Value, String> + Send + Sync;

#[derive(Debug, Error)]
pub enum ServerError {
    #[error("cannot listen on control socket `{}`: another pipeline does", path.display())]
    InUse { path: PathBuf },
    #[error("cannot listen on control socket `{}`: there is something that is not a socket", path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot listen on control socket `{}`", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Listens until it is dropped, which hangs up on every client, joins every thread and removes the
/// socket.
pub struct Server {
    path: PathBuf,
    /// Of the socket file, so that another's is not removed.
    inode: u64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Box<Handler>,
    stopping: AtomicBool,
    clients: Mutex<Vec<Connected>>,
}

struct Connected {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Server {
    /// Takes the path. A socket that nobody listens on any more is replaced.
    pub fn bind(path: &Path, handler: Box<Handler>) -> Result<Self, ServerError> {
        let listen = |source| ServerError::Listen { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServerError::NotASocket { path: path.to_owned() });
            }
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(ServerError::InUse { path: path.to_owned() }),
            Ok(_) => debug!(path = %path.display(), "replacing a stale control socket"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(listen(error)),
        }
        let listener = bind_private(path).map_err(listen)?;
        let inode = fs::symlink_metadata(path).map_err(listen)?.ino();
        let shared = Arc::new(Shared { handler, stopping: AtomicBool::new(false), clients: Mutex::new(Vec::new()) });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &accepting))
            .map_err(listen)?;
        Ok(Self { path: path.to_owned(), inode, shared, thread: Some(thread) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Binds in a folder that only we can enter and moves the socket out when it is ours alone: between
/// binding and `chmod` it would be open to whoever the umask lets in.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Short, because a socket's path may not exceed 107 bytes.
    let folder = parent.join(format!(".rv{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let inside = folder.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    });
    // Empty on success; on failure it holds at most the socket.
    fs::remove_dir_all(&folder)?;
    bound
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let welcomed = stream.and_then(|stream| welcome(stream, shared));
        if let Err(error) = welcomed {
            warn!(%error, "cannot serve a client of the control socket");
            // Out of descriptors, most likely: a client may hang up meanwhile.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn welcome(mut stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
    clients.retain(|client| !client.thread.is_finished());
    if clients.len() >= CLIENTS_MAX {
        let reason = format!("{CLIENTS_MAX} clients are connected; no more are served");
        return stream.write_all(&answer(0, Err(reason)));
    }
    let serving = HangsUp(stream.try_clone()?);
    let shared = Arc::clone(shared);
    let serve = move || {
        if let Err(error) = serve(&serving.0, &shared) {
            debug!(%error, "a client of the control socket is gone");
        }
    };
    let thread = thread::Builder::new().name("control-client".into()).spawn(serve)?;
    clients.push(Connected { stream, thread });
    Ok(())
}

/// Says aloud that nobody answers any more, also after a panic: the other handle of this socket keeps it open.
struct HangsUp(UnixStream);

impl Drop for HangsUp {
    fn drop(&mut self) {
        drop(self.0.shutdown(Shutdown::Both));
    }
}

fn serve(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = Vec::new();
        (&mut reader).take(MESSAGE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > MESSAGE_BYTES_MAX {
            // Where the next message begins cannot be known.
            let reason = format!("a message has at most {MESSAGE_BYTES_MAX} bytes");
            return writer.write_all(&answer(0, Err(reason)));
        }
        let (id, result) = match Request::parse(&line) {
            Ok(Request { id, command }) => (id, (shared.handler)(command)),
            Err(Refusal { id, reason }) => (id, Err(reason)),
        };
        writer.write_all(&answer(id, result))?;
    }
}

fn answer(id: u64, result: Result<Value, String>) -> Vec<u8> {
    let message = match result {
        Ok(result) => json!({ "version": VERSION, "id": id, "result": result }),
        Err(reason) => json!({ "version": VERSION, "id": id, "error": reason }),
    };
    format!("{message}\n").into_bytes()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        // Wakes the thread that waits for the next client; another program's socket would not.
        let woken = ours && UnixStream::connect(&self.path).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            drop(thread.join());
        }
        let clients = std::mem::take(&mut *self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for Connected { stream, thread } in clients {
            // Only reading ends: an answer that is being written still arrives.
            drop(stream.shutdown(Shutdown::Read));
            drop(thread.join());
        }
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}
