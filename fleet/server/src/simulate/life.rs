//! A virtual device's connections, one after another, as its fate has it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use prost::bytes::Bytes;
use revoada_federated::{from_safetensors, to_safetensors};
use revoada_proto::message::{encode_event, encode_report};
use revoada_proto::topic::{MESSAGE_BYTES_MAX, OFFLINE, ONLINE};
use revoada_proto::{Channel, Details, Event, Figures, Generation, Invitation, Level, Progress, Report, Topic};
use rumqttc_v5::mqttbytes::QoS;
use rumqttc_v5::mqttbytes::v5::{LastWill, Packet, SubscribeFilter};
use rumqttc_v5::{
    AsyncClient, EventLoop, IncomingPacketSizeLimit, MqttOptions, PublishOptions, SessionMode, TlsConfiguration,
    Transport,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::debug;

use super::device::Virtual;
use super::door::{Identity, LearnedFile, Place, bring, fetch};
use super::faults::{Mishap, Passage};
use super::ledger::{Ledger, count};
use super::lesson::{Learned, Lesson};

const KEEP_ALIVE_S: u16 = 60;
const REQUESTS_MAX: usize = 64;
const INFLIGHT_MAX: u16 = 16;
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// Longer than anything is simulated.
const NEVER: Duration = Duration::from_hours(24 * 365);
/// One of so many devices fetches what it was ordered.
const FETCHES_OF: f64 = 0.1;

/// How far the simulation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Running,
    /// Nothing goes wrong any more, so that what is under way ends.
    Quiet,
    Over,
}

/// What all devices share.
pub(super) struct Surroundings {
    pub(super) ledger: Arc<Ledger>,
    pub(super) stage: watch::Receiver<Stage>,
    /// Who comes for the first time takes a place, so that they do not displace each other.
    pub(super) doors: Semaphore,
    /// Who learns takes one: it opens connections of its own.
    pub(super) desks: Semaphore,
    /// Where blobs are.
    pub(super) blobs: Place,
    /// When the devices were let go.
    pub(super) begun: Instant,
}

/// Why a connection ended.
enum End {
    Over,
    Mishap(Mishap),
}

/// How often each thing happened to a device.
#[derive(Default)]
struct Tally {
    mishaps: usize,
    messages: u64,
    was_connected: bool,
}

/// Lives until the simulation is over.
pub(super) async fn live(mut device: Virtual, identity: Identity, around: Arc<Surroundings>) {
    let (identity, mut tally) = (Arc::new(identity), Tally::default());
    let mut random = Rng::with_seed(device.index as u64);
    device.start(Instant::now());
    loop {
        let mut stage = around.stage.clone();
        match connection(&mut device, &identity, &around, &mut tally, &mut random).await {
            End::Over => return,
            End::Mishap(Mishap::Reboot) => {
                count(&around.ledger.counts.reboots);
                device.start(Instant::now());
            }
            End::Mishap(Mishap::Cut(time)) => {
                count(&around.ledger.counts.cuts);
                wait(time, &mut stage).await;
            }
            End::Mishap(Mishap::Lie) => {}
        }
    }
}

async fn wait(time: Duration, stage: &mut watch::Receiver<Stage>) {
    // Whoever is gone has nothing more to say.
    let over = stage.wait_for(|stage| *stage == Stage::Over);
    drop(tokio::time::timeout(time, over).await);
}

