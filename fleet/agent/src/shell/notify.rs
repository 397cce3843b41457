//! What systemd is told, where it started the agent.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The socket of `$NOTIFY_SOCKET`; without one, nobody is told anything.
#[derive(Debug)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// `socket` is a path, or `@` and an abstract name.
    pub fn new(socket: Option<&str>) -> io::Result<Self> {
        let Some(socket) = socket else { return Ok(Self(None)) };
        let address = match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        Ok(Self(Some((UnixDatagram::unbound()?, address))))
    }

    /// The agent is up.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// The agent is alive.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The agent ends because it was asked to.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, word: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(word.as_bytes(), address) {
            tracing::debug!(%error, word, "cannot notify systemd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_as_one_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(path.to_str()).unwrap();
        let mut buffer = [0; 64];
        for (say, word) in [(Notify::ready as fn(&Notify), "READY=1"), (Notify::alive, "WATCHDOG=1")] {
            say(&notify);
            let length = systemd.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], word.as_bytes());
        }
        Notify::new(None).unwrap().ready();
    }
}
