//! The plan that a model runs as on this device: one that another device of its class has built, or its own.
//!
//! Either is made before the model's trial, by `revoada build` in a process of its own: it tries the plan on the bundle's
//! golden inputs and measures it, signs it with this device's key, and keeps it where `revoada run` looks. So what another
//! device built is vouched for by the service alone until it has passed, and whom a bundle's owner trusts stays his choice.
//!
//! Nothing here refuses a model. Without a plan it runs on the processor, as on a device without TensorRT, until its pipeline
//! has built one beside it; whether that will do, the model's trial says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use revoada_bundle::bundle::MODEL;
use revoada_bundle::hash_file;
use revoada_bundle::plan::PlanHeader;
use revoada_core::{DeviceClass, Digest, causes, sentence_of};
use revoada_proto::control::{self, Client};
use tracing::{info, warn};

use super::child;
use super::config::{Address, Limits};
use super::facts;
use super::fetch::{Cancel, FetchError, Fetcher};
use super::identity::Identity;
use super::service::{self, BuiltPlan, PlanOffer, PlanSearch, ServiceError};
use super::step::check_memory;
use super::vitals::Stats;
use crate::{Disk, LocalDisk, VerifiedSlot};

/// What a service takes, too.
const PLAN_BYTES_MAX: u64 = 1 << 30;
/// One is enough where it is good, and a service has no more than a few.
const OFFERS_MAX: usize = 4;
/// Of a plan on the disk: as it came, as it is tried, in the cache, and in the file that is asked for.
const COPIES_ON_DISK: u64 = 4;
/// Of a plan in memory: two of the process that has it tried, and two of the one that tries it.
const COPIES_IN_MEMORY: u64 = 4;
/// What `revoada build` takes.
const ROWS_MAX: u16 = 1024;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where plans lie while they are fetched and tried. What an agent that was killed has left is gone on with; otherwise
/// nothing is left.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self(folder.to_owned()))
    }

    fn of(&self, plan: Digest) -> PathBuf {
        self.0.join(plan.hex())
    }

    fn own(&self) -> PathBuf {
        self.0.join("own.plan")
    }

    /// Removes all but what is there of these.
    fn keep(&self, plans: &[PlanOffer]) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if !plans.iter().any(|offer| self.of(offer.digest) == path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            warn!(path = %self.0.display(), %error, "cannot remove plans that were tried");
        }
    }
}

/// What plans of one model are found and made with.
pub(super) struct Plans<'a> {
    pub(super) server: &'a Address,
    pub(super) identity: Arc<Identity>,
    pub(super) limits: &'a Limits,
    pub(super) program: &'a Path,
    /// Of the pipeline that runs.
    pub(super) socket: &'a Path,
    pub(super) scratch: Scratch,
    pub(super) cancel: &'a Cancel,
    /// By then the model is tried, with a plan or without.
    pub(super) deadline: Instant,
}

/// A plan that was built here and that the service asked for. It lies in the scratch folder.
#[derive(Debug)]
pub(super) struct Wanted {
    bundle: Digest,
    class: DeviceClass,
}

