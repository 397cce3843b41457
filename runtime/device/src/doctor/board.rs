//! The machine as its files and NVIDIA's tools describe it.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::nvpmodel::{self, PowerMode};
use super::proposals::SWAP_FILE;
use super::system::{System, output};

/// No login stands behind a process that the system has started.
const NO_LOGIN: u32 = u32::MAX;

/// What proposals are made from.
#[derive(Clone, Debug)]
pub(super) struct Board {
    /// `/etc/nv_tegra_release`.
    pub(super) l4t: Option<String>,
    /// `/proc/device-tree/model`.
    pub(super) model: Option<String>,
    pub(super) memory_mib: Option<u64>,
    /// On disk; what is compressed in memory does not count.
    pub(super) swap_on_disk_mib: u64,
    /// Whether the swap file that we propose is mounted at start already.
    pub(super) swap_at_start: bool,
    /// Who uses this program; under `sudo`, whoever has logged in.
    pub(super) user: Option<User>,
    pub(super) is_root: bool,
    /// Groups that own devices of this machine.
    pub(super) device_groups: Vec<&'static str>,
    pub(super) power: Option<Power>,
    /// Of each core that is on.
    pub(super) clocks: Vec<Clock>,
    /// Debian packages; `None` where there is no `dpkg`.
    pub(super) packages: Option<BTreeSet<String>>,
    /// Where plans are kept.
    pub(super) disk: Option<Disk>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) groups: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Power {
    pub(super) modes: Vec<PowerMode>,
    /// Its id, or why it cannot be said.
    pub(super) current: Result<u32, String>,
}

impl Power {
    /// The one that it is in, where that is known and has a name.
    pub(super) fn mode(&self) -> Option<&PowerMode> {
        let current = *self.current.as_ref().ok()?;
        self.modes.iter().find(|mode| mode.id == current)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Clock {
    /// `cpu0`, `17000000.gpu`.
    pub(super) name: String,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) now: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Disk {
    pub(super) mounted_on: String,
    pub(super) free_mib: u64,
}

impl Board {
    /// `cache` is where plans are kept, whether or not it is there yet.
    pub(super) fn read(system: &System, cache: Option<&Path>) -> Self {
        let l4t = system.line("/etc/nv_tegra_release");
        let is_jetson = l4t.is_some();
        let effective = status_id(system, "Uid:");
        Self {
            model: system.line("/proc/device-tree/model"),
            memory_mib: memory_mib(system),
            swap_on_disk_mib: swap_on_disk_mib(&system.text("/proc/swaps").unwrap_or_default()),
            swap_at_start: is_in_fstab(&system.text("/etc/fstab").unwrap_or_default(), SWAP_FILE),
            user: login(system).or(effective).and_then(|id| user(system, id)),
            is_root: effective == Some(0),
            device_groups: device_groups(system, is_jetson),
            power: is_jetson.then(|| power(system)).flatten(),
            clocks: cpu_clocks(system),
            packages: system.text("/var/lib/dpkg/status").map(|status| installed(&status)),
            disk: cache.and_then(disk),
            l4t,
        }
    }

    pub(super) fn is_jetson(&self) -> bool {
        self.l4t.is_some()
    }
}

/// The name of the power mode that a Jetson is in; `None` where there is none, or it cannot be said.
pub(super) fn power_mode(system: &System) -> Option<String> {
    system.line("/etc/nv_tegra_release")?;
    power(system)?.mode().map(|mode| mode.name.clone())
}

/// Of the GPU, from its frequency scaling.
pub(super) fn gpu_clocks(system: &System) -> Vec<Clock> {
    let folder = "/sys/class/devfreq";
    // Named after the GPU or its chip: `17000000.gv11b`, `17000000.ga10b`, `gpu-gpc-0`.
    let is_gpu = |name: &String| ["gpu", "gp10b", "gv11b", "ga10b", "gb10b"].iter().any(|part| name.contains(part));
    let clock = |name: String| clock(system, &format!("{folder}/{name}"), name, ["min_freq", "max_freq", "cur_freq"]);
    system.names(folder).into_iter().filter(is_gpu).filter_map(clock).collect()
}

fn cpu_clocks(system: &System) -> Vec<Clock> {
    let folder = "/sys/devices/system/cpu";
    let is_core = |name: &String| name.strip_prefix("cpu").is_some_and(|number| number.parse::<u16>().is_ok());
    let files = ["scaling_min_freq", "scaling_max_freq", "scaling_cur_freq"];
    let clock = |name: String| clock(system, &format!("{folder}/{name}/cpufreq"), name, files);
    system.names(folder).into_iter().filter(is_core).filter_map(clock).collect()
}

fn clock(system: &System, folder: &str, name: String, [min, max, now]: [&str; 3]) -> Option<Clock> {
    let number = |file: &str| system.line(&format!("{folder}/{file}"))?.parse().ok();
    Some(Clock { name, min: number(min)?, max: number(max)?, now: number(now) })
}

fn memory_mib(system: &System) -> Option<u64> {
    let text = system.text("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// The sum of `/proc/swaps` without `zram`, whose pages stay in memory.
fn swap_on_disk_mib(swaps: &str) -> u64 {
    let size = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next().filter(|name| !name.starts_with("/dev/zram"))?;
        let kib: u64 = words.nth(1)?.parse().ok()?;
        name.starts_with('/').then_some(kib / 1024)
    };
    swaps.lines().filter_map(size).fold(0, u64::saturating_add)
}

fn is_in_fstab(fstab: &str, file: &str) -> bool {
    fstab.lines().any(|line| line.split_whitespace().next() == Some(file))
}

/// Who has logged in, also under `sudo`.
fn login(system: &System) -> Option<u32> {
    system.line("/proc/self/loginuid")?.parse().ok().filter(|id| *id != NO_LOGIN)
}

/// The effective id of a line of `/proc/self/status`: real, effective, saved, of the file system.
fn status_id(system: &System, name: &str) -> Option<u32> {
    let text = system.text("/proc/self/status")?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().nth(1)?.parse().ok()
}

/// A user of `/etc/passwd`; those of directory services are not looked for.
fn user(system: &System, id: u32) -> Option<User> {
    let passwd = system.text("/etc/passwd")?;
    let user = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [name, _, number, group, ..] if number.parse() == Ok(id) => Some((name.to_owned(), group.to_owned())),
        _ => None,
    });
    let (name, own) = user?;
    let groups = system.text("/etc/group").unwrap_or_default();
    let groups = groups.lines().filter_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
        [group, _, number, members] if number == own || members.split(',').any(|member| member == name) => {
            Some(group.to_owned())
        }
        _ => None,
    });
    Some(User { groups: groups.collect(), name, id })
}

