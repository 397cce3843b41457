//! Asks a service what operators ask, and goes on asking while it is being restarted.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use revoada_bundle::hash;
use revoada_bundle::sign::{Purpose, SecretKey, Signature};
use revoada_core::Digest;
use revoada_proto::EnrolmentToken;
use serde_json::{Value, json};
use ureq::http::{Method, Request};
use ureq::{Agent, SendBody};
use url::Url;

use super::SimulateError;
use super::lesson::classifier;

/// Pages of lists are some hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const ANSWER_MAX: Duration = Duration::from_secs(20);
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const PAGE: usize = 1000;

/// What a rollout came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ended {
    pub id: u64,
    /// As the service names it: `finished` where all went as planned.
    pub phase: String,
    pub devices: u64,
    pub reached: u64,
    pub gave_up: u64,
    /// From its beginning to its end.
    pub seconds: f64,
}

/// What a round of learning came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RoundEnded {
    pub round: u64,
    /// As the service names it: `finished` where all went as planned.
    pub status: String,
    pub invited: u64,
    pub updates: u64,
    pub refused: u64,
    pub examples: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// From the invitations to the new weights.
    pub seconds: f64,
}

impl RoundEnded {
    fn read(told: &Value) -> Self {
        let of = |name: &str| told[name].as_u64().unwrap_or_default();
        let at = |name: &str| told[name].as_str().and_then(|at| humantime::parse_rfc3339_weak(at).ok());
        let times = at("began_at").zip(at("ended_at"));
        Self {
            round: of("round"),
            status: told["status"].as_str().unwrap_or_default().to_owned(),
            invited: of("invited"),
            updates: of("updates"),
            refused: of("refused"),
            examples: of("examples"),
            bytes_received: of("bytes_received"),
            bytes_sent: of("bytes_sent"),
            seconds: times.map_or(0.0, |(from, to)| to.duration_since(from).unwrap_or_default().as_secs_f64()),
        }
    }
}

/// What a run of learning came to.
pub(super) struct Ran {
    pub(super) id: u64,
    /// As the service says it.
    pub(super) status: String,
    /// The last that were learned.
    pub(super) weights: Option<Digest>,
    pub(super) rounds: Vec<RoundEnded>,
}

#[derive(Clone)]
pub(super) struct Operator {
    agent: Agent,
    server: Url,
    token: String,
    patience: Duration,
}

/// Why a question was not answered as it was meant.
enum Refusal {
    /// The service is not there, or broke off: whether it did what was asked is not known.
    Away(String),
    Refused {
        status: u16,
        detail: String,
    },
}

