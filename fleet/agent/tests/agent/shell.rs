//! The agent as a program, against a fleet service that can lie.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use revoada_agent::PartSource;
use revoada_agent::shell::{self, Ending};
use revoada_bundle::sign::SecretKey;
use revoada_core::Digest;
use revoada_proto::{Ask, Blame, Channel, Deployable, EnrolmentToken, Fact, Generation, Kind, Progress, Report};

use crate::artefacts::{Artefacts, Behaviour};
use crate::fleet::{DEVICE, Fleet, World};
use crate::shell_device::{TestDevice, program, runtime};

/// A service with a model, and a device that runs it.
fn settled(models: &[&str]) -> (Fleet, Artefacts, TestDevice, Vec<Deployable>) {
    let (fleet, mut artefacts) = (Fleet::start(), Artefacts::new());
    let models: Vec<_> = models.iter().map(|name| artefacts.make(Kind::Model, name, Behaviour::Runs)).collect();
    fleet.offer(&artefacts);
    let mut device = TestDevice::new(&fleet, &artefacts.trusted());
    device.start();
    fleet.order(1, &models[..1]);
    wait_done(&fleet, 1);
    (fleet, artefacts, device, models)
}

pub(crate) fn wait_done(fleet: &Fleet, generation: u64) -> Report {
    wait_report(fleet, generation, |report| report.progress == Progress::Done)
}

fn wait_failed(fleet: &Fleet, generation: u64) -> (String, Blame) {
    let report = wait_report(fleet, generation, |report| matches!(report.progress, Progress::Failed { .. }));
    let Progress::Failed { why, blame } = report.progress else { unreachable!() };
    (why, blame)
}

pub(crate) fn wait_report(fleet: &Fleet, generation: u64, is_wanted: impl Fn(&Report) -> bool) -> Report {
    let is_wanted = |report: &&Report| report.generation == Generation(generation) && is_wanted(report);
    let find = |world: &World| world.reports.iter().rev().map(|(report, _)| report).find(is_wanted).cloned();
    fleet.wait(&format!("a report on generation {generation}"), find)
}

#[test]
fn a_device_trusts_the_root_of_its_token_alone_and_no_clock() {
    let (fleet, artefacts) = (Fleet::start(), Artefacts::new());
    let device = TestDevice::stranger(&fleet, &artefacts.trusted());
    let name = DEVICE.parse().unwrap();
    let enrol = |token: &EnrolmentToken| runtime().block_on(shell::enrol(&device.config.server, token, &name));
    let elsewhere = EnrolmentToken::new(*fleet.token().secret(), Digest::new([9; 32]));
    assert!(matches!(enrol(&elsewhere), Err(shell::ServiceError::Connect { .. })));
    let guessed = EnrolmentToken::new([1; 16], fleet.token().root());
    let error = enrol(&guessed).unwrap_err().to_string();
    assert!(error.contains("no such token"), "{error}");
    assert_eq!(fleet.world().certificates, 0);

    // The service's certificate has ended in 1991.
    let identity = enrol(&fleet.token()).unwrap();
    assert_eq!((identity.broker().host.as_str(), identity.broker().port), ("localhost", fleet.broker().port()));
    assert!(!format!("{identity:?}").contains("PRIVATE"));
    let path = shell::identity_path(&device.config.folder);
    identity.save(&path).unwrap();
    assert_eq!(shell::Identity::load(&path).unwrap(), identity);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut by_another_name = device.config.server.clone();
    by_another_name.host = "127.0.0.1".to_owned();
    let error = runtime().block_on(shell::enrol(&by_another_name, &fleet.token(), &name)).unwrap_err();
    assert!(matches!(error, shell::ServiceError::Connect { .. }), "the name is checked: {error}");
}