/// `video` owns cameras and a Jetson's engines, `render` the GPU's nodes; before Ubuntu 20.04 there is no `render`.
fn device_groups(system: &System, is_jetson: bool) -> Vec<&'static str> {
    let any = |folder: &str, prefix: &str| system.names(folder).iter().any(|name| name.starts_with(prefix));
    let groups = system.text("/etc/group").unwrap_or_default();
    let exists = |group: &&str| groups.lines().any(|line| line.split(':').next() == Some(group));
    let video = (is_jetson || any("/dev", "video")).then_some("video");
    let render = (is_jetson || any("/dev/dri", "renderD")).then_some("render");
    video.into_iter().chain(render).filter(exists).collect()
}

fn power(system: &System) -> Option<Power> {
    let modes = nvpmodel::modes(&system.text("/etc/nvpmodel.conf")?);
    let asked = output("nvpmodel", &["-q"])
        .and_then(|said| nvpmodel::queried(&said).ok_or_else(|| "`nvpmodel -q` names no mode".to_owned()));
    // Some releases let only root ask; the file is anybody's to read.
    let stored = || nvpmodel::stored(&system.text("/var/lib/nvpmodel/status")?);
    let current = asked.or_else(|error| stored().ok_or(error));
    (!modes.is_empty()).then_some(Power { modes, current })
}

/// Names of the packages that are installed, by `dpkg`'s own list.
fn installed(status: &str) -> BTreeSet<String> {
    packages(status).into_iter().map(|(name, _)| name).collect()
}

/// Name and version of each package that is installed.
pub(super) fn packages(status: &str) -> Vec<(String, String)> {
    let field = |paragraph: &str, key: &str| -> Option<String> {
        paragraph.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
    };
    let package = |paragraph: &str| {
        let installed = field(paragraph, "Status:")?.ends_with(" installed");
        let name = field(paragraph, "Package:").filter(|_| installed)?;
        Some((name, field(paragraph, "Version:").unwrap_or_default()))
    };
    status.split("\n\n").filter_map(package).collect()
}

/// The file system of a folder that may not be there yet. `df` is asked, which tests can stand in for.
fn disk(folder: &Path) -> Option<Disk> {
    let there = folder.ancestors().find(|folder| folder.is_dir())?;
    let said = output("df", &["-P", "-k", there.to_str()?]).ok()?;
    df(&said)
}

/// The last line of POSIX's form: device, size, used, available, capacity, folder.
fn df(said: &str) -> Option<Disk> {
    let line = said.lines().rfind(|line| !line.trim().is_empty())?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, free, _, folder @ ..] = &words[..] else { return None };
    let free: u64 = free.parse().ok()?;
    Some(Disk { mounted_on: folder.join(" "), free_mib: free / 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_swap_that_leaves_memory_counts() {
        let swaps = "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n/dev/zram0 partition 506516 0 5\n\
            /dev/zram1 partition 506516 0 5\n/mnt/4GB.swap file 4194300 10 -2\n/dev/nvme0n1p2 partition 1048576 0 -3\n";
        assert_eq!(swap_on_disk_mib(swaps), 4095 + 1024);
        assert_eq!(swap_on_disk_mib("Filename Type Size Used Priority\n/x file many 0 0\n"), 0);
    }

    #[test]
    fn the_power_mode_is_the_one_of_its_number() {
        let modes = nvpmodel::modes("< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n");
        for (current, name) in [(Ok(2), Some("15W")), (Ok(1), None), (Err("only root may ask".to_owned()), None)] {
            let power = Power { modes: modes.clone(), current };
            assert_eq!(power.mode().map(|mode| mode.name.as_str()), name, "{power:?}");
        }
    }

    #[test]
    fn packages_that_were_removed_are_not_installed() {
        let status = "Package: gstreamer1.0-libav\nStatus: install ok installed\nVersion: 1.20.3\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 2\n\nPackage: half\n\nnonsense\n";
        assert_eq!(packages(status), [("gstreamer1.0-libav".to_owned(), "1.20.3".to_owned())]);
    }

    #[test]
    fn what_df_says_of_any_folder_is_read() {
        let said = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n\
            /dev/mmcblk0p1    14384136 12000000   1024000      93% /media/my card\n";
        assert_eq!(df(said), Some(Disk { mounted_on: "/media/my card".to_owned(), free_mib: 1000 }));
        assert_eq!((df(""), df("a b c d e f")), (None, None));
    }
}
