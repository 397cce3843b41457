//! `--offered`: a plan that another device of this class built, in place of one that is compiled here.

use std::path::Path;

use anyhow::anyhow;
use revoada_bundle::plan::{Plan, PlanKey, ShapeProfile, ShapeRange};

/// The plan in a file, whoever signed it, where it is what would be compiled here. It may run more shapes than those, and be
/// of another version of this program: its answers decide.
pub(super) fn read(path: &Path, wanted: &PlanKey) -> anyhow::Result<Plan> {
    let plan = Plan::read(path)?;
    match difference(plan.key(), wanted) {
        None => Ok(plan),
        Some(difference) => Err(anyhow!("plan `{}` {difference}", path.display())),
    }
}

/// In what a plan is not the wanted one, as a sentence that begins with the plan.
fn difference(offered: &PlanKey, wanted: &PlanKey) -> Option<String> {
    let PlanKey { bundle, device, compatibility, precision, profile, dla_core, builder: _ } = wanted;
    let core = |core: Option<u32>| core.map_or_else(|| "the GPU".to_owned(), |core| format!("DLA core {core}"));
    if offered.bundle != *bundle {
        return Some("is of another bundle".to_owned());
    }
    if offered.device != *device {
        return Some(format!("was built for {}, this device is {device}", offered.device));
    }
    if offered.precision != *precision {
        return Some(format!("computes in {}, its bundle in {}", offered.precision.name(), precision.name()));
    }
    if offered.dla_core != *dla_core {
        return Some(format!("runs on {}, asked for is {}", core(offered.dla_core), core(*dla_core)));
    }
    // One that is made for more than this device is a slower one, and may bring code for the processor along.
    if offered.compatibility != *compatibility {
        return Some("was built for other versions and devices than are asked for".to_owned());
    }
    uncovered(&offered.profile, profile)
}

/// The first input that the plan does not run in all of the wanted shapes.
fn uncovered(offered: &ShapeProfile, wanted: &ShapeProfile) -> Option<String> {
    wanted.iter().find_map(|(input, range)| match offered.get(input) {
        None => Some(format!("has no shapes of input `{input}`")),
        Some(offered) if covers(offered, range) => None,
        Some(ShapeRange { min, max, .. }) => Some(format!(
            "runs input `{input}` from {} to {}, asked for is {} to {}",
            shape(min),
            shape(max),
            shape(&range.min),
            shape(&range.max)
        )),
    })
}

fn covers(offered: &ShapeRange, wanted: &ShapeRange) -> bool {
    let up_to = |small: &[usize], large: &[usize]| {
        small.len() == large.len() && small.iter().zip(large).all(|(small, large)| small <= large)
    };
    up_to(&offered.min, &wanted.min) && up_to(&wanted.max, &offered.max)
}

fn shape(lengths: &[usize]) -> String {
    lengths.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}

#[cfg(test)]
mod tests {
    use super::*;
    use revoada_bundle::bundle::Precision;
    use revoada_core::{Architecture, Compatibility, DeviceClass, Digest, TensorRtFlavour, TensorRtVersion};

    fn rows(min: usize, max: usize) -> ShapeProfile {
        [("x".to_owned(), ShapeRange { min: vec![min, 3], opt: vec![max, 3], max: vec![max, 3] })].into()
    }

    fn wanted() -> PlanKey {
        PlanKey {
            bundle: Digest::new([7; 32]),
            device: DeviceClass {
                module: None,
                architecture: Architecture::new(8, 7),
                multiprocessors: Some(8),
                tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
                cuda: Some([12, 6]),
            },
            compatibility: Compatibility::default(),
            precision: Precision::Fp16,
            profile: rows(1, 4),
            dla_core: None,
            builder: "revoada 0.1.0".to_owned(),
        }
    }

    fn with(change: impl FnOnce(&mut PlanKey)) -> PlanKey {
        let mut key = wanted();
        change(&mut key);
        key
    }

    #[test]
    fn a_plan_may_run_more_shapes_and_come_from_another_version_of_the_program() {
        assert_eq!(difference(&wanted(), &wanted()), None);
        assert_eq!(difference(&with(|key| key.builder = "revoada 0.2.0".to_owned()), &wanted()), None);
        assert_eq!(difference(&with(|key| key.profile = rows(1, 8)), &wanted()), None);
    }

    #[test]
    fn the_first_difference_is_named() {
        for (offered, expected) in [
            (with(|key| key.bundle = Digest::new([8; 32])), "is of another bundle"),
            (
                with(|key| key.device.multiprocessors = Some(16)),
                "was built for sm_87, 16 multiprocessors, TensorRT 10.3.0",
            ),
            (
                with(|key| key.device.cuda = None),
                "was built for sm_87, 8 multiprocessors, TensorRT 10.3.0, this device",
            ),
            (with(|key| key.precision = Precision::Int8), "computes in int8, its bundle in fp16"),
            (with(|key| key.dla_core = Some(1)), "runs on DLA core 1, asked for is the GPU"),
            (with(|key| key.compatibility.version = true), "was built for other versions and devices"),
            (with(|key| key.profile = rows(1, 2)), "runs input `x` from 1×3 to 2×3, asked for is 1×3 to 4×3"),
            (with(|key| key.profile = rows(2, 4)), "runs input `x` from 2×3 to 4×3"),
            (with(|key| key.profile.clear()), "has no shapes of input `x`"),
        ] {
            let found = difference(&offered, &wanted()).unwrap();
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
