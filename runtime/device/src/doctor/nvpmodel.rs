//! The power modes of a Jetson, which differ by module and by release: they are read from `nvpmodel`'s configuration.

use serde::Serialize;

/// Where nothing is capped.
const UNLIMITED: i64 = i64::MAX;

/// One mode and what decides how fast it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PowerMode {
    pub(super) id: u32,
    pub(super) name: String,
    cores: u32,
    #[serde(skip)]
    gpu_hz_max: i64,
    #[serde(skip)]
    cpu_khz_max: i64,
}

/// The modes of `/etc/nvpmodel.conf`, in its order. Lines that are not understood are passed over.
pub(super) fn modes(configuration: &str) -> Vec<PowerMode> {
    let mut modes: Vec<PowerMode> = Vec::new();
    let mut inside = false;
    for line in configuration.lines().map(str::trim) {
        if let Some(heading) = line.strip_prefix('<') {
            let mode = heading.trim().strip_prefix("POWER_MODEL").and_then(mode);
            inside = mode.is_some();
            modes.extend(mode);
        } else if let Some(mode) = modes.last_mut().filter(|_| inside) {
            limit(mode, line);
        }
    }
    modes
}

/// ` ID=0 NAME=MAXN >`
fn mode(heading: &str) -> Option<PowerMode> {
    let attributes = heading.trim_end_matches('>');
    let attribute = |key: &str| attributes.split_whitespace().find_map(|word| word.strip_prefix(key));
    let (id, name) = (attribute("ID=")?.parse().ok()?, attribute("NAME=")?.to_owned());
    Some(PowerMode { id, name, cores: 0, gpu_hz_max: UNLIMITED, cpu_khz_max: UNLIMITED })
}

/// `CPU_ONLINE CORE_1 1`, `GPU MAX_FREQ 640000000`, `CPU_A57 MAX_FREQ -1`
fn limit(mode: &mut PowerMode, line: &str) {
    let mut words = line.split_whitespace();
    let (Some(part), Some(key), Some(value)) = (words.next(), words.next(), words.next()) else { return };
    let Ok(value) = value.parse::<i64>() else { return };
    let value_or_none = if value < 0 { UNLIMITED } else { value };
    match (part, key) {
        ("CPU_ONLINE", _) if value == 1 => mode.cores = mode.cores.saturating_add(1),
        ("GPU", "MAX_FREQ") => mode.gpu_hz_max = mode.gpu_hz_max.min(value_or_none),
        (cpu, "MAX_FREQ") if cpu.starts_with("CPU") => mode.cpu_khz_max = mode.cpu_khz_max.min(value_or_none),
        _ => {}
    }
}

/// What NVIDIA calls MAXN where there is such a mode, else the one with the fastest GPU, the most cores and the fastest
/// of them; of equals that which is named after more watts, then the first.
pub(super) fn fastest(modes: &[PowerMode]) -> Option<&PowerMode> {
    let speed = |mode: &PowerMode| {
        let (maxn, super_) = (mode.name.contains("MAXN"), mode.name.contains("SUPER"));
        (maxn, mode.gpu_hz_max, mode.cores, mode.cpu_khz_max, super_, watts(&mode.name))
    };
    modes.iter().rev().max_by_key(|mode| speed(mode))
}

/// The number of `MODE_15W_6CORE`.
fn watts(name: &str) -> Option<u32> {
    name.split('_').find_map(|word| word.strip_suffix('W')?.parse().ok())
}

/// The number of the mode that `nvpmodel -q` names: it stands alone in the line after the name.
pub(super) fn queried(said: &str) -> Option<u32> {
    let mut lines = said.lines().map(str::trim).skip_while(|line| !line.starts_with("NV Power Mode"));
    lines.next()?;
    lines.next()?.parse().ok()
}

