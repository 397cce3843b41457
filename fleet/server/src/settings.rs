//! How a fleet service is set up: `fleet.toml`, read strictly.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use revoada_bundle::sign::TrustedKeys;
use revoada_bundle::strict::{Document, Problems, Table};

use crate::learning::Pictures;
use crate::planner::Limits;

const DAY: Duration = Duration::from_hours(24);

/// Where the service keeps what it has, where it listens, and its bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Holds the database, the blobs, the authority's and the service's keys.
    pub folder: PathBuf,
    /// What devices call this machine: the names in the service's certificate.
    pub names: Vec<String>,
    pub mqtt: SocketAddr,
    /// For certificates, plans and blobs: gRPC and HTTP, with TLS.
    pub devices: SocketAddr,
    /// For people and programs: the console, REST and gRPC.
    pub operators: Operators,
    /// For clients of Flower.
    pub flower: FlowerDoors,
    /// Signs bundles of what devices have learned, where its owner has made it for that: its public half is to be among `trusted`,
    /// here and on the devices.
    pub learning_key: Option<PathBuf>,
    /// By which the service judges what was learned.
    pub pictures: Pictures,
    /// Who may sign what is rolled out. Nobody, where none are named: nothing can be registered then.
    pub trusted: Vec<TrustedKeys>,
    pub blob_bytes_max: u64,
    /// Of all downloads together.
    pub download_bytes_per_second_max: Option<u64>,
    pub certificate_validity: Duration,
    /// Devices renew theirs once so much of it is left.
    pub certificate_renewal: Duration,
    pub order_validity: Duration,
    pub connections_max: usize,
    pub connects_per_second_max: u32,
    /// Devices that ask for their first certificate.
    pub enrolments_per_second_max: u32,
    pub limits: Limits,
}

/// Where people come in.
#[derive(Clone, Debug)]
pub struct Operators {
    pub address: SocketAddr,
    /// Certificate and key in PEM. Without them there is no TLS, and the address must be one of this machine alone.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Where clients of Flower come in. A door without an address is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowerDoors {
    /// `start_client`: gRPC. Whoever reaches it takes part.
    pub join: Option<SocketAddr>,
    /// SuperNodes: HTTP.
    pub nodes: Option<SocketAddr>,
    /// With the service's own certificate, which the authority of its devices has signed.
    pub is_encrypted: bool,
    /// Public keys of the SuperNodes that may take part, PEM; any may where it is `None`.
    pub node_keys: Option<PathBuf>,
    /// Of one message: a model's weights.
    pub message_bytes_max: usize,
}

impl Settings {
    /// What a file says. Relative paths are taken against its folder.
    pub fn parse(file: &str, text: &str, base: &Path) -> Result<Self, Problems> {
        let document = Document::parse(file, text)?;
        let settings = read(&document.root(), base);
        document.finish()?;
        Ok(settings)
    }

    /// A service with nothing said but its folder.
    pub fn in_folder(folder: &Path) -> Self {
        let document = Document::empty("settings");
        Self { folder: folder.to_owned(), ..read(&document.root(), folder) }
    }
}

