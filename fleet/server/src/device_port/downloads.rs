//! How many downloads there may be at once, and how fast all of them together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use revoada_proto::DeviceId;
use tokio::time::Instant;

use super::DevicePortLimits;
use super::activity::UnderWay;
use crate::acceptor::count;
use crate::bucket::Bucket;

/// How often a connection that waits for the others is marked as alive.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Downloads {
    per_device_max: usize,
    max: usize,
    under_way: Mutex<Counts>,
    rate: Option<Mutex<Bucket>>,
    pub(super) refused: AtomicU64,
    pub(super) bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<DeviceId, usize>,
}

/// Which bound a download is refused at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Device,
    Port,
}

/// One that is under way, until it is dropped.
pub(super) struct Download {
    downloads: Arc<Downloads>,
    device: DeviceId,
}

impl Downloads {
    pub(super) fn new(limits: &DevicePortLimits) -> Arc<Self> {
        Arc::new(Self {
            per_device_max: limits.downloads_per_device_max,
            max: limits.downloads_max,
            under_way: Mutex::default(),
            rate: limits.download_bytes_per_second.map(|rate| Mutex::new(Bucket::new(rate, Instant::now()))),
            refused: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    pub(super) fn begin(self: &Arc<Self>, device: &DeviceId) -> Result<Download, Full> {
        let mut under_way = lock(&self.under_way);
        let full = if under_way.of.get(device).is_some_and(|of| *of >= self.per_device_max) {
            Some(Full::Device)
        } else if under_way.all >= self.max {
            Some(Full::Port)
        } else {
            None
        };
        if let Some(full) = full {
            count(&self.refused);
            return Err(full);
        }
        under_way.all += 1;
        *under_way.of.entry(device.clone()).or_default() += 1;
        Ok(Download { downloads: Arc::clone(self), device: device.clone() })
    }

    pub(super) fn under_way(&self) -> u64 {
        lock(&self.under_way).all as u64
    }
}

impl Download {
    /// Waits until so many bytes may be sent. Whoever waits for that is not idle.
    pub(super) async fn pass(&self, bytes: usize, request: &UnderWay) {
        if let Some(rate) = &self.downloads.rate {
            let mut now = Instant::now();
            let until = now + lock(rate).take(bytes as u64, now);
            while now < until {
                tokio::time::sleep_until(until.min(now + PATIENCE)).await;
                request.touch();
                now = Instant::now();
            }
        }
        self.downloads.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let mut under_way = lock(&self.downloads.under_way);
        under_way.all -= 1;
        if let Some(of) = under_way.of.get_mut(&self.device) {
            *of -= 1;
            if *of == 0 {
                under_way.of.remove(&self.device);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
