//! What does not change, or slowly: what the machine is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use revoada_core::DeviceClass;
use revoada_proto::Fact;
use revoada_proto::message::{FACTS_MAX, NAME_BYTES_MAX};
use serde::{Deserialize, Serialize};

use super::child;
use super::fetch::Cancel;
use super::step::memory;

/// What is asked of the program, for what only it can tell: it links TensorRT, and the agent does not.
pub const FACTS_VERB: &str = "device-facts";
const FACTS_TIME_MAX: Duration = Duration::from_secs(60);

/// What the program says to [`FACTS_VERB`], as JSON on standard output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// `None` where there is no GPU that TensorRT runs on.
    pub class: Option<DeviceClass>,
    pub facts: BTreeMap<String, Fact>,
}

/// Asks the program, in a child. One that looks for GPUs may crash, and is then said to have.
pub(super) fn ask(program: &Path, cancel: &Cancel) -> DeviceFacts {
    match child::run(Command::new(program).arg(FACTS_VERB), cancel, FACTS_TIME_MAX) {
        Ok(ended) if ended.status.success() => serde_json::from_slice(&ended.output).unwrap_or_default(),
        Ok(ended) => {
            let trouble = Fact::Text(ended.reason());
            DeviceFacts { class: None, facts: [("gpu-trouble".to_owned(), trouble)].into() }
        }
        Err(error) => {
            tracing::warn!(%error, "cannot ask what the GPU is");
            DeviceFacts::default()
        }
    }
}

/// Everything that can be found out.
pub(super) fn gather(program: &Path, folder: &Path) -> DeviceFacts {
    let mut gathered = ask(program, &Cancel::default());
    let is_name = |name: &str| {
        let is_right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_right)
    };
    let is_finite = |fact: &Fact| !matches!(fact, Fact::Number(number) if !number.is_finite());
    gathered.facts.retain(|name, fact| is_name(name) && is_finite(fact));
    while gathered.facts.len() > FACTS_MAX / 2 {
        gathered.facts.pop_last();
    }
    gathered.facts.extend(machine(Path::new("/"), folder));
    gathered
}

fn machine(root: &Path, folder: &Path) -> BTreeMap<String, Fact> {
    let line = |path: &str| {
        let text = fs::read_to_string(root.join(path)).ok()?;
        let line = text.lines().next()?.trim_matches(['\0', ' ', '#', '\t']);
        Some(line).filter(|line| !line.is_empty()).map(|line| Fact::Text(line.to_owned()))
    };
    let mebibytes = |bytes: u64| Fact::Number((bytes >> 20) as f64);
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let disk = rustix::fs::statvfs(folder).ok();
    let cores = std::thread::available_parallelism().ok();
    let facts = [
        ("hostname", line("proc/sys/kernel/hostname")),
        ("kernel", line("proc/sys/kernel/osrelease")),
        ("architecture", Some(Fact::Text(std::env::consts::ARCH.to_owned()))),
        ("board", line("proc/device-tree/model")),
        ("l4t", line("etc/nv_tegra_release")),
        ("cores", cores.map(|cores| Fact::Number(cores.get() as f64))),
        ("memory-mib", memory(&meminfo, "MemTotal:").map(mebibytes)),
        ("disk-mib", disk.as_ref().map(|disk| mebibytes(disk.f_blocks.saturating_mul(disk.f_frsize)))),
        ("disk-free-mib", disk.as_ref().map(|disk| mebibytes(coarse(disk.f_bavail.saturating_mul(disk.f_frsize))))),
    ];
    facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect()
}

/// In steps of 256 MiB, so that it is not said anew with every log line.
fn coarse(bytes: u64) -> u64 {
    bytes >> 28 << 28
}

/// Which of these the service does not know.
pub(super) fn changed(known: &BTreeMap<String, Fact>, now: &BTreeMap<String, Fact>) -> BTreeMap<String, Fact> {
    now.iter().filter(|(name, fact)| known.get(*name) != Some(*fact)).map(|(n, f)| (n.clone(), f.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_it_has() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/kernel/hostname", "gate\n"),
            ("proc/device-tree/model", "NVIDIA Jetson Orin Nano\0"),
            ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3\n"),
            ("proc/meminfo", "MemTotal: 2048 kB\n"),
        ] {
            fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            fs::write(root.path().join(path), text).unwrap();
        }
        let facts = machine(root.path(), root.path());
        assert_eq!(facts["board"], Fact::Text("NVIDIA Jetson Orin Nano".into()));
        assert_eq!(facts["l4t"], Fact::Text("R36 (release), REVISION: 4.3".into()));
        assert_eq!((&facts["hostname"], &facts["memory-mib"]), (&Fact::Text("gate".into()), &Fact::Number(2.0)));
        assert!(!facts.contains_key("kernel") && facts.contains_key("disk-free-mib"));
    }

    #[test]
    fn only_what_changed_is_said_again() {
        let facts = |values: &[(&str, f64)]| {
            values.iter().map(|(name, value)| ((*name).to_owned(), Fact::Number(*value))).collect::<BTreeMap<_, _>>()
        };
        let changed = changed(&facts(&[("a", 1.0), ("b", 2.0)]), &facts(&[("a", 1.0), ("b", 3.0), ("c", 4.0)]));
        assert_eq!(changed, facts(&[("b", 3.0), ("c", 4.0)]));
    }
}
