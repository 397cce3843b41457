//! The one port that devices speak HTTP with: certificates, plans and uploads by gRPC, blobs and their signatures by `GET`.
//!
//! A device without a certificate may enrol, ask for the port's health and its description, and nothing else.

mod service;

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;

pub use service::{
    BlobError, BlobSource, DeviceService, Enrolled, Enrolment, MediaType, PlanOffer, PlanSearch, Refusal, Upload,
    UploadError, UploadedAnswer, UploadedPlan,
};

use crate::acceptor::{AcceptorLimits, AcceptorStats};
use crate::tls::Admission;

/// What [`DevicePort::start`] takes.
pub struct DevicePortOptions<S, B> {
    pub listener: TcpListener,
    /// Of [`device_port_config`](crate::tls::device_port_config).
    pub tls: Arc<ServerConfig>,
    pub admission: Arc<dyn Admission>,
    pub service: Arc<S>,
    pub blobs: Arc<B>,
    pub limits: DevicePortLimits,
}

#[derive(Clone, Debug)]
pub struct DevicePortLimits {
    pub acceptor: AcceptorLimits,
    /// Requests that one connection may have under way.
    pub streams_max: u32,
    /// How long a connection may be open without a request, and a download without a byte taken.
    pub idle_max: Duration,
    /// Of an uploaded plan.
    pub plan_bytes_max: u64,
    /// Of what a command asked for.
    pub answer_bytes_max: u64,
    pub downloads_per_device_max: usize,
    /// Of all devices; more are told to come again.
    pub downloads_max: usize,
    /// Of all downloads together; `None` without a bound.
    pub download_bytes_per_second: Option<u64>,
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DevicePortStats {
    pub acceptor: AcceptorStats,
    /// Requests without an admitted certificate that needed one.
    pub refused_peers: u64,
    /// At a bound on downloads.
    pub refused_downloads: u64,
    /// Downloads that are under way.
    pub downloads: u64,
    pub downloaded_bytes: u64,
    /// Downloads and connections that were cut for doing nothing.
    pub idle: u64,
}

/// A running port. It stops when it is dropped, in the middle of what it does.
pub struct DevicePort {}

impl DevicePort {
    pub fn start<S: DeviceService, B: BlobSource>(_options: DevicePortOptions<S, B>) -> Self {
        unimplemented!()
    }

    pub fn stats(&self) -> DevicePortStats {
        unimplemented!()
    }

    /// Lets nobody in any more, lets requests that are under way end, but not after the deadline. Returns how many connections
    /// had to be cut.
    pub async fn shutdown(self, _deadline: Duration) -> usize {
        unimplemented!()
    }
}
