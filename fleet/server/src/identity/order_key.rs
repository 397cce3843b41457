//! What devices know the service's word by.

use std::path::Path;

use revoada_bundle::sign::{KeyError, PublicKey, Purpose, SecretKey};
use revoada_proto::{Command, Dispatch, Invitation, Order, Signed};

/// Signs orders, commands and invitations. Models are signed by their owners, elsewhere.
#[derive(Debug)]
pub struct OrderKey(SecretKey);

impl OrderKey {
    /// Writes a new one; never over another.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let key = SecretKey::generate()?;
        key.save(path)?;
        Ok(Self(key))
    }

    pub fn load(path: &Path) -> Result<Self, KeyError> {
        SecretKey::load(path).map(Self)
    }

    /// What devices are given at their enrolment.
    pub fn public(&self) -> PublicKey {
        self.0.public()
    }

    pub fn sign_order(&self, order: &Dispatch<Order>) -> Signed {
        self.sign(Purpose::Order, order.encode())
    }

    pub fn sign_command(&self, command: &Dispatch<Command>) -> Signed {
        self.sign(Purpose::Command, command.encode())
    }

    pub fn sign_invitation(&self, invitation: &Dispatch<Invitation>) -> Signed {
        self.sign(Purpose::Invitation, invitation.encode())
    }

    fn sign(&self, purpose: Purpose, payload: Vec<u8>) -> Signed {
        let signature = self.0.sign(purpose, revoada_bundle::hash(&payload));
        let signature = signature.to_bytes().expect("a signature that was just made has its 64 bytes");
        Signed { payload, signature }
    }
}
