//! A fleet of virtual devices against a real service: real MQTT, gRPC, TLS, HTTP and SQLite, in one process or two.
//!
//! Each device enrols, connects, carries out orders and commands and says what happens, while what its [`Fate`] has for it
//! goes wrong: messages get lost or come twice, power and network fail, clocks are wrong, some devices lie. Meanwhile an
//! operator rolls out and commands. Afterwards everything is judged: nothing may be lost, done twice or in the wrong order.
//!
//! It is *not* the agent: a virtual device has no slots and runs nothing.

mod device;
mod door;
mod faults;
mod ledger;
mod lesson;
mod life;
mod operator;
mod process;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::{StreamExt, TryStreamExt, stream};
use revoada_bundle::sign::{KeyError, SecretKey, TrustedKeys};
use revoada_federated::{Weights, from_safetensors};
use revoada_proto::DeviceId;
use serde_json::json;
use tempfile::TempDir;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use url::Url;

use crate::serve::{ServeError, Service};
use crate::settings::Settings;

pub use faults::{Fate, Faults, Mishap, Passage};
pub use operator::{Ended, RoundEnded};
pub use process::resident_kib;
pub use summary::{Spread, Summary};

use device::Virtual;
use door::{Enroller, Identity, Place, Trust};
use ledger::{Ledger, of};
use lesson::{Learned, Lesson, mean};
use life::{FORGED, Stage, Surroundings, live};
use operator::{Operator, Ran};
use process::Ticks;

/// Devices that enrol at once, and that connect for the first time at once.
const ENROLLING_MAX: usize = 16;
const CONNECTING_MAX: usize = 256;
/// Devices that learn at once.
const LEARNING_MAX: usize = 64;
/// Operators that command at once.
const COMMANDERS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(50);
const PIPELINE: &str = "simulated";
const CLASSIFIER: &str = "simulated-classifier";

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Options {
    pub devices: usize,
    /// Decides all faults.
    pub seed: u64,
    pub faults: Faults,
    /// One after another, to all devices that do not lie.
    pub rollouts: usize,
    pub commands: usize,
    /// Of learning, one after another, by all devices that do not lie, after the rollouts.
    pub rounds: u64,
    /// Of all commanders together.
    pub commands_per_second: u32,
    /// Between two reports of a device where nothing happens.
    pub heartbeat: Duration,
    /// How long devices are connected before anything is asked of them.
    pub hold: Duration,
    pub target: Target,
    /// What takes longer counts as lost.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            devices: 100,
            seed: 0,
            faults: Faults::None,
            rollouts: 1,
            commands: 100,
            rounds: 0,
            commands_per_second: 50,
            heartbeat: Duration::from_secs(5),
            hold: Duration::ZERO,
            target: Target::Here,
            patience: Duration::from_mins(2),
        }
    }
}

/// Which service.
#[derive(Clone, Debug)]
pub enum Target {
    /// One in this process, in a folder that is removed afterwards.
    Here,
    /// One that runs.
    There {
        /// Host and port of the device port.
        devices: (String, u16),
        operators: Url,
        /// The file with an administrator's API token.
        token: PathBuf,
        /// Signs what is rolled out; the service must trust it.
        key: PathBuf,
    },
}

#[derive(Debug, Error)]
pub enum SimulateError {
    #[error("cannot simulate no device at all")]
    Nobody,
    #[error("cannot enrol `{device}`")]
    Enrol {
        device: DeviceId,
        #[source]
        source: tonic::Status,
    },
    #[error("the service does not do `{what}`: {why}")]
    Operator { what: String, why: String },
    #[error("cannot read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start")]
    Start(#[source] std::io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// How far a simulation is, for who watches it from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    ledger: std::sync::OnceLock<Arc<Ledger>>,
}

impl Progress {
    /// Devices that were connected at least once.
    pub fn connected(&self) -> usize {
        self.ledger.get().map_or(0, |ledger| ledger.devices_connected())
    }