#[test]
fn what_a_device_came_with_runs_before_it_is_enrolled_and_until_a_model_is_deployed() {
    let (fleet, mut artefacts) = (Fleet::start(), Artefacts::new());
    let model = artefacts.make(Kind::Model, "first", Behaviour::Runs);
    fleet.offer(&artefacts);
    let mut device = TestDevice::stranger(&fleet, &artefacts.trusted());
    device.start();
    let pid = device.wait_for_model("came with the device");
    assert_eq!(device.status().device, None);
    fleet.order(1, &[model]);
    device.enrol(&fleet).save(&shell::identity_path(&device.config.folder)).unwrap();

    let report = wait_done(&fleet, 1);
    assert_eq!(report.running, [(Kind::Model, model.digest)].into());
    assert_eq!(device.wait_for_model("first"), pid, "the model was swapped, and no frame was lost");
    let report = wait_report(&fleet, 1, |report| report.figures.fps.is_some_and(|fps| fps > 100.0));
    assert_eq!((report.figures.latency_ms, report.figures.restarts), (Some(12.5), 0));
    let details = fleet.wait("facts", |world| {
        world
            .reports
            .iter()
            .map(|(_, details)| details)
            .find(|details| details.facts.contains_key("pretended"))
            .cloned()
    });
    assert_eq!(details.facts["pretended"], Fact::Text("yes".to_owned()));
    assert!(details.facts.contains_key("kernel") && details.facts.contains_key("memory-mib"));
    let streams =
        fleet.wait("streams", |world| world.reports.last().map(|(_, d)| d.streams.clone()).filter(|s| s.len() == 1));
    assert_eq!((streams[0].stream.as_str(), &streams[0].trouble), ("door", &None));
    let slots = fleet.world().reports.last().unwrap().1.slots.clone();
    assert!(slots.iter().any(|slot| slot.is_active && slot.digest == model.digest), "{slots:?}");
    assert!(fleet.world().presence.contains(&("online".to_owned(), true)));
    let status = device.status();
    assert!(status.is_connected && status.generation == Generation(1) && status.counts.commits == 1, "{status:?}");
    device.stop();
    fleet.wait("a goodbye", |world| world.presence.contains(&("offline".to_owned(), true)).then_some(()));
}

#[test]
fn a_new_model_is_held_against_the_old_one_and_swapped_in() {
    let (fleet, _, device, models) = settled(&["old", "new"]);
    let pid = device.wait_for_model("old");
    fleet.order(2, &models[1..2]);
    let report = wait_done(&fleet, 2);
    assert_eq!(report.running[&Kind::Model], models[1].digest);
    assert_eq!(device.wait_for_model("new"), pid);
    let agreement = report.figures.agreement.unwrap();
    assert!((0.4..=0.5).contains(&agreement), "{agreement}");
}

/// More pictures than one child is asked about: of 150 of label `red`, 30 show green; 50 have a label that no model knows.
#[test]
fn a_new_classifier_answers_the_labelled_pictures_and_whatever_is_wrong_with_them_refuses_no_model() {
    let (fleet, mut artefacts) = (Fleet::start(), Artefacts::new());
    let names = ["good", "sees-only green", "finds-boxes", "unmarked", "unlooked"];
    let models = names.map(|name| artefacts.make(Kind::Model, name, Behaviour::Runs));
    fleet.offer(&artefacts);
    let set = tempfile::tempdir().unwrap();
    let add = |label: &str, index: usize, text: &str| {
        std::fs::create_dir_all(set.path().join(label)).unwrap();
        std::fs::write(set.path().join(label).join(format!("{index}.png")), text).unwrap();
    };
    (0..120).for_each(|index| add("red", index, "red"));
    (120..150).for_each(|index| add("red", index, "green"));
    (0..50).for_each(|index| add("purple", index, "red"));
    let mut device = TestDevice::new(&fleet, &artefacts.trusted());
    device.config.labelled = Some(set.path().to_owned());
    device.config.shadow_for = Duration::ZERO;
    device.config.policy.healthy_for = Duration::from_secs(1);
    device.start();
    let remarks = || {
        let world = fleet.world();
        let remarks = world.events.iter().filter(|event| event.name == "labelled-pictures");
        remarks.map(|event| event.text.clone()).collect::<Vec<_>>()
    };

    for (index, accuracy) in [Some(0.6), Some(0.0), None].into_iter().enumerate() {
        let generation = index as u64 + 1;
        fleet.order(generation, &models[index..=index]);
        assert_eq!(wait_done(&fleet, generation).figures.accuracy, accuracy, "{}", names[index]);
    }
    let unknown = "the model does not know 1 of the set's labels, such as `purple`";
    assert_eq!(remarks(), [unknown, unknown], "once for each model that names classes");

    add("red", 0, "damaged");
    fleet.order(4, &models[3..4]);
    assert_eq!(wait_done(&fleet, 4).figures.accuracy, None);
    assert_eq!(remarks()[2..], ["the labelled pictures are not answered: 1 of the pictures failed"]);
    std::fs::remove_dir_all(set.path()).unwrap();
    fleet.order(5, &models[4..5]);
    assert_eq!(wait_done(&fleet, 5).figures.accuracy, None);
    assert!(remarks()[3].starts_with("cannot read the labelled pictures"), "{:?}", remarks());
}

