//! Downloads that are under way, and how fast all of them together may be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use revoada_proto::DeviceId;
use tokio::time::Instant;

use super::DevicePortLimits;
use super::activity::UnderWay;
use super::quota::{Full, Place, Quota};
use crate::bucket::Bucket;

/// How often a connection that waits for the others is marked as alive.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Downloads {
    pub(super) quota: Arc<Quota>,
    rate: Option<Mutex<Bucket>>,
    bytes: AtomicU64,
}

/// One that is under way, until it is dropped.
pub(super) struct Download {
    downloads: Arc<Downloads>,
    _place: Place,
}

impl Downloads {
    pub(super) fn new(limits: &DevicePortLimits) -> Arc<Self> {
        Arc::new(Self {
            quota: Quota::new(limits.downloads_per_device_max, limits.downloads_max),
            rate: limits.download_bytes_per_second.map(|rate| Mutex::new(Bucket::new(rate, Instant::now()))),
            bytes: AtomicU64::new(0),
        })
    }

    pub(super) fn begin(self: &Arc<Self>, device: &DeviceId) -> Result<Download, Full> {
        Ok(Download { _place: self.quota.take(device)?, downloads: Arc::clone(self) })
    }

    /// Sent since the start.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Download {
    /// Waits until so many bytes may be sent. Whoever waits for that is not idle.
    pub(super) async fn pass(&self, bytes: usize, request: &UnderWay) {
        if let Some(rate) = &self.downloads.rate {
            let mut now = Instant::now();
            let until = now + rate.lock().unwrap_or_else(PoisonError::into_inner).take(bytes as u64, now);
            while now < until {
                tokio::time::sleep_until(until.min(now + PATIENCE)).await;
                request.touch();
                now = Instant::now();
            }
        }
        self.downloads.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
