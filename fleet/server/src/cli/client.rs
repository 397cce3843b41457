//! Asks a service over REST.

use std::fs::{self, File};
use std::io::copy;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use revoada_bundle::partial::Partial;
use serde_json::Value;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body};
use url::Url;

use super::failure::Misuse;

/// Pages of lists are some hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Which service, and by what right.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Access {
    /// The service's address for operators.
    #[arg(
        long,
        global = true,
        env = "REVOADA_FLEET_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub(super) server: Url,
    /// A file with an API token; a service writes one for its administrator to `admin.token` in its folder.
    #[arg(
        long,
        global = true,
        env = "REVOADA_FLEET_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/var/lib/revoada-fleet/admin.token"
    )]
    pub(super) token_file: PathBuf,
}

/// A service, and the token that it is asked with.
pub(crate) struct Client {
    agent: Agent,
    server: Url,
    token: String,
}

impl Access {
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let token = fs::read_to_string(&self.token_file).with_context(|| {
            format!("cannot read the API token `{}` (`--token-file` names another)", self.token_file.display())
        })?;
        let tls = ureq::tls::TlsConfig::builder()
            .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(ANSWER_TIMEOUT));
        Ok(Client { agent: config.build().into(), server: self.server.clone(), token: token.trim().to_owned() })
    }
}

impl Client {
    pub(crate) fn get(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Value> {
        self.json(Method::GET, path, query, None)
    }

    /// Writes what is answered into a file, whole or not at all.
    pub(crate) fn save(&self, path: &[&str], query: &[(&str, &str)], output: &Path) -> anyhow::Result<()> {
        let answer = self.run(self.request(Method::GET, path, query)?.body(())?)?;
        let write = || -> std::io::Result<()> {
            let partial = Partial::create(output)?;
            copy(&mut answer.into_body().into_reader(), &mut File::create(partial.path())?)?;
            partial.commit().map(drop)
        };
        write().with_context(|| format!("cannot write `{}`", output.display()))
    }

    pub(crate) fn post(&self, path: &[&str], body: &Value) -> anyhow::Result<Value> {
        self.json(Method::POST, path, &[], Some(body))
    }

    pub(crate) fn patch(&self, path: &[&str], body: &Value) -> anyhow::Result<Value> {
        self.json(Method::PATCH, path, &[], Some(body))
    }

    pub(crate) fn put(&self, path: &[&str], body: &Value) -> anyhow::Result<Value> {
        self.json(Method::PUT, path, &[], Some(body))
    }

    pub(crate) fn delete(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.json(Method::DELETE, path, &[], None)
    }

    /// Null where the answer is empty.
    fn json(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let mut request = self.request(method, path, query)?;
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let mut answer = self.run(request.body(bytes)?)?;
        let bytes = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .with_context(|| format!("`{}` does not answer as a fleet service does", self.server))
    }

    /// Begins a request below `/api/v1`, whose parts may be anything.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> anyhow::Result<ureq::http::request::Builder> {
        let mut url = self.server.clone();
        let Ok(mut segments) = url.path_segments_mut() else {
            return Err(Misuse(format!("`--server {}` is no address of a service", self.server)).into());
        };
        segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        drop(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let authorization = format!("Bearer {}", self.token);
        Ok(Request::builder().method(method).uri(url.as_str()).header("authorization", authorization))
    }

    /// Sends a request; a refusal is an error that says what the service says.
    pub(crate) fn run(&self, request: Request<impl ureq::AsSendBody>) -> anyhow::Result<Response<Body>> {
        let answer = self.agent.run(request);
        let mut answer = answer.with_context(|| format!("cannot reach the fleet service at `{}`", self.server))?;
        if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap_or_default();
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) => bail!("{}", detail.replace(char::is_control, " ")),
            None => bail!("the service answers {status}"),
        }
    }
}
