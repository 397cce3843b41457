//! Enrolment, renewal, plans and answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use revoada_core::{Architecture, DeviceClass, Digest, TensorRtFlavour, TensorRtVersion};
use revoada_fleet::device_port::{DevicePortLimits, MediaType, UploadError, UploadedAnswer, UploadedUpdate};
use revoada_fleet::identity::CertificateRequest;
use revoada_proto::message;
use revoada_proto::wire::devices_client::DevicesClient;
use revoada_proto::wire::enrolment_client::EnrolmentClient;
use revoada_proto::wire::{self, upload_answer_request, upload_plan_request, upload_update_request};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::port::{Blobs, Running, Uploaded, start};
use super::world::{Pinned, World, connect, request_for, within};

fn class() -> String {
    message::class_to_json(&DeviceClass {
        module: Some("Orin NX".to_owned()),
        architecture: Architecture::new(8, 7),
        multiprocessors: Some(8),
        tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
        cuda: Some([12, 6]),
    })
}

async fn channel(config: Arc<ClientConfig>, running: &Running) -> Channel {
    let address = running.address;
    let connector = tower::service_fn(move |_| {
        let config = Arc::clone(&config);
        async move { connect(&config, address).await.map(TokioIo::new) }
    });
    within(Endpoint::from_static("https://fleet.test").connect_with_connector(connector)).await.unwrap()
}

async fn devices(world: &World, running: &Running) -> DevicesClient<Channel> {
    DevicesClient::new(channel(world.client(Some(&world.device("gate-7")), Some("h2")), running).await)
}

