//! `agent.toml`: what the agent of one device is told by whoever installs it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use revoada_bundle::strict::{Document, Problems, TEXT_BYTES_MAX, Table};
use thiserror::Error;

use crate::Policy;

/// Where an agent keeps everything, unless it is told otherwise.
const FOLDER: &str = "/var/lib/revoada/agent";
const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What an agent runs on. Paths are absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// Everything that the agent keeps lies below it.
    pub folder: PathBuf,
    /// The port of the fleet service for devices.
    pub server: Address,
    /// A file of public keys: what none of them has signed is neither run nor kept.
    pub trust: PathBuf,
    /// What is executed for children while no package is deployed; the agent's own program where it is `None`.
    pub program: Option<PathBuf>,
    /// The pipeline that runs while none is deployed.
    pub pipeline: Option<PathBuf>,
    /// The model that runs while none is deployed; a pipeline file may name its own.
    pub model: Option<PathBuf>,
    pub limits: Limits,
    /// How often the agent says how it is, at least.
    pub heartbeat: Duration,
    /// An agent that was updated and has no receipt from the service after so long goes back to the one before.
    pub check_in_time_max: Duration,
    /// How long a new model answers the live pictures beside the old one before it replaces it; zero for never.
    pub shadow_for: Duration,
    /// Pictures whose classes are known, `FOLDER/LABEL/picture.jpg`: a new classifier answers them before it replaces the old.
    pub labelled: Option<PathBuf>,
    /// What the device learns from; it declines every invitation to learn where it is `None`.
    pub learning: Option<LearningConfig>,
    pub policy: Policy,
}

/// What a device learns from, and how much that may take.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningConfig {
    /// Its own labelled pictures, `FOLDER/LABEL/picture.jpg`. They never leave the device.
    pub data: PathBuf,
    /// Of one round.
    pub time_max: Duration,
    pub memory_mib_max: u64,
    /// It waits while the device is hotter.
    pub celsius_max: Option<u8>,
}

/// The bounds of what the agent takes of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of disk that a deployment leaves free.
    pub disk_reserve_bytes: u64,
    /// Events that the service has not stored yet; the oldest are dropped, and counted, beyond it.
    pub events_bytes_max: u64,
    /// The pipeline's log; there are up to two files of this size.
    pub log_bytes_max: u64,
    /// Of all downloads together; as fast as it goes where it is `None`.
    pub download_bytes_per_second: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disk_reserve_bytes: 512 * MIB,
            events_bytes_max: MIB,
            log_bytes_max: 4 * MIB,
            download_bytes_per_second: None,
        }
    }
}