    /// Orders and commands that devices have carried out.
    pub fn carried_out(&self) -> u64 {
        self.ledger.get().map_or(0, |ledger| of(&ledger.counts.applied) + of(&ledger.counts.commands_done))
    }
}

/// Simulates, and judges. Blocks until it is over.
pub fn run(options: &Options, progress: &Progress) -> Result<Summary, SimulateError> {
    if options.devices == 0 {
        return Err(SimulateError::Nobody);
    }
    let ground = Ground::prepare(options)?;
    let judged = simulate(options, &ground, progress);
    ground.leave();
    judged
}

/// The service, and who speaks with it.
struct Ground {
    operator: Operator,
    devices: Place,
    key: SecretKey,
    /// Where the service is in this process.
    here: Option<(Runtime, Service, TempDir)>,
}

impl Ground {
    fn prepare(options: &Options) -> Result<Self, SimulateError> {
        let Target::There { devices: (host, port), operators, token, key } = &options.target else {
            return Self::here(options);
        };
        Ok(Self {
            operator: Operator::new(operators.clone(), &operator::admin_token(token)?, options.patience),
            devices: Place { host: host.clone(), port: *port },
            key: SecretKey::load(key)?,
            here: None,
        })
    }

    fn here(options: &Options) -> Result<Self, SimulateError> {
        let folder = tempfile::tempdir().map_err(SimulateError::Start)?;
        let key = SecretKey::generate()?;
        let mut settings = Settings::in_folder(&folder.path().join("fleet"));
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        (settings.mqtt, settings.devices, settings.operators.address) = (local, local, local);
        settings.names = vec!["127.0.0.1".to_owned()];
        settings.trusted = vec![TrustedKeys::Key(key.public())];
        settings.enrolments_per_second_max = 10_000;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(SimulateError::Start)?;
        let service = runtime.block_on(Service::start(&settings))?;
        let addresses = service.addresses;
        let server = format!("http://{}/", addresses.operators).parse().expect("an address is part of a URL");
        let token = operator::admin_token(&service.admin_token)?;
        Ok(Self {
            operator: Operator::new(server, &token, options.patience),
            devices: Place { host: "127.0.0.1".to_owned(), port: addresses.devices.port() },
            key,
            here: Some((runtime, service, folder)),
        })
    }

    fn leave(self) {
        if let Some((runtime, service, _folder)) = self.here {
            runtime.block_on(service.stop());
        }
    }
}

/// The devices that there are, liars too.
struct Cast {
    fates: Vec<Fate>,
    ids: Vec<DeviceId>,
}

impl Cast {
    fn new(options: &Options) -> Self {
        let fates: Vec<Fate> =
            (0..options.devices).map(|index| Fate::of(options.faults, options.seed, index)).collect();
        let name = |(index, fate): (usize, &Fate)| {
            let name = format!("{}-{index}", if fate.is_liar { "liar" } else { "device" });
            name.parse().expect("this is a name")
        };
        let ids = fates.iter().enumerate().map(name).collect();
        Self { fates, ids }
    }

    fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.ids.len()).filter(|index| !self.fates[*index].is_liar)
    }
}

