//! Who is in the fleet.

use std::collections::BTreeSet;

use revoada_core::{Architecture, DeviceClass, TensorRtFlavour, TensorRtVersion};
use revoada_proto::DeviceId;

/// A device, and what it is like.
#[derive(Clone)]
pub(crate) struct Role {
    pub(crate) device: DeviceId,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) class: DeviceClass,
    pub(crate) site: &'static str,
    pub(crate) streams: Vec<String>,
    pub(crate) fps: f64,
    pub(crate) latency_ms: f64,
    pub(crate) temperature_c: f64,
    pub(crate) nature: Nature,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Nature {
    Good,
    Hot,
    /// One of its streams does not come.
    Blind,
    /// It was not heard of for so many hours.
    Away(u64),
    /// It goes back from a pipeline.
    Picky,
    /// It never ends what it is ordered.
    Slow,
    /// It was never heard of.
    New,
}

const GROUPS: [(&str, usize, &[&str], &str); 4] = [
    ("gate", 14, &["entrance", "lisbon"], "Lisbon"),
    ("hall", 12, &["hall", "lisbon"], "Lisbon"),
    ("dock", 9, &["dock", "porto"], "Porto"),
    ("lot", 7, &["parking", "porto", "outdoor"], "Porto"),
];

/// Everybody, the same at every start.
pub(crate) fn all() -> Vec<Role> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut roles = Vec::new();
    for (group, count, tags, site) in GROUPS {
        for number in 1..=count {
            let name = format!("{group}-{number:02}");
            let streams = 1 + random.usize(0..3);
            let class = [nano(), nx(), agx()][number % 3].clone();
            let speed = [1.5, 1.0, 0.6][number % 3];
            roles.push(Role {
                tags: tags
                    .iter()
                    .map(|tag| (*tag).to_owned())
                    .chain((number <= 2).then(|| "canary".to_owned()))
                    .collect(),
                streams: ["door", "street", "counter"][..streams].iter().map(|name| (*name).to_owned()).collect(),
                fps: 25.0 * streams as f64 - random.f64(),
                latency_ms: (14.0 + random.f64() * 6.0) * speed + 3.0 * streams as f64,
                temperature_c: 52.0 + random.f64() * 9.0 + if group == "lot" { 8.0 } else { 0.0 },
                nature: nature(&name),
                device: name.parse().expect("a name of letters and digits is one of a device"),
                class,
                site,
            });
        }
    }
    roles
}

fn nature(name: &str) -> Nature {
    match name {
        "lot-03" => Nature::Hot,
        "dock-05" => Nature::Blind,
        "lot-06" => Nature::Away(3),
        "hall-11" => Nature::Away(52),
        "dock-02" | "dock-07" => Nature::Picky,
        "gate-07" | "hall-06" | "hall-09" => Nature::Slow,
        "lot-07" => Nature::New,
        _ => Nature::Good,
    }
}

fn class(module: &str, multiprocessors: u32) -> DeviceClass {
    DeviceClass {
        module: Some(module.to_owned()),
        architecture: Architecture::new(8, 7),
        multiprocessors: Some(multiprocessors),
        tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
        cuda: Some([12, 6]),
    }
}

pub(crate) fn nano() -> DeviceClass {
    class("NVIDIA Jetson Orin Nano", 8)
}

pub(crate) fn nx() -> DeviceClass {
    class("NVIDIA Jetson Orin NX", 16)
}

fn agx() -> DeviceClass {
    class("NVIDIA Jetson AGX Orin", 16)
}
