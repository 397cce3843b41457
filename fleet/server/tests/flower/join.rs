//! `FlowerService/Join`, spoken by a client that this test plays.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use revoada_fleet::flower::{JoinDoor, JoinDoorLimits, JoinDoorOptions};
use revoada_fleet::identity::Authority;
use revoada_fleet::learning::{Config, Metrics, Reply, Reported, Tensor, Value, Work};
use revoada_fleet::tls;
use revoada_proto::flower::client_message::{
    DisconnectRes, EvaluateRes, FitRes, GetParametersRes, GetPropertiesRes, Msg as Said,
};
use revoada_proto::flower::flower_service_client::FlowerServiceClient;
use revoada_proto::flower::scalar::Scalar as Kind;
use revoada_proto::flower::server_message::{GetParametersIns, Msg as Asked, ReconnectIns};
use revoada_proto::flower::{ClientMessage, Parameters, Scalar, ServerMessage, Status};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use super::hall::{Hall, evaluate, fit, parameters, sheet, within};

pub(crate) async fn open(
    hall: &Hall,
    tls: Option<Arc<ServerConfig>>,
    limits: JoinDoorLimits,
) -> (JoinDoor, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let board = Arc::clone(&hall.board);
    (JoinDoor::start(JoinDoorOptions { listener, tls, board, limits }), address)
}

struct Client {
    answers: mpsc::Sender<ClientMessage>,
    asked: Streaming<ServerMessage>,
}

impl Client {
    async fn come(channel: Channel) -> Result<Self, tonic::Status> {
        let (answers, mut said) = mpsc::channel::<ClientMessage>(8);
        let said = futures_util::stream::poll_fn(move |cx| said.poll_recv(cx));
        let mut service = FlowerServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let asked = within(service.join(said)).await?.into_inner();
        Ok(Self { answers, asked })
    }

    async fn asked(&mut self) -> Asked {
        self.next().await.unwrap().unwrap()
    }

    async fn next(&mut self) -> Result<Option<Asked>, tonic::Status> {
        Ok(within(self.asked.message()).await?.map(|message| message.msg.unwrap()))
    }

    async fn say(&self, said: Said) {
        self.answers.send(ClientMessage { msg: Some(said) }).await.unwrap();
    }
}

async fn channel(address: SocketAddr) -> Channel {
    within(Endpoint::new(format!("http://{address}")).unwrap().connect()).await.unwrap()
}

async fn come(address: SocketAddr) -> Client {
    Client::come(channel(address).await).await.unwrap()
}