fn read(root: &Table<'_>, base: &Path) -> Settings {
    let operators = root.table("operators");
    let identity = root.table("identity");
    let download = root.table("downloads");
    let connections = root.table("connections");
    let bytes = |table: &Option<Table<'_>>, key: &str, unit: u64| {
        let count = table.as_ref()?.integer::<u64>(key, 1..=u64::MAX / unit)?;
        Some(count * unit)
    };
    let duration = |table: &Option<Table<'_>>, key: &str, range, default| {
        table.as_ref().and_then(|table| table.duration(key, range)).unwrap_or(default)
    };
    let learning = root.table("learning");
    let path = |table: &Option<Table<'_>>, key: &str| Some(base.join(table.as_ref()?.string(key)?));
    let certificate_validity = duration(&identity, "certificate_validity", DAY..=DAY * 3650, DAY * 90);
    Settings {
        folder: root.string("folder").map_or_else(|| "/var/lib/revoada-fleet".into(), |folder| base.join(folder)),
        names: root.strings("names").unwrap_or_else(|| vec!["localhost".to_owned()]),
        mqtt: address(root, "mqtt", ([0, 0, 0, 0], 8883)),
        devices: address(root, "devices", ([0, 0, 0, 0], 8443)),
        operators: read_operators(operators.as_ref(), base),
        learning_key: path(&learning, "key"),
        pictures: Pictures { folder: path(&learning, "pictures"), program: path(&learning, "program") },
        flower: read_flower(root.table("flower").as_ref(), base),
        trusted: read_trusted(root, base),
        blob_bytes_max: bytes(&root.table("blobs"), "gib_max", 1 << 30).unwrap_or(100 << 30),
        download_bytes_per_second_max: bytes(&download, "kib_per_second_max", 1 << 10),
        certificate_validity,
        certificate_renewal: duration(
            &identity,
            "certificate_renewal",
            Duration::from_secs(60)..=certificate_validity,
            certificate_validity / 3,
        ),
        order_validity: duration(&identity, "order_validity", Duration::from_mins(1)..=DAY * 3650, DAY * 7),
        connections_max: connections.as_ref().and_then(|it| it.integer("max", 1..=1_000_000)).unwrap_or(20_000),
        connects_per_second_max: connections
            .as_ref()
            .and_then(|it| it.integer("per_second_max", 1..=1_000_000))
            .unwrap_or(2_000),
        enrolments_per_second_max: connections
            .as_ref()
            .and_then(|it| it.integer("enrolments_per_second_max", 1..=1_000_000))
            .unwrap_or(50),
        limits: read_limits(root.table("limits").as_ref()),
    }
}

fn address(table: &Table<'_>, key: &str, default: ([u8; 4], u16)) -> SocketAddr {
    let default = SocketAddr::from(default);
    let Some(text) = table.string(key) else { return default };
    text.parse().unwrap_or_else(|_| {
        table.problem(key, format!("expected an address and a port such as `{default}`, got `{text}`"));
        default
    })
}

fn read_operators(table: Option<&Table<'_>>, base: &Path) -> Operators {
    let default = ([127, 0, 0, 1], 8080);
    let Some(table) = table else { return Operators { address: default.into(), tls: None } };
    let address = address(table, "address", default);
    let path = |key| table.string(key).map(|path| base.join(path));
    let tls = match (path("certificate"), path("key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => {
            if !address.ip().is_loopback() {
                table.problem(
                    "address",
                    format!(
                        "`{address}` can be reached from elsewhere and passwords would go in clear: name `certificate` \
                         and `key`, or listen on 127.0.0.1 behind a proxy"
                    ),
                );
            }
            None
        }
        (certificate, _) => {
            let missing = if certificate.is_some() { "key" } else { "certificate" };
            table.problem(missing, "this key is missing: TLS needs `certificate` and `key`");
            None
        }
    };
    Operators { address, tls }
}

fn read_flower(table: Option<&Table<'_>>, base: &Path) -> FlowerDoors {
    const MIB: usize = 1 << 20;
    let default = FlowerDoors { is_encrypted: true, message_bytes_max: 512 * MIB, ..FlowerDoors::default() };
    let Some(table) = table else { return default };
    let is_encrypted = table.boolean("tls").unwrap_or(true);
    let door = |key| {
        let text = table.string(key)?;
        let Ok(address) = text.parse::<SocketAddr>() else {
            table.problem(key, format!("expected an address and a port such as `0.0.0.0:9092`, got `{text}`"));
            return None;
        };
        if !is_encrypted && !address.ip().is_loopback() {
            let why = "can be reached from elsewhere, and weights would go in clear: leave `tls` on";
            table.problem(key, format!("`{address}` {why}, or listen on 127.0.0.1 behind a proxy"));
        }
        Some(address)
    };
    FlowerDoors {
        join: door("join"),
        nodes: door("nodes"),
        is_encrypted,
        node_keys: table.string("node_keys").map(|path| base.join(path)),
        message_bytes_max: table
            .integer("message_mib_max", 1..=2047)
            .map_or(default.message_bytes_max, |n: usize| n * MIB),
    }
}

