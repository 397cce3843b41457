//! How many of something there may be at once, for one device and for all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use revoada_proto::DeviceId;

use crate::acceptor::count;

#[derive(Debug)]
pub(super) struct Quota {
    per_device_max: usize,
    max: usize,
    taken: Mutex<Taken>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<DeviceId, usize>,
}

/// Which bound there is no place at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Device,
    All,
}

/// One that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    quota: Arc<Quota>,
    device: DeviceId,
}

impl Quota {
    pub(super) fn new(per_device_max: usize, max: usize) -> Arc<Self> {
        Arc::new(Self { per_device_max, max, taken: Mutex::default(), refused: AtomicU64::new(0) })
    }

    pub(super) fn take(self: &Arc<Self>, device: &DeviceId) -> Result<Place, Full> {
        let mut taken = self.lock();
        let full = if taken.of.get(device).is_some_and(|of| *of >= self.per_device_max) {
            Some(Full::Device)
        } else if taken.all >= self.max {
            Some(Full::All)
        } else {
            None
        };
        if let Some(full) = full {
            count(&self.refused);
            return Err(full);
        }
        taken.all += 1;
        *taken.of.entry(device.clone()).or_default() += 1;
        Ok(Place { quota: Arc::clone(self), device: device.clone() })
    }

    pub(super) fn taken(&self) -> u64 {
        self.lock().all as u64
    }

    /// Since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.quota.lock();
        taken.all -= 1;
        if let Some(of) = taken.of.get_mut(&self.device) {
            *of -= 1;
            if *of == 0 {
                taken.of.remove(&self.device);
            }
        }
    }
}
