//! A device that means well, and the service, through the broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use revoada_fleet::broker::{Broker, BrokerLimits, BrokerOptions, Incoming, PublishError};
use revoada_fleet::tls::{Peer, broker_config};
use revoada_proto::topic::{MESSAGE_BYTES_MAX, OFFLINE, ONLINE};
use revoada_proto::{Channel, Topic};
use rumqttc_v5::mqttbytes::v5::Packet as Rumqttc;
use rumqttc_v5::{AsyncClient, Event, MqttOptions, PublishOptions, QoS, SessionMode, TlsConfiguration, Transport};
use tokio::sync::mpsc;

use super::mqtt::{Client, Connect, Packet, publish, subscribe, topic};
use super::world::{SERVER, World, listener, until, within};

pub(crate) struct Running {
    pub(crate) broker: Broker,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
    pub(crate) address: SocketAddr,
}

pub(crate) async fn start(world: &World, limits: BrokerLimits) -> Running {
    let (listener, address) = listener().await;
    let identity = world.authority.issue_server(&[SERVER.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let tls = broker_config(&world.authority, &identity).unwrap();
    let admission = Arc::<super::world::Revoked>::clone(&world.revoked);
    let (broker, incoming) = Broker::start(BrokerOptions { listener, tls, admission, limits });
    Running { broker, incoming, address }
}

impl Running {
    pub(crate) async fn hear(&mut self) -> Incoming {
        within(self.incoming.recv()).await.expect("the broker runs")
    }

    /// Skips what else comes.
    pub(crate) async fn hear_message(&mut self) -> (String, Channel, Vec<u8>) {
        loop {
            if let Incoming::Message { device, channel, payload } = self.hear().await {
                return (device.to_string(), channel, payload.to_vec());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_publishes_reaches_the_service_and_is_then_acknowledged() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let credentials = world.device("gate-7");
    let config = world.client(Some(&credentials), None);
    let will = topic("gate-7", Channel::Presence);
    let connect = Connect { will: Some((&will, OFFLINE, true)), ..Connect::default() };
    let mut client = Client::start(&config, running.address, &connect).await;
    let Incoming::Connected { peer, connection } = running.hear().await else { panic!("the device has connected") };
    assert_eq!(peer, Peer { device: "gate-7".parse().unwrap(), serial: credentials.serial.unwrap() });
    for (id, channel, payload) in
        [(1, Channel::State, b"report".as_slice()), (2, Channel::Event, b"event"), (3, Channel::Presence, ONLINE)]
    {
        client.send(&publish(&topic("gate-7", channel), payload, 1, channel == Channel::Presence, id)).await;
        assert_eq!(running.hear_message().await, ("gate-7".to_owned(), channel, payload.to_vec()));
        assert_eq!(client.receive().await, Some(Packet::PubAck { id, reason: 0 }));
    }
    assert_eq!((running.broker.stats().connected, running.broker.stats().messages_in), (1, 3));
    drop(client);
    assert_eq!(running.hear().await, Incoming::Disconnected { peer, connection });
    assert_eq!(running.broker.stats().connected, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_waits_for_a_session_and_for_nothing_else() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let to = |channel| Topic::new("gate-7".parse().unwrap(), channel);
    let (desired, command) = (topic("gate-7", Channel::Desired), topic("gate-7", Channel::Command));
    for channel in [Channel::Command, Channel::Desired] {
        running.broker.publish(&to(channel), b"lost, for there is no session".to_vec()).await.unwrap();
    }
    let lasting = Connect { clean_start: false, session_expiry: 600, ..Connect::default() };
    let mut client = Client::start(&config, running.address, &lasting).await;
    client.send(&subscribe(&[&desired, &command], 1)).await;
    assert_eq!(client.receive().await, Some(Packet::SubAck { reasons: vec![1, 1] }));
    running.broker.publish(&to(Channel::Desired), b"order 1".to_vec()).await.unwrap();
    let Some(Packet::Publish { payload, id, is_retained, .. }) = client.receive().await else { panic!("nothing") };
    assert_eq!((payload.as_slice(), is_retained), (b"order 1".as_slice(), false));
    client.acknowledge(id).await;
    assert!(matches!(running.hear().await, Incoming::Connected { .. }));
    for channel in [Channel::Desired, Channel::Command] {
        assert_eq!(running.hear().await, Incoming::Subscribed { device: "gate-7".parse().unwrap(), channel });
    }
    drop(client);
    assert!(matches!(running.hear().await, Incoming::Disconnected { .. }));
    running.broker.publish(&to(Channel::Command), b"command 1".to_vec()).await.unwrap();
    let mut client = Client::open(&config, running.address).await;
    client.send(&lasting.encode()).await;
    assert!(matches!(client.receive().await, Some(Packet::ConnAck { session_present: true, reason: 0, .. })));
    let Some(Packet::Publish { topic: on, payload, id, is_retained }) = client.receive().await else {
        panic!("nothing")
    };
    assert_eq!((on, payload, is_retained), (command.clone(), b"command 1".to_vec(), false));
    client.acknowledge(id).await;
    // And it is heard.
    client.send(&subscribe(&[&desired, &command], 1)).await;
    assert_eq!(client.receive().await, Some(Packet::SubAck { reasons: vec![1, 1] }));
    client.send(&publish(&topic("gate-7", Channel::State), b"report", 1, false, 2)).await;
    assert_eq!(client.receive().await, Some(Packet::PubAck { id: 2, reason: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_that_devices_use_gets_along_with_the_broker() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let mut options = MqttOptions::new("gate-7", ("127.0.0.1", running.address.port()));
    options
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)))
        .set_session_mode(SessionMode::Persistent)
        .set_session_expiry_interval(Some(3600));
    let (client, mut events) = AsyncClient::builder(options).build();
    client.subscribe(topic("gate-7", Channel::Desired), QoS::AtLeastOnce).await.unwrap();
    let polling = tokio::spawn(async move {
        loop {
            if let Event::Incoming(Rumqttc::Publish(publish)) = events.poll().await.unwrap() {
                return publish.payload.to_vec();
            }
        }
    });
    while !matches!(running.hear().await, Incoming::Subscribed { .. }) {}
    running.broker.publish(&Topic::new("gate-7".parse().unwrap(), Channel::Desired), b"order".to_vec()).await.unwrap();
    let state = topic("gate-7", Channel::State);
    client.publish(state, "report", PublishOptions::new(QoS::AtLeastOnce)).await.unwrap();
    assert_eq!(running.hear_message().await.2, b"report");
    assert_eq!(within(polling).await.unwrap(), b"order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_connects_again_displaces_its_old_connection() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let mut old = Client::start(&config, running.address, &Connect::default()).await;
    let Incoming::Connected { connection: first, .. } = running.hear().await else { panic!("nobody came") };
    let mut new = Client::start(&config, running.address, &Connect::default()).await;
    assert_eq!(old.end().await, [Packet::Disconnect { reason: 0x8e }], "session taken over");
    let (mut connected, mut disconnected) = (None, None);
    while connected.is_none() || disconnected.is_none() {
        match running.hear().await {
            Incoming::Connected { connection, .. } => connected = Some(connection),
            Incoming::Disconnected { connection, .. } => disconnected = Some(connection),
            _ => {}
        }
    }
    assert_eq!(disconnected, Some(first));
    assert!(connected > Some(first));
    new.send(&publish(&topic("gate-7", Channel::State), b"report", 1, false, 1)).await;
    assert_eq!(running.hear_message().await.2, b"report");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_slow_holds_devices_up_and_loses_nothing() {
    let world = World::new();
    let limits = BrokerLimits { incoming_max: 4, receive_max: 100, ..BrokerLimits::default() };
    let mut running = start(&world, limits).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let mut client = Client::start(&config, running.address, &Connect::default()).await;
    let state = topic("gate-7", Channel::State);
    for id in 1..=50_u16 {
        client.send(&publish(&state, &id.to_be_bytes(), 1, false, id)).await;
    }
    // One place has the connection.
    for id in 1..=3 {
        assert_eq!(client.receive().await, Some(Packet::PubAck { id, reason: 0 }));
    }
    assert_eq!(running.broker.stats().messages_in, 3);
    for id in 1..=50_u16 {
        assert_eq!(running.hear_message().await.2, id.to_be_bytes());
    }
    for id in 4..=50 {
        assert_eq!(client.receive().await, Some(Packet::PubAck { id, reason: 0 }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_told_their_bounds_and_a_silent_one_is_let_go() {
    let world = World::new();
    let limits = BrokerLimits {
        keep_alive: Duration::from_secs(1),
        session_expiry_max: Duration::from_secs(77),
        receive_max: 5,
        ..BrokerLimits::default()
    };
    let mut running = start(&world, limits).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let connect = Connect { keep_alive: 0, session_expiry: u32::MAX, ..Connect::default() };
    let mut client = Client::open(&config, running.address).await;
    client.send(&connect.encode()).await;
    let Some(Packet::ConnAck { reason: 0, properties, .. }) = client.receive().await else { panic!("refused") };
    let has = |wanted: &[u8]| properties.windows(wanted.len()).any(|window| window == wanted);
    assert!(has(&[0x11, 0, 0, 0, 77]), "session expiry: {properties:?}");
    assert!(has(&[0x13, 0, 1]), "keep alive: {properties:?}");
    assert!(has(&[0x21, 0, 5]), "receive maximum: {properties:?}");
    assert!(has(&[0x27, 0, 1, 0, 0]), "packet size: {properties:?}");
    assert!(matches!(running.hear().await, Incoming::Connected { .. }));
    assert!(matches!(running.hear().await, Incoming::Disconnected { .. }), "it is silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_publishes_nothing_that_devices_do_not_accept() {
    let world = World::new();
    let running = start(&world, BrokerLimits::default()).await;
    let to = |channel| Topic::new("gate-7".parse().unwrap(), channel);
    for channel in Channel::ALL.into_iter().filter(|channel| channel.is_up()) {
        let refused = running.broker.publish(&to(channel), Vec::new()).await;
        assert!(matches!(refused, Err(PublishError::Direction { .. })), "{channel:?}");
    }
    let refused = running.broker.publish(&to(Channel::Desired), vec![0; MESSAGE_BYTES_MAX]).await;
    assert!(matches!(refused, Err(PublishError::TooLong { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_tells_devices_and_cuts_who_does_not_listen() {
    let world = World::new();
    let running = start(&world, BrokerLimits::default()).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let mut client = Client::start(&config, running.address, &Connect::default()).await;
    let silent = tokio::net::TcpStream::connect(running.address).await.unwrap();
    until("both are there", || running.broker.stats().acceptor.open == 2).await;
    drop(running.incoming);
    assert_eq!(within(running.broker.shutdown(Duration::from_secs(20))).await, 0);
    assert_eq!(client.end().await, [Packet::Disconnect { reason: 0x8b }], "server shutting down");
    drop(silent);
    assert!(tokio::net::TcpStream::connect(running.address).await.is_err(), "nobody is let in any more");
}
