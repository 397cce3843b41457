//! Devices that carry out their orders, as far as the service can tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use revoada_core::Digest;
use revoada_fleet::broker::Incoming;
use revoada_fleet::service::{Fleet, Principal};
use revoada_fleet::tls::Peer;
use revoada_proto::message::encode_report;
use revoada_proto::{
    Blame, Channel, Details, Fact, Figures, Generation, Kind, Progress, Report, SlotContent, StreamHealth,
};

use crate::cast::{self, Nature, Role};
use crate::registry;

/// Half of what a person takes to notice.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// The thread that plays all of them.
pub(crate) struct Players {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Player {
    role: Role,
    report: Report,
    running: BTreeMap<Kind, Digest>,
    before: BTreeMap<Kind, Digest>,
    changed: Instant,
    frames: u64,
}

/// What a device said last before the service started.
pub(crate) fn first_report(role: &Role) -> (Report, Details) {
    let player = Player::new(role.clone());
    (player.report.clone(), player.details())
}

impl Players {
    pub(crate) fn start(fleet: &Arc<Fleet>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (fleet, over) = (Arc::clone(fleet), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || play(&fleet, &over));
        Self { is_over, thread }
    }

    pub(crate) fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the players do not panic");
    }
}

fn play(fleet: &Fleet, is_over: &AtomicBool) {
    let is_there = |role: &Role| !matches!(role.nature, Nature::New | Nature::Away(_));
    let mut players: Vec<Player> = cast::all().into_iter().filter(is_there).map(Player::new).collect();
    let connected = players.iter().map(|player| {
        let serial = &revoada_bundle::hash(player.role.device.as_str().as_bytes()).hex()[..32];
        let serial = serial.parse().expect("half of a hash is a serial number");
        Incoming::Connected { peer: Peer { device: player.role.device.clone(), serial }, connection: 1 }
    });
    fleet.ingest(connected.collect());
    let mut random = fastrand::Rng::with_seed(11);
    let mut round = 0_usize;
    while !is_over.load(Ordering::Relaxed) {
        let mut said = Vec::new();
        for (index, player) in players.iter_mut().enumerate() {
            let was = player.report.clone();
            player.follow(fleet);
            // A part of them at a time, and at once who has something to say.
            if player.report.progress != was.progress || index % 8 == round % 8 {
                said.push(player.speak(&mut random));
            }
        }
        fleet.ingest(said);
        round += 1;
        std::thread::sleep(REPORT_EVERY);
    }
}

impl Player {
    fn new(role: Role) -> Self {
        let dock = role.tags.contains("dock");
        let model = if role.tags.contains("parking") { ("vehicles", "1.1.0") } else { ("people", "2.3.0") };
        let pipeline = registry::digest("dock-counting", "7");
        let running = BTreeMap::from([
            (Kind::Model, registry::digest(model.0, model.1)),
            (Kind::Package, registry::digest("revoada", "1.4.0")),
        ]);
        let running: BTreeMap<_, _> = running.into_iter().chain(dock.then_some((Kind::Pipeline, pipeline))).collect();
        let mut player = Self {
            report: Report {
                sequence: 1,
                generation: Generation(0),
                progress: Progress::Done,
                running: running.clone(),
                figures: Figures::default(),
            },
            before: running.clone(),
            running,
            changed: Instant::now(),
            frames: 3_204_118,
            role,
        };
        player.report.figures = player.figures(0.5, Duration::from_hours(71));
        player
    }

