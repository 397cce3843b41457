//! What goes out to devices.

use std::fmt;
use std::sync::Arc;

use revoada_bundle::hash;
use revoada_bundle::sign::{Purpose, SecretKey};
use revoada_proto::{Command, DeviceId, Dispatch, Order, Signed, Topic};

/// Carries messages to devices: the one transport.
pub trait Post: Send + Sync {
    /// Hands a message over. That it arrives is not promised: what must is sent again until it is answered.
    fn post(&self, topic: &Topic, payload: Vec<u8>);

    /// Ends the connection of a device, so that it is asked again who it is.
    fn disconnect(&self, device: &DeviceId);
}

/// Signs what devices are told, so that nobody between can.
#[derive(Clone)]
pub struct Signer(Arc<SecretKey>);

impl Signer {
    pub fn new(key: SecretKey) -> Self {
        Self(Arc::new(key))
    }

    pub fn order(&self, order: &Dispatch<Order>) -> Signed {
        self.sign(Purpose::Order, order.encode())
    }

    pub fn command(&self, command: &Dispatch<Command>) -> Signed {
        self.sign(Purpose::Command, command.encode())
    }

    fn sign(&self, purpose: Purpose, payload: Vec<u8>) -> Signed {
        let signature = self.0.sign(purpose, hash(&payload)).to_bytes().expect("a signature just made has 64 bytes");
        Signed { payload, signature }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
