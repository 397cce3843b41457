//! Who may say that it is a device, and what builders bring.

use std::time::Duration;

use revoada_core::{Digest, Timestamp};
use revoada_proto::DeviceId;
use tracing::warn;

use super::{Change, Fleet, Result, chain, now};
use crate::identity::Serial;
use crate::store::{Actor, Certificate, PlanRecord, Taken};
use crate::tls::Admission;

impl Fleet {
    /// Whether the token with this hash lets a device in now; each use does once. One for several devices does not let
    /// anybody take the place of a device that is enrolled: that takes a token for the device alone.
    pub fn take_enrolment_token(&self, hash: &Digest, device: &DeviceId) -> Result<bool> {
        use crate::store::TokenScope;
        let now = now();
        let is_enrolled =
            self.store.certificates(device)?.iter().any(|it| it.revoked_at.is_none() && it.not_after > now);
        if is_enrolled {
            let tokens = self.store.enrolment_tokens()?;
            let is_its_own =
                tokens.iter().any(|token| token.hash == *hash && token.scope == TokenScope::Device(device.clone()));
            if !is_its_own {
                warn!(%device, "a device of this name is enrolled: a token for it alone replaces it");
                return Ok(false);
            }
        }
        let taken = self.store.take_token(hash, device, now)?;
        if taken != Taken::Granted {
            warn!(%device, ?taken, "an enrolment token was refused");
        }
        Ok(taken == Taken::Granted)
    }

    /// Keeps the certificate of a device that is enrolled from now on. One that was before has lost its disk, and with it
    /// the count of what it said: what is known of that is forgotten, so that it is heard again. Whoever has its certificate
    /// from before is kept out.
    pub fn enrol(&self, certificate: &Certificate, by: &Actor) -> Result<()> {
        let device = &certificate.device;
        self.store.add_device(device, by, now())?;
        self.live_mut().observations.retain(|other| other != device);
        self.renew(certificate, by)?;
        self.revoke_others(certificate, by)?;
        self.enrolled(device)
    }

    fn revoke_others(&self, certificate: &Certificate, by: &Actor) -> Result<()> {
        let device = &certificate.device;
        let mut others = self.store.certificates(device)?;
        others.retain(|other| other.serial != certificate.serial && other.revoked_at.is_none());
        for other in &others {
            self.store.revoke_certificate(&other.serial, by, now())?;
        }
        if others.is_empty() { Ok(()) } else { self.cut_off(device) }
    }

    /// Keeps the certificate that a device has got in the place of another.
    pub fn renew(&self, certificate: &Certificate, by: &Actor) -> Result<()> {
        self.store.add_certificate(certificate, by, now())?;
        self.live_mut().certificates.insert(certificate.device.clone(), certificate.not_after);
        Ok(())
    }

    /// Offers a plan to the other devices of its class.
    pub fn add_plan(&self, plan: &PlanRecord) -> Result<bool> {
        let is_new = self.store.add_plan(plan, now())?;
        self.announce(Change::Registry);
        Ok(is_new)
    }

    /// What is to be done every few seconds: what was left undone, and what is over.
    pub fn keep_house(&self) {
        self.send_queued_commands();
        if let Err(error) = self.tidy() {
            warn!(error = %chain(&error), "cannot tidy up");
        }
    }

    fn tidy(&self) -> Result<()> {
        self.expire_commands()?;
        self.watch_devices()
    }

    /// What grows slowly and is made shorter every few minutes: old samples, sessions that are over.
    pub fn compact(&self) -> Result<()> {
        let now = now();
        self.store.forget_browser_sessions(now)?;
        Ok(self.store.compact(now)?)
    }

    /// Forgets certificates that nobody could use for so long. How many there were.
    pub fn forget_certificates(&self, expired_for: Duration) -> Result<usize> {
        let before = now().since(Timestamp::ZERO).saturating_sub(expired_for);
        Ok(self.store.forget_certificates(Timestamp::ZERO + before)?)
    }
}

/// Asked at every connection and message, and so answered from memory.
impl Admission for Fleet {
    fn admits(&self, device: &DeviceId, serial: &Serial) -> bool {
        let live = self.live();
        live.inventory.devices.contains_key(device) && !live.revoked.contains(&serial.to_string())
    }
}