/// The number in `/var/lib/nvpmodel/status`: `pmode:0002`, and more words in older releases.
pub(super) fn stored(status: &str) -> Option<u32> {
    status.split_whitespace().find_map(|word| word.strip_prefix("pmode:")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its name, how many cores are on, and the caps of the GPU in MHz and of the processor in kHz; -1 is none.
    type Mode = (&'static str, usize, i64, i64);

    /// Modes as NVIDIA's files write them.
    fn configuration(modes: &[Mode]) -> String {
        let mut text =
            "# comment\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\nCORE_0 /sys/devices/system/cpu/cpu0/online\n".to_owned();
        for (id, (name, cores, gpu, cpu)) in modes.iter().enumerate() {
            text += &format!("\n< POWER_MODEL ID={id} NAME={name} >\n");
            for core in 0..8 {
                text += &format!("CPU_ONLINE CORE_{core} {}\n", u8::from(core < *cores));
            }
            let hz = if *gpu < 0 { -1 } else { gpu * 1_000_000 };
            text += "TPC_POWER_GATING TPC_PG_MASK 0\nGPU_POWER_CONTROL_ENABLE GPU_PWR_CNTL_EN on\n";
            text += &format!("CPU_A78_0 MIN_FREQ 0\nCPU_A78_0 MAX_FREQ {cpu}\nGPU MIN_FREQ 0\nGPU MAX_FREQ {hz}\n");
            text += "GPU_POWER_CONTROL_DISABLE GPU_PWR_CNTL_DIS auto\nEMC MAX_FREQ 0\n";
        }
        text + "\n# mandatory section\n< PM_CONFIG DEFAULT=0 >\n< FAN_CONFIG DEFAULT=cool >\n"
    }

    #[test]
    fn the_fastest_mode_of_every_module_is_found_by_what_its_file_says() {
        let rows: [(&str, &[Mode], &str); 7] = [
            ("nano", &[("MAXN", 4, -1, -1), ("5W", 2, 640, 918_000)], "MAXN"),
            (
                "xavier nx",
                &[
                    ("MODE_15W_2CORE", 2, 1109, 1_907_200),
                    ("MODE_15W_6CORE", 6, 1109, 1_420_800),
                    ("MODE_10W_4CORE", 4, 803, 1_190_400),
                    ("MODE_20W_2CORE", 2, 1109, 1_907_200),
                    ("MODE_20W_6CORE", 6, 1109, 1_420_800),
                ],
                "MODE_20W_6CORE",
            ),
            ("orin nano, JetPack 5", &[("15W", 6, 625, 1_510_400), ("7W", 4, 409, 960_000)], "15W"),
            (
                "orin nano, JetPack 6.2",
                &[("15W", 6, 612, 1_497_600), ("25W", 6, 918, 1_344_000), ("MAXN_SUPER", 6, -1, -1)],
                "MAXN_SUPER",
            ),
            (
                "orin nx, JetPack 6.2",
                &[("MAXN", 8, -1, -1), ("10W", 4, 612, 1_190_400), ("MAXN_SUPER", 8, -1, -1), ("40W", 8, -1, -1)],
                "MAXN_SUPER",
            ),
            ("agx orin", &[("MAXN", 8, -1, -1), ("MODE_15W", 4, 420, 1_113_600), ("MODE_50W", 8, 828, -1)], "MAXN"),
            ("unnamed", &[("SLOW", 8, 300, 1000), ("FAST", 4, 900, 1000)], "FAST"),
        ];
        for (module, listed, fast) in rows {
            let modes = modes(&configuration(listed));
            assert_eq!(modes.len(), listed.len(), "{module}");
            assert_eq!(fastest(&modes).map(|mode| mode.name.as_str()), Some(fast), "{module}");
        }
        assert_eq!(fastest(&modes("")), None);
    }

    #[test]
    fn attributes_stand_in_any_order() {
        let modes = modes("< POWER_MODEL NAME=MAXN ID=3 >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=x NAME=BAD >\n");
        assert_eq!(
            modes.iter().map(|mode| (mode.id, mode.name.as_str(), mode.cores)).collect::<Vec<_>>(),
            [(3, "MAXN", 1)]
        );
    }

    #[test]
    fn the_mode_of_now_is_read_from_what_every_release_says() {
        for (said, id) in [
            ("NV Power Mode: MAXN\n0\n", Some(0)),
            ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n", Some(2)),
            ("NV Fan Mode:quiet\nNV Power Mode: 25W\n3\n", Some(3)),
            ("NV Power Mode: MAXN\n", None),
            ("", None),
        ] {
            assert_eq!(queried(said), id, "{said}");
        }
        assert_eq!((stored("pmode:0002"), stored("pmode:0000 fmode:cool\n"), stored("")), (Some(2), Some(0), None));
    }

    /// A fuzz target: `cargo bolero test doctor::nvpmodel::tests::any_configuration_is_read_or_passed_over`, and a
    /// short run of it in every `cargo test`.
    #[test]
    fn any_configuration_is_read_or_passed_over() {
        let whole = configuration(&[("MAXN", 4, -1, -1), ("5W", 2, 640, 918_000)]);
        bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().with_iterations(2_000).for_each(|(noise, edits)| {
            let mut text = whole.clone().into_bytes();
            for (at, byte) in edits {
                let at = usize::from(*at) % text.len();
                text[at] = *byte;
            }
            for bytes in [noise, &text] {
                let text = String::from_utf8_lossy(bytes);
                let modes = modes(&text);
                assert_eq!(fastest(&modes).is_none(), modes.is_empty());
                let _ = (queried(&text), stored(&text));
            }
        });
    }
}
