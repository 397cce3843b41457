//! Where messages go.
//!
//! ```text
//! v1/{tenant}/{device}/desired       down: a signed order
//! v1/{tenant}/{device}/cmd           down: signed commands, in their order
//! v1/{tenant}/{device}/learn         down: signed invitations to learn
//! v1/{tenant}/{device}/receipt       down: what the service has stored
//! v1/{tenant}/{device}/up/state      up: reports
//! v1/{tenant}/{device}/up/event      up: events
//! v1/{tenant}/{device}/presence      up, retained, and the will: `online` or `offline`
//! ```

use std::fmt;
use std::str::FromStr;

use crate::{DeviceId, DeviceIdError};

const VERSION: &str = "v1";

/// The tenant of a service that has one.
pub const TENANT: &str = "default";

/// More than any message of this protocol has.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What a device publishes as its presence.
pub const ONLINE: &[u8] = b"online";
/// What its will says.
pub const OFFLINE: &[u8] = b"offline";

/// Which of a device's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Desired,
    Command,
    Learn,
    Receipt,
    State,
    Event,
    Presence,
}

impl Channel {
    pub const ALL: [Self; 7] =
        [Self::Desired, Self::Command, Self::Learn, Self::Receipt, Self::State, Self::Event, Self::Presence];

    /// Whether the device publishes it; it subscribes to the others.
    pub fn is_up(self) -> bool {
        matches!(self, Self::State | Self::Event | Self::Presence)
    }

    fn levels(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Command => "cmd",
            Self::Learn => "learn",
            Self::Receipt => "receipt",
            Self::State => "up/state",
            Self::Event => "up/event",
            Self::Presence => "presence",
        }
    }
}

/// A topic of a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// Named by the same rules as a device.
    pub tenant: DeviceId,
    pub device: DeviceId,
    pub channel: Channel,
}

impl Topic {
    /// A topic of a service that has one tenant.
    pub fn new(device: DeviceId, channel: Channel) -> Self {
        let tenant = TENANT.parse().expect("the default tenant is a name");
        Self { tenant, device, channel }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}/{}/{}/{}", self.tenant, self.device, self.channel.levels())
    }
}

/// Not a topic of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("the topic is none of a device")]
    Unknown,
    #[error(transparent)]
    Name(#[from] DeviceIdError),
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let mut levels = text.splitn(4, '/');
        let (Some(VERSION), Some(tenant), Some(device), Some(rest)) =
            (levels.next(), levels.next(), levels.next(), levels.next())
        else {
            return Err(TopicError::Unknown);
        };
        let channel = Channel::ALL.into_iter().find(|channel| channel.levels() == rest).ok_or(TopicError::Unknown)?;
        Ok(Self { tenant: tenant.parse()?, device: device.parse()?, channel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_as_they_are_written() {
        for channel in Channel::ALL {
            let topic = Topic::new("gate-7".parse().unwrap(), channel);
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
        assert_eq!(Topic::new("gate-7".parse().unwrap(), Channel::State).to_string(), "v1/default/gate-7/up/state");
    }

    #[test]
    fn what_is_no_topic_of_a_device_is_refused() {
        for text in [
            "",
            "v1",
            "v2/default/gate-7/desired",
            "v1/default/gate-7",
            "v1/default/gate-7/desired/",
            "v1/default/gate-7/up",
            "v1/default/+/desired",
            "v1/#/gate-7/desired",
            "v1/default/gate-7/up/state/more",
            "/v1/default/gate-7/desired",
        ] {
            assert!(text.parse::<Topic>().is_err(), "{text}");
        }
    }
}
