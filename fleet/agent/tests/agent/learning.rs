//! Invitations to learn, against a fleet service that takes updates in pieces, or not at all.

use std::path::Path;
use std::time::{Duration, SystemTime};

use revoada_agent::PartSource;
use revoada_agent::shell::LearningConfig;
use revoada_bundle::hash;
use revoada_bundle::sign::{Purpose, SecretKey};
use revoada_core::Digest;
use revoada_proto::message::from_digest;
use revoada_proto::{Ask, Channel, Deployable, Dispatch, Event, Invitation, Kind, LearnSettings};

use crate::artefacts::{Artefacts, Behaviour};
use crate::fleet::{DEVICE, Fleet, signed};
use crate::shell::wait_done;
use crate::shell_device::TestDevice;

const WEIGHTS: &[u8] = b"weights that are begun with";

/// A service, and a device that runs a model and learns.
struct Scene {
    fleet: Fleet,
    device: TestDevice,
    model: Deployable,
    _artefacts: Artefacts,
}

impl Scene {
    fn new(learns: bool) -> Self {
        let (fleet, mut artefacts) = (Fleet::start(), Artefacts::new());
        let model = artefacts.make(Kind::Model, "first", Behaviour::Runs);
        fleet.offer(&artefacts);
        fleet.world().parts.insert(format!("{:?}", PartSource::Blob(hash(WEIGHTS))), WEIGHTS.to_vec());
        let mut device = TestDevice::new(&fleet, &artefacts.trusted());
        let data = device.config.folder.join("data");
        device.config.learning = learns.then(|| LearningConfig {
            data,
            time_max: Duration::from_secs(60),
            memory_mib_max: 64,
            celsius_max: Some(90),
        });
        device.start();
        fleet.order(1, &[model]);
        wait_done(&fleet, 1);
        Self { fleet, device, model, _artefacts: artefacts }
    }

    fn invite(&self, round: u64) {
        self.invite_as(round, self.model.digest, self.fleet.order_key());
    }

    /// Goes on once the agent has read its mail so far: it takes it in order, and has refused the last by then.
    fn wait_for_mail(&self) {
        self.invite_as(99, self.model.digest, &SecretKey::generate().unwrap());
        let is_said = |event: &Event| event.name == "invitation-refused";
        self.fleet.wait("an event", |world| world.events.iter().any(is_said).then_some(()));
    }

    fn wait_for_learned(&self, text: &str) {
        let is_said = |event: &Event| event.name == "learned" && event.text == text;
        self.fleet.wait(text, |world| world.events.iter().any(is_said).then_some(()));
    }

    fn invite_as(&self, round: u64, model: Digest, key: &SecretKey) {
        let content = Invitation {
            run: 3,
            round,
            model,
            weights: hash(WEIGHTS),
            weights_bytes: WEIGHTS.len() as u64,
            labels: vec!["cat".to_owned(), "dog".to_owned()],
            settings: LearnSettings { epochs: Some(2), ..LearnSettings::default() },
        };
        let expires_at = Some(SystemTime::now() + Duration::from_secs(60));
        let invitation =
            Dispatch { device: DEVICE.parse().unwrap(), content, issued_at: SystemTime::now(), expires_at };
        self.fleet.say(Channel::Learn, signed(invitation.encode(), Purpose::Invitation, key));
    }

    /// How often the device's program has learned.
    fn lessons(&self) -> usize {
        std::fs::read_to_string(self.device.config.folder.join("data/lessons")).map_or(0, |text| text.lines().count())
    }

    /// What a command comes to.
    fn command(&self, number: u64, ask: Ask) -> Result<String, String> {
        self.fleet.command(number, ask);
        self.fleet.wait(&format!("an answer to {number}"), |world| {
            let mut results = world.events.iter().filter_map(|event| event.result.clone());
            results.find(|result| result.number == number).map(|result| result.outcome)
        })
    }

    fn data(&self) -> &Path {
        &self.device.config.learning.as_ref().unwrap().data
    }
}

