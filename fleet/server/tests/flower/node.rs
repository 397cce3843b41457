//! The door for SuperNodes, call by call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use prost::Message as _;
use prost::bytes::Bytes;
use rcgen::KeyPair;
use revoada_federated::Participant;
use revoada_federated::npy::{self, Element};
use revoada_fleet::flower::objects::{Kind, parse_id};
use revoada_fleet::flower::{Allowed, MemoryNodes, NodeLimits};
use revoada_fleet::learning::{Config, Reply, Reported, Tensor, Value, Work};
use revoada_proto::flower::config_record_value::Value as ConfigValue;
use revoada_proto::flower::metric_record_value::Value as Metric;
use revoada_proto::flower::{
    ConfigRecord, Error, GetFabRequest, GetFabResponse, GetRunRequest, GetRunResponse, RegisterNodeFleetRequest,
    RegisterNodeFleetResponse, UnregisterNodeFleetRequest, UnregisterNodeFleetResponse,
};

use crate::node_client::{NodeClient, key, public};
use crate::node_server::{RUN, Server, app, fit, layout, sheet};

fn anybody() -> Arc<MemoryNodes> {
    Arc::new(MemoryNodes::new(Allowed::Any, 100))
}

fn quick() -> NodeLimits {
    NodeLimits { hold: Duration::from_millis(50), ..NodeLimits::default() }
}

fn server() -> Server {
    Server::start(anybody(), quick(), None)
}

fn zeros() -> Vec<f32> {
    vec![0.0; layout().0.count()]
}

fn name(client: &NodeClient) -> Participant {
    Participant(format!("node/{}", client.id))
}

fn examples(count: i64) -> (&'static str, Metric) {
    ("num-examples", Metric::Sint64(count))
}

/// What came of the task of the only node.
fn said(server: &mut Server, client: &NodeClient, number: u64) -> Reply {
    let name = name(client);
    server.replies(std::slice::from_ref(&name), number).remove(&name).unwrap().expect("it has not gone")
}

