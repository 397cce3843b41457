//! What goes out to devices.

use revoada_proto::{DeviceId, Topic};

/// Carries messages to devices: the one transport.
pub trait Post: Send + Sync {
    /// Hands a message over. That it arrives is not promised: what must is sent again until it is answered.
    fn post(&self, topic: &Topic, payload: Vec<u8>);

    /// Ends the connection of a device, so that it is asked again who it is.
    fn disconnect(&self, device: &DeviceId);
}
