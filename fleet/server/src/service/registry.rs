//! What can be deployed, for people.

use std::sync::Arc;

use revoada_core::Digest;
use revoada_proto::Kind;

use super::{Change, Fleet, Principal, Result, ServiceError, kind_name, now};
use crate::store::{Artefact, ArtefactVersion, PlanRecord, Role, Store};

impl Fleet {
    /// What is kept, for who adds to the registry.
    pub fn shared_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Tells whoever watches of a change that was made past this.
    pub fn tell(&self, change: Change) {
        self.announce(change);
    }

    /// By kind and name, with their versions, the newest first.
    pub fn artefacts(&self, by: &Principal) -> Result<Vec<(Artefact, Vec<ArtefactVersion>)>> {
        by.require(Role::Viewer)?;
        let with_versions = |artefact: Artefact| {
            let versions = self.store.versions(artefact.kind, &artefact.name)?;
            Ok((artefact, versions))
        };
        self.store.artefacts()?.into_iter().map(with_versions).collect()
    }

    pub fn artefact(&self, by: &Principal, kind: Kind, name: &str) -> Result<(Artefact, Vec<ArtefactVersion>)> {
        by.require(Role::Viewer)?;
        let artefact = self.store.artefact(kind, name)?.ok_or_else(|| missing(kind, name))?;
        Ok((artefact, self.store.versions(kind, name)?))
    }

    pub fn describe_artefact(
        &self,
        by: &Principal,
        kind: Kind,
        name: &str,
        change: impl FnOnce(&mut Artefact),
    ) -> Result<()> {
        by.require(Role::Operator)?;
        let mut artefact = self.store.artefact(kind, name)?.ok_or_else(|| missing(kind, name))?;
        change(&mut artefact);
        self.store.put_artefact(&artefact, &by.actor, now())?;
        self.announce(Change::Registry);
        Ok(())
    }

    pub fn remove_artefact(&self, by: &Principal, kind: Kind, name: &str) -> Result<()> {
        by.require(Role::Operator)?;
        if !self.store.remove_artefact(kind, name, &by.actor, now())? {
            return Err(missing(kind, name));
        }
        self.announce(Change::Registry);
        Ok(())
    }

    /// With its plans.
    pub fn version(&self, by: &Principal, digest: &Digest) -> Result<(ArtefactVersion, Vec<PlanRecord>)> {
        by.require(Role::Viewer)?;
        let missing = || ServiceError::Missing { what: "version", name: digest.to_string() };
        let version = self.store.version(digest)?.ok_or_else(missing)?;
        Ok((version, self.store.plans_of(digest)?))
    }

    pub fn remove_version(&self, by: &Principal, digest: &Digest) -> Result<()> {
        by.require(Role::Operator)?;
        if !self.store.remove_version(digest, &by.actor, now())? {
            return Err(ServiceError::Missing { what: "version", name: digest.to_string() });
        }
        self.announce(Change::Registry);
        Ok(())
    }
}

fn missing(kind: Kind, name: &str) -> ServiceError {
    ServiceError::Missing { what: kind_name(kind), name: name.to_owned() }
}
