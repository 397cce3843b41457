//! Events as HTTP requests: a POST of one JSON object each, over one connection while the server keeps it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::HeaderValue;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::courier::{Carrier, Letter, Setback};
use super::mqtt::secret;
use crate::SinkError;
use crate::config::WebhookConfig;

/// What is read of an answer, so that its connection can be used again.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

pub(super) struct WebhookCarrier {
    agent: Agent,
    url: String,
    authorization: Option<HeaderValue>,
}

impl WebhookCarrier {
    /// Reads the token and certificates; does not connect.
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, SinkError> {
        let cannot = |reason: String| SinkError::Deliver { destination: config.url.clone(), reason };
        let authorization = match &config.token_file {
            Some(path) => {
                let token = secret(path).map_err(cannot)?;
                let value = HeaderValue::try_from(format!("Bearer {token}"));
                let mut value = value.map_err(|_| cannot(format!("`{}` holds no token", path.display())))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let roots = match &config.ca_file {
            Some(path) => {
                let named = |reason: String| cannot(format!("`{}`: {reason}", path.display()));
                let pem = fs::read(path).map_err(|error| named(error.to_string()))?;
                let mut certificates = Vec::new();
                for item in parse_pem(&pem) {
                    if let PemItem::Certificate(certificate) = item.map_err(|error| named(error.to_string()))? {
                        certificates.push(certificate);
                    }
                }
                if certificates.is_empty() {
                    return Err(named("there is no certificate in it".to_owned()));
                }
                RootCerts::Specific(Arc::new(certificates))
            }
            None => RootCerts::PlatformVerifier,
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(roots)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // Events do not follow a server elsewhere, nor the environment's proxies.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("revoada/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent, url: config.url.clone(), authorization })
    }
}

impl Carrier for WebhookCarrier {
    fn deliver(&mut self, letter: &Letter, timeout: Duration) -> Result<(), Setback> {
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        let mut answer = request
            .send(&letter.body[..])
            .map_err(|error| Setback::Passing { reason: error.to_string(), wait: None })?;
        let status = answer.status();
        let wait = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        // What it says beyond its status is of no use here; a connection that breaks now is a new one next time.
        drop(answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec());
        let reason = format!("the server answers {status}");
        match status.as_u16() {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(Setback::Passing { reason, wait: wait.map(Duration::from_secs) }),
            _ => Err(Setback::Refused { reason }),
        }
    }
}
