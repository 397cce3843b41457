use proptest::prelude::*;

use super::*;

fn look(line: &str) -> Look {
    Look::parse(line).unwrap_or_else(|| panic!("nothing was read from `{line}`"))
}

fn core(percent: u32, mhz: u32) -> Option<Busy> {
    Some(Busy { percent: Some(percent), mhz: vec![mhz] })
}

/// Lines in the form that each release documents, with numbers of our own.
const NANO_JETPACK_4: &str = "RAM 2519/3956MB (lfb 3x4MB) SWAP 12/1978MB (cached 1MB) IRAM 0/252kB(lfb 252kB) \
    CPU [12%@1479,off,7%@1479,20%@1428] EMC_FREQ 9%@1600 GR3D_FREQ 45%@921 NVDEC 716 APE 25 PLL@33C CPU@36.5C PMIC@100C \
    GPU@34C AO@41C thermal@35.25C POM_5V_IN 3187/3050 POM_5V_GPU 450/410 POM_5V_CPU 612/600";
const XAVIER_NX_JETPACK_4: &str = "RAM 2387/7774MB (lfb 961x4MB) SWAP 0/3887MB (cached 0MB) \
    CPU [14%@1190,9%@1190,2%@1190,4%@1190,off,off] EMC_FREQ 1%@1600 GR3D_FREQ 3%@114 VIC_FREQ 0%@115 APE 150 \
    MTS fg 0% bg 3% AO@31C GPU@31.5C PMIC@100C AUX@31.5C CPU@33C thermal@31.95C VDD_IN 3528/3569 VDD_CPU_GPU_CV 410/426 \
    VDD_SOC 1107/1115";
const AGX_XAVIER_JETPACK_5: &str = "05-30-2024 15:30:45 RAM 3963/31010MB (lfb 1018x4MB) SWAP 0/15505MB (cached 0MB) \
    CPU [2%@1190,1%@1190,0%@1190,0%@1190,off,off,off,off] EMC_FREQ 0%@2133 GR3D_FREQ 0%@318 VIC_FREQ 115 APE 150 \
    AUX@34.5C CPU@36C thermal@35.2C Tboard@36C AO@34C GPU@-256C Tdiode@37.25C PMIC@50C GPU 155mW/155mW CPU 465mW/480mW \
    SOC 1242mW/1242mW CV 0mW/0mW VDDRQ 155mW/155mW SYS5V 2760mW/2760mW";
const ORIN_NANO_JETPACK_5: &str = "01-24-2024 09:17:09 RAM 3503/7337MB (lfb 7x1MB) SWAP 430/3668MB (cached 1MB) \
    CPU [11%@729,13%@729,9%@729,18%@729,off,off] EMC_FREQ 0%@2133 GR3D_FREQ 7%@305 GR3D2_FREQ 0%@0 VIC_FREQ 115 APE 174 \
    CV0@-256C CPU@44.093C SOC2@42.625C GPU@41.343C tj@46.968C VDD_IN 4915mW/4900mW VDD_CPU_GPU_CV 449mW/449mW \
    VDD_SOC 1431mW/1431mW";
const ORIN_NANO_JETPACK_6: &str = "09-21-2025 15:38:17 RAM 3645/7620MB (lfb 63x4MB) SWAP 236/3810MB (cached 0MB) \
    CPU [1%@729,1%@729,4%@729,1%@729,0%@729,0%@729] EMC_FREQ 0%@204 GR3D_FREQ 12%@[305] NVDEC off NVJPG off NVJPG1 off \
    VIC off OFA off NVDLA0_FREQ @748 APE 200 cpu@44.125C soc2@43.375C gpu@44.531C tj@44.531C VDD_IN 2957mW/2960mW \
    VDD_CPU_GPU_CV 486mW/486mW VDD_SOC 1012mW/1012mW";