fn enrolment(token: String) -> wire::EnrolRequest {
    let key = KeyPair::generate().unwrap();
    wire::EnrolRequest { device: "gate-7".to_owned(), token, certificate_request: request_for(&key).into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_that_knows_no_more_than_its_token() {
    let world = World::new();
    let running = start(&world, Blobs::default(), DevicePortLimits::default()).await;
    let token = world.authority.new_token().unwrap();
    let mut config = ClientConfig::clone(&world.client(None, Some("h2")));
    config.dangerous().set_certificate_verifier(Arc::new(Pinned(token.root())));
    let mut client = EnrolmentClient::new(channel(Arc::new(config), &running).await);
    let request = enrolment(token.text());
    let key = CertificateRequest::from_der(&request.certificate_request).unwrap().key();
    let answer = within(client.enrol(request)).await.unwrap().into_inner();
    assert_eq!(answer.certificates, format!("gate-7 {key}"));
    assert_eq!(answer.authority, token.root().to_string());
    assert_eq!(answer.order_key, running.service.key.public().to_string());
    assert_eq!((answer.broker.as_str(), answer.tenant.as_str()), (":8883", "default"));

    let mut config = ClientConfig::clone(&world.client(None, Some("h2")));
    config.dangerous().set_certificate_verifier(Arc::new(Pinned(Digest::new([7; 32]))));
    assert!(within(connect(&Arc::new(config), running.address)).await.is_err(), "another root is not trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_that_makes_no_sense_is_refused_before_the_service_sees_it() {
    let world = World::new();
    let running = start(&world, Blobs::default(), DevicePortLimits::default()).await;
    let mut client = EnrolmentClient::new(channel(world.client(None, Some("h2")), &running).await);
    let good = enrolment(world.authority.new_token().unwrap().text());
    let without_token = wire::EnrolRequest { token: String::new(), ..good.clone() };
    assert_eq!(within(client.enrol(without_token)).await.unwrap_err().code(), Code::PermissionDenied);
    for (what, request, code) in [
        ("a name", wire::EnrolRequest { device: "../x".to_owned(), ..good.clone() }, Code::InvalidArgument),
        ("a token", wire::EnrolRequest { token: "secret".to_owned(), ..good.clone() }, Code::InvalidArgument),
        ("a key", wire::EnrolRequest { certificate_request: vec![1, 2].into(), ..good.clone() }, Code::InvalidArgument),
        ("size", wire::EnrolRequest { certificate_request: vec![0; 1 << 17].into(), ..good }, Code::OutOfRange),
    ] {
        assert_eq!(within(client.enrol(request)).await.unwrap_err().code(), code, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_enrolments_is_slowed_down() {
    let world = World::new();
    let limits = DevicePortLimits { enrolments_per_second_max: 1, ..DevicePortLimits::default() };
    let running = start(&world, Blobs::default(), limits).await;
    let mut client = EnrolmentClient::new(channel(world.client(None, Some("h2")), &running).await);
    let request = enrolment(world.authority.new_token().unwrap().text());
    within(client.enrol(request.clone())).await.unwrap();
    let mut refused = 0;
    while refused == 0 {
        match within(client.enrol(request.clone())).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                refused += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_enrolment_needs_a_certificate_that_is_not_revoked() {
    let world = World::new();
    let running = start(&world, Blobs::default(), DevicePortLimits::default()).await;
    let renewal = || wire::RenewRequest { certificate_request: request_for(&KeyPair::generate().unwrap()).into() };
    let mut stranger = DevicesClient::new(channel(world.client(None, Some("h2")), &running).await);
    assert_eq!(within(stranger.renew(renewal())).await.unwrap_err().code(), Code::Unauthenticated);
    let credentials = world.device("gate-7");
    let mut device = DevicesClient::new(channel(world.client(Some(&credentials), Some("h2")), &running).await);
    let request = renewal();
    let key = CertificateRequest::from_der(&request.certificate_request).unwrap().key();
    let answer = within(device.renew(request)).await.unwrap().into_inner();
    assert_eq!(answer.certificates, format!("gate-7 {key}"));
    // On the connection that is open already.
    world.revoked.add(credentials.serial.unwrap());
    assert_eq!(within(device.renew(renewal())).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(running.port.stats().refused_peers, 2);
    for credentials in [World::self_signed("gate-7"), World::new().device("gate-7")] {
        let config = world.client(Some(&credentials), Some("h2"));
        let endpoint = Endpoint::from_static("https://fleet.test");
        let address = running.address;
        let connector = tower::service_fn(move |_| {
            let config = Arc::clone(&config);
            async move { connect(&config, address).await.map(TokioIo::new) }
        });
        let called = async {
            let channel = endpoint.connect_with_connector(connector).await.ok()?;
            DevicesClient::new(channel).renew(renewal()).await.ok()
        };
        assert!(within(called).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_found_and_a_panic_of_the_service_ends_one_connection() {
    let world = World::new();
    let running = start(&world, Blobs::default(), DevicePortLimits::default()).await;
    let mut client = devices(&world, &running).await;
    let request = wire::FindPlanRequest { bundle: vec![7; 32].into(), device_class: class() };
    let found = within(client.find_plan(request.clone())).await.unwrap().into_inner();
    assert!(found.build);
    assert_eq!(found.plans[0].digest, request.bundle);
    assert_eq!(found.plans[0].signed_by, running.service.key.public().to_string());
    for request in [
        wire::FindPlanRequest { bundle: vec![7; 31].into(), ..request.clone() },
        wire::FindPlanRequest { device_class: String::new(), ..request.clone() },
        wire::FindPlanRequest { device_class: "{}".to_owned(), ..request.clone() },
    ] {
        assert_eq!(within(client.find_plan(request)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let panics = world.client(Some(&world.device("panics")), Some("h2"));
    let mut panics = DevicesClient::new(channel(panics, &running).await);
    assert!(within(panics.find_plan(request.clone())).await.is_err());
    within(client.find_plan(request)).await.unwrap();
}

fn plan(header: wire::PlanHeader, chunks: &[&[u8]]) -> Vec<wire::UploadPlanRequest> {
    let chunks = chunks.iter().map(|chunk| upload_plan_request::Part::Chunk(chunk.to_vec().into()));
    let parts = std::iter::once(upload_plan_request::Part::Header(header)).chain(chunks);
    parts.map(|part| wire::UploadPlanRequest { part: Some(part) }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_plan_has_as_many_bytes_as_it_says() {
    let world = World::new();
    let limits = DevicePortLimits { plan_bytes_max: 100, ..DevicePortLimits::default() };
    let running = start(&world, Blobs::default(), limits).await;
    let mut client = devices(&world, &running).await;
    let header = |bytes| wire::PlanHeader {
        bundle: vec![7; 32].into(),
        device_class: class(),
        digest: vec![8; 32].into(),
        bytes,
        latency_ms: Some(f64::NAN),
    };
    within(client.upload_plan(stream::iter(plan(header(6), &[b"abc", b"def"])))).await.unwrap();
    for (bytes, chunks) in [(7, [b"abc", b"def"]), (5, [b"abc", b"def"])] {
        let refused =
            within(client.upload_plan(stream::iter(plan(header(bytes), &chunks.map(|chunk| &chunk[..]))))).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    let mut twice = plan(header(6), &[b"abc"]);
    twice.push(wire::UploadPlanRequest { part: None });
    within(client.upload_plan(stream::iter(twice))).await.unwrap_err();
    let contents: Vec<_> = running
        .service
        .uploads
        .lock()
        .unwrap()
        .drain(..)
        .map(|uploaded| match uploaded {
            Uploaded::Plan(plan, content) => {
                assert_eq!((plan.bundle, plan.digest), (Digest::new([7; 32]), Digest::new([8; 32])));
                assert_eq!(plan.latency_ms, None, "what is no number was not measured");
                content
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected =
        [Ok(b"abcdef".to_vec()), Err(UploadError::TooShort), Err(UploadError::TooLong), Err(UploadError::Malformed)];
    assert_eq!(contents, expected);
    let too_long = within(client.upload_plan(stream::iter(plan(header(101), &[])))).await.unwrap_err();
    assert_eq!(too_long.code(), Code::ResourceExhausted);
    for parts in [Vec::new(), plan(header(6), &[b"abc"])[1..].to_vec()] {
        assert_eq!(within(client.upload_plan(stream::iter(parts))).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(running.service.uploads.lock().unwrap().is_empty(), "nothing of these reached the service");
}

fn answer(media_type: &str, chunks: &[Vec<u8>]) -> Vec<wire::UploadAnswerRequest> {
    let header = wire::AnswerHeader { number: 9, media_type: media_type.to_owned() };
    let chunks = chunks.iter().map(|chunk| upload_answer_request::Part::Chunk(chunk.clone().into()));
    let parts = std::iter::once(upload_answer_request::Part::Header(header)).chain(chunks);
    parts.map(|part| wire::UploadAnswerRequest { part: Some(part) }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_a_picture_or_a_text_within_its_bound() {
    let world = World::new();
    let limits = DevicePortLimits { answer_bytes_max: 1 << 20, ..DevicePortLimits::default() };
    let running = start(&world, Blobs::default(), limits).await;
    let mut client = devices(&world, &running).await;
    let piece = vec![7; 512 << 10];
    within(client.upload_answer(stream::iter(answer("image/jpeg", &[piece.clone(), piece.clone()])))).await.unwrap();
    let too_long = answer("text/plain", &[piece.clone(), piece.clone(), vec![7]]);
    within(client.upload_answer(stream::iter(too_long))).await.unwrap_err();
    let other = within(client.upload_answer(stream::iter(answer("text/html", &[])))).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    let of = |media_type| UploadedAnswer { command: 9, media_type };
    assert_eq!(
        *running.service.uploads.lock().unwrap(),
        [
            Uploaded::Answer(of(MediaType::Jpeg), Ok([piece.clone(), piece].concat())),
            Uploaded::Answer(of(MediaType::Text), Err(UploadError::TooLong)),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stalls_is_broken_off() {
    let world = World::new();
    let limits = DevicePortLimits { idle_max: Duration::from_millis(300), ..DevicePortLimits::default() };
    let running = start(&world, Blobs::default(), limits).await;
    let mut client = devices(&world, &running).await;
    let (parts, stalled) = mpsc::channel(1);
    parts.send(answer("text/plain", &[]).remove(0)).await.unwrap();
    let stalled = stream::unfold(stalled, |mut parts| async move { Some((parts.recv().await?, parts)) });
    assert!(within(client.upload_answer(stalled)).await.is_err());
    // The piece that does not come and the connection that does nothing are found at about the same time.
    let uploads = running.service.uploads.lock().unwrap();
    let is_broken = |uploaded: &Uploaded| matches!(uploaded, Uploaded::Answer(_, Err(UploadError::Broken)));
    assert!(uploads.iter().all(is_broken), "{uploads:?}");
    drop(parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_tells_anyone_what_it_offers_and_how_it_is() {
    let world = World::new();
    let running = start(&world, Blobs::default(), DevicePortLimits::default()).await;
    let channel = channel(world.client(None, Some("h2")), &running).await;
    let health = within(HealthClient::new(channel.clone()).check(HealthCheckRequest::default())).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    let asked = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers =
        within(client.server_reflection_info(Request::new(stream::iter([asked])))).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(services)) =
        within(answers.next()).await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let mut names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "revoada.v1.Devices", "revoada.v1.Enrolment"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_goes_on_where_it_was_and_is_told_whether_it_counts() {
    let world = World::new();
    let limits = DevicePortLimits { update_bytes_max: 1 << 20, ..DevicePortLimits::default() };
    let running = start(&world, Blobs::default(), limits).await;
    let mut client = devices(&world, &running).await;
    let digest = message::to_digest(&Digest::new([7; 32]));
    let find = wire::FindUpdateRequest { digest: digest.clone(), bytes: 10 };
    assert_eq!(within(client.find_update(find)).await.unwrap().into_inner().offset, 5);
    let upload = |bytes: u64, offset: u64, chunk: &[u8]| {
        let header = wire::UpdateHeader {
            run: 1,
            round: 2,
            base: digest.clone(),
            digest: digest.clone(),
            bytes,
            offset,
            examples: 30,
            metrics: [("loss".to_owned(), 0.5)].into(),
        };
        let parts =
            [upload_update_request::Part::Header(header), upload_update_request::Part::Chunk(chunk.to_vec().into())];
        stream::iter(parts.map(|part| wire::UploadUpdateRequest { part: Some(part) }))
    };
    let answer = within(client.upload_update(upload(10, 5, b"ights"))).await.unwrap().into_inner();
    assert_eq!((answer.counts, answer.why.as_str()), (false, "it is late"));
    for (stream, code) in [
        (upload(10, 5, b"too long"), Code::InvalidArgument),
        (upload(10, 11, b""), Code::InvalidArgument),
        (upload(2 << 20, 0, b""), Code::ResourceExhausted),
    ] {
        assert_eq!(within(client.upload_update(stream)).await.unwrap_err().code(), code);
    }
    let update = UploadedUpdate {
        run: 1,
        round: 2,
        base: Digest::new([7; 32]),
        digest: Digest::new([7; 32]),
        bytes: 10,
        offset: 5,
        examples: 30,
        metrics: [("loss".to_owned(), 0.5)].into(),
    };
    let uploads = running.service.uploads.lock().unwrap();
    assert_eq!(uploads[0], Uploaded::Update(update, Ok(b"ights".to_vec())));
}
