//! Who is who: the authority that names devices and servers, and the key that signs what devices are told to do.
//!
//! A device without a clock's battery starts decades wrong. So that it can still check whom it speaks to, the certificates of
//! the authority and of servers hold from 1970 to the end of 9999; those of devices are judged by the server's clock alone,
//! and end.

mod authority;
mod order_key;
mod request;
mod serial;

pub use authority::{Authority, IdentityError, Issued, ServerIdentity, VALIDITY};
pub use order_key::OrderKey;
pub use request::{CertificateRequest, RequestError};
pub use serial::{Serial, SerialError};