const AGX_ORIN_JETPACK_6: &str = "RAM 3000/30592MB (lfb 1x1MB) SWAP 0/15296MB (cached 0MB) CPU [1%@2201,2%@2201] \
    GR3D_FREQ 12%@[1300,1300] gpu@45C tj@50C VDD_GPU_SOC 4876mW/4876mW VDD_CPU_CV 975mW/975mW VIN_SYS_5V0 4461mW/4461mW \
    VDDQ_VDD2_1V8AO 500mW/500mW";
const ORIN_JETPACK_7: &str = "09-01-2026 09:25:18 RAM 5739/7546MB (lfb 1x2MB) SWAP 2047/2048MB (cached 209MB) \
    CPU [72%@1728,75%@1728] GR3D_FREQ 33% cpu@50C/51C soc2@47.937C/47.937C tj@50C/51.5C VDD_IN 9761mW/9500mW/9900mW \
    VDD_CPU_GPU_CV 4238mW/4238mW/4238mW";
const THOR_JETPACK_7: &str = "RAM 11520/125772MB (lfb 3x4MB) CPU [3%@1107, off, 0%@1107] GR3D_FREQ @[1000,1000,1000] \
    NVENC0_FREQ off cpu@52.968C/52.968C tj@52.968C/52.968C VDD_GPU 2400mW/2400mW/2500mW \
    VDD_CPU_SOC_MSS 6510mW/6500mW/6600mW VIN_SYS_5V0 6520mW/6500mW/6600mW VIN 23100mW/23000mW/24000mW";

#[test]
fn memory_swap_and_cores_of_every_jetpack_are_read() {
    let memory = |line| {
        let look = look(line);
        (look.memory.map(|used| (used.used_mib, used.total_mib)), look.swap.map(|used| (used.used_mib, used.total_mib)))
    };
    let rows = [
        (NANO_JETPACK_4, (2519, 3956), Some((12, 1978)), 4, 1),
        (XAVIER_NX_JETPACK_4, (2387, 7774), Some((0, 3887)), 6, 2),
        (AGX_XAVIER_JETPACK_5, (3963, 31010), Some((0, 15505)), 8, 4),
        (ORIN_NANO_JETPACK_5, (3503, 7337), Some((430, 3668)), 6, 2),
        (ORIN_NANO_JETPACK_6, (3645, 7620), Some((236, 3810)), 6, 0),
        (AGX_ORIN_JETPACK_6, (3000, 30592), Some((0, 15296)), 2, 0),
        (ORIN_JETPACK_7, (5739, 7546), Some((2047, 2048)), 2, 0),
        (THOR_JETPACK_7, (11520, 125_772), None, 3, 1),
    ];
    for (line, ram, swap, cores, off) in rows {
        assert_eq!(memory(line), (Some(ram), swap), "{line}");
        let look = look(line);
        assert_eq!((look.cores.len(), look.cores.iter().filter(|core| core.is_none()).count()), (cores, off), "{line}");
    }
    assert_eq!(look(NANO_JETPACK_4).cores, [core(12, 1479), None, core(7, 1479), core(20, 1428)]);
    let oldest = look("RAM 900/3995MB (lfb 500x4MB) cpu [3%,off]@1224 EMC 5%@1600 GR3D 0%@76");
    assert_eq!(oldest.cores, [core(3, 1224), None]);
    assert_eq!(oldest.emc, core(5, 1600));
}

#[test]
fn the_gpu_is_read_with_no_clock_one_or_several() {
    let busy = |percent, mhz: &[u32]| Some(Busy { percent, mhz: mhz.to_vec() });
    let rows = [
        (NANO_JETPACK_4, busy(Some(45), &[921])),
        (XAVIER_NX_JETPACK_4, busy(Some(3), &[114])),
        (AGX_XAVIER_JETPACK_5, busy(Some(0), &[318])),
        (ORIN_NANO_JETPACK_5, busy(Some(7), &[305])),
        (ORIN_NANO_JETPACK_6, busy(Some(12), &[305])),
        (AGX_ORIN_JETPACK_6, busy(Some(12), &[1300, 1300])),
        (ORIN_JETPACK_7, busy(Some(33), &[])),
        (THOR_JETPACK_7, busy(None, &[1000, 1000, 1000])),
        ("RAM 1/2MB GR3D_FREQ off", None),
    ];
    for (line, expected) in rows {
        assert_eq!(look(line).gpu, expected, "{line}");
    }
}