/// `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected `HOST:PORT`, got `{text}`")]
pub struct AddressError {
    text: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = || AddressError { text: text.chars().take(100).collect() };
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refuse)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6,
            None if host.contains(':') => return Err(refuse()),
            None => host,
        };
        // What TLS can check a certificate against.
        rustls::pki_types::ServerName::try_from(host).map_err(|_| refuse())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read configuration `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Problems(#[from] Problems),
}

impl AgentConfig {
    /// Reads a file. Paths in it are those of its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let cannot_read = |source| ConfigError::Read { path: path.to_owned(), source };
        let path = std::path::absolute(path).map_err(cannot_read)?;
        let mut text = String::new();
        let file = File::open(&path).map_err(cannot_read)?;
        file.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(cannot_read)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        Ok(Self::parse(&path.display().to_string(), &text, folder)?)
    }

    /// Reads a file's text; `file` is for messages, and `here` is the folder of paths that are not absolute.
    pub fn parse(file: &str, text: &str, here: &Path) -> Result<Self, Problems> {
        let document = Document::parse(file, text)?;
        let root = document.root();
        let path = |table: &Table<'_>, key: &str| table.string(key).map(|path| here.join(path));
        let server = root.required().string("server").and_then(|text| match text.parse() {
            Ok(address) => Some(address),
            Err(error) => {
                root.problem("server", error);
                None
            }
        });
        let trust = path(&root.required(), "trust");
        let heartbeat = root.duration("heartbeat", Duration::from_secs(1)..=DAY);
        let folder = path(&root, "folder").unwrap_or_else(|| FOLDER.into());
        let program = path(&root, "program");
        let (pipeline, model) = match root.table("default") {
            Some(table) => (path(&table, "pipeline"), path(&table, "model")),
            None => (None, None),
        };
        let update = root.table("update");
        let time = |key| update.as_ref().and_then(|table| table.duration(key, ..=DAY));
        let (check_in, shadow_for) = (time("check_in_time_max"), time("shadow_for"));
        let labelled = update.as_ref().and_then(|table| path(table, "labelled"));
        let learning = root.table("learning").and_then(|table| read_learning(&table, here));
        let limits = root.table("limits").map(|table| read_limits(&table)).unwrap_or_default();
        let policy = root.table("policy").map(|table| read_policy(&table)).unwrap_or_default();
        document.finish()?;
        Ok(Self {
            folder,
            server: server.expect("a missing address is a problem"),
            trust: trust.expect("a missing path is a problem"),
            program,
            pipeline,
            model,
            limits,
            heartbeat: heartbeat.unwrap_or(Duration::from_secs(60)),
            check_in_time_max: check_in.unwrap_or(Duration::from_secs(600)),
            shadow_for: shadow_for.unwrap_or(Duration::from_secs(30)),
            labelled,
            learning,
            policy,
        })
    }
}

fn read_learning(table: &Table<'_>, here: &Path) -> Option<LearningConfig> {
    let data = table.required().string("data");
    let time_max = table.duration("time_max", Duration::from_secs(1)..=7 * DAY);
    let memory_mib_max = table.integer("memory_mib", 1..=MIB);
    let celsius_max = table.integer("celsius_max", 20..=120);
    Some(LearningConfig {
        data: here.join(data?),
        time_max: time_max.unwrap_or(Duration::from_secs(3600)),
        memory_mib_max: memory_mib_max.unwrap_or(512),
        celsius_max,
    })
}

fn read_limits(table: &Table<'_>) -> Limits {
    let default = Limits::default();
    let bytes = |key, unit, max| table.integer(key, 1..=max).map(|count: u64| count * unit);
    Limits {
        disk_reserve_bytes: table.integer("disk_reserve_mib", 0..=MIB).map_or(default.disk_reserve_bytes, |n| n * MIB),
        events_bytes_max: bytes("events_kib", KIB, KIB * KIB).unwrap_or(default.events_bytes_max),
        log_bytes_max: bytes("log_mib", MIB, KIB).unwrap_or(default.log_bytes_max),
        download_bytes_per_second: bytes("download_kib_per_second", KIB, 16 * MIB),
    }
}

fn read_policy(table: &Table<'_>) -> Policy {
    let default = Policy::default();
    let second = Duration::from_secs(1);
    let time = |key, default| table.duration(key, second..=DAY).unwrap_or(default);
    let count = |key, default| table.integer(key, 1..=1000).unwrap_or(default);
    Policy {
        fetch_silence_max: time("fetch_silence_max", default.fetch_silence_max),
        verify_time_max: time("verify_time_max", default.verify_time_max),
        preflight_time_max: time("preflight_time_max", default.preflight_time_max),
        timeouts_max: count("timeouts_max", default.timeouts_max),
        not_found_max: count("not_found_max", default.not_found_max),
        damaged_max: count("damaged_max", default.damaged_max),
        retry_min: table.duration("retry_min", Duration::from_millis(10)..=DAY).unwrap_or(default.retry_min),
        retry_max: time("retry_max", default.retry_max),
        report_time_max: time("report_time_max", default.report_time_max),
        healthy_for: time("healthy_for", default.healthy_for),
        health_silence_max: time("health_silence_max", default.health_silence_max),
        trial_time_max: time("trial_time_max", default.trial_time_max),
        starts_max: count("starts_max", default.starts_max),
        fps_min: table.float("fps_min", 0.0..).or(default.fps_min),
        nonfinite_max: table.integer("nonfinite_max", ..).unwrap_or(default.nonfinite_max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_a_default_and_paths_are_those_of_the_file() {
        let text = "server = \"[::1]:8443\"\ntrust = \"owners\"\n[update]\nlabelled = \"labelled\"\n";
        let config = AgentConfig::parse("a.toml", text, Path::new("/etc/r")).unwrap();
        assert_eq!(config.trust, Path::new("/etc/r/owners"));
        assert_eq!((config.labelled.as_deref(), config.model), (Some(Path::new("/etc/r/labelled")), None));
        assert_eq!((config.server.host.as_str(), config.server.to_string().as_str()), ("::1", "[::1]:8443"));
        assert_eq!((config.folder.as_path(), config.policy), (Path::new(FOLDER), Policy::default()));
    }

    #[test]
    fn every_problem_is_named_with_its_line() {
        let text = "server = \"fleet\"\nheart_beat = \"1m\"\n[limits]\nlog_mib = 0\n[policy]\nhealthy_for = \"0s\"\n";
        let error = AgentConfig::parse("a.toml", text, Path::new("/")).unwrap_err().to_string();
        for expected in [
            "a.toml: trust: this key is missing",
            "a.toml:1: server: expected `HOST:PORT`, got `fleet`",
            "a.toml:2: heart_beat: unknown key, did you mean `heartbeat`?",
            "a.toml:4: limits.log_mib: expected an integer from 1 to 1024, got 0",
            "a.toml:6: policy.healthy_for",
        ] {
            assert!(error.contains(expected), "{expected} is not in\n{error}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for text in ["", "a", "a:", "a:0", "a:70000", ":1", "::1:1", "a b:1", "a/b:1", "[::1]"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