async fn connection(
    device: &mut Virtual,
    identity: &Arc<Identity>,
    around: &Arc<Surroundings>,
    tally: &mut Tally,
    random: &mut Rng,
) -> End {
    let mut stage = around.stage.clone();
    let mut errands = JoinSet::new();
    device.disconnected();
    let mut place = if tally.was_connected { None } else { around.doors.acquire().await.ok() };
    let (client, mut events) = client(device, identity);
    let (mut is_connected, mut failures) = (false, 0_u32);
    loop {
        let event = {
            let mut polled = pin!(events.poll());
            loop {
                if *stage.borrow() == Stage::Over {
                    return End::Over;
                }
                let now = Instant::now();
                let mishap = device.fate.mishap(tally.mishaps).filter(|_| *stage.borrow() == Stage::Running);
                let mishap = mishap.map(|(after, mishap)| (around.begun + after, mishap));
                if let Some((at, mishap)) = mishap.filter(|_| is_connected)
                    && at <= now
                {
                    tally.mishaps += 1;
                    match mishap {
                        Mishap::Lie => lie(device, &client, around, random),
                        mishap => return End::Mishap(mishap),
                    }
                    continue;
                }
                if is_connected {
                    say(device, &client, around, tally, now);
                    if device.has_just_applied() && device.fate.draw(9, tally.messages) < FETCHES_OF {
                        errands.spawn(fetch_ordered(device, Arc::clone(identity), Arc::clone(around)));
                    }
                    if let Some(invitation) = device.take_invitation() {
                        errands.spawn(learn(device, invitation, tally, Arc::clone(identity), Arc::clone(around)));
                    }
                }
                let wake = if is_connected { device.wake_at(now) } else { now + NEVER };
                let wake = mishap.filter(|_| is_connected).map_or(wake, |(at, _)| wake.min(at));
                tokio::select! {
                    event = &mut polled => break event,
                    () = tokio::time::sleep_until(wake.into()) => {}
                    _ = stage.changed() => {}
                    Some(done) = errands.join_next() => {
                        if let Ok(Some(lesson)) = done {
                            device.has_learned(lesson);
                        }
                    }
                }
            }
        };
        match event {
            Ok(rumqttc_v5::Event::Incoming(Packet::ConnAck(_))) => {
                (is_connected, failures, place) = (true, 0, None);
                tally.was_connected = true;
                around.ledger.connected(device.index);
                welcome(device, &client);
                device.connected(Instant::now());
            }
            Ok(rumqttc_v5::Event::Incoming(Packet::Publish(publish))) => {
                let topic = std::str::from_utf8(&publish.topic).ok().and_then(|topic| topic.parse::<Topic>().ok());
                match topic {
                    Some(topic) if topic.device == device.id => {
                        device.hear(topic.channel, &publish.payload, Instant::now(), SystemTime::now());
                    }
                    _ => around.ledger.fail(format!("{} was sent what is another's", device.id)),
                }
            }
            Ok(_) => {}
            Err(error) => {
                debug!(device = %device.id, %error, "no connection");
                is_connected = false;
                let back_off = Duration::from_millis(100).saturating_mul(1 << failures.min(10)).min(BACK_OFF_MAX);
                failures += 1;
                wait(back_off.mul_f64(random.f64()), &mut stage).await;
            }
        }
        drop(place.take_if(|_| is_connected));
    }
}

fn client(device: &Virtual, identity: &Identity) -> (AsyncClient, EventLoop) {
    let broker = &identity.broker;
    let mut options = MqttOptions::new(device.id.as_str(), (broker.host.clone(), broker.port));
    let tls = TlsConfiguration::Rustls(Arc::clone(&identity.tls));
    options
        .set_transport(Transport::tls_with_config(tls))
        .set_keep_alive(KEEP_ALIVE_S)
        // A device that begins anew has nothing in flight, and is sent whatever is open once it has subscribed.
        .set_session_mode(SessionMode::Clean)
        // Else each client has room for 65,535, which is 19 MB.
        .set_outgoing_inflight_upper_limit(INFLIGHT_MAX)
        .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(2 * MESSAGE_BYTES_MAX as u32))
        .set_last_will(LastWill::new(topic(device, Channel::Presence), OFFLINE, QoS::AtLeastOnce, true, None));
    AsyncClient::builder(options).capacity(REQUESTS_MAX).build()
}

fn topic(device: &Virtual, channel: Channel) -> String {
    Topic::new(device.id.clone(), channel).to_string()
}

/// What there is no room for is said again like what gets lost.
fn publish(client: &AsyncClient, topic: String, payload: Vec<u8>, options: PublishOptions) {
    if let Err(error) = client.try_publish(topic, payload, options) {
        debug!(%error, "a message was not said");
    }
}

fn welcome(device: &Virtual, client: &AsyncClient) {
    let filters = Channel::ALL.into_iter().filter(|channel| !channel.is_up());
    let filters = filters.map(|channel| SubscribeFilter::new(topic(device, channel), QoS::AtLeastOnce));
    if let Err(error) = client.try_subscribe_many(filters) {
        debug!(%error, "not subscribed");
    }
    publish(client, topic(device, Channel::Presence), ONLINE.to_vec(), PublishOptions::at_least_once().retained());
}

fn say(device: &mut Virtual, client: &AsyncClient, around: &Surroundings, tally: &mut Tally, now: Instant) {
    let counts = &around.ledger.counts;
    for (channel, payload) in device.live(now, SystemTime::now()) {
        count(&counts.said);
        let passage = device.fate.passage(tally.messages);
        tally.messages += 1;
        let times = match passage {
            _ if *around.stage.borrow() != Stage::Running => 1,
            Passage::Passes => 1,
            Passage::Lost => {
                count(&counts.lost);
                0
            }
            Passage::Doubled => {
                count(&counts.doubled);
                2
            }
        };
        for _ in 0..times {
            publish(client, topic(device, channel), payload.clone(), PublishOptions::at_least_once());
        }
    }
}