#[test]
fn power_is_the_input_s_or_the_sum_of_what_adds_up() {
    let rows = [
        (NANO_JETPACK_4, 3.187, "POM_5V_IN"),
        (XAVIER_NX_JETPACK_4, 3.528, "VDD_IN"),
        (AGX_XAVIER_JETPACK_5, 4.777, "GPU + CPU + SOC + CV + VDDRQ + SYS5V"),
        (ORIN_NANO_JETPACK_5, 4.915, "VDD_IN"),
        (ORIN_NANO_JETPACK_6, 2.957, "VDD_IN"),
        (AGX_ORIN_JETPACK_6, 10.312, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
        (ORIN_JETPACK_7, 9.761, "VDD_IN"),
        (THOR_JETPACK_7, 23.1, "VIN"),
    ];
    for (line, watts, rails) in rows {
        assert_eq!(look(line).watts(), Some((watts, rails.to_owned())), "{line}");
    }
    assert_eq!(look(ORIN_JETPACK_7).rails[0].milliwatts_mean, 9500);
    assert_eq!(look("RAM 1/2MB").watts(), None);
}

#[test]
fn sensors_without_power_and_constants_do_not_count_as_warmest() {
    let rows = [
        (NANO_JETPACK_4, ("AO", 41.0)),
        (AGX_XAVIER_JETPACK_5, ("Tdiode", 37.25)),
        (ORIN_NANO_JETPACK_5, ("tj", 46.968)),
        (THOR_JETPACK_7, ("tj", 52.968)),
    ];
    for (line, warmest) in rows {
        assert_eq!(look(line).warmest(), Some(warmest), "{line}");
    }
    assert!(!look(AGX_XAVIER_JETPACK_5).temperatures.iter().any(|(name, _)| name == "GPU"));
}

#[test]
fn engines_are_named_and_the_translator_s_time_is_none() {
    let orin = look(ORIN_NANO_JETPACK_6);
    let names: Vec<&str> = orin.engines.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["NVDEC", "NVJPG", "NVJPG1", "VIC", "OFA", "NVDLA0", "APE"]);
    assert_eq!(orin.engines[5].1, Some(Busy { percent: None, mhz: vec![748] }));
    let names: Vec<String> = look(XAVIER_NX_JETPACK_4).engines.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["VIC", "APE"]);
}

#[test]
fn a_line_of_anything_else_is_nothing() {
    for line in ["", "NVPM WARN: fan mode is not set!", "bash: tegrastats: command not found", "CPU [", "RAM x/yMB"] {
        assert_eq!(Look::parse(line), None, "{line}");
    }
    assert_eq!(Look::parse("gpu@nanC cpu@infC VDD_IN 99999999999mW/1mW RAM 1/99999999999MB"), None);
}

/// How a JetPack writes the same thing.
#[derive(Clone, Copy, Debug)]
struct Dialect {
    unit: &'static str,
    third: bool,
    list: bool,
}