fn simulate(options: &Options, ground: &Ground, progress: &Progress) -> Result<Summary, SimulateError> {
    let begun = Instant::now();
    let (cast, ledger) = (Cast::new(options), Arc::new(Ledger::new(options.devices)));
    let _ = progress.ledger.set(Arc::clone(&ledger));
    let mut load = tokio::runtime::Builder::new_multi_thread();
    let load = load.enable_all().thread_name(format!("{}devices", process::LOAD)).build();
    let load = load.map_err(SimulateError::Start)?;

    let versions: Vec<String> =
        (0..options.rollouts.clamp(1, 2)).map(|index| format!("{}.{index}", options.seed)).collect();
    for version in &versions {
        ground.operator.register(&ground.key, PIPELINE, version)?;
    }
    if options.rounds > 0 {
        ground.operator.register_classifier(&ground.key, CLASSIFIER, &options.seed.to_string())?;
    }
    let token = ground.operator.enrolment_token("simulation", options.devices)?;
    let identities = load.block_on(async { enrol(Enroller::new(ground.devices.clone(), &token)?, &cast).await })?;
    let enrolled = begun.elapsed();

    let (stage, watched) = watch::channel(Stage::Running);
    let (memory, ticks) = (resident_kib("self"), Ticks::now());
    let let_go = Instant::now();
    let around = Arc::new(Surroundings {
        ledger: Arc::clone(&ledger),
        stage: watched,
        doors: Semaphore::new(CONNECTING_MAX),
        desks: Semaphore::new(LEARNING_MAX),
        blobs: ground.devices.clone(),
        begun: let_go,
    });
    // Learned weights are fetched as devices do it.
    let witness = identities.first().cloned();
    let mut lives = JoinSet::new();
    for (index, identity) in identities.into_iter().enumerate() {
        let (id, fate, key) = (cast.ids[index].clone(), cast.fates[index].clone(), identity.order_key);
        let device = Virtual::new((index, id), fate, key, options.heartbeat, Arc::clone(&ledger), let_go);
        lives.spawn_on(live(device, identity, Arc::clone(&around)), load.handle());
    }
    if !wait_until(options.patience, || ledger.devices_connected() == options.devices) {
        ledger.fail(format!("{} devices were never connected", options.devices - ledger.devices_connected()));
    }
    let connected = let_go.elapsed();
    let grown = resident_kib("self").zip(memory).map(|(now, before)| now.saturating_sub(before));
    thread::sleep(options.hold);

    let (rollouts, asked, ran) = operate(options, ground, &cast, &ledger, &versions)?;
    stage.send_replace(Stage::Quiet);
    settle(options, &cast, &ledger, &asked);
    let spent = Ticks::now().zip(ticks);
    stage.send_replace(Stage::Over);
    load.block_on(async { while lives.join_next().await.is_some() {} });

    let stored = judge(ground, &cast, &ledger, &rollouts, &asked)?;
    if let (Some(ran), Some(witness)) = (&ran, witness) {
        let last = ran.weights.map(|digest| load.block_on(door::fetch(&ground.devices, &witness, digest)));
        let last = last.and_then(|fetched| from_safetensors(&fetched.ok()?, None).ok());
        judge_learning(options, ground, &cast, &ledger, ran, last)?;
    }
    let command_latency = asked.iter().filter_map(|(&(index, number), at)| {
        Some(ledger.book(index).done.get(&number)?.saturating_duration_since(*at))
    });
    let applied_after: Vec<Duration> =
        cast.honest().flat_map(|index| ledger.book(index).applied_after.clone()).collect();
    let learned_after: Vec<Duration> =
        cast.honest().flat_map(|index| ledger.book(index).learned_after.clone()).collect();
    let (counts, (failures, failures_count)) = (&ledger.counts, ledger.failures());
    Ok(Summary {
        seed: options.seed,
        devices: options.devices,
        liars: options.devices - cast.honest().count(),
        seconds: begun.elapsed().as_secs_f64(),
        enrolments_per_second: options.devices as f64 / enrolled.as_secs_f64(),
        connects_per_second: options.devices as f64 / connected.as_secs_f64(),
        kib_per_connection: grown.map(|grown| grown as f64 / options.devices as f64),
        load_cpu_share: spent.and_then(|(now, then)| now.load_share_since(then)),
        rollouts,
        orders_applied: of(&counts.applied),
        orders_failed: of(&counts.orders_failed),
        orders_again: of(&counts.orders_again),
        orders_older: of(&counts.orders_older),
        order_to_applied: Spread::of(applied_after),
        commands_asked: asked.len() as u64,
        commands_done: of(&counts.commands_done),
        commands_again: of(&counts.commands_again),
        command_latency: Spread::of(command_latency.collect()),
        events_said: of(&counts.events),
        events_stored: stored,
        messages_said: of(&counts.said),
        messages_lost: of(&counts.lost),
        messages_doubled: of(&counts.doubled),
        reboots: of(&counts.reboots),
        cuts: of(&counts.cuts),
        lies: of(&counts.lies),
        reconnects: of(&counts.connects).saturating_sub(options.devices as u64),
        blobs_fetched: of(&counts.fetched),
        fetches_failed: of(&counts.fetches_failed),
        rounds: ran.map(|ran| ran.rounds).unwrap_or_default(),
        invited_to_counted: Spread::of(learned_after),
        invitations_again: of(&counts.invitations_again),
        updates_brought: of(&counts.updates),
        updates_again: of(&counts.updates_again),
        failures,
        failures_count,
    })
}