#[test]
fn a_device_learns_what_it_is_invited_to_and_brings_it() {
    let mut scene = Scene::new(true);
    scene.invite(1);
    let (header, bytes) = scene.fleet.wait("an update", |world| world.updates.first().cloned());
    assert_eq!(bytes, [WEIGHTS, b" and 2 epochs of cat,dog"].concat());
    assert_eq!((header.run, header.round, header.examples), (3, 1, 30));
    assert_eq!(from_digest(&header.base), Ok(hash(WEIGHTS)));
    assert_eq!(from_digest(&header.digest), Ok(hash(&bytes)));
    assert_eq!(header.metrics["accuracy"], 0.75);
    scene.fleet.wait("an event", |world| world.events.iter().any(|event| event.name == "learned").then_some(()));
    // What comes again is brought again, and not learned again.
    scene.invite(1);
    scene.fleet.wait("the update again", |world| (world.updates.len() == 2).then_some(()));
    assert_eq!(scene.lessons(), 1);
    scene.invite(2);
    scene.fleet.wait("the next one", |world| world.updates.iter().any(|(it, _)| it.round == 2).then_some(()));
    assert_eq!(scene.lessons(), 2);
    scene.device.stop();
}

#[test]
fn an_update_goes_on_where_it_broke_off_even_after_the_agent_was_gone() {
    let mut scene = Scene::new(true);
    scene.fleet.world().update_faults = 1;
    scene.invite(1);
    scene.fleet.wait("a broken upload", |world| (world.update_faults == 0).then_some(()));
    let is_said = |scene: &Scene, wanted: &str| {
        let last = |world: &crate::fleet::World| world.presence.last().is_some_and(|(said, _)| said == wanted);
        scene.fleet.wait(wanted, |world| last(world).then_some(()));
    };
    scene.device.stop();
    is_said(&scene, "offline");
    scene.fleet.world().update_offset = 9;
    scene.device.start();
    is_said(&scene, "online");
    // What is said while the broker still forgets the connection before is lost, and said again as a service does it.
    let rest = (0..30).find_map(|_| {
        scene.invite(1);
        scene.fleet.wait_at_most(Duration::from_secs(2), |world| world.updates.first().cloned())
    });
    let (header, bytes) = rest.expect("the rest is brought");
    assert_eq!((header.offset, bytes.as_slice()), (9, &[WEIGHTS, b" and 2 epochs of cat,dog"].concat()[9..]));
    assert_eq!(scene.lessons(), 1, "it was learned once");
    scene.device.stop();
}

#[test]
fn a_newer_invitation_takes_the_place_of_one_that_takes_long() {
    let mut scene = Scene::new(true);
    std::fs::create_dir_all(scene.data()).unwrap();
    std::fs::write(scene.data().join("slow"), "").unwrap();
    scene.invite(1);
    scene.fleet.wait("the lesson", |_| (scene.lessons() == 1).then_some(()));
    scene.invite(2);
    let (header, _) = scene.fleet.wait("an update", |world| world.updates.first().cloned());
    assert_eq!(header.round, 2);
    scene.device.stop();
}

#[test]
fn a_lesson_is_over_though_the_next_invitation_overtakes_the_answer_to_its_update() {
    let mut scene = Scene::new(true);
    scene.fleet.world().holds_answers = true;
    scene.invite(1);
    scene.fleet.wait("an update", |world| (world.updates.len() == 1).then_some(()));
    scene.invite(2);
    scene.wait_for_mail();
    scene.fleet.world().holds_answers = false;
    scene.wait_for_learned("round 1 of run 3: from 30 examples");
    scene.wait_for_learned("round 2 of run 3: from 30 examples");
    scene.device.stop();
}

#[test]
fn an_update_that_does_not_count_is_brought_again_though_the_invitation_overtakes_the_answer() {
    let mut scene = Scene::new(true);
    scene.fleet.world().update_refusals = 1;
    scene.fleet.world().holds_answers = true;
    scene.invite(1);
    scene.fleet.wait("an update", |world| (world.updates.len() == 1).then_some(()));
    scene.invite(1);
    scene.wait_for_mail();
    scene.fleet.world().holds_answers = false;
    scene.wait_for_learned("round 1 of run 3: the update does not count: it is too large");
    scene.wait_for_learned("round 1 of run 3: from 30 examples");
    assert_eq!(scene.lessons(), 1, "it was learned once");
    scene.device.stop();
}