#[test]
fn a_node_goes_through_all_calls_in_their_order() {
    let mut server = server();
    let mut client = NodeClient::new(server.address, key());
    let public_key: Bytes = client.key.public_key_pem().into();
    let registered: RegisterNodeFleetResponse =
        client.call("register-node", &RegisterNodeFleetRequest { public_key }).unwrap();
    assert_eq!(client.activate().unwrap(), registered.node_id);
    assert_eq!(server.wait_for(1), [name(&client)]);
    assert_eq!(client.heartbeat(), Ok(true));
    assert_eq!(client.pull().unwrap(), None, "nobody has asked for anything");

    let app = app(b"a program");
    let values: Vec<f32> = (0..layout().0.count()).map(|index| index as f32).collect();
    let weights = sheet(values, Some(&app));
    let config: Config =
        [("rate".to_owned(), Value::Double(0.5)), ("name".to_owned(), Value::Text("a".to_owned()))].into();
    let number = server.post(&[name(&client)], 3, Work::Fit { weights: Arc::clone(&weights), config });
    let (message, tree) = client.wait();
    let metadata = message.metadata.clone().unwrap();
    assert_eq!((metadata.run_id, metadata.src_node_id, metadata.dst_node_id), (RUN.0, 1, client.id));
    assert_eq!((metadata.message_type.as_str(), metadata.group_id.as_str()), ("train", "3"));
    assert_eq!(metadata.message_id, tree.object_id);

    let run: GetRunResponse = client.call("get-run", &GetRunRequest { node: client.node(), run_id: RUN.0 }).unwrap();
    let run = run.run.unwrap();
    assert_eq!((run.run_id, run.fab_id.as_str(), run.fab_version.as_str()), (RUN.0, "revoada/steps", "1.2.3"));
    assert_eq!((run.status.unwrap().status.as_str(), run.series_id), ("running", RUN.0));
    let request = GetFabRequest { node: client.node(), hash_str: run.fab_hash, run_id: RUN.0 };
    let fab: GetFabResponse = client.call("get-fab", &request).unwrap();
    assert_eq!(fab.fab.unwrap().content, b"a program".as_slice());

    let objects = client.objects(RUN.0, &tree);
    let of = |kind| objects.values().filter(move |object| object.kind == kind);
    assert_eq!((of(Kind::Array).count(), of(Kind::ArrayChunk).count()), (3, 4), "the large one has two chunks");
    let config = ConfigRecord::decode(of(Kind::ConfigRecord).next().unwrap().body.clone()).unwrap();
    let config: BTreeMap<_, _> =
        config.items.into_iter().map(|item| (item.key, item.value.unwrap().value.unwrap())).collect();
    assert_eq!(config["server-round"], ConfigValue::Sint64(3));
    assert_eq!((&config["rate"], &config["name"]), (&ConfigValue::Double(0.5), &ConfigValue::String("a".to_owned())));
    client.confirm(RUN.0, &message);

    let learnt = npy::write(Element::F32, &[3, 2], &[1.0; 6]);
    let scale = &weights.arrays()[1];
    let metrics = [examples(12), ("loss", Metric::Double(0.25)), ("steps", Metric::Uint64(4))];
    let reply = client.reply(&message, &[("dense/kernel", &learnt), ("scale", scale)], &metrics);
    let asked = client.answer(&message, &reply).unwrap();
    assert_eq!(asked, reply.objects.len() - 1, "the chunk of what has not changed is not asked for");
    let reported = Reported {
        examples: 12,
        metrics: [("loss".to_owned(), Value::Double(0.25)), ("steps".to_owned(), Value::Integer(4))].into(),
    };
    let tensor = |name: &str, array: Bytes| Tensor { name: Some(name.to_owned()), array };
    let tensors = vec![tensor("dense/kernel", learnt.into()), tensor("scale", scale.clone())];
    assert_eq!(said(&mut server, &client, number), Reply::Fit { tensors, reported });
    assert_eq!(client.push(reply.message, reply.tree).unwrap_err().0, 403, "it was answered");
    assert_eq!(client.object(RUN.0, &tree.object_id), None);

    let number = server.post(&[name(&client)], 3, Work::Evaluate { weights, config: Config::new() });
    let (message, _) = client.wait();
    assert_eq!(message.metadata.as_ref().unwrap().message_type, "evaluate");
    let metrics = [examples(5), ("eval_loss", Metric::Double(0.75)), ("accuracy", Metric::Double(0.5))];
    client.answer(&message, &client.reply(&message, &[], &metrics)).unwrap();
    let reported = Reported { examples: 5, metrics: [("accuracy".to_owned(), Value::Double(0.5))].into() };
    assert_eq!(said(&mut server, &client, number), Reply::Evaluate { loss: Some(0.75), reported });

    client.leave().unwrap();
    server.wait_for_gone(&name(&client));
    let request = UnregisterNodeFleetRequest { node_id: client.id };
    client.call::<UnregisterNodeFleetResponse>("unregister-node", &request).unwrap();
    assert_eq!(client.heartbeat().unwrap_err().0, 401, "it is forgotten");
    let stats = server.door.stats();
    assert_eq!((stats.present, stats.messages, stats.replies, stats.upload_bytes), (0, 2, 2, 0));
    server.stop();
}

