//! The files in `configs/` that are the agent's.

use std::path::{Path, PathBuf};

use revoada_agent::Policy;
use revoada_agent::shell::AgentConfig;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").canonicalize().unwrap()
}

#[test]
fn the_example_is_read_and_says_what_is_so_anyway() {
    let config = AgentConfig::load(&configs().join("agent.toml")).unwrap();
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.folder, Path::new("/var/lib/revoada/agent"));
    assert_eq!(config.pipeline, Some(configs().join("cameras.toml")));
    assert_eq!(config.limits.download_bytes_per_second, Some(4 << 20));
}

#[test]
fn the_service_lets_the_pipeline_outlive_the_agent_and_hears_that_it_is_alive() {
    let unit = std::fs::read_to_string(configs().join("revoada-agent.service")).unwrap();
    for line in ["Type=notify", "KillMode=process", "WatchdogSec=600", "NoNewPrivileges=yes", "ProtectSystem=strict"] {
        assert!(unit.lines().any(|written| written == line), "{line}");
    }
    assert!(unit.contains("ExecStart=/usr/bin/revoada agent run\n"));
}