fn given(arrays: &[&'static [u8]]) -> Option<Parameters> {
    let tensors = arrays.iter().map(|array| Bytes::from_static(array)).collect();
    Some(Parameters { tensors, tensor_type: "numpy.ndarray".to_owned() })
}

fn tensors(arrays: &[&'static [u8]]) -> Vec<Tensor> {
    arrays.iter().map(|array| Tensor { name: None, array: Bytes::from_static(array) }).collect()
}

fn failed(code: i32, message: &str) -> Option<Status> {
    Some(Status { code, message: message.to_owned() })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_task_is_asked_and_its_answer_heard() {
    let mut hall = Hall::new(10);
    let (_door, address) = open(&hall, None, JoinDoorLimits::default()).await;
    let mut client = come(address).await;
    let participant = hall.came().await;
    assert!(participant.0.starts_with("join/"));

    hall.post(&participant, parameters());
    assert_eq!(client.asked().await, Asked::GetParametersIns(GetParametersIns::default()));
    client.say(Said::GetParametersRes(GetParametersRes { status: None, parameters: given(&[b"a", b""]) })).await;
    assert_eq!(hall.said().await.2, Reply::Parameters(tensors(&[b"a", b""])));

    let values = [
        ("bool", Value::Bool(true), Kind::Bool(true)),
        ("bytes", Value::Bytes(vec![0, 255]), Kind::Bytes(Bytes::from_static(&[0, 255]))),
        ("double", Value::Double(-0.1), Kind::Double(-0.1)),
        ("integer", Value::Integer(i64::MIN), Kind::Sint64(i64::MIN)),
        ("text", Value::Text("ä".to_owned()), Kind::String("ä".to_owned())),
    ];
    let config: Config = values.iter().map(|(name, value, _)| ((*name).to_owned(), value.clone())).collect();
    let scalars = values.iter().map(|(name, _, kind)| ((*name).to_owned(), Scalar { scalar: Some(kind.clone()) }));
    let scalars: std::collections::BTreeMap<_, _> = scalars.collect();
    let weights = sheet(&[1.0, 2.0]);
    hall.post(&participant, Work::Fit { weights: Arc::clone(&weights), config: config.clone() });
    let Asked::FitIns(ins) = client.asked().await else { panic!("it was to fit") };
    assert_eq!(ins.config, scalars);
    let sent = ins.parameters.unwrap();
    assert_eq!((&sent.tensors[..], sent.tensor_type.as_str()), (weights.arrays(), "numpy.ndarray"));
    let parameters = given(&[b"abc"]);
    client.say(Said::FitRes(FitRes { status: None, parameters, num_examples: 7, metrics: scalars.clone() })).await;
    let reported = Reported { examples: 7, metrics: config };
    assert_eq!(hall.said().await.2, Reply::Fit { tensors: tensors(&[b"abc"]), reported });

    hall.post(&participant, evaluate(&weights));
    let Asked::EvaluateIns(ins) = client.asked().await else { panic!("it was to evaluate") };
    assert_eq!(ins.parameters.unwrap().tensors, weights.arrays());
    client.say(Said::EvaluateRes(EvaluateRes { loss: 0.5, num_examples: 3, ..EvaluateRes::default() })).await;
    let reported = Reported { examples: 3, metrics: Metrics::new() };
    assert_eq!(hall.said().await.2, Reply::Evaluate { loss: Some(0.5), reported });

    hall.post(&participant, Work::Leave);
    assert_eq!(client.asked().await, Asked::ReconnectIns(ReconnectIns { seconds: 0 }));
    client.say(Said::DisconnectRes(DisconnectRes {})).await;
    drop(client.answers);
    assert_eq!(within(client.asked.message()).await.unwrap(), None);
    assert_eq!(hall.gone().await, participant);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_something_else_or_nothing_is_a_failure_and_the_stream_goes_on() {
    let mut hall = Hall::new(10);
    let (_door, address) = open(&hall, None, JoinDoorLimits::default()).await;
    let mut client = come(address).await;
    let participant = hall.came().await;
    let weights = sheet(&[1.0]);
    let fitted = FitRes { parameters: given(&[b"a"]), num_examples: 1, ..FitRes::default() };
    let nothing = [("x".to_owned(), Scalar { scalar: None })];
    for (said, why) in [
        (Said::EvaluateRes(EvaluateRes::default()), "it was asked for `fit` and answered with `evaluate`"),
        (Said::DisconnectRes(DisconnectRes {}), "it was asked for `fit` and answered with `disconnect`"),
        (
            Said::GetPropertiesRes(GetPropertiesRes::default()),
            "it was asked for `fit` and answered with `get_properties`",
        ),
        (Said::FitRes(FitRes { status: failed(3, "no `fit` here"), ..fitted.clone() }), "no `fit` here"),
        (Said::FitRes(FitRes { status: failed(3, ""), ..fitted.clone() }), "it failed with code 3"),
        (Said::FitRes(FitRes { num_examples: -1, ..fitted.clone() }), "it counts -1 examples"),
        (Said::FitRes(FitRes { parameters: None, ..fitted.clone() }), "its answer has no weights"),
        (
            Said::FitRes(FitRes {
                parameters: Some(Parameters { tensor_type: "pickle".to_owned(), ..Parameters::default() }),
                ..fitted.clone()
            }),
            "its tensors are `pickle`, and should be `numpy.ndarray`",
        ),
        (Said::FitRes(FitRes { metrics: nothing.into(), ..fitted.clone() }), "its metric `x` has no value"),
    ] {
        hall.post(&participant, fit(&weights));
        assert!(matches!(client.asked().await, Asked::FitIns(_)));
        client.say(said).await;
        assert_eq!(hall.said().await.2, Reply::Failed(why.to_owned()));
    }
    hall.post(&participant, fit(&weights));
    client.asked().await;
    client.answers.send(ClientMessage { msg: None }).await.unwrap();
    let nothing = Reply::Failed("it was asked for `fit` and answered with `nothing`".to_owned());
    assert_eq!(hall.said().await.2, nothing);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_long_ends_its_stream() {
    let mut hall = Hall::new(10);
    let limits = JoinDoorLimits { message_bytes_max: 5_000_000, ..JoinDoorLimits::default() };
    let (door, address) = open(&hall, None, limits).await;
    let mut client = come(address).await;
    let participant = hall.came().await;
    let weights = sheet(&vec![1.0; 1_250_000]);
    for (bytes, does_fit) in [(4_999_000, true), (5_000_000, false)] {
        hall.post(&participant, fit(&weights));
        assert!(matches!(client.asked().await, Asked::FitIns(_)));
        let parameters =
            Some(Parameters { tensors: vec![Bytes::from(vec![7; bytes])], tensor_type: "numpy.ndarray".to_owned() });
        client.say(Said::FitRes(FitRes { parameters, num_examples: 1, ..FitRes::default() })).await;
        match hall.said().await.2 {
            Reply::Fit { tensors, .. } => assert_eq!((tensors[0].array.len(), does_fit), (bytes, true)),
            Reply::Failed(why) => {
                assert_eq!((why.as_str(), does_fit), ("its answer has 5000032 bytes, and may have 5000000", false));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.next().await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(hall.gone().await, participant);
    assert_eq!(door.stats().refused_messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_off_in_the_middle_of_a_task_is_gone() {
    let mut hall = Hall::new(10);
    let (_door, address) = open(&hall, None, JoinDoorLimits::default()).await;
    for (is_asked, ends_its_side) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut client = come(address).await;
        let participant = hall.came().await;
        if is_asked {
            hall.post(&participant, fit(&sheet(&[1.0])));
            client.asked().await;
        }
        let Client { answers, asked } = client;
        drop(answers);
        // The other is over with all of its connection.
        let left = ends_its_side.then_some(asked);
        assert_eq!(hall.gone().await, participant);
        drop(left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_task_waits_until_the_older_is_answered() {
    let mut hall = Hall::new(10);
    let (_door, address) = open(&hall, None, JoinDoorLimits::default()).await;
    let mut client = come(address).await;
    let participant = hall.came().await;
    let first = hall.post(&participant, fit(&sheet(&[1.0])));
    assert!(matches!(client.asked().await, Asked::FitIns(_)));
    hall.post(&participant, parameters());
    let third = hall.post(&participant, evaluate(&sheet(&[2.0])));
    client.say(Said::FitRes(FitRes { parameters: given(&[]), ..FitRes::default() })).await;
    let (number, _, reply) = hall.said().await;
    assert_eq!((number, matches!(reply, Reply::Fit { .. })), (first, true));
    assert!(matches!(client.asked().await, Asked::EvaluateIns(_)), "the second was replaced");
    client.say(Said::EvaluateRes(EvaluateRes::default())).await;
    assert_eq!(hall.said().await.0, third);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_before_it_is_asked_is_sent_away() {
    let mut hall = Hall::new(10);
    let (door, address) = open(&hall, None, JoinDoorLimits::default()).await;
    let mut client = come(address).await;
    client.say(Said::FitRes(FitRes::default())).await;
    assert_eq!(client.next().await.unwrap_err().code(), Code::InvalidArgument);
    hall.came().await;
    hall.gone().await;
    assert_eq!(door.stats().broken, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_room_for_so_many_and_for_nothing_else() {
    let hall = Hall::new(1);
    let (door, address) = open(&hall, None, JoinDoorLimits::default()).await;
    let channel = channel(address).await;
    let _first = Client::come(channel.clone()).await.unwrap();
    let refused = Client::come(channel.clone()).await.err().unwrap();
    assert_eq!((refused.code(), door.stats().refused_participants), (Code::ResourceExhausted, 1));
    let mut other = revoada_proto::wire::devices_client::DevicesClient::new(channel);
    let unknown = within(other.renew(revoada_proto::wire::RenewRequest::default())).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_closes_tells_everybody_to_come_again() {
    let mut hall = Hall::new(10);
    let limits = JoinDoorLimits { come_again_after: Duration::from_secs(7), ..JoinDoorLimits::default() };
    let (door, address) = open(&hall, None, limits).await;
    let mut idle = come(address).await;
    hall.came().await;
    let mut busy = come(address).await;
    let participant = hall.came().await;
    hall.post(&participant, parameters());
    busy.asked().await;
    let closing = tokio::spawn(door.shutdown(Duration::from_secs(60)));
    let again = Asked::ReconnectIns(ReconnectIns { seconds: 7 });
    assert_eq!(idle.asked().await, again);
    drop(idle);
    hall.gone().await;
    busy.say(Said::GetParametersRes(GetParametersRes { parameters: given(&[]), ..GetParametersRes::default() })).await;
    assert_eq!(hall.said().await.2, Reply::Parameters(Vec::new()));
    assert_eq!(busy.asked().await, again);
    drop(busy);
    hall.gone().await;
    assert_eq!(within(closing).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_with_a_certificate_speaks_tls_only() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let identity = authority.issue_server(&["fleet.test".to_owned()]).unwrap();
    let mut hall = Hall::new(10);
    let tls = tls::flower_config(&identity).unwrap();
    let (_door, address) = open(&hall, Some(tls), JoinDoorLimits::default()).await;

    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    for version in rustls::ALL_VERSIONS {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let connector = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                connector.connect(ServerName::try_from("fleet.test").unwrap(), stream).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("https://fleet.test");
        let channel = within(endpoint.connect_with_connector(connector)).await.unwrap();
        let mut client = Client::come(channel).await.unwrap();
        let participant = hall.came().await;
        hall.post(&participant, Work::Leave);
        assert_eq!(client.asked().await, Asked::ReconnectIns(ReconnectIns { seconds: 0 }));
        drop(client);
        hall.gone().await;
    }
    let plain = match Endpoint::new(format!("http://{address}")).unwrap().connect().await {
        Ok(channel) => Client::come(channel).await.is_ok(),
        Err(_) => false,
    };
    assert!(!plain);
}

/// What opens a stream in HTTP/2: the preface, settings, and headers that are in the protocol's own table but for the path.
fn opening() -> Vec<u8> {
    let path = b"/flwr.proto.FlowerService/Join";
    let headers = [&[0x83, 0x86, 0x04, path.len() as u8], &path[..]].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let frame = [0, 0, headers.len() as u8, 1, 4, 0, 0, 0, 1];
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &frame, &headers].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_that_it_is_there_is_gone() {
    let mut hall = Hall::new(10);
    let (ping_every, ping_timeout) = (Duration::from_millis(20), Duration::from_millis(500));
    let limits = JoinDoorLimits { ping_every, ping_timeout, unused_max: ping_timeout, ..JoinDoorLimits::default() };
    let (door, address) = open(&hall, None, limits).await;
    let mut there = come(address).await;
    let alive = hall.came().await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(&opening()).await.unwrap();
    let dead = hall.came().await;
    // It stays connected, and never answers.
    assert_eq!(hall.gone().await, dead);
    let mut unused = TcpStream::connect(address).await.unwrap();
    within(unused.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(door.stats().unused, 1);
    hall.post(&alive, parameters());
    there.asked().await;
}