#[test]
fn models_that_do_not_run_are_rolled_back_and_blamed() {
    let bad = ["crashes-at-frame 300", "no-numbers", "hangs", "refuses-swap", "fails-trial"];
    let reasons = [
        "started as often as a trial allows",
        "its results are no numbers",
        "not healthy in time",
        "crashed before its first frame: this model cannot be swapped to",
        "refused: cannot run the model: the network does not fit",
    ];
    let names: Vec<&str> = ["old"].into_iter().chain(bad).collect();
    let (fleet, _, device, models) = settled(&names);
    for (index, reason) in reasons.into_iter().enumerate() {
        let generation = index as u64 + 2;
        let pid = device.wait_for_model("old");
        fleet.order(generation, &models[index + 1..index + 2]);
        let (why, blame) = wait_failed(&fleet, generation);
        assert!(why.contains(reason) && blame == Blame::Deployable, "{}: {why}", bad[index]);
        let after = device.wait_for_model("old");
        let is_same = !bad[index].starts_with("crashes");
        assert_eq!(after == pid, is_same, "{}: what runs is only restarted where it has crashed", bad[index]);
    }
    assert_eq!(device.status().counts.rollbacks, 4);
    assert!(fleet.world().events.iter().any(|event| event.name == "crashed"));
}

#[test]
fn a_pipeline_is_tried_before_it_runs() {
    let (fleet, mut artefacts, device, _) = settled(&["model"]);
    let pid = device.wait_for_model("model");
    let [good, broken] = ["two cameras", "broken"].map(|name| artefacts.make(Kind::Pipeline, name, Behaviour::Runs));
    fleet.offer(&artefacts);
    fleet.order(2, &[broken]);
    let (why, blame) = wait_failed(&fleet, 2);
    assert!(why.ends_with("cannot read the pipeline: this pipeline is broken") && blame == Blame::Deployable, "{why}");
    assert_eq!(device.wait_for_model("model"), pid);
    fleet.order(3, &[good]);
    assert_eq!(wait_done(&fleet, 3).running[&Kind::Pipeline], good.digest);
    let other = device.wait("the pipeline", |stats| {
        stats["pipeline"].as_str()?.contains("two cameras").then(|| stats["pid"].as_u64())?
    });
    assert_ne!(other, pid, "another pipeline is another process");
}

#[test]
fn lies_about_orders_are_refused_and_reported() {
    let (fleet, _, device, models) = settled(&["old", "new"]);
    let stranger = SecretKey::generate().unwrap();
    let past = Some(SystemTime::now() - Duration::from_secs(60));
    let (key, new) = (fleet.order_key(), &models[1..2]);
    fleet.say_order(DEVICE, 5, new, None, &stranger);
    fleet.say_order("gate-8", 5, new, None, key);
    fleet.say_order(DEVICE, 0, new, None, key);
    fleet.say_order(DEVICE, 5, new, past, key);
    fleet.say(Channel::Desired, b"not an order at all".to_vec());
    for reason in ["has not signed it", "it is for device `gate-8`", "has expired", "the message is damaged"] {
        fleet.wait(reason, |world| {
            world.events.iter().find(|event| event.name == "order-refused" && event.text.contains(reason)).map(drop)
        });
    }
    let report = wait_report(&fleet, 1, |report| report.progress == Progress::Done);
    assert_eq!(report.running[&Kind::Model], models[0].digest);
    fleet.wait("the last refusal in a report", |world| {
        let (_, details) = world.reports.last()?;
        (details.refused.as_ref()?.0 == Generation(5)).then_some(())
    });
    assert_eq!(device.status().counts.orders_refused, 5);
    device.wait_for_model("old");
    fleet.order(6, new);
    wait_done(&fleet, 6);
}

#[test]
fn lies_about_bytes_do_not_run() {
    let (fleet, mut artefacts, device, models) = settled(&["old", "new"]);
    let wanted = models[1];
    let part = PartSource::Blob(wanted.digest);
    let index = artefacts.get(part).unwrap().to_vec();
    let wrong = index.iter().map(|byte| byte ^ 1).collect();
    artefacts.put(part, wrong);
    fleet.offer(&artefacts);
    fleet.order(2, &[wanted]);
    let (why, blame) = wait_failed(&fleet, 2);
    assert!(why.contains("not what its digest says") && blame == Blame::Device, "{why}");

    artefacts.remove(part);
    fleet.offer(&artefacts);
    fleet.order(3, &[wanted]);
    let (why, blame) = wait_failed(&fleet, 3);
    assert!(why.contains("the service does not have it") && blame == Blame::Device, "{why}");

    artefacts.put(part, index);
    let foreign = artefacts.make(Kind::Model, "foreign", Behaviour::IsAStrangers);
    fleet.offer(&artefacts);
    fleet.order(4, &[foreign]);
    let (why, blame) = wait_failed(&fleet, 4);
    assert!(why.contains("is not among the trusted keys") && blame == Blame::Deployable, "{why}");
    device.wait_for_model("old");
    fleet.order(5, &[wanted]);
    wait_done(&fleet, 5);
}