#[test]
fn a_node_that_waits_is_given_a_task_at_once() {
    let limits = NodeLimits { hold: Duration::from_secs(3600), ..NodeLimits::default() };
    let mut server = Server::start(anybody(), limits, None);
    let client = NodeClient::active(server.address, key());
    let (waiting, client) = (server.wait_for(1), Arc::new(client));
    let pulling = Arc::clone(&client);
    let pull = thread::spawn(move || pulling.pull().unwrap());
    let number = server.post(&waiting, 1, fit(&sheet(zeros(), Some(&app(b"")))));
    let (message, tree) = pull.join().unwrap().expect("it was held until there was one");
    let mut failed = client.bare(&message);
    failed.metadata.as_mut().unwrap().message_id = tree.object_id.clone();
    failed.error = Some(Error { code: 2, reason: "out of memory".to_owned() });
    let pushed = client.push(failed, tree).unwrap();
    assert!(pushed.objects_to_push.is_empty());
    let reason = "the SuperNode failed with code 2: out of memory".to_owned();
    assert_eq!(said(&mut server, &client, number), Reply::Failed(reason));
    // One that is held does not keep the service from stopping.
    let pulling = Arc::clone(&client);
    let pull = thread::spawn(move || pulling.pull());
    server.stop();
    drop(pull.join());
}

#[test]
fn what_no_node_can_do_is_answered_for_it() {
    let mut server = server();
    let client = NodeClient::active(server.address, key());
    let there = server.wait_for(1);
    let without_app = fit(&sheet(zeros(), None));
    for (work, why) in [
        (Work::Parameters { config: Config::new() }, "cannot be asked for the first weights"),
        (Work::Leave, "stays for the next run"),
        (without_app, "needs a program"),
    ] {
        match server.ask(&there, 1, work).remove(&there[0]) {
            Some(Some(Reply::Failed(reason))) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.pull().unwrap(), None);
    server.stop();
}

#[test]
fn a_message_is_given_again_until_the_node_has_it_and_when_it_comes_anew() {
    let mut server = server();
    let mut client = NodeClient::active(server.address, key());
    let there = server.wait_for(1);
    let number = server.post(&there, 1, fit(&sheet(zeros(), Some(&app(b"")))));
    let (message, _) = client.wait();
    assert_eq!(client.wait().0, message, "it may have been lost on its way");
    client.confirm(RUN.0, &message);
    assert_eq!(client.pull().unwrap(), None);
    client.activate().unwrap();
    let (again, _) = client.wait();
    assert_ne!(again.metadata, message.metadata);
    let metrics = [examples(1)];
    assert_eq!(client.answer(&message, &client.reply(&message, &[], &metrics)).unwrap_err().0, 403);
    client.answer(&again, &client.reply(&again, &[], &metrics)).unwrap();
    assert!(matches!(said(&mut server, &client, number), Reply::Fit { .. }));
    assert_eq!(client.pull().unwrap(), None);
    server.board.post(
        &there[0],
        Arc::new(revoada_fleet::learning::Task {
            number: 90,
            run: RUN,
            round: 2,
            work: fit(&sheet(zeros(), Some(&app(b"")))),
        }),
    );
    server.board.withdraw(&there[0], 90);
    assert_eq!(client.pull().unwrap(), None, "nobody wants it any more");
    server.stop();
}

#[test]
fn a_reply_that_is_not_as_it_should_be_fails_the_task_and_spares_the_node() {
    let limits = NodeLimits { reply_bytes_max: 1 << 20, body_bytes_max: 6 << 20, reply_objects_max: 12, ..quick() };
    let mut server = Server::start(anybody(), limits, None);
    let client = NodeClient::active(server.address, key());
    let there = server.wait_for(1);
    let weights = sheet(zeros(), Some(&app(b"")));
    let failed = |server: &mut Server, number, why: &str| match said(server, &client, number) {
        Reply::Failed(reason) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?}"),
    };

    // An object that is not what its name says.
    let number = server.post(&there, 1, fit(&weights));
    let (message, _) = client.wait();
    let reply = client.reply(&message, &[], &[examples(1)]);
    let pushed = client.push(reply.message, reply.tree).unwrap();
    let wrong = client.put(RUN.0, &pushed.session_id, &pushed.objects_to_push[0], &Bytes::from_static(b"wrong"));
    assert_eq!(wrong.unwrap_err().0, 400);
    failed(&mut server, number, "not what its name says");

    // More bytes than a reply may have, and than a request may have.
    let number = server.post(&there, 1, fit(&weights));
    let (message, _) = client.wait();
    let large: Vec<u8> = (0..(3 << 20)).map(|index: u32| (index % 251) as u8).collect();
    let reply = client.reply(&message, &[("large", &large)], &[examples(1)]);
    assert_eq!(client.answer(&message, &reply).unwrap_err().0, 413);
    failed(&mut server, number, "more than 1048576 bytes");
    let name = reply.tree.object_id;
    assert_eq!(client.put(RUN.0, "", &name, &Bytes::from(vec![0; 7 << 20])).unwrap_err().0, 413);

    // A few objects, used many times.
    let number = server.post(&there, 1, fit(&weights));
    let (message, _) = client.wait();
    let half = &large[..(1 << 19)];
    let reply = client.reply(&message, &[("a", half), ("b", half), ("c", half)], &[examples(1)]);
    client.answer(&message, &reply).unwrap();
    failed(&mut server, number, "the arrays of a reply have more than 1048576 bytes");

    // Too many objects.
    let number = server.post(&there, 1, fit(&weights));
    let (message, _) = client.wait();
    let names: Vec<_> = (0..5_u8).map(|index| (format!("{index}"), vec![index])).collect();
    let tensors: Vec<_> = names.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let reply = client.reply(&message, &tensors, &[examples(1)]);
    assert_eq!(client.answer(&message, &reply).unwrap_err().0, 400);
    failed(&mut server, number, "more than 12");

    // No count of examples.
    for metrics in [vec![], vec![examples(-1)], vec![("num-examples", Metric::Double(f64::NAN))]] {
        let number = server.post(&there, 1, fit(&weights));
        let (message, _) = client.wait();
        client.answer(&message, &client.reply(&message, &[], &metrics)).unwrap();
        failed(&mut server, number, "num-examples");
    }
    assert_eq!(client.heartbeat(), Ok(true));
    assert_eq!(server.door.stats().upload_bytes, 0);
    server.stop();
}