impl Plans<'_> {
    /// Sees to a plan of the model in a slot, where this device runs plans. Gives the one that the service wants.
    pub(super) fn provide(&self, slot: &VerifiedSlot) -> Option<Wanted> {
        // Asked now, and of the program that runs children: what reports say may be some hours old.
        let class = facts::ask(self.program, self.cancel).class?;
        let bundle = slot.placed().digest;
        let PlanSearch { mut plans, build } = self.find(bundle, &class).unwrap_or_else(|reason| {
            warn!(reason, "cannot ask for plans of other devices");
            PlanSearch::default()
        });
        plans.truncate(OFFERS_MAX);
        if let Err(error) = self.scratch.keep(&plans) {
            warn!(%error, "cannot remove plans of other models");
        }
        let rows = self.rows();
        for offer in &plans {
            let PlanOffer { digest, signed_by, .. } = offer;
            match self.take(offer, slot, &class, rows) {
                Ok(()) => {
                    info!(plan = %digest, %signed_by, "took a plan that another device has built");
                    return None;
                }
                Err(reason) => warn!(plan = %digest, %signed_by, reason, "a plan of another device is not taken"),
            }
        }
        match self.build(slot, rows) {
            Ok(()) => {
                info!(%bundle, "this device has built a plan");
                build.then_some(Wanted { bundle, class })
            }
            Err(reason) => {
                warn!(%bundle, reason, "no plan is built; the model is tried without");
                None
            }
        }
    }

    /// Hands a plan over to the service. A device that cannot has its own all the same.
    pub(super) fn upload(mut self, wanted: &Wanted, time_max: Duration) {
        self.deadline = Instant::now() + time_max;
        match self.try_upload(wanted) {
            Ok(plan) => info!(bundle = %wanted.bundle, %plan, "uploaded a plan for all of its class"),
            Err(reason) => warn!(bundle = %wanted.bundle, reason, "the plan is not uploaded"),
        }
    }

    fn find(&self, bundle: Digest, class: &DeviceClass) -> Result<PlanSearch, String> {
        self.answer(service::find_plan(self.server, &self.identity, bundle, class))
    }

    fn take(
        &self,
        offer: &PlanOffer,
        slot: &VerifiedSlot,
        class: &DeviceClass,
        rows: Option<u16>,
    ) -> Result<(), String> {
        if offer.bytes > PLAN_BYTES_MAX {
            return Err(format!("it has {} bytes, and may have {PLAN_BYTES_MAX}", offer.bytes));
        }
        self.check_room(offer.bytes)?;
        check_memory(offer.bytes.saturating_mul(COPIES_IN_MEMORY)).map_err(|(_, why)| why)?;
        let path = self.scratch.of(offer.digest);
        self.fetch(offer, &path)?;
        let header = PlanHeader::read(&path).map_err(|error| sentence_of(causes(&error)))?;
        let is_as_offered = header.signer() == offer.signed_by
            && header.key().bundle == slot.placed().digest
            && header.key().device == *class;
        if !is_as_offered {
            return Err("its signer, bundle or device class is not what the service says".to_owned());
        }
        self.run_build(slot, rows, Some(&path))
    }

    /// Goes on where a fetch broke off, for as long as each brings something.
    fn fetch(&self, offer: &PlanOffer, path: &Path) -> Result<(), String> {
        let say = |error: FetchError| sentence_of(causes(&error));
        let rate = self.limits.download_bytes_per_second;
        let fetcher = Fetcher::new(self.server, &self.identity, rate).map_err(|error| say(error.into()))?;
        let length = || fs::metadata(path).map_or(0, |file| file.len());
        let mut before = length();
        loop {
            match fetcher.fetch_file(offer.digest, offer.bytes, path, &|| self.is_over()) {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_broken() || length() <= before => return Err(say(error)),
                Err(_) => before = length(),
            }
        }
    }

    fn build(&self, slot: &VerifiedSlot, rows: Option<u16>) -> Result<(), String> {
        // A plan weighs about what its model does.
        self.check_room(fs::metadata(slot.folder().join(MODEL)).map_or(0, |file| file.len()))?;
        self.run_build(slot, rows, None)
    }

    /// Leaves the plan in the cache, where `revoada run` finds it, and in the scratch folder.
    fn run_build(&self, slot: &VerifiedSlot, rows: Option<u16>, offered: Option<&Path>) -> Result<(), String> {
        let mut build = Command::new(self.program);
        build.arg("build").arg(slot.folder()).args(["--target", "local", "--log", "warn"]);
        build.arg("--plan").arg(self.scratch.own());
        if let Some(rows) = rows {
            build.args(["--batch-max", &rows.to_string()]);
        }
        if let Some(offered) = offered {
            build.arg("--offered").arg(offered);
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let ended = child::run(&mut build, self.cancel, left).map_err(|error| error.to_string())?;
        if ended.status.success() { Ok(()) } else { Err(ended.reason()) }
    }

    fn try_upload(&self, wanted: &Wanted) -> Result<Digest, String> {
        let path = self.scratch.own();
        let header = PlanHeader::read(&path).map_err(|error| sentence_of(causes(&error)))?;
        let (digest, bytes) = hash_file(&path).map_err(|error| format!("cannot read it: {error}"))?;
        let latency_ms = header.facts().speed.map(|speed| speed.latency_ms_median);
        let plan = BuiltPlan { bundle: wanted.bundle, class: &wanted.class, digest, bytes, latency_ms, path: &path };
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.answer(service::upload_plan(self.server, &self.identity, plan, left)).map(|()| digest)
    }

    /// The largest batch that the pipeline asks for, where one runs and says so.
    fn rows(&self) -> Option<u16> {
        let stats = Client::connect(self.socket).ok()?.request(control::Command::Stats).ok()?;
        let rows = serde_json::from_value::<Stats>(stats).ok()?.rows_max?;
        Some(rows).filter(|rows| (1..=ROWS_MAX).contains(rows))
    }

    fn check_room(&self, bytes: u64) -> Result<(), String> {
        let folder = &self.scratch.0;
        let needed = bytes.saturating_mul(COPIES_ON_DISK).saturating_add(self.limits.disk_reserve_bytes);
        match LocalDisk.free_bytes(folder) {
            Ok(free) if free < needed => {
                Err(format!("`{}` has room for {free} bytes, and {needed} are needed", folder.display()))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("cannot tell how much room `{}` has: {error}", folder.display())),
        }
    }

    fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || Instant::now() >= self.deadline
    }

    /// Waits for the service on this thread, which is none of the agent's runtime.
    fn answer<T>(&self, asked: impl Future<Output = Result<T, ServiceError>>) -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let over = async {
            while !self.is_over() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        runtime.map_err(|error| format!("cannot start a runtime: {error}"))?.block_on(async {
            tokio::select! {
                answer = asked => answer.map_err(|error| sentence_of(causes(&error))),
                () = over => Err("there is no time for it".to_owned()),
            }
        })
    }
}
