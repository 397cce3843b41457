//! Crowds, silence and noise.

use std::time::Duration;

use revoada_fleet::acceptor::AcceptorLimits;
use revoada_fleet::broker::{BrokerLimits, Incoming};
use revoada_proto::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::broker::start;
use super::mqtt::{Client, Connect, Packet, packet, publish, subscribe, topic};
use super::world::{World, connect, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_that_say_nothing_stop_nobody() {
    let world = World::new();
    let acceptor = AcceptorLimits { handshakes_max: 64, ..AcceptorLimits::default() };
    let running = start(&world, BrokerLimits { acceptor, ..BrokerLimits::default() }).await;
    let mut silent = Vec::new();
    for index in 0..400 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        // Some begin: the first bytes of a ClientHello.
        if index % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        }
        silent.push(stream);
    }
    until("the bound is reached", || running.broker.stats().acceptor.displaced >= 400 - 64).await;
    for name in ["gate-1", "gate-2", "gate-3"] {
        let config = world.client(Some(&world.device(name)), None);
        let mut client = Client::start(&config, running.address, &Connect { id: name, ..Connect::default() }).await;
        client.send(&publish(&topic(name, Channel::State), b"here", 1, false, 1)).await;
        assert_eq!(client.receive().await, Some(Packet::PubAck { id: 1, reason: 0 }));
    }
    // The oldest was given up, the newest not yet.
    let mut byte = [0];
    assert_eq!(within(silent[0].read(&mut byte)).await.unwrap_or(0), 0);
    assert_eq!(silent[399].try_read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_takes_too_long_is_given_up() {
    let world = World::new();
    let acceptor = AcceptorLimits { handshake_timeout: Duration::from_millis(200), ..AcceptorLimits::default() };
    let running = start(&world, BrokerLimits { acceptor, ..BrokerLimits::default() }).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(within(silent.read(&mut [0])).await.unwrap_or(0), 0);
    let stats = running.broker.stats().acceptor;
    assert_eq!((stats.timed_out, stats.accepted), (1, 0));
    until("it is gone", || running.broker.stats().acceptor.open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bounds_are_refused_and_counted() {
    let world = World::new();
    let acceptor = AcceptorLimits { connections_max: 2, ..AcceptorLimits::default() };
    let running = start(&world, BrokerLimits { acceptor, ..BrokerLimits::default() }).await;
    let first = world.client(Some(&world.device("gate-1")), None);
    let first = Client::start(&first, running.address, &Connect { id: "gate-1", ..Connect::default() }).await;
    let second = world.client(Some(&world.device("gate-2")), None);
    let _second = Client::start(&second, running.address, &Connect { id: "gate-2", ..Connect::default() }).await;
    let third = world.client(Some(&world.device("gate-3")), None);
    assert!(within(connect(&third, running.address)).await.is_err());
    assert_eq!(running.broker.stats().acceptor.refused_full, 1);
    drop(first);
    until("there is room", || running.broker.stats().acceptor.open == 1).await;
    Client::start(&third, running.address, &Connect { id: "gate-3", ..Connect::default() }).await;

    let acceptor = AcceptorLimits { connections_per_second_max: 5, ..AcceptorLimits::default() };
    let running = start(&world, BrokerLimits { acceptor, ..BrokerLimits::default() }).await;
    let streams: Vec<_> = futures_util::future::join_all((0..50).map(|_| TcpStream::connect(running.address))).await;
    until("most are refused", || running.broker.stats().acceptor.refused_rate >= 40).await;
    drop(streams);
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_ends_its_own_connection_and_no_other() {
    let world = World::new();
    let mut running = start(&world, BrokerLimits::default()).await;
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let witness = world.client(Some(&world.device("witness")), None);
    let mut witness = Client::start(&witness, running.address, &Connect { id: "witness", ..Connect::default() }).await;
    let config = world.client(Some(&world.device("gate-7")), None);
    let will = topic("gate-7", Channel::Presence);
    let state = topic("gate-7", Channel::State);
    let desired = topic("gate-7", Channel::Desired);
    for round in 0..300_u16 {
        let mut bytes = Vec::new();
        // Half of them get past the first packet.
        if random.bool() {
            let connect = Connect { will: Some((&will, b"offline", true)), ..Connect::default() };
            bytes.extend(connect.encode());
        }
        for _ in 0..random.usize(1..4) {
            let mut packet = match random.u8(0..5) {
                0 => Connect::default().encode(),
                1 => publish(&state, b"payload", random.u8(0..4), random.bool(), random.u16(..)),
                2 => subscribe(&[&desired, "#"], random.u16(..)),
                3 => packet(random.u8(..), &std::iter::repeat_with(|| random.u8(..)).take(20).collect::<Vec<_>>()),
                _ => {
                    let length = random.usize(0..200);
                    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
                }
            };
            for _ in 0..random.usize(0..4) {
                if let Some(byte) = packet.get_mut(random.usize(0..64)) {
                    *byte = random.u8(..);
                }
            }
            bytes.extend(packet);
        }
        let Ok(mut stream) = within(connect(&config, running.address)).await else { panic!("round {round}") };
        // The broker may close before it has read everything.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let _ = within(stream.read_to_end(&mut Vec::new())).await;
        while let Ok(incoming) = running.incoming.try_recv() {
            if let Incoming::Message { device, channel, payload } = incoming {
                assert!(channel.is_up());
                assert_eq!(device.as_str() == "witness", payload == b"alive"[..], "{device}: {payload:?}");
            }
        }
        if round % 50 == 0 {
            witness.send(&publish(&topic("witness", Channel::State), b"alive", 1, false, round + 1)).await;
            assert_eq!(witness.receive().await, Some(Packet::PubAck { id: round + 1, reason: 0 }));
        }
    }
    until("only the witness is left", || running.broker.stats().acceptor.open == 1).await;
    // Bytes that are no TLS at all.
    for _ in 0..100 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(300).collect();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let _ = within(stream.read_to_end(&mut Vec::new())).await;
    }
    witness.send(&publish(&topic("witness", Channel::State), b"alive", 1, false, 999)).await;
    assert_eq!(witness.receive().await, Some(Packet::PubAck { id: 999, reason: 0 }));
}