impl Operator {
    pub(super) fn new(server: Url, token: &str, patience: Duration) -> Self {
        let tls = ureq::tls::TlsConfig::builder()
            .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(ANSWER_MAX));
        Self { agent: config.build().into(), server, token: token.trim().to_owned(), patience }
    }

    fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Value, Refusal> {
        let away = |error: &dyn std::fmt::Display| Refusal::Away(error.to_string());
        let kind = if body.first() == Some(&b'{') { "application/json" } else { "application/octet-stream" };
        let url = format!("{}api/v1/{path}", self.server);
        let request = Request::builder().method(method.clone()).uri(url).header("content-type", kind);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let answer = if method == Method::GET {
            request.body(SendBody::none()).map(|request| self.agent.run(request))
        } else {
            request.body(SendBody::from_owned_reader(std::io::Cursor::new(body))).map(|it| self.agent.run(it))
        };
        let mut answer = answer.map_err(|error| away(&error))?.map_err(|error| away(&error))?;
        let status = answer.status();
        let bytes = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let value = serde_json::from_slice(&bytes.map_err(|error| away(&error))?).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let detail = value["detail"].as_str().unwrap_or_default().to_owned();
        Err(Refusal::Refused { status: status.as_u16(), detail })
    }

    /// Asks until there is an answer; what is asked must do no harm twice.
    fn insist(&self, method: &Method, path: &str, body: &Value) -> Result<Value, SimulateError> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.insist_bytes(method, path, &body)
    }

    fn insist_bytes(&self, method: &Method, path: &str, body: &[u8]) -> Result<Value, SimulateError> {
        let deadline = Instant::now() + self.patience;
        let refused = |why| SimulateError::Operator { what: format!("{method} {path}"), why };
        loop {
            match self.ask(method.clone(), path, body.to_vec()) {
                Ok(value) => return Ok(value),
                Err(Refusal::Refused { status, detail }) => return Err(refused(format!("{status} {detail}"))),
                Err(Refusal::Away(why)) if Instant::now() >= deadline => return Err(refused(why)),
                Err(Refusal::Away(_)) => thread::sleep(AGAIN_AFTER),
            }
        }
    }

    pub(super) fn enrolment_token(&self, name: &str, devices: usize) -> Result<EnrolmentToken, SimulateError> {
        let form = json!({ "name": name, "prefix": "", "uses": devices, "valid_for": "1h" });
        let told = self.insist(&Method::POST, "enrolment-tokens", &form)?;
        let token = told["token"].as_str().and_then(|token| token.parse().ok());
        token.ok_or_else(|| SimulateError::Operator { what: "a token".to_owned(), why: "it is none".to_owned() })
    }

    /// Uploads a blob of one piece.
    fn upload(&self, content: &[u8]) -> Result<Digest, SimulateError> {
        let digest = hash(content);
        self.insist(&Method::POST, "blobs", &json!({ "digest": digest, "bytes": content.len() }))?;
        self.insist_bytes(&Method::PATCH, &format!("blobs/{digest}?offset=0"), content)?;
        self.insist(&Method::POST, &format!("blobs/{digest}/complete"), &Value::Null)?;
        Ok(digest)
    }

    /// Registers a version of which the files are there.
    fn add_version(
        &self,
        kind: &str,
        name: &str,
        version: &str,
        digest: Digest,
        signature: &Signature,
    ) -> Result<(), SimulateError> {
        let form = json!({ "version": version, "digest": digest, "signature": signature });
        self.insist(&Method::POST, &format!("artefacts/{kind}/{name}/versions"), &form)?;
        Ok(())
    }

    /// Registers a classifier whose head devices may learn.
    pub(super) fn register_classifier(&self, key: &SecretKey, name: &str, version: &str) -> Result<(), SimulateError> {
        let files = classifier(name);
        let digests = files.iter().map(|file| self.upload(file)).collect::<Result<Vec<_>, _>>()?;
        let index = *digests.last().expect("a bundle has an index");
        self.add_version("model", name, version, index, &key.sign(Purpose::Bundle, index))
    }

    /// Registers a small pipeline that its owner has signed.
    pub(super) fn register(&self, key: &SecretKey, name: &str, version: &str) -> Result<(), SimulateError> {
        let content = format!("# Version {version} of a pipeline that nobody runs.\nversion = 1\n").into_bytes();
        let digest = self.upload(&content)?;
        self.add_version("pipeline", name, version, digest, &key.sign(Purpose::Pipeline, digest))
    }

    /// Begins a rollout and waits until it has ended, or until nobody waits any longer.
    pub(super) fn roll_out(&self, form: &Value) -> Result<Ended, SimulateError> {
        let begun = Instant::now();
        let id = self.begin("rollouts", form)?;
        let deadline = begun + self.patience;
        loop {
            let rollout = self.insist(&Method::GET, &format!("rollouts/{id}"), &Value::Null)?;
            let phase = rollout["phase"].as_str().unwrap_or_default().to_owned();
            let is_over = !matches!(phase.as_str(), "new" | "running");
            if is_over || Instant::now() >= deadline {
                let of = |name: &str| rollout["progress"][name].as_u64().unwrap_or_default();
                let seconds = begun.elapsed().as_secs_f64();
                let (devices, reached, gave_up) = (of("devices"), of("reached"), of("gave_up"));
                return Ok(Ended { id, phase, devices, reached, gave_up, seconds });
            }
            thread::sleep(AGAIN_AFTER);
        }
    }

    /// One that was begun by an attempt that broke off is known by its title.
    fn begin(&self, what: &str, form: &Value) -> Result<u64, SimulateError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let why = match self.ask(Method::POST, what, form.to_string().into_bytes()) {
                Ok(added) => match added["id"].as_u64() {
                    Some(id) => return Ok(id),
                    None => "it has no number".to_owned(),
                },
                Err(Refusal::Refused { status, detail }) => format!("{status} {detail}"),
                Err(Refusal::Away(why)) if Instant::now() >= deadline => why,
                Err(Refusal::Away(_)) => {
                    thread::sleep(AGAIN_AFTER);
                    let known = self.insist(&Method::GET, what, &Value::Null)?;
                    let known = known.as_array().into_iter().flatten().find(|it| it["title"] == form["title"]);
                    match known.and_then(|known| known["id"].as_u64()) {
                        Some(id) => return Ok(id),
                        None => continue,
                    }
                }
            };
            return Err(SimulateError::Operator { what: format!("POST {what}"), why });
        }
    }

    /// Begins a run of learning and waits until it has ended, or until nobody waits any longer.
    pub(super) fn learn(&self, form: &Value) -> Result<Ran, SimulateError> {
        let id = self.begin("runs", form)?;
        let deadline = Instant::now() + self.patience;
        let run = loop {
            let run = self.insist(&Method::GET, &format!("runs/{id}"), &Value::Null)?;
            let is_over = matches!(run["phase"].as_str(), Some("finished" | "stopped" | "failed"));
            if is_over || Instant::now() >= deadline {
                break run;
            }
            thread::sleep(AGAIN_AFTER);
        };
        let rounds = self.insist(&Method::GET, &format!("runs/{id}/rounds"), &Value::Null)?;
        let rounds = rounds.as_array().into_iter().flatten().map(RoundEnded::read).collect();
        let weights = run["weights"].as_str().and_then(|weights| weights.parse().ok());
        Ok(Ran { id, status: run["status"].as_str().unwrap_or_default().to_owned(), weights, rounds })
    }

    /// Who took part in a round, and how each stands.
    pub(super) fn participants(&self, run: u64, round: u64) -> Result<Vec<(String, String)>, SimulateError> {
        let told = self.insist(&Method::GET, &format!("runs/{run}/rounds/{round}/participants"), &Value::Null)?;
        let text = |member: &Value, name: &str| member[name].as_str().unwrap_or_default().to_owned();
        let members = told.as_array().into_iter().flatten();
        Ok(members.map(|member| (text(member, "participant"), text(member, "status"))).collect())
    }

    /// Asks a device to restart its pipeline; the command's number, where the service said that it has it.
    pub(super) fn command(&self, device: &str) -> Option<u64> {
        let ask = json!({ "ask": "restart-pipeline", "valid_for": "1h" });
        let told = self.ask(Method::POST, &format!("devices/{device}/commands"), ask.to_string().into_bytes());
        told.ok()?["number"].as_u64()
    }

    /// `done`, where the device has said so and the service knows it.
    pub(super) fn command_state(&self, device: &str, number: u64) -> Result<String, SimulateError> {
        let command = self.insist(&Method::GET, &format!("devices/{device}/commands/{number}"), &Value::Null)?;
        Ok(command["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Every event that the service has: whose, its name and its text.
    pub(super) fn events(&self) -> Result<Vec<(String, String, String)>, SimulateError> {
        let (mut events, mut before) = (Vec::new(), String::new());
        loop {
            let page = self.insist(&Method::GET, &format!("events?limit={PAGE}{before}"), &Value::Null)?;
            let page = page.as_array().cloned().unwrap_or_default();
            for event in &page {
                let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                events.push((text("device"), text("name"), text("text")));
            }
            match page.last().and_then(|last| last["number"].as_u64()) {
                Some(number) if page.len() == PAGE => before = format!("&before={number}"),
                _ => return Ok(events),
            }
        }
    }
}

/// Reads the token that a service writes for its administrator.
pub(super) fn admin_token(path: &Path) -> Result<String, SimulateError> {
    std::fs::read_to_string(path).map_err(|source| SimulateError::Read { path: path.to_owned(), source })
}