    /// Does what it was ordered, or does not.
    fn follow(&mut self, fleet: &Fleet) {
        let Ok(view) = fleet.device(&Principal::service(), &self.role.device) else { return };
        let Some(order) = view.order.filter(|order| order.generation > self.report.generation) else {
            if let (Progress::Working { .. }, false) = (&self.report.progress, self.role.nature == Nature::Slow) {
                self.report.progress = Progress::Done;
                self.report.running = self.running.clone();
                self.changed = Instant::now();
            }
            return;
        };
        self.report.generation = order.generation;
        let refused = registry::digest("dock-counting", "8");
        if self.role.nature == Nature::Picky && order.of(Kind::Pipeline) == Some(refused) {
            let why = "the pipeline ended 3 times in a minute: stream `door`: no such region `ramp`".to_owned();
            self.report.progress = Progress::Failed { why, blame: Blame::Deployable };
            return;
        }
        self.before = self.running.clone();
        self.running.extend(order.deployables.iter().map(|deployable| (deployable.kind, deployable.digest)));
        let is_new = order.of(Kind::Model) == Some(registry::digest("people", "2.4.1"));
        self.report.progress = if self.role.nature == Nature::Slow && is_new {
            Progress::Working { what: "builds a plan of people 2.4.1, 42 %".to_owned() }
        } else if self.role.nature == Nature::Slow {
            self.report.running = self.running.clone();
            Progress::Done
        } else {
            Progress::Working { what: "fetches people 2.4.1, 8.1 of 10.9 MiB".to_owned() }
        };
    }

    fn speak(&mut self, random: &mut fastrand::Rng) -> Incoming {
        self.report.sequence += 1;
        self.frames += 100;
        self.report.figures = self.figures(random.f64(), self.changed.elapsed() + Duration::from_secs(5));
        Incoming::Message {
            device: self.role.device.clone(),
            channel: Channel::State,
            payload: encode_report(&self.report, &self.details()).into(),
        }
    }

    fn figures(&self, chance: f64, over: Duration) -> Figures {
        let heat = if self.role.nature == Nature::Hot { 22.0 } else { 0.0 };
        Figures {
            over,
            restarts: 0,
            fps: Some(self.role.fps - chance * 0.6),
            latency_ms: Some(self.role.latency_ms * (1.0 + 0.1 * chance)),
            agreement: Some(0.985 + chance / 100.0),
            accuracy: None,
            temperature_c: Some(self.role.temperature_c + heat + chance),
            power_w: Some(9.0 + 2.0 * chance),
        }
    }

    fn details(&self) -> Details {
        let count = self.role.streams.len() as f64;
        let streams = self.role.streams.iter().enumerate().map(|(index, stream)| {
            let is_blind = self.role.nature == Nature::Blind && index + 1 == self.role.streams.len();
            StreamHealth {
                stream: stream.clone(),
                frames: self.frames / (index as u64 + 1),
                fps: if is_blind { 0.0 } else { self.role.fps / count },
                dropped: 11 * index as u64,
                reconnects: index as u64 + if is_blind { 41 } else { 0 },
                trouble: is_blind.then(|| "no frame for 10 s, connecting again".to_owned()),
            }
        });
        let slot = |slot: &str, (kind, digest): (&Kind, &Digest), is_active| SlotContent {
            kind: *kind,
            slot: slot.to_owned(),
            digest: *digest,
            is_active,
        };
        let active = self.running.iter().map(|content| slot("a", content, true));
        let idle = self.before.iter().filter(|(kind, digest)| self.running.get(kind) != Some(digest));
        let facts = [
            ("site", Fact::Text(self.role.site.to_owned())),
            ("jetpack", Fact::Text("6.2".to_owned())),
            ("power-mode", Fact::Text("15W".to_owned())),
            ("streams", Fact::Number(count)),
            ("disk-free-gib", Fact::Number(41.5)),
            ("kernel", Fact::Text("5.15.148-tegra".to_owned())),
        ];
        Details {
            streams: streams.collect(),
            version: Some(semver::Version::new(1, 4, 0)),
            class: Some(self.role.class.clone()),
            facts: facts.map(|(name, fact)| (name.to_owned(), fact)).into(),
            refused: None,
            slots: active.chain(idle.map(|content| slot("b", content, false))).collect(),
        }
    }
}