#[test]
fn nobody_speaks_for_another_node() {
    let server = server();
    let one = NodeClient::active(server.address, key());
    let mut other = NodeClient::active(server.address, key());
    let own = other.id;
    other.id = one.id;
    assert_eq!(other.heartbeat().unwrap_err().0, 401);
    assert_eq!(other.pull().unwrap_err().0, 401);
    assert_eq!(other.leave().unwrap_err().0, 401);
    let request = RegisterNodeFleetRequest { public_key: one.key.public_key_pem().into() };
    assert_eq!(other.call::<RegisterNodeFleetResponse>("register-node", &request).unwrap_err().0, 401);
    other.id = 4711;
    assert_eq!(other.heartbeat().unwrap_err().0, 401, "there is no such node");
    other.id = own;
    other.clock = || SystemTime::now() - Duration::from_secs(310);
    let (status, why) = other.heartbeat().unwrap_err();
    assert!(status == 401 && why.contains("clocks"), "{why}");
    other.clock = || SystemTime::now() + Duration::from_secs(60);
    assert_eq!(other.heartbeat().unwrap_err().0, 401);
    other.clock = SystemTime::now;
    assert_eq!((one.heartbeat(), other.heartbeat()), (Ok(true), Ok(true)));
    assert_eq!(server.door.stats().refused_peers, 7);
    assert_eq!(one.call::<RegisterNodeFleetResponse>("conquer", &request).unwrap_err().0, 404);
    server.stop();
}

