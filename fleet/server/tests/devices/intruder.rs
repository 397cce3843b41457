//! Who must not get in, and what a device must not do there.

use std::time::{Duration, SystemTime};

use revoada_fleet::broker::{BrokerLimits, Incoming};
use revoada_fleet::device_port::DevicePortLimits;
use revoada_fleet::identity::VALIDITY;
use revoada_proto::topic::{MESSAGE_BYTES_MAX, OFFLINE};
use revoada_proto::{Channel, Topic};
use rustls::pki_types::UnixTime;
use tokio::io::AsyncReadExt;

use super::broker::{Running, start};
use super::mqtt::{CLIENT_ID_NOT_VALID, Client, Connect, NOT_AUTHORIZED, Packet, packet, publish, subscribe, topic};
use super::port::Blobs;
use super::world::{Credentials, World, connect, until, within};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A client that has its handshake behind it in TLS 1.3 learns of a refusal when it reads.
async fn is_let_in(world: &World, running: &Running, credentials: Option<&Credentials>) -> bool {
    let Ok(stream) = within(connect(&world.client(credentials, None), running.address)).await else { return false };
    let mut client = Client(stream);
    client.send(&Connect::default().encode()).await;
    matches!(client.receive().await, Some(Packet::ConnAck { reason: 0, .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_certificate_of_the_authority_that_has_not_ended_gets_in() {
    let (world, foreign) = (World::new(), World::new());
    let running = start(&world, BrokerLimits::default()).await;
    assert!(is_let_in(&world, &running, Some(&world.device("gate-7"))).await);
    let now = SystemTime::now();
    for (what, credentials) in [
        ("none", None),
        ("expired", Some(world.device_at("gate-7", now - VALIDITY - DAY, VALIDITY))),
        ("not valid yet", Some(world.device_at("gate-7", now + 3 * DAY, VALIDITY))),
        ("of a foreign authority", Some(foreign.device("gate-7"))),
        ("self-signed", Some(World::self_signed("gate-7"))),
    ] {
        // What a client that was refused sends may find the connection closed.
        let attempt = tokio::spawn({
            let config = world.client(credentials.as_ref(), None);
            let address = running.address;
            async move {
                let mut stream = connect(&config, address).await?;
                tokio::io::AsyncWriteExt::write_all(&mut stream, &Connect::default().encode()).await?;
                stream.read_u8().await
            }
        });
        assert!(within(attempt).await.unwrap().is_err(), "{what}");
    }
    until("all five are counted", || running.broker.stats().acceptor.failed == 5).await;
    assert!(is_let_in(&world, &running, Some(&world.device("gate-7"))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_older_than_tls_1_3_is_spoken() {
    let world = World::new();
    let broker = start(&world, BrokerLimits::default()).await;
    let port = super::port::start(&world, Blobs::default(), DevicePortLimits::default()).await;
    let credentials = world.device("gate-7");
    for (versions, is_spoken) in [(&[&rustls::version::TLS12], false), (&[&rustls::version::TLS13], true)] {
        let config = world.client_speaking(Some(&credentials), versions);
        for address in [broker.address, port.address] {
            assert_eq!(within(connect(&config, address)).await.is_ok(), is_spoken);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_a_wrong_clock_accepts_the_server() {
    let world = World::new();
    let running = start(&world, BrokerLimits::default()).await;
    let credentials = world.device("gate-7");
    for years in [0, 30, 80, 1000, 8000] {
        let clock = UnixTime::since_unix_epoch(365 * years * DAY);
        let config = world.client_at(Some(&credentials), None, clock);
        Client::start(&config, running.address, &Connect::default()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_not_let_in() {
    let world = World::new();
    let running = start(&world, BrokerLimits::default()).await;
    let credentials = world.device("gate-7");
    world.revoked.add(credentials.serial.unwrap());
    let mut client = Client::open(&world.client(Some(&credentials), None), running.address).await;
    client.send(&Connect::default().encode()).await;
    assert!(matches!(client.receive().await, Some(Packet::ConnAck { reason: NOT_AUTHORIZED, .. })));
    assert_eq!(running.broker.stats().refused_sessions, 1);
    assert!(is_let_in(&world, &running, Some(&world.device("gate-7"))).await, "its next certificate is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_revoked_while_it_is_connected_is_cut_off_and_forgotten() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let credentials = world.device("gate-7");
    let config = world.client(Some(&credentials), None);
    let will = topic("gate-7", Channel::Presence);
    let lasting =
        Connect { clean_start: false, session_expiry: 600, will: Some((&will, OFFLINE, true)), ..Connect::default() };
    let desired = topic("gate-7", Channel::Desired);
    let mut client = Client::start(&config, running.address, &lasting).await;
    client.send(&subscribe(&[&desired], 1)).await;
    assert_eq!(client.receive().await, Some(Packet::SubAck { reasons: vec![1] }));
    let order = Topic::new("gate-7".parse().unwrap(), Channel::Desired);
    running.broker.publish(&order, b"order".to_vec()).await.unwrap();
    assert!(matches!(client.receive().await, Some(Packet::Publish { .. })));

    world.revoked.add(credentials.serial.unwrap());
    client.send(&publish(&topic("gate-7", Channel::State), b"too late", 1, false, 1)).await;
    assert_eq!(client.receive().await, Some(Packet::PubAck { id: 1, reason: NOT_AUTHORIZED }));
    client.send(&subscribe(&[&topic("gate-7", Channel::Command)], 2)).await;
    assert_eq!(client.receive().await, Some(Packet::SubAck { reasons: vec![NOT_AUTHORIZED] }));
    running.broker.disconnect(&"gate-7".parse().unwrap()).await;
    assert_eq!(client.end().await, []);
    loop {
        match running.hear().await {
            Incoming::Disconnected { .. } => break,
            Incoming::Message { .. } => panic!("nothing of a revoked device is heard"),
            _ => {}
        }
    }
    let mut client = Client::open(&config, running.address).await;
    client.send(&lasting.encode()).await;
    assert!(matches!(client.receive().await, Some(Packet::ConnAck { reason: NOT_AUTHORIZED, .. })));

    // Under a new certificate it finds nothing of the old session, and no order.
    let config = world.client(Some(&world.device("gate-7")), None);
    let mut client = Client::open(&config, running.address).await;
    client.send(&lasting.encode()).await;
    assert!(matches!(client.receive().await, Some(Packet::ConnAck { session_present: false, reason: 0, .. })));
    client.send(&subscribe(&[&desired], 1)).await;
    client.send(&packet(0xc0, &[])).await;
    assert_eq!(client.receive().await, Some(Packet::SubAck { reasons: vec![1] }));
    assert_eq!(client.receive().await, Some(Packet::Other(13)), "the answer to its ping, and no order before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_the_devices_own_is_refused() {
    let world = World::new();
    let running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let (own, others) = (topic("gate-7", Channel::Presence), topic("gate-8", Channel::Presence));
    let (state, desired) = (topic("gate-7", Channel::State), topic("gate-8", Channel::Desired));
    let with_will =
        |will, payload, is_retained| Connect { will: Some((will, payload, is_retained)), ..Connect::default() };
    let cases = [
        (Connect { id: "gate-8", ..Connect::default() }, CLIENT_ID_NOT_VALID),
        (Connect { id: "", ..Connect::default() }, CLIENT_ID_NOT_VALID),
        (Connect { id: "GATE-7", ..Connect::default() }, CLIENT_ID_NOT_VALID),
        (Connect { id: "gate-7/..", ..Connect::default() }, CLIENT_ID_NOT_VALID),
        (Connect { version: 4, ..Connect::default() }, 1),
        (with_will(&others, OFFLINE, true), NOT_AUTHORIZED),
        (with_will(&desired, OFFLINE, true), NOT_AUTHORIZED),
        (with_will(&state, OFFLINE, false), NOT_AUTHORIZED),
        (with_will(&own, OFFLINE, false), NOT_AUTHORIZED),
        (with_will(&own, b"online", true), NOT_AUTHORIZED),
        (with_will("$SYS/broker", OFFLINE, true), NOT_AUTHORIZED),
    ];
    for (index, (connect, expected)) in cases.iter().enumerate() {
        let mut client = Client::open(&config, running.address).await;
        client.send(&connect.encode()).await;
        match client.receive().await {
            Some(Packet::ConnAck { reason, .. }) => assert_eq!(reason, *expected, "case {index}"),
            other => panic!("case {index}: {other:?}"),
        }
        assert_eq!(client.end().await, [], "case {index}");
    }
    assert_eq!(running.broker.stats().connected, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_publishes_on_its_own_topics_alone() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let victim = world.client(Some(&world.device("gate-8")), None);
    let mut victim = Client::start(&victim, running.address, &Connect { id: "gate-8", ..Connect::default() }).await;
    let down = [Channel::Desired, Channel::Command, Channel::Receipt].map(|channel| topic("gate-8", channel));
    victim.send(&subscribe(&down.each_ref().map(String::as_str), 1)).await;
    assert_eq!(victim.receive().await, Some(Packet::SubAck { reasons: vec![1; 3] }));
    let mut client = Client::start(&config, running.address, &Connect::default()).await;
    let mut topics: Vec<String> = Channel::ALL.iter().map(|channel| topic("gate-8", *channel)).collect();
    topics.extend([Channel::Desired, Channel::Command, Channel::Receipt].map(|channel| topic("gate-7", channel)));
    topics.extend(
        ["$SYS/broker/version", "$share/x/v1/default/gate-8/desired", "v1/other/gate-7/up/state", "refused", "v1", "/"]
            .map(str::to_owned),
    );
    let mut id = 0;
    for topic in &topics {
        for is_retained in [false, true] {
            id += 1;
            client.send(&publish(topic, b"forged", 1, is_retained, id)).await;
            let answer = client.receive().await;
            assert_eq!(answer, Some(Packet::PubAck { id, reason: NOT_AUTHORIZED }), "{topic}");
            client.send(&publish(topic, b"forged", 0, is_retained, 0)).await;
        }
    }
    // What comes after all of it on either connection was not preceded by anything.
    client.send(&publish(&topic("gate-7", Channel::State), b"true", 1, false, 999)).await;
    assert_eq!(client.receive().await, Some(Packet::PubAck { id: 999, reason: 0 }));
    assert_eq!(running.hear_message().await, ("gate-7".to_owned(), Channel::State, b"true".to_vec()));
    assert_eq!(running.broker.stats().refused_publishes, 4 * topics.len() as u64);
    victim.send(&packet(0xc0, &[])).await;
    assert_eq!(victim.receive().await, Some(Packet::Other(13)));
    // Nor was anything retained for whoever subscribes later.
    victim.send(&subscribe(&down.each_ref().map(String::as_str), 2)).await;
    victim.send(&packet(0xc0, &[])).await;
    assert_eq!(victim.receive().await, Some(Packet::SubAck { reasons: vec![1; 3] }));
    assert_eq!(victim.receive().await, Some(Packet::Other(13)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_retains_what_it_must_not_is_cut_off_and_not_acknowledged() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    for (channel, is_retained) in [(Channel::State, true), (Channel::Event, true), (Channel::Presence, false)] {
        for qos in [0, 1] {
            let mut client = Client::start(&config, running.address, &Connect::default()).await;
            client.send(&publish(&topic("gate-7", channel), b"wrong", qos, is_retained, 1)).await;
            assert_eq!(client.end().await, [], "{channel:?}");
        }
    }
    assert_eq!(running.broker.stats().refused_publishes, 6);
    let mut client = Client::start(&config, running.address, &Connect::default()).await;
    client.send(&publish(&topic("gate-7", Channel::State), b"right", 1, false, 1)).await;
    assert_eq!(running.hear_message().await.2, b"right");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_subscribes_to_its_own_topics_alone_and_to_no_pattern() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let mut client = Client::start(&config, running.address, &Connect::default()).await;
    let mut filters: Vec<String> = Channel::ALL.iter().map(|channel| topic("gate-8", *channel)).collect();
    filters.extend([Channel::State, Channel::Event, Channel::Presence].map(|channel| topic("gate-7", channel)));
    filters.extend(
        [
            "#",
            "+",
            "v1/#",
            "v1/default/gate-7/#",
            "v1/default/+/desired",
            "v1/default/gate-7/+",
            "v1/+/gate-7/desired",
            "v1/other/gate-7/desired",
            "$SYS/#",
            "$SYS/broker/version",
            "$share/x/#",
            "$share/x/v1/default/gate-7/desired",
            "$share/x/v1/default/gate-8/desired",
            "refused",
        ]
        .map(str::to_owned),
    );
    for (id, filter) in (1..).zip(&filters) {
        client.send(&subscribe(&[filter], id)).await;
        assert_eq!(client.receive().await, Some(Packet::SubAck { reasons: vec![NOT_AUTHORIZED] }), "{filter}");
    }
    assert_eq!(running.broker.stats().refused_subscriptions, filters.len() as u64);
    for (id, filter) in (100..).zip(["#/a", "a+", "$share/x", "$share//v1"]) {
        client.send(&subscribe(&[filter], id)).await;
        match client.receive().await {
            Some(Packet::SubAck { reasons }) => assert!(reasons[0] >= 0x80, "{filter}: {reasons:?}"),
            other => panic!("{filter}: {other:?}"),
        }
    }
    let order = Topic::new("gate-8".parse().unwrap(), Channel::Desired);
    running.broker.publish(&order, b"not yours".to_vec()).await.unwrap();
    client.send(&packet(0xc0, &[])).await;
    assert_eq!(client.receive().await, Some(Packet::Other(13)));
    assert!(matches!(running.hear().await, Incoming::Connected { .. }));
    assert!(running.incoming.try_recv().is_err(), "no subscription is reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_is_too_long_ends_its_connection() {
    let world = World::new();
    let running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let state = topic("gate-7", Channel::State);
    let mut client = Client::start(&config, running.address, &Connect::default()).await;
    client.send(&publish(&state, &vec![7; MESSAGE_BYTES_MAX - 1024], 1, false, 1)).await;
    assert_eq!(client.receive().await, Some(Packet::PubAck { id: 1, reason: 0 }));
    // Its length alone: the broker does not wait for the rest.
    let mut head = publish(&state, &vec![7; MESSAGE_BYTES_MAX], 1, false, 2);
    head.truncate(64);
    client.send(&head).await;
    let answer = client.end().await;
    assert!(!answer.iter().any(|packet| matches!(packet, Packet::PubAck { .. })), "{answer:?}");
    until("it is gone", || running.broker.stats().connected == 0).await;
    assert_eq!(running.broker.stats().messages_in, 1);

    let mut client = Client::open(&config, running.address).await;
    client.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(client.end().await, [], "a quarter of a gigabyte is not waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_is_not_offered() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let mut client = Client::start(&config, running.address, &Connect::default()).await;
    client.send(&publish(&topic("gate-7", Channel::State), b"twice", 2, false, 1)).await;
    let refused = client.receive().await;
    assert_eq!(refused, Some(Packet::Other(5)), "a PUBREC, which here says why not");
    drop(client);
    while !matches!(running.hear().await, Incoming::Disconnected { .. }) {}
    assert_eq!(running.broker.stats().messages_in, 0);
}
