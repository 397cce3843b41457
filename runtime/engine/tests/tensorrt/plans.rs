//! Plans that are not whole, not trusted, or not for this device: one sentence each, and TensorRT sees none of them.

use std::fs;
use std::path::{Path, PathBuf};

use revoada_bundle::sign::SecretKey;
use revoada_core::{Architecture, Compatibility, DeviceClass, TensorRtVersion};
use revoada_emulator::{Emulated, Profile};
use revoada_engine::{Backend, LoadOptions, ModelSource, Rten, TensorRt, TensorRtOptions};

use crate::compiling::{Compiling, emulated_options, on_emulator, text};
use crate::machine::Machine;
use crate::models;

fn refused(backend: &dyn Backend, source: ModelSource<'_>) -> String {
    let error = backend.load(source, &LoadOptions::default()).err().expect("the plan is refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

fn never_deserialised(machine: &Machine) {
    assert_eq!(machine.log().unwrap().calls("deserializeCudaEngine"), 0);
}

#[test]
fn a_plan_of_another_device_or_version_is_refused_with_both_sides() {
    let name = "plans::a_plan_of_another_device_or_version_is_refused_with_both_sides";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let backend = Compiling::emulated(machine);
        let here = backend.class().clone();
        let older = TensorRtVersion { minor: 3, ..here.tensorrt };
        for (class, both) in [
            (DeviceClass { tensorrt: older, ..here.clone() }, "TensorRT 10.3.0, this device has TensorRT 10.16.0"),
            (DeviceClass { architecture: Architecture::new(8, 6), ..here.clone() }, "sm_86, this device has sm_87"),
            (
                DeviceClass { multiprocessors: Some(8), ..here.clone() },
                "8 multiprocessors, this device has 16 multiprocessors",
            ),
        ] {
            let path = backend.seal(&class, b"EMULATED PLAN\n");
            let error = refused(&backend, ModelSource::Plan(&path));
            assert_eq!(error, format!("plan `{}` was built for {both}", path.display()));
        }
        never_deserialised(machine);
    });
}

#[test]
fn a_plan_for_later_versions_runs_with_the_code_it_carries() {
    let name = "plans::a_plan_for_later_versions_runs_with_the_code_it_carries";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let backend = Compiling::emulated(machine);
        let here = backend.class().clone();
        let older = DeviceClass { tensorrt: TensorRtVersion { minor: 3, ..here.tensorrt }, ..here };
        let compatibility = Compatibility { version: true, ..Compatibility::default() };
        let plan = text("increment", 0, "1,3 1,3 1,3 1,3", "1,3");
        let allowed = || machine.log().unwrap().calls("setEngineHostCodeAllowed");
        let load = |path: &Path| backend.load(ModelSource::Plan(path), &LoadOptions::default()).unwrap();
        load(&backend.plan(&models::increment("N")));
        assert_eq!(allowed(), 0);
        load(&backend.seal_with(&older, compatibility, plan.as_bytes()));
        assert_eq!(allowed(), 1);
    });
}

#[test]
fn what_is_no_whole_plan_is_refused_in_one_sentence() {
    let name = "plans::what_is_no_whole_plan_is_refused_in_one_sentence";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let backend = Compiling::emulated(machine);
        let whole = fs::read(backend.plan(&models::increment("N"))).unwrap();
        let path = machine.folder().join("broken.plan");
        let error = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = refused(&backend, ModelSource::Plan(&path));
            error.strip_prefix(&format!("plan `{}` ", path.display())).unwrap_or(&error).to_owned()
        };
        assert_eq!(error(&whole[..whole.len() - 7]), "is truncated: 7 bytes are missing");
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(error(&changed), "was changed after it was built");
        let noise: Vec<u8> = (0..4096u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert!(error(&noise).starts_with("is no plan of revoada"), "{}", error(&noise));
        assert!(error(b"").starts_with("is no plan of revoada"));
        for end in (0..whole.len()).step_by(23) {
            error(&whole[..end]);
        }
        let error = refused(&backend, ModelSource::Plan(Path::new("/nowhere/a.plan")));
        assert_eq!(error, "plan `/nowhere/a.plan` cannot be read");
        never_deserialised(machine);
    });
}

#[test]
fn a_plan_of_a_stranger_is_refused() {
    on_emulator("plans::a_plan_of_a_stranger_is_refused", &Emulated::new(Profile::Orin), |machine| {
        let path = Compiling::emulated(machine).plan(&models::increment("N"));
        let trusted = Some(vec![SecretKey::generate().unwrap().public()]);
        let backend = TensorRt::new(emulated_options(machine.folder()));
        let options = LoadOptions { trusted, ..LoadOptions::default() };
        let error = backend.load(ModelSource::Plan(&path), &options).err().unwrap().to_string();
        assert!(error.ends_with("which is not among the trusted keys"), "{error}");
        never_deserialised(machine);
    });
}

/// The envelope is right, and what is in it was no plan to begin with.
#[test]
fn what_tensorrt_cannot_open_is_told_in_its_words() {
    let name = "plans::what_tensorrt_cannot_open_is_told_in_its_words";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let backend = Compiling::emulated(machine);
        let path = backend.seal(backend.class(), b"not what TensorRT wrote");
        let expected = format!(
            "tensorrt cannot load `{}`: TensorRT 10.16.0 cannot open the plan: it is damaged or no plan (Magic tag does \
             not match)",
            path.display()
        );
        assert_eq!(refused(&backend, ModelSource::Plan(&path)), expected);
    });
}

#[test]
fn each_backend_says_what_it_loads() {
    let plan = PathBuf::from("/nowhere/a.plan");
    let error = refused(&Rten, ModelSource::Plan(&plan));
    assert_eq!(error, "rten cannot load `/nowhere/a.plan`: it runs ONNX models, and this is a plan for TensorRT");
    let tensorrt = TensorRt::new(TensorRtOptions::default());
    let error = refused(&tensorrt, ModelSource::File(Path::new("a.onnx")));
    let expected = "tensorrt cannot load `a.onnx`: it runs plans, and this is an ONNX model: build a plan with \
                    `revoada build`";
    assert_eq!(error, expected);
}
