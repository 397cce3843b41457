//! The answering end of the control socket, whose words are those of [`revoada_proto::control`].

mod server;

pub use revoada_proto::Label;
pub use revoada_proto::control::{
    Client, ClientError, Command, LABEL_COUNT, LABEL_COUNT_MAX, LABEL_EVERY_MS, LABEL_EVERY_MS_MAX, MESSAGE_BYTES_MAX,
    RECORD_SECONDS_MAX, Refusal, Request, VERSION,
};
pub use server::{Handler, Server, ServerError};

pub(crate) use revoada_proto::control::take_seconds;