#[test]
fn only_listed_nodes_come_in() {
    let (listed, stranger) = (key(), key());
    let nodes = Arc::new(MemoryNodes::new(Allowed::Listed([public(&listed)].into()), 100));
    let mut server = Server::start(nodes, quick(), None);
    let mut stranger = NodeClient::new(server.address, stranger);
    let (status, why) = stranger.activate().unwrap_err();
    assert!(status == 404 && why.contains("not listed"), "{why}");
    let request = RegisterNodeFleetRequest { public_key: stranger.key.public_key_pem().into() };
    assert_eq!(stranger.call::<RegisterNodeFleetResponse>("register-node", &request).unwrap_err().0, 404);
    let listed = NodeClient::active(server.address, listed);
    assert_eq!(server.wait_for(1), [name(&listed)]);
    server.stop();
}

#[test]
fn a_node_is_there_again_after_a_restart() {
    let nodes = anybody();
    let server = Server::start(Arc::clone(&nodes) as _, quick(), None);
    let client = NodeClient::active(server.address, key());
    server.stop();
    let mut server = Server::start(nodes, quick(), None);
    let again = |client: &NodeClient| {
        let key = KeyPair::from_pem(&client.key.serialize_pem()).unwrap();
        let mut again = NodeClient::new(server.address, key);
        again.id = client.id;
        again
    };
    let client = again(&client);
    assert_eq!(client.heartbeat(), Ok(true));
    assert_eq!(server.wait_for(1), [name(&client)]);
    let number = server.post(&[name(&client)], 1, fit(&sheet(zeros(), Some(&app(b"")))));
    let (message, _) = client.wait();
    client.answer(&message, &client.reply(&message, &[], &[examples(1)])).unwrap();
    assert!(matches!(said(&mut server, &client, number), Reply::Fit { .. }));
    server.stop();
}

#[test]
fn a_node_that_falls_silent_has_gone() {
    let limits = NodeLimits { heartbeat_interval_max: Duration::from_millis(100), ..quick() };
    let mut server = Server::start(anybody(), limits, None);
    let client = NodeClient::active(server.address, key());
    server.wait_for_gone(&name(&client));
    assert_eq!(client.heartbeat(), Ok(true), "and comes back by itself");
    server.wait_for(1);
    server.stop();
}

#[test]
fn a_full_board_asks_nodes_to_come_again() {
    let server = Server::start_for(1, anybody(), quick(), None);
    let _first = NodeClient::active(server.address, key());
    let mut second = NodeClient::new(server.address, key());
    assert_eq!(second.activate().unwrap_err().0, 503);
    assert_eq!(server.door.stats().busy, 1);
    server.stop();
}

#[test]
fn an_end_that_is_sent_again_was_taken() {
    let mut server = server();
    let client = NodeClient::active(server.address, key());
    let there = server.wait_for(1);
    let number = server.post(&there, 1, fit(&sheet(zeros(), Some(&app(b"")))));
    let (message, _) = client.wait();
    let reply = client.reply(&message, &[], &[examples(1)]);
    let pushed = client.push(reply.message.clone(), reply.tree.clone()).unwrap();
    let (last, others) = pushed.objects_to_push.split_last().unwrap();
    let put = |name: &String| client.put(RUN.0, &pushed.session_id, name, &reply.objects[&parse_id(name).unwrap()]);
    assert!(others.iter().all(|name| put(name).unwrap()));
    let again = client.push(reply.message.clone(), reply.tree.clone()).unwrap();
    assert_eq!((&again.objects_to_push, &again.session_id), (&vec![last.clone()], &pushed.session_id));
    assert_eq!((put(last), put(last)), (Ok(true), Ok(true)));
    assert!(matches!(said(&mut server, &client, number), Reply::Fit { .. }));
    server.stop();
}

#[test]
fn a_verdict_that_does_not_come_keeps_no_node_from_going() {
    let mut server = server();
    let client = NodeClient::active(server.address, key());
    let there = server.wait_for(1);
    server.post(&there, 1, fit(&sheet(zeros(), Some(&app(b"")))));
    let (message, _) = client.wait();
    client.answer(&message, &client.reply(&message, &[], &[examples(1)])).unwrap();
    // Nobody hears what was said.
    server.stop();
}