#[test]
fn what_cannot_be_learned_is_declined_with_the_reason() {
    let mut scene = Scene::new(true);
    let declined = |scene: &Scene, round| {
        scene
            .fleet
            .wait("a refusal", |world| world.declined.iter().find(|it| it.round == round).map(|it| it.why.clone()))
    };
    scene.invite_as(1, Digest::new([9; 32]), scene.fleet.order_key());
    assert!(declined(&scene, 1).contains("does not have model"));
    std::fs::create_dir_all(scene.data()).unwrap();
    std::fs::write(scene.data().join("broken"), "").unwrap();
    scene.invite(2);
    assert_eq!(declined(&scene, 2), "there is no picture");
    scene.invite_as(3, scene.model.digest, &SecretKey::generate().unwrap());
    scene
        .fleet
        .wait("an event", |world| world.events.iter().any(|event| event.name == "invitation-refused").then_some(()));
    scene.device.stop();

    let mut idle = Scene::new(false);
    idle.invite(1);
    assert!(declined(&idle, 1).contains("does not learn"));
    idle.device.stop();
}

fn label(track: u64) -> Ask {
    Ask::Label { stream: "door".to_owned(), track, label: "parcel".parse().unwrap() }
}

fn forget(label: Option<&str>) -> Ask {
    Ask::Forget { label: label.map(|label| label.parse().unwrap()) }
}

#[test]
fn a_track_is_kept_as_what_an_operator_calls_it_and_forgotten_again() {
    let mut scene = Scene::new(true);
    assert_eq!(scene.command(1, forget(None)).unwrap(), "there is nothing to forget");
    let shown = scene.command(2, Ask::Snapshot { stream: "door".to_owned() }).unwrap();
    assert!(shown.ends_with("which shows track 7 (parcel), track 9"), "{shown}");
    let said = scene.command(3, label(7)).unwrap();
    assert_eq!(said, "up to 20 pictures of track 7 of `door` are kept as `parcel`");
    let kept = std::fs::read_to_string(scene.data().join("parcel/7.jpg")).unwrap();
    assert_eq!(kept, "one of 20 of door");
    assert_eq!(scene.command(4, label(8)), Err("there is no track 8".to_owned()));

    // Pictures are not kept any more before some are erased.
    let said = scene.command(5, forget(Some("parcel"))).unwrap();
    assert_eq!(said, "erased 1 files made of pictures and 2 pictures, 3 bytes");
    let asked = || std::fs::read_to_string(scene.data().join("forgotten")).unwrap();
    assert!(asked().ends_with("--label=parcel"), "{}", asked());
    scene.command(6, forget(None)).unwrap();
    assert!(asked().ends_with("--pictures"), "{}", asked());
    scene.device.stop();
}

#[test]
fn a_lesson_from_what_is_to_be_forgotten_is_given_up_and_begun_anew_when_asked() {
    let mut scene = Scene::new(true);
    std::fs::create_dir_all(scene.data()).unwrap();
    std::fs::write(scene.data().join("slow"), "").unwrap();
    scene.invite(1);
    scene.fleet.wait("the lesson", |_| (scene.lessons() == 1).then_some(()));
    scene.command(1, forget(None)).unwrap();
    assert!(scene.fleet.world().updates.is_empty(), "nothing comes of it");
    scene.invite(1);
    let (header, _) = scene.fleet.wait("an update", |world| world.updates.first().cloned());
    assert_eq!((header.round, scene.lessons()), (1, 2));
    scene.device.stop();
}

#[test]
fn a_device_that_does_not_learn_keeps_no_pictures() {
    let mut scene = Scene::new(false);
    for (number, ask) in [(1, label(7)), (2, forget(None)), (3, forget(Some("parcel")))] {
        let refused = scene.command(number, ask).unwrap_err();
        assert!(refused.ends_with("has no table `[learning]`"), "{refused}");
    }
    scene.device.stop();
}