fn print(look: &Look, dialect: Dialect) -> String {
    let busy = |busy: &Busy, list: bool| {
        let percent = busy.percent.map_or_else(String::new, |percent| format!("{percent}%"));
        let clocks: Vec<String> = busy.mhz.iter().map(ToString::to_string).collect();
        match (clocks.len(), list) {
            (0, _) => percent,
            (1, false) => format!("{percent}@{}", clocks[0]),
            _ => format!("{percent}@[{}]", clocks.join(",")),
        }
    };
    let mut words = Vec::new();
    let used = |used: &Used| format!("{}/{}MB (lfb 1x4MB)", used.used_mib, used.total_mib);
    words.extend(look.memory.iter().map(|memory| format!("RAM {}", used(memory))));
    words.extend(look.swap.iter().map(|swap| format!("SWAP {}", used(swap))));
    let cores: Vec<String> = look
        .cores
        .iter()
        .map(|core| core.as_ref().map_or_else(|| "off".to_owned(), |core| busy(core, false)))
        .collect();
    if !cores.is_empty() {
        words.push(format!("CPU [{}]", cores.join(",")));
    }
    words.extend(look.emc.iter().map(|emc| format!("EMC_FREQ {}", busy(emc, false))));
    words.extend(look.gpu.iter().map(|gpu| format!("GR3D_FREQ {}", busy(gpu, dialect.list))));
    words.extend(look.temperatures.iter().map(|(name, celsius)| match dialect.third {
        true => format!("{name}@{celsius}C/{celsius}C"),
        false => format!("{name}@{celsius}C"),
    }));
    let unit = dialect.unit;
    words.extend(look.rails.iter().map(|Rail { name, milliwatts, milliwatts_mean }| {
        let third = if dialect.third { format!("/9{unit}") } else { String::new() };
        format!("{name} {milliwatts}{unit}/{milliwatts_mean}{unit}{third}")
    }));
    words.join(" ")
}

prop_compose! {
    fn busy_at(clusters: usize)(
        percent in proptest::option::of(0u32..=100), mhz in prop::collection::vec(0u32..4000, 1..=clusters),
    ) -> Busy {
        Busy { percent, mhz }
    }
}

prop_compose! {
    fn looks()(
        memory in (0u32..200_000, 1u32..200_000),
        swap in proptest::option::of((0u32..9000, 0u32..9000)),
        cores in prop::collection::vec(proptest::option::of(busy_at(1)), 1..15),
        gpu in proptest::option::of(busy_at(3)),
        emc in proptest::option::of(busy_at(1)),
        temperatures in prop::collection::vec(("[a-z]{1,4}[0-9]?", -40i32..120), 0..9),
        rails in prop::collection::vec(("V(DD|IN)_[A-Z]{2,4}", 0u32..200_000, 0u32..200_000), 0..5),
    ) -> Look {
        let used = |(used_mib, total_mib)| Used { used_mib, total_mib };
        let celsius = |(name, tenths): (String, i32)| (name, f64::from(tenths) / 10.0);
        let rail = |(name, milliwatts, milliwatts_mean)| Rail { name, milliwatts, milliwatts_mean };
        Look {
            memory: Some(used(memory)),
            swap: swap.map(used),
            cores,
            gpu,
            emc,
            engines: Vec::new(),
            temperatures: temperatures.into_iter().map(celsius).collect(),
            rails: rails.into_iter().map(rail).collect(),
        }
    }
}

proptest! {
    #[test]
    fn whatever_a_jetpack_prints_of_a_look_is_read_back(
        look in looks(), unit in prop::sample::select(vec!["", "mW"]), third: bool, list: bool,
    ) {
        let line = print(&look, Dialect { unit, third, list });
        prop_assert_eq!(Look::parse(&line), Some(look), "{}", line);
    }
}

/// A fuzz target: `cargo bolero test tegrastats::tests::any_text_is_read_or_passed_over`, and a short run of it in every
/// `cargo test`: of noise, and of real lines with bytes exchanged.
#[test]
fn any_text_is_read_or_passed_over() {
    bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().with_iterations(5_000).for_each(|(noise, edits)| {
        let mut line = ORIN_NANO_JETPACK_6.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = usize::from(*at) % line.len();
            line[at] = *byte;
        }
        for bytes in [noise, &line] {
            let text = String::from_utf8_lossy(bytes);
            if let Some(look) = Look::parse(&text) {
                assert!(look.watts().is_none_or(|(watts, _)| watts >= 0.0));
                assert!(look.temperatures.iter().all(|(_, celsius)| celsius.is_finite()));
            }
        }
    });
}