#[test]
fn a_download_that_broke_is_gone_on_with() {
    let (fleet, mut artefacts, _device, _) = settled(&["old"]);
    let large = "a large one ".repeat(40_000);
    let model = artefacts.make(Kind::Model, &large, Behaviour::Runs);
    fleet.offer(&artefacts);
    fleet.world().cut_after = Some(200_000);
    fleet.order(2, &[model]);
    wait_done(&fleet, 2);
    let ranges: Vec<_> = fleet.world().asked.iter().filter_map(|(_, range)| range.clone()).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    let from: usize = ranges[0].trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!((1..=200_000).contains(&from), "{from}");
}

#[test]
fn what_there_is_no_room_for_is_waited_with() {
    let (fleet, mut artefacts) = (Fleet::start(), Artefacts::new());
    let model = artefacts.make(Kind::Model, "large", Behaviour::Runs);
    fleet.offer(&artefacts);
    let mut device = TestDevice::new(&fleet, &artefacts.trusted());
    device.config.limits.disk_reserve_bytes = u64::MAX / 2;
    device.start();
    fleet.order(1, &[model]);
    wait_report(
        &fleet,
        1,
        |report| matches!(&report.progress, Progress::Working { what } if what.contains("there is no room") && what.contains("needed")),
    );
    device.wait_for_model("came with the device");
    assert!(fleet.world().asked.is_empty(), "nothing was fetched");
}

#[test]
fn without_a_service_and_over_restarts_of_the_agent_the_same_process_runs_on() {
    let (fleet, _, mut device, models) = settled(&["old"]);
    let pid = device.wait_for_model("old");
    let first = fleet.world().reports.iter().map(|(report, _)| report.sequence).max().unwrap();
    fleet.world().gives_receipts = false;
    device.stop();
    assert_eq!(device.wait_for_model("old"), pid, "it is not the agent's to end");

    let port = fleet.port;
    drop(fleet);
    device.start();
    device.wait_for_model("old");
    let status = device.status();
    assert!(!status.is_connected && status.running[&Kind::Model] == models[0].digest, "{status:?}");
    assert_eq!(device.wait_for_model("old"), pid, "the next agent took it over");
    device.stop();

    assert_ne!(port.port(), 0);
    let numbers = std::fs::read_to_string(device.config.folder.join("numbers.json")).unwrap();
    assert!(numbers.contains("\"starts\":2"), "{numbers}");
    assert!(first < 2 << 32, "the next start's numbers are higher");
}

#[test]
fn events_are_kept_until_they_are_receipted() {
    let (fleet, artefacts) = (Fleet::start(), Artefacts::new());
    fleet.world().gives_receipts = false;
    let mut device = TestDevice::new(&fleet, &artefacts.trusted());
    device.start();
    fleet.say(Channel::Desired, b"nonsense".to_vec());
    let event = fleet.wait_for_event("order-refused");
    assert!(device.status().events_waiting > 0);
    device.stop();
    fleet.say(Channel::Desired, Vec::new());
    fleet.world().events.clear();
    fleet.world().gives_receipts = true;
    device.start();
    assert_eq!(fleet.wait_for_event("order-refused"), event, "it is said again after a restart");
    let deadline = std::time::Instant::now() + crate::fleet::PATIENCE;
    while device.status().events_waiting > 0 {
        assert!(std::time::Instant::now() < deadline, "{:?}", device.status());
    }
    assert!(std::fs::read_dir(device.config.folder.join("events")).unwrap().next().is_none());
}

