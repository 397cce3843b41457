//! Devices, and those who would be one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use revoada_core::Digest;
use revoada_proto::message::{encode_report, to_digest};
use revoada_proto::wire::devices_client::DevicesClient;
use revoada_proto::wire::{FindPlanRequest, PlanHeader, UploadPlanRequest, upload_plan_request};
use revoada_proto::{Channel, Details, Fact, Figures, Generation, Progress, Report};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tonic::Code;

use super::mqtt::{Client, Connect, NOT_AUTHORIZED, Packet, publish, topic};
use super::siege::Siege;
use super::world::{connect, within};

fn named(id: &str) -> Connect<'_> {
    Connect { id, ..Connect::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_revoked_or_removed_is_cut_off_and_stays_out() {
    let siege = Siege::begin().await;
    for (device, method, path, status) in
        [("gate-1", "POST", "/api/v1/devices/gate-1/revoke", 200), ("gate-2", "DELETE", "/api/v1/devices/gate-2", 204)]
    {
        let tls = siege.device(device).await;
        let mut client = Client::start(&tls, siege.service.addresses.mqtt, &named(device)).await;
        siege.ask(method, path, Value::Null).await.expect(status);
        client.end().await;
        expect_kept_out(&siege, tls, device).await;
    }
}

async fn expect_kept_out(siege: &Siege, tls: Arc<ClientConfig>, device: &str) {
    let mut client = Client::open(&tls, siege.service.addresses.mqtt).await;
    client.send(&named(device).encode()).await;
    let answer = client.receive().await;
    assert!(matches!(answer, Some(Packet::ConnAck { reason: NOT_AUTHORIZED, .. })), "{device}: {answer:?}");
    let mut grpc = DevicesClient::new(siege.channel(tls).await);
    assert!(within(grpc.find_plan(FindPlanRequest::default())).await.is_err(), "{device}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_from_before_a_device_was_enrolled_anew_is_worth_nothing() {
    let siege = Siege::begin().await;
    let stolen = siege.device("gate-1").await;
    let mut client = Client::start(&stolen, siege.service.addresses.mqtt, &named("gate-1")).await;
    let token = siege.token(json!({ "name": "again", "device": "gate-1" })).await;
    let tls = siege.enrol("gate-1", &token).await.unwrap();
    client.end().await;
    expect_kept_out(&siege, stolen, "gate-1").await;
    drop(Client::start(&tls, siege.service.addresses.mqtt, &named("gate-1")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_only_whom_it_is_for_and_no_more_often_than_it_says() {
    let siege = Siege::begin().await;
    let denied = |answer: Result<_, tonic::Status>| {
        answer.map(drop).is_err_and(|status| status.code() == Code::PermissionDenied)
    };
    let token = siege.token(json!({ "name": "one", "device": "gate-1" })).await;
    assert!(denied(siege.enrol("gate-2", &token).await), "for another device");
    siege.enrol("gate-1", &token).await.unwrap();
    assert!(denied(siege.enrol("gate-1", &token).await), "used twice");

    let token = siege.token(json!({ "name": "many", "prefix": "gate-", "uses": 100 })).await;
    assert!(denied(siege.enrol("gate-1", &token).await), "somebody has that name");
    assert!(denied(siege.enrol("door-1", &token).await), "another prefix");
    siege.enrol("gate-3", &token).await.unwrap();

    let token = siege.token(json!({ "name": "short", "uses": 1000, "valid_for": "1s" })).await;
    let mut names = (0..).map(|index| format!("late-{index}"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !denied(siege.enrol(&names.next().unwrap(), &token).await) {
        assert!(tokio::time::Instant::now() < deadline, "it never expires");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (secret, root) = token.split_once('.').unwrap();
    let guessed = format!("{}.{root}", "0".repeat(secret.len()));
    assert!(denied(siege.enrol("gate-9", &guessed).await), "guessed");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_builder_uploads_plans() {
    let siege = Siege::begin().await;
    let mut client = DevicesClient::new(siege.channel(siege.device("gate-1").await).await);
    let class = json!({
        "module": "Orin NX", "architecture": "sm_87", "multiprocessors": 8,
        "tensorrt": { "flavour": "full", "major": 10, "minor": 3, "patch": 0 }, "cuda": [12, 6],
    });
    let header = PlanHeader {
        bundle: to_digest(&Digest::new([7; 32])),
        device_class: class.to_string(),
        digest: to_digest(&Digest::new([8; 32])),
        bytes: 3,
        latency_ms: None,
    };
    let parts = [upload_plan_request::Part::Header(header), upload_plan_request::Part::Chunk(b"abc".to_vec().into())];
    let parts = parts.map(|part| UploadPlanRequest { part: Some(part) });
    let refused = within(client.upload_plan(stream::iter(parts))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_says_is_never_a_page() {
    let siege = Siege::begin().await;
    let tls = siege.device("gate-1").await;
    let mut client = Client::start(&tls, siege.service.addresses.mqtt, &named("gate-1")).await;
    let script = "<script>alert(1)</script>";
    let report = Report {
        sequence: 1,
        generation: Generation(0),
        progress: Progress::Failed { why: script.to_owned(), blame: revoada_proto::Blame::Device },
        running: Default::default(),
        figures: Figures::default(),
    };
    let facts = [("site".to_owned(), Fact::Text(script.to_owned()))].into();
    let report = encode_report(&report, &Details { facts, ..Details::default() });
    client.send(&publish(&topic("gate-1", Channel::State), &report, 1, false, 1)).await;
    assert_eq!(client.receive().await, Some(Packet::PubAck { id: 1, reason: 0 }));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let answer = siege.ask("GET", "/api/v1/devices/gate-1", Value::Null).await.expect(200);
        if answer.json()["facts"]["site"] == script {
            assert_eq!(answer.header("content-type"), "application/json");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert!(answer.header("content-security-policy").starts_with("default-src 'self'"));
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "it is never shown: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_only_hold_their_connection_stop_no_device() {
    let siege = Siege::begin().await;
    let tls = siege.device("gate-1").await;
    let addresses = siege.service.addresses;
    let mut idle = Vec::new();
    for _ in 0..650 {
        for address in [addresses.mqtt, addresses.devices, addresses.operators] {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
    }
    let mut client = Client::start(&tls, addresses.mqtt, &named("gate-1")).await;
    client.send(&publish(&topic("gate-1", Channel::State), b"", 1, false, 1)).await;
    assert_eq!(client.receive().await, Some(Packet::PubAck { id: 1, reason: 0 }));
    within(connect(&tls, addresses.devices)).await.unwrap();
    siege.ask("GET", "/api/v1/devices", Value::Null).await.expect(200);
    drop(idle);
}
