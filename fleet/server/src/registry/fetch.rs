//! A bundle's files on a web server.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use url::Url;

use super::{ImportError, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Until an answer begins, and between any two of its pieces.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Of one file: a plan of gigabytes over a slow line.
const FILE_TIMEOUT: Duration = Duration::from_hours(2);

/// From a release's page to where its files lie.
const REDIRECTS_MAX: u32 = 5;

/// Where a bundle lies.
pub(super) struct Site {
    base: Url,
    agent: Agent,
}

impl Site {
    pub(super) fn new(base: &str) -> Result<Self> {
        let refuse = |reason: String| ImportError::Url { url: base.chars().take(200).collect(), reason };
        let parsed = Url::parse(base).map_err(|error| refuse(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(refuse("it is neither HTTP nor HTTPS".to_owned()));
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(REDIRECTS_MAX)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE_MAX))
            .timeout_per_read(Some(SILENCE_MAX))
            .timeout_global(Some(FILE_TIMEOUT))
            // Nothing of the environment decides where the service goes.
            .proxy(None)
            .user_agent(concat!("revoada-fleet/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { base: parsed, agent })
    }

    /// A file that has no more than so many bytes.
    pub(super) fn read(&self, file: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open(file, 0)?.take(bytes_max + 1).read_to_end(&mut bytes);
        let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {bytes_max} bytes"));
        let is_short = |read: usize| if read as u64 <= bytes_max { Ok(()) } else { Err(too_long()) };
        read.and_then(is_short).map_err(|source| ImportError::Read { what: self.locate(file).into(), source })?;
        Ok(bytes)
    }

    /// The bytes of a file from an offset on.
    pub(super) fn open(&self, file: &str, offset: u64) -> Result<Box<dyn Read>> {
        let url = self.locate(file);
        let mut request = self.agent.get(url.as_str());
        if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let answer = request.call().map_err(|source| ImportError::Fetch { url: url.clone(), source: source.into() })?;
        let status = answer.status().as_u16();
        // Whoever reads counts.
        let mut body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        match status {
            206 if offset > 0 => {}
            // The server knows no ranges.
            200 => {
                let skipped = io::copy(&mut body.by_ref().take(offset), &mut io::sink());
                skipped.map_err(|source| ImportError::Read { what: url.into(), source })?;
            }
            status => return Err(ImportError::Answer { url, status }),
        }
        Ok(Box::new(body))
    }

    /// Below the base, with what cannot stand in a URL written as it can.
    fn locate(&self, file: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(file.split('/'));
        }
        url
    }
}