#[test]
fn commands_are_done_once_and_answered() {
    let (fleet, _, device, models) = settled(&["old", "new"]);
    fleet.order(2, &models[1..2]);
    wait_done(&fleet, 2);
    let pid = device.wait_for_model("new");
    let result = |number| {
        fleet.wait(&format!("an answer to {number}"), |world| {
            let mut results = world.events.iter().filter_map(|event| event.result.clone());
            results.find(|result| result.number == number).map(|result| result.outcome)
        })
    };
    fleet.command(1, Ask::Snapshot { stream: "door".to_owned() });
    result(1).unwrap();
    let answer = ("image/jpeg".to_owned(), b"a picture of the door".to_vec());
    assert_eq!(fleet.world().answers.get(&1), Some(&answer));
    fleet.command(2, Ask::Snapshot { stream: "attic".to_owned() });
    assert_eq!(result(2), Err("there is no stream `attic`".to_owned()));
    fleet.command(3, Ask::SwapModel { digest: models[0].digest });
    result(3).unwrap();
    assert_eq!(device.wait_for_model("old"), pid);
    fleet.command(4, Ask::SwapModel { digest: Digest::new([9; 32]) });
    assert_eq!(result(4), Err("no slot of this device holds that model".to_owned()));
    fleet.command(5, Ask::RestartPipeline);
    result(5).unwrap();
    let restarted = device.wait_for_model("new");
    assert_ne!(restarted, pid, "a restart runs what is active");
    fleet.command(6, Ask::FetchLogs { lines: 1000 });
    result(6).unwrap();
    let (media_type, log) = fleet.world().answers[&6].clone();
    let log = String::from_utf8(log).unwrap();
    assert_eq!(media_type, "text/plain");
    assert!(log.contains("runs came with the device") && log.contains("agent: committed"), "{log}");

    fleet.command(5, Ask::RestartPipeline);
    let past = SystemTime::now() - Duration::from_secs(60);
    fleet.say_command(DEVICE, 7, Ask::RestartPipeline, Some(past));
    fleet.say_command("gate-8", 7, Ask::RestartPipeline, None);
    fleet.wait("both refusals", |world| {
        let refused = |text| world.events.iter().any(|e| e.name == "command-refused" && e.text.contains(text));
        (refused("has expired") && refused("`gate-8`")).then_some(())
    });
    assert_eq!(device.wait_for_model("new"), restarted, "nothing of that was done");
    let counts = device.status().counts;
    assert_eq!((counts.commands_done, counts.commands_refused, counts.commands_repeated), (6, 2, 1));
}

#[test]
fn a_certificate_is_renewed_when_the_service_says_so() {
    let (fleet, artefacts) = (Fleet::start(), Artefacts::new());
    let mut device = TestDevice::new(&fleet, &artefacts.trusted());
    let path = shell::identity_path(&device.config.folder);
    let before = shell::Identity::load(&path).unwrap();
    fleet.world().renews = true;
    device.start();
    fleet.wait_for_event("certificate-renewed");
    let after = shell::Identity::load(&path).unwrap();
    assert_ne!(before.certificates, after.certificates);
    assert_eq!((fleet.world().certificates, before.device), (2, after.device));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(device.status().is_connected);
}

#[test]
fn a_package_runs_the_pipeline_then_becomes_the_agent_and_is_left_again_where_it_does_not_check_in() {
    let (fleet, mut artefacts, mut device, _) = settled(&["model"]);
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", program().display());
    let package = artefacts.make_program(&script);
    fleet.offer(&artefacts);
    let pid = device.wait_for_model("model");
    fleet.order(2, &[package]);
    let copy = device.config.folder.join("programs").join(package.digest.hex());
    assert_eq!(device.wait_for_end(), Ending::Replace { program: copy.clone() });
    fleet.wait_for_event("committed");
    let running = std::fs::read_to_string(device.config.folder.join("running.json")).unwrap();
    assert!(running.contains(copy.to_str().unwrap()), "{running}");
    let packaged = device.wait_for_model("model");
    assert_ne!(packaged, pid, "another program is another process");

    fleet.world().gives_receipts = false;
    device.config.check_in_time_max = Duration::from_secs(2);
    device.config.program = Some(program());
    device.start_as(&copy);
    assert_eq!(device.wait_for_end(), Ending::Replace { program: program() });
    assert_eq!(device.wait_for_model("model"), packaged, "the pipeline ran on");

    fleet.world().gives_receipts = true;
    device.start();
    assert_eq!(device.wait_for_end(), Ending::Replace { program: copy.clone() }, "it is tried once more");
    fleet.wait_for_event("agent-reverted");
    device.start_as(&copy);
    wait_report(&fleet, 2, |report| report.progress == Progress::Done);
    while device.status().counts.receipts == 0 {
        std::thread::yield_now();
    }
    device.stop();
    device.start();
    assert_eq!(device.wait_for_end(), Ending::Replace { program: copy }, "from then on it is the agent");
    assert_eq!(device.wait_for_model("model"), packaged);
}
