//! What a person would do by hand to a board before its first pipeline, each with the commands that do it. Pure: what
//! was found comes in, and nothing is run here.

use std::collections::BTreeSet;

use revoada_pipeline::media::ElementReport;
use serde::{Serialize, Serializer};

use super::board::{Board, Disk};
use super::nvpmodel;

pub(super) const SWAP_FILE: &str = "/swapfile";
const SWAP_MIB: u64 = 4096;
/// A Nano says 3956 MiB. TensorRT's builder ends for lack of memory there; boards of 8 GB do without.
const SMALL_MEMORY_MIB: u64 = 4608;
/// Some plans, their bundles, and what `apt` unpacks.
const FREE_MIB_MIN: u64 = 2048;

/// One thing that could be better here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Proposal {
    pub(super) id: &'static str,
    pub(super) found: String,
    pub(super) proposed: String,
    pub(super) commands: Vec<Step>,
    pub(super) needs_root: bool,
    pub(super) survives_reboot: bool,
    pub(super) note: Option<&'static str>,
}

/// One command; printed as a shell would take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The program and its arguments.
    pub(super) words: Vec<String>,
    /// A line for its standard input.
    pub(super) input: Option<String>,
}

impl Step {
    pub(super) fn shell(&self) -> String {
        let words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        match &self.input {
            Some(line) => format!("echo {} | {}", quoted(line), words.join(" ")),
            None => words.join(" "),
        }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shell())
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,%@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// In the order in which to apply them: room comes first, and clocks last, which a change of power mode would undo.
pub(super) fn propose(board: &Board, elements: &[ElementReport]) -> Vec<Proposal> {
    let proposals =
        [disk(board), swap(board), packages(board, elements), groups(board), power_mode(board), clocks(board)];
    proposals.into_iter().flatten().collect()
}

fn disk(board: &Board) -> Option<Proposal> {
    let Disk { mounted_on, free_mib } = board.disk.as_ref()?;
    let needed_mib = free_mib_wanted(board);
    if *free_mib >= needed_mib {
        return None;
    }
    let what = if wants_swap(board) { "plans and a swap file" } else { "plans" };
    let commands = [vec!["apt-get", "clean"], vec!["journalctl", "--vacuum-size=100M"]];
    Some(Proposal {
        id: "disk",
        found: format!("{free_mib} MiB are free on `{mounted_on}`, {what} want {needed_mib}"),
        proposed: "empty apt's store of packages and shorten the system's journal".to_owned(),
        commands: as_root(board, commands),
        needs_root: true,
        survives_reboot: true,
        note: Some("where that is not enough, enlarge the partition or move data away by hand"),
    })
}

fn free_mib_wanted(board: &Board) -> u64 {
    FREE_MIB_MIN + if wants_swap(board) { SWAP_MIB } else { 0 }
}

fn wants_swap(board: &Board) -> bool {
    board.is_jetson()
        && board.memory_mib.is_some_and(|memory| memory <= SMALL_MEMORY_MIB)
        && board.swap_on_disk_mib == 0
}

fn swap(board: &Board) -> Option<Proposal> {
    let room = board.disk.as_ref().is_some_and(|disk| disk.free_mib >= free_mib_wanted(board));
    if !wants_swap(board) || !room {
        return None;
    }
    let size = format!("{SWAP_MIB}M");
    let commands = [
        vec!["fallocate", "-l", &size, SWAP_FILE],
        vec!["chmod", "600", SWAP_FILE],
        vec!["mkswap", SWAP_FILE],
        vec!["swapon", SWAP_FILE],
    ];
    let mut commands = as_root(board, commands);
    if !board.swap_at_start {
        let mut at_start = as_root(board, [vec!["tee", "-a", "/etc/fstab"]]).remove(0);
        at_start.input = Some(format!("{SWAP_FILE} none swap sw 0 0"));
        commands.push(at_start);
    }
    Some(Proposal {
        id: "swap",
        found: format!("{} MiB of memory and no swap on disk", board.memory_mib.unwrap_or_default()),
        proposed: format!("a swap file of {SWAP_MIB} MiB, so that TensorRT's builder is not ended for lack of memory"),
        commands,
        needs_root: true,
        survives_reboot: true,
        note: Some("zram stays as it is; it is used first"),
    })
}

/// Software that distributions leave out; of hardware, what every Jetson has.
fn packages(board: &Board, elements: &[ElementReport]) -> Option<Proposal> {
    let installed = board.packages.as_ref()?;
    let wanted = |package: &str| !package.starts_with("nvidia-") || board.is_jetson();
    let missing = elements.iter().filter(|element| !element.present);
    let missing = missing.filter(|element| !element.hardware || element.package.starts_with("nvidia-"));
    // An element that its package lacks in this release cannot be had by installing it again.
    let missing: Vec<_> =
        missing.filter(|element| wanted(element.package) && !installed.contains(element.package)).collect();
    let names: BTreeSet<&str> = missing.iter().map(|element| element.package).collect();
    if names.is_empty() {
        return None;
    }
    let lacking: Vec<&str> = missing.iter().map(|element| element.name.as_str()).collect();
    let install = ["apt-get", "install", "-y", "--no-install-recommends"].into_iter().chain(names.iter().copied());
    let names: Vec<&str> = names.iter().copied().collect();
    Some(Proposal {
        id: "gstreamer",
        found: format!("GStreamer has no {}", lacking.join(", ")),
        proposed: format!("install {}", names.join(", ")),
        commands: as_root(board, [vec!["apt-get", "update"], install.collect()]),
        needs_root: true,
        survives_reboot: true,
        note: None,
    })
}

fn groups(board: &Board) -> Option<Proposal> {
    let user = board.user.as_ref().filter(|user| user.id != 0)?;
    let is_member = |group: &&&str| user.groups.iter().any(|own| own == *group);
    let missing: Vec<&str> = board.device_groups.iter().filter(|group| !is_member(group)).copied().collect();
    if missing.is_empty() {
        return None;
    }
    let list = missing.join(",");
    Some(Proposal {
        id: "groups",
        found: format!("this user is not in {}, which own cameras and the GPU", missing.join(" and ")),
        proposed: "add the user".to_owned(),
        commands: as_root(board, [vec!["usermod", "-aG", &list, &user.name]]),
        needs_root: true,
        survives_reboot: true,
        note: Some("it counts from the next login on"),
    })
}

fn power_mode(board: &Board) -> Option<Proposal> {
    let power = board.power.as_ref()?;
    let current = *power.current.as_ref().ok()?;
    let fastest = nvpmodel::fastest(&power.modes)?;
    if fastest.id == current {
        return None;
    }
    let name = power.mode().map_or("of no name", |mode| mode.name.as_str());
    let id = fastest.id.to_string();
    Some(Proposal {
        id: "power-mode",
        found: format!("power mode {name} ({current})"),
        proposed: format!("{} ({id}), this board's fastest", fastest.name),
        commands: as_root(board, [vec!["nvpmodel", "-m", &id]]),
        needs_root: true,
        survives_reboot: true,
        note: Some(
            "the supply must give it (a Nano on Micro-USB switches off), and a board that gets hot slows down; where \
             a mode wants a restart, nvpmodel asks for it itself",
        ),
    })
}

/// Judged by the processor's clocks, which `jetson_clocks` sets on every board, and anybody may read.
fn clocks(board: &Board) -> Option<Proposal> {
    let scaled = board.clocks.iter().filter(|clock| clock.min < clock.max).count();
    if !board.is_jetson() || scaled == 0 {
        return None;
    }
    Some(Proposal {
        id: "clocks",
        found: format!("{scaled} of {} cores change their clock with the load", board.clocks.len()),
        proposed: "hold all clocks at the most that the power mode allows, so that latencies are even".to_owned(),
        commands: as_root(board, [vec!["jetson_clocks"]]),
        needs_root: true,
        survives_reboot: false,
        note: Some("the board takes more power when idle"),
    })
}

fn as_root<'w>(board: &Board, commands: impl IntoIterator<Item = Vec<&'w str>>) -> Vec<Step> {
    let sudo = (!board.is_root).then_some("sudo");
    let step = |words: Vec<&str>| {
        let words = sudo.into_iter().chain(words).map(str::to_owned).collect();
        Step { words, input: None }
    };
    commands.into_iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_printed_as_a_shell_takes_them() {
        let words = ["sudo", "usermod", "-aG", "video,render", "o'neil", ""].map(str::to_owned).to_vec();
        let step = Step { words, input: Some("/swapfile none swap sw 0 0".to_owned()) };
        assert_eq!(step.shell(), r"echo '/swapfile none swap sw 0 0' | sudo usermod -aG video,render 'o'\''neil' ''");
    }
}