async fn enrol(enroller: Enroller, cast: &Cast) -> Result<Vec<Identity>, SimulateError> {
    let (enroller, trust) = (&enroller, &Trust::default());
    stream::iter(&cast.ids).map(|id| enroller.enrol(id, trust)).buffered(ENROLLING_MAX).try_collect().await
}

/// Commands that the service said it has: of which device and number, and when they were asked for.
type Asked = BTreeMap<(usize, u64), Instant>;

/// Rolls out and then has devices learn, and commands meanwhile.
fn operate(
    options: &Options,
    ground: &Ground,
    cast: &Cast,
    ledger: &Ledger,
    versions: &[String],
) -> Result<(Vec<Ended>, Asked, Option<Ran>), SimulateError> {
    let (taken, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let honest: Vec<usize> = cast.honest().collect();
    let share = Duration::from_secs(COMMANDERS as u64) / options.commands_per_second.max(1);
    let command = |commander: usize| {
        let mut random = Rng::with_seed(options.seed ^ commander as u64);
        let mut asked = Asked::new();
        while !is_over.load(Ordering::Relaxed) && taken.fetch_add(1, Ordering::Relaxed) < options.commands {
            let Some(&index) = random.choice(&honest) else { break };
            let at = Instant::now();
            if let Some(number) = ground.operator.command(cast.ids[index].as_str()) {
                asked.insert((index, number), at);
            }
            thread::sleep(share.saturating_sub(at.elapsed()));
        }
        asked
    };
    thread::scope(|scope| {
        let commanders: Vec<_> = (0..COMMANDERS).map(|commander| scope.spawn(move || command(commander))).collect();
        let rolled_out: Result<Vec<Ended>, SimulateError> = (0..options.rollouts)
            .map(|index| {
                let title = format!("simulation {} {index}", options.seed);
                let version = &versions[index % versions.len()];
                ground.operator.roll_out(&json!({
                    "title": title, "kind": "pipeline", "name": PIPELINE, "version": version,
                    "filter": "id ~ device-*",
                    "waves": [{ "size": "10%", "soak": "0s" }, { "size": "100%", "soak": "0s" }],
                    "gates": [],
                    "retry": { "attempts_max": 20, "delay": "500ms", "delay_max": "1s" },
                }))
            })
            .collect();
        let learned = learn(options, ground, honest.len());
        if rolled_out.is_err() || learned.is_err() {
            is_over.store(true, Ordering::Relaxed);
        }
        let mut asked = Asked::new();
        for commander in commanders {
            match commander.join() {
                Ok(commands) => asked.extend(commands),
                Err(_) => ledger.fail("an operator panicked".to_owned()),
            }
        }
        Ok((rolled_out?, asked, learned?))
    })
}

fn learn(options: &Options, ground: &Ground, honest: usize) -> Result<Option<Ran>, SimulateError> {
    if options.rounds == 0 {
        return Ok(None);
    }
    // Where something goes wrong, they are never all there.
    let there = if options.faults == Faults::None { honest } else { honest * 4 / 5 }.max(1);
    let ran = ground.operator.learn(&json!({
        "title": format!("simulation {}", options.seed),
        "devices": { "model": CLASSIFIER, "version": options.seed.to_string(), "filter": "id ~ device-*" },
        "rounds": options.rounds, "participants_min": there, "quorum": there, "failures_max": 1,
        "round_timeout": humantime::format_duration(options.patience).to_string(),
    }))?;
    Ok(Some(ran))
}

/// Waits until every command was carried out and every event receipted.
fn settle(options: &Options, cast: &Cast, ledger: &Ledger, asked: &Asked) {
    wait_until(options.patience, || {
        asked.keys().all(|(index, number)| ledger.book(*index).done.contains_key(number))
            && cast.honest().all(|index| ledger.book(index).events.values().all(|is_receipted| *is_receipted))
    });
}

fn wait_until(time_max: Duration, is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time_max;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
    true
}

/// Looks for what was lost, and what is there that should not be. How many events the service has.
fn judge(
    ground: &Ground,
    cast: &Cast,
    ledger: &Ledger,
    rollouts: &[Ended],
    asked: &Asked,
) -> Result<u64, SimulateError> {
    let honest = cast.honest().count() as u64;
    for Ended { id, phase, reached, .. } in rollouts {
        if phase != "finished" || *reached != honest {
            ledger.fail(format!("rollout {id} is {phase}, and {reached} of {honest} devices have it"));
        }
    }
    for (index, number) in asked.keys() {
        let device = &cast.ids[*index];
        if !ledger.book(*index).done.contains_key(number) {
            ledger.fail(format!("{device} never got command {number}"));
        } else if ground.operator.command_state(device.as_str(), *number)? != "done" {
            ledger.fail(format!("the service does not know that {device} has carried out command {number}"));
        }
    }
    let (mut stored, mut count) = (BTreeSet::new(), 0);
    for (device, name, text) in ground.operator.events()? {
        count += 1;
        if name == FORGED {
            ledger.fail(format!("the service believes what a liar says of {device}"));
        } else if !stored.insert((device.clone(), text.clone())) {
            ledger.fail(format!("the service has event {text} of {device} twice"));
        }
    }
    for index in cast.honest() {
        let device = &cast.ids[index];
        for (sequence, is_receipted) in &ledger.book(index).events {
            if !is_receipted {
                ledger.fail(format!("{device} was never told that event {sequence} has come"));
            } else if !stored.contains(&(device.to_string(), sequence.to_string())) {
                ledger.fail(format!("the service has lost event {sequence} of {device}"));
            }
        }
    }
    Ok(count)
}

/// Whether each update that counts was counted once, and the weights are what has to come of all of them.
fn judge_learning(
    options: &Options,
    ground: &Ground,
    cast: &Cast,
    ledger: &Ledger,
    ran: &Ran,
    last: Option<Weights>,
) -> Result<(), SimulateError> {
    let run = ran.id;
    if ran.rounds.len() as u64 != options.rounds || ran.rounds.iter().any(|round| round.status != "finished") {
        ledger.fail(format!("run {run} has not had its {} rounds: {}", options.rounds, ran.status));
        return Ok(());
    }
    for ended in &ran.rounds {
        let round = ended.round;
        let lesson = Lesson { run, round };
        let members: BTreeMap<String, String> = ground.operator.participants(run, round)?.into_iter().collect();
        let mut learned = Vec::new();
        for index in cast.honest() {
            let device = &cast.ids[index];
            let status = members.get(device.as_str()).map(String::as_str);
            let verdict = ledger.book(index).verdicts.get(&lesson).cloned();
            match (status, verdict) {
                (Some("sent"), None | Some(Ok(()))) => learned.push(Learned::of(&cast.fates[index], index, round)),
                (None, None) => {}
                (status, verdict) => {
                    let status = status.unwrap_or("not there");
                    ledger.fail(format!("{device} is {status} in round {round}, and was told {verdict:?}"));
                }
            }
        }
        let examples = learned.iter().map(|learned| learned.examples).sum::<u64>();
        if (ended.updates, ended.examples) != (learned.len() as u64, examples) {
            let (updates, told) = (ended.updates, ended.examples);
            let sent = learned.len();
            ledger
                .fail(format!("round {round} has {updates} updates of {told} examples, and {sent} of {examples} came"));
        }
        let next = if round == options.rounds { last.clone() } else { ledger.base(Lesson { run, round: round + 1 }) };
        let (Some(base), Some(next)) = (ledger.base(lesson), next) else {
            ledger.fail(format!("nobody knows the weights before round {round} and after it"));
            continue;
        };
        if mean(&base, &learned) != next.values() {
            ledger.fail(format!("the weights after round {round} are not the mean of the updates that counted"));
        }
    }
    Ok(())
}