fn read_trusted(root: &Table<'_>, base: &Path) -> Vec<TrustedKeys> {
    let named = root.strings("trusted").unwrap_or_default();
    let read = |text: String| match text.parse() {
        Ok(TrustedKeys::File(path)) => Some(TrustedKeys::File(base.join(path))),
        Ok(key) => Some(key),
        Err(error) => {
            root.problem("trusted", error.to_string());
            None
        }
    };
    named.into_iter().filter_map(read).collect()
}

fn read_limits(table: Option<&Table<'_>>) -> Limits {
    let count = |key, default: u32| {
        let count = table.and_then(|table| table.integer(key, 1..=u32::MAX)).unwrap_or(default);
        NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
    };
    let duration = |key, default| {
        let range = Duration::from_secs(1)..=DAY * 365;
        table.and_then(|table| table.duration(key, range)).unwrap_or(default)
    };
    Limits {
        in_flight_max: count("in_flight_max", 1_000),
        orders_per_minute_max: count("orders_per_minute_max", 60_000),
        away_after: duration("away_after", Duration::from_mins(5)),
        answer_timeout: duration("answer_timeout", Duration::from_hours(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse("fleet.toml", text, Path::new("/etc/revoada")).map_err(|problems| problems.to_string())
    }

    #[test]
    fn paths_are_taken_against_the_file() {
        let settings = parse("folder = \"state\"\ntrusted = [\"owner.pub\"]\nnames = [\"fleet.example\"]").unwrap();
        assert_eq!(settings.folder, Path::new("/etc/revoada/state"));
        assert_eq!(settings.trusted, [TrustedKeys::File("/etc/revoada/owner.pub".into())]);
        assert_eq!(settings.names, ["fleet.example"]);
    }

    #[test]
    fn the_example_is_what_holds_where_nothing_is_said() {
        // Its key is an example's; everything else is a default.
        let text = include_str!("../../../configs/fleet.toml");
        let key = text.lines().find(|line| line.starts_with("trusted")).unwrap();
        let example = parse(&text.replace(key, "")).unwrap();
        let plain = Settings { names: example.names.clone(), ..parse("").unwrap() };
        assert_eq!(format!("{example:?}"), format!("{plain:?}"));
    }

    #[test]
    fn every_problem_is_said_at_once() {
        let problems = parse(
            "mqtt = \"everywhere\"\nfoldr = \"a\"\n[limits]\nin_flight_max = 0\n[operators]\naddress = \"0.0.0.0:80\"\n[flower]\ntls = false\njoin = \"0.0.0.0:9092\"\n",
        )
        .unwrap_err();
        for said in [
            "fleet.toml:1: mqtt: expected an address and a port",
            "fleet.toml:2: foldr: unknown key, did you mean `folder`?",
            "fleet.toml:4: limits.in_flight_max: expected",
            "fleet.toml:6: operators.address: `0.0.0.0:80` can be reached from elsewhere",
            "fleet.toml:9: flower.join: `0.0.0.0:9092` can be reached from elsewhere",
        ] {
            assert!(problems.contains(said), "{problems}");
        }
    }

    #[test]
    fn a_key_without_its_certificate_is_refused() {
        let problems = parse("[operators]\naddress = \"0.0.0.0:443\"\nkey = \"key.pem\"").unwrap_err();
        assert!(problems.contains("operators.certificate: this key is missing"), "{problems}");
    }
}