fn fetch_ordered(
    device: &Virtual,
    identity: Arc<Identity>,
    around: Arc<Surroundings>,
) -> impl Future<Output = Option<Lesson>> + use<> {
    let (runs, id) = (device.runs(), device.id.clone());
    async move {
        match fetch(&around.blobs, &identity, runs?).await {
            Ok(_) => count(&around.ledger.counts.fetched),
            Err(error) => {
                debug!(device = %id, %error, "cannot fetch a blob");
                count(&around.ledger.counts.fetches_failed);
            }
        }
        None
    }
}

/// Learns what it was invited to, and brings it until it is told whether it counts.
fn learn(
    device: &Virtual,
    invitation: Invitation,
    tally: &mut Tally,
    identity: Arc<Identity>,
    around: Arc<Surroundings>,
) -> impl Future<Output = Option<Lesson>> + use<> {
    let (index, id, heard) = (device.index, device.id.clone(), Instant::now());
    let lesson = Lesson { run: invitation.run, round: invitation.round };
    let learned = Learned::of(&device.fate, index, lesson.round);
    let mut passage = device.fate.passage(tally.messages);
    tally.messages += 1;
    count(&around.ledger.counts.said);
    async move {
        let mut stage = around.stage.clone();
        loop {
            // It is never closed.
            let desk = around.desks.acquire().await.ok();
            let passage = std::mem::replace(&mut passage, Passage::Passes);
            match teach(&around, &identity, (lesson, learned), &invitation, passage).await {
                Ok(verdict) => {
                    around.ledger.judged((index, &id), lesson, verdict, heard.elapsed());
                    return Some(lesson);
                }
                Err(error) => debug!(device = %id, %error, "an update is brought again"),
            }
            count(&around.ledger.counts.updates_again);
            drop(desk);
            wait(AGAIN_AFTER, &mut stage).await;
            if *stage.borrow() == Stage::Over {
                return None;
            }
        }
    }
}

/// One attempt at a lesson: what gets lost on its way is broken off in the middle, and then brought again.
async fn teach(
    around: &Surroundings,
    identity: &Identity,
    (lesson, learned): (Lesson, Learned),
    invitation: &Invitation,
    passage: Passage,
) -> Result<Result<(), String>, Box<dyn std::error::Error + Send + Sync>> {
    let base = invitation.weights;
    let weights = from_safetensors(&fetch(&around.blobs, identity, base).await?, None)?;
    around.ledger.given(lesson, base, &weights);
    let file: Bytes = to_safetensors(&learned.weights(&weights), &[]).into();
    let whole = LearnedFile { lesson, base, file, examples: learned.examples };
    count(&around.ledger.counts.updates);
    match passage {
        Passage::Passes => {}
        Passage::Lost => {
            count(&around.ledger.counts.lost);
            let half = whole.file.len() / 2;
            if let Ok(verdict) = bring(&around.blobs, identity, whole.clone(), half).await {
                around.ledger.fail(format!("half an update was taken in round {}: {verdict:?}", lesson.round));
            }
        }
        Passage::Doubled => {
            count(&around.ledger.counts.doubled);
            // What is said of the second does not matter: the round may be over.
            let (twice, bytes) = (whole.clone(), whole.file.len());
            let verdict = bring(&around.blobs, identity, whole, bytes).await?;
            drop(bring(&around.blobs, identity, twice, bytes).await);
            return Ok(verdict);
        }
    }
    let bytes = whole.file.len();
    Ok(bring(&around.blobs, identity, whole, bytes).await?)
}

/// What a lie about another device says in its place; nobody may find it in the service.
pub(super) const FORGED: &str = "forged";

/// Says what is not so.
fn lie(device: &Virtual, client: &AsyncClient, around: &Surroundings, random: &mut Rng) {
    count(&around.ledger.counts.lies);
    let once = PublishOptions::at_least_once();
    match random.u8(0..4) {
        0 => {
            let length = random.usize(0..2000);
            let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            publish(client, topic(device, Channel::State), noise, once);
        }
        1 => {
            let report = Report {
                sequence: random.u64(..),
                generation: Generation(random.u64(..)),
                progress: Progress::Done,
                running: Default::default(),
                figures: Figures { fps: Some(f64::NAN), ..Figures::default() },
            };
            publish(client, topic(device, Channel::State), encode_report(&report, &Details::default()), once);
        }
        2 => {
            let victim = Topic::new("device-0".parse().expect("this is a name"), Channel::Event).to_string();
            let (name, text) = (FORGED.to_owned(), "<script>alert(1)</script>".to_owned());
            let event = Event { sequence: u64::MAX, at_ms: 0, level: Level::Error, name, text, result: None, lost: 0 };
            publish(client, victim, encode_event(&event), once);
        }
        _ => {
            if let Err(error) = client.try_subscribe("#", QoS::AtLeastOnce) {
                debug!(%error, "not subscribed");
            }
        }
    }
}
