//! How sessions use the device.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use revoada_core::{ColorSpec, DType, Frame, ImageLayout, ImageTransform, PixelFormat, Rect, Size, TensorRef};
use revoada_emulator::{Emulated, Profile};
use revoada_engine::cuda::CandidateSpec;
use revoada_engine::{
    Backend, CandidateLayout, CandidateQuery, Candidates, EngineError, LoadOptions, ModelSource, Readback, Rten,
    Session, Shapes, Surface,
};

use crate::compiling::{Compiling, on_emulator, text};
use crate::machine::Machine;
use crate::tensors::{load, session};
use crate::{models, plain_filter};

fn frame() -> Arc<Frame> {
    let size = Size::new(4, 4);
    let layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), size);
    Arc::new(Frame::still(layout, vec![7; 48]).unwrap())
}

fn answer(session: &mut dyn Session) -> Vec<f32> {
    session.submit(1).unwrap();
    session.wait().unwrap().tensors[0].as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn a_plan_that_keeps_no_names_says_its_inputs_and_outputs_as_tensorrt_does() {
    let name = "running::a_plan_that_keeps_no_names_says_its_inputs_and_outputs_as_tensorrt_does";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let backend = Compiling::emulated(machine);
        let path = backend.seal(backend.class(), text("increment", 0, "-1,3 1,3 1,3 4,3", "-1,3").as_bytes());
        let engine = backend.load(ModelSource::Plan(&path), &LoadOptions::default()).unwrap();
        assert_eq!(
            (engine.inputs()[0].to_string(), engine.outputs()[0].to_string()),
            ("x f32[?,3]".to_owned(), "y f32[?,3]".to_owned())
        );
        assert_eq!(backend.version().unwrap(), "TensorRT 10.16.0 on emulator (orin)");
    });
}

#[test]
fn an_output_whose_shape_depends_on_the_data_is_refused() {
    let name = "running::an_output_whose_shape_depends_on_the_data_is_refused";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let backend = Compiling::emulated(machine);
        let plan = text("increment", 0, "-1,3 1,3 1,3 4,3", "2,-2");
        let path = backend.seal(backend.class(), plan.as_bytes());
        let engine = backend.load(ModelSource::Plan(&path), &LoadOptions::default()).unwrap();
        let error = engine.session(&Shapes::rows(1)).err().unwrap().to_string();
        assert!(error.ends_with("the shape of output `y` depends on the data, which cannot be read back"), "{error}");
    });
}

#[test]
fn a_batch_beyond_the_plan_s_profile_is_refused_with_its_ranges() {
    let name = "running::a_batch_beyond_the_plan_s_profile_is_refused_with_its_ranges";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let engine = load(&Compiling::emulated(machine), &models::increment("N"));
        let error = engine.session(&Shapes::rows(17)).err().unwrap();
        let expected = "the plan does not run input `x f32[N,3]` in shape [17, 3], only [1, 3] to [16, 3]";
        assert_eq!(error.to_string(), expected);
        engine.session(&Shapes::rows(16)).unwrap();
    });
}

/// Each session takes the smallest profile that runs its largest batch: the closest to what that is tuned for.
#[test]
fn of_several_profiles_the_smallest_that_fits_is_taken() {
    let name = "running::of_several_profiles_the_smallest_that_fits_is_taken";
    on_emulator(name, &Emulated::new(Profile::Discrete), |machine| {
        let backend = Compiling::emulated(machine);
        let profiles = "1,3 8,3 16,3 1,3 2,3 4,3 8,3 24,3 32,3";
        let path = backend.seal(backend.class(), text("increment", 64, &format!("-1,3 {profiles}"), "-1,3").as_bytes());
        let engine = backend.load(ModelSource::Plan(&path), &LoadOptions::default()).unwrap();
        let taken = |index: usize| machine.log().unwrap().noted(&format!("optimization profile {index}"));
        for (rows, expected) in [(3, [0, 1, 0]), (4, [0, 2, 0]), (5, [0, 2, 0]), (16, [0, 2, 0]), (17, [0, 2, 1])] {
            let mut session = engine.session(&Shapes::rows(rows)).unwrap();
            session.set_input(0, TensorRef::of(&[rows, 3], &vec![1f32; 3 * rows]).unwrap()).unwrap();
            session.submit(rows).unwrap();
            assert_eq!(session.wait().unwrap().tensors[0].as_slice::<f32>(), Some(&*vec![2f32; 3 * rows]));
            // The first one is a context's from the beginning, and needs no word.
            assert_eq!([taken(0), taken(1), taken(2)], expected, "{rows} rows");
        }
        let error = engine.session(&Shapes::rows(33)).err().unwrap();
        let expected = "the plan does not run input `x f32[?,3]` in shape [33, 3], only [1, 3] to [16, 3] or [1, 3] to \
                        [4, 3] or [8, 3] to [32, 3]";
        assert_eq!(error.to_string(), expected);
    });
}

/// The last frames of a file are rarely a whole batch.
#[test]
fn a_batch_below_the_plan_s_profile_is_filled_up_with_zeros() {
    let name = "running::a_batch_below_the_plan_s_profile_is_filled_up_with_zeros";
    on_emulator(name, &Emulated::new(Profile::Discrete), |machine| {
        let backend = Compiling::emulated(machine);
        let path = backend.seal(backend.class(), text("increment", 64, "-1,3 4,3 4,3 8,3", "-1,3").as_bytes());
        let engine = backend.load(ModelSource::Plan(&path), &LoadOptions::default()).unwrap();
        let mut session = engine.session(&Shapes::rows(6)).unwrap();
        for (rows, run) in [(6, 6), (5, 5), (2, 4), (1, 4)] {
            session.set_input(0, TensorRef::of(&[rows, 3], &vec![1f32; 3 * rows]).unwrap()).unwrap();
            session.submit(rows).unwrap();
            let outputs = session.wait().unwrap();
            let expected = [vec![2f32; 3 * rows], vec![1f32; 3 * (run - rows)]].concat();
            assert_eq!(outputs.tensors[0].as_slice::<f32>(), Some(&*expected), "{rows} rows");
        }
    });
}

/// However many crops fill it, a batch is staged by one launch, and the frame is uploaded once.
#[test]
fn a_batch_is_staged_in_one_launch() {
    on_emulator("running::a_batch_is_staged_in_one_launch", &Emulated::new(Profile::Discrete), |machine| {
        let backend = Compiling::emulated(machine);
        let mut session = session(&backend, &models::channel_means("N,3,4,4", [2, 3]), 3);
        let calls = |function: &str| machine.log().unwrap().calls(function);
        let before = calls("cuMemcpyHtoDAsync_v2");
        let surface = backend.import(&frame()).unwrap();
        assert_eq!(calls("cuMemcpyHtoDAsync_v2") - before, 1);
        assert_eq!(surface.copies(), 2, "into page-locked memory, and to the card");
        let transform = ImageTransform::stretch(Size::new(4, 4));
        for row in 0..3 {
            session.stage(0, row, &surface, Rect::new(0.0, 0.0, 4.0, 2.0), &transform).unwrap();
        }
        session.submit(3).unwrap();
        assert_eq!(session.wait().unwrap().tensors[0].as_slice::<f32>(), Some(&[7f32; 9][..]));
        assert_eq!(calls("cuLaunchKernel"), 1);
    });
}

/// The first run lets TensorRT prepare itself, the second is captured.
fn fixed_shapes(machine: &Machine) -> Vec<usize> {
    let backend = Compiling::emulated(machine);
    let mut session = session(&backend, &models::increment("1"), 1);
    for value in [1f32, 2.0, 3.0, 4.0] {
        session.set_input(0, TensorRef::of(&[1, 3], &[value; 3]).unwrap()).unwrap();
        assert_eq!(answer(&mut *session), [value + 1.0; 3]);
    }
    let log = machine.log().unwrap();
    ["enqueueV3", "cuGraphLaunch"].map(|call| log.calls(call)).to_vec()
}

#[test]
fn fixed_shapes_run_as_a_graph() {
    on_emulator("running::fixed_shapes_run_as_a_graph", &Emulated::new(Profile::Discrete), |machine| {
        assert_eq!(fixed_shapes(machine), [2, 3]);
    });
}

#[test]
fn what_tensorrt_refuses_to_capture_runs_all_the_same() {
    let emulated = Emulated { failures: vec![("enqueueV3", 2, 900)], ..Emulated::new(Profile::Nano) };
    on_emulator("running::what_tensorrt_refuses_to_capture_runs_all_the_same", &emulated, |machine| {
        assert_eq!(fixed_shapes(machine), [5, 0], "the second run is tried twice");
    });
}

#[test]
fn a_driver_that_makes_no_graph_runs_all_the_same() {
    let failures = vec![("cuGraphInstantiateWithFlags", 1, 801)];
    let emulated = Emulated { failures, ..Emulated::new(Profile::Orin) };
    on_emulator("running::a_driver_that_makes_no_graph_runs_all_the_same", &emulated, |machine| {
        assert_eq!(fixed_shapes(machine), [5, 0], "the second run is tried twice");
    });
}

/// A session of two rows `[6, cells]`, of which the plan answers `value + 1`, and its engine's machine.
fn increment_cells(machine: &Machine, cells: usize) -> Box<dyn Session> {
    let backend = Compiling::emulated(machine);
    let shape = |rows: &str| format!("{rows},6,{cells}");
    let input = ["-1", "1", "2", "2"].map(shape).join(" ");
    let path = backend.seal(backend.class(), text("increment", 0, &input, &shape("-1")).as_bytes());
    let engine = backend.load(ModelSource::Plan(&path), &LoadOptions::default()).unwrap();
    engine.session(&Shapes::rows(2).with("x", &[2, 6, cells])).unwrap()
}

const QUERY: CandidateQuery = CandidateQuery { layout: CandidateLayout::ChannelsFirst, score_min: 0.5 };

#[test]
fn candidates_come_in_place_of_the_output_that_has_them() {
    fn check(machine: &Machine) {
        let mut session = increment_cells(machine, 10);
        let values: Vec<f32> = (0..120).map(|index| (index * 37 % 101) as f32 / 101.0 - 1.0).collect();
        session.set_input(0, TensorRef::of(&[2, 6, 10], &values).unwrap()).unwrap();
        let spec = CandidateSpec::of(&QUERY, DType::F32, &[2, 6, 10]).unwrap();
        let answers: Vec<f32> = values.iter().map(|value| value + 1.0).collect();
        let expected: Vec<_> = answers.chunks(60).map(|row| plain_filter::candidates(&spec, row)).collect();
        assert!(expected.iter().all(|found| (1..10).contains(&found.list.len())), "{expected:?}");

        session.read_back(&[Readback::Candidates(QUERY)]).unwrap();
        for rows in [2, 1, 2] {
            session.submit(rows).unwrap();
            for _asked_again in 0..2 {
                let outputs = session.wait().unwrap();
                assert_eq!(outputs.candidates, BTreeMap::from([(0, expected[..rows].to_vec())]));
                assert_eq!(outputs.tensors[0].shape(), [0]);
            }
        }
        session.read_back(&[]).unwrap();
        session.submit(2).unwrap();
        let outputs = session.wait().unwrap();
        assert_eq!((outputs.tensors[0].as_slice(), outputs.candidates.len()), (Some(&answers[..]), 0));
    }
    let name = "running::candidates_come_in_place_of_the_output_that_has_them";
    for profile in [Profile::Nano, Profile::Orin, Profile::Discrete] {
        on_emulator(name, &Emulated::new(profile), check);
    }
}

#[test]
fn an_output_of_which_too_much_passes_or_that_has_no_cells_comes_whole() {
    let name = "running::an_output_of_which_too_much_passes_or_that_has_no_cells_comes_whole";
    on_emulator(name, &Emulated::new(Profile::Discrete), |machine| {
        let mut session = increment_cells(machine, 2000);
        session.read_back(&[Readback::Candidates(QUERY)]).unwrap();
        let mut values = vec![0f32; 6 * 2000];
        session.set_input(0, TensorRef::of(&[1, 6, 2000], &values).unwrap()).unwrap();
        session.submit(1).unwrap();
        for _asked_again in 0..2 {
            let outputs = session.wait().unwrap();
            assert_eq!((outputs.tensors[0].as_slice(), outputs.candidates.len()), (Some(&[1f32; 6 * 2000][..]), 0));
        }
        values.fill(-1.0);
        session.set_input(0, TensorRef::of(&[1, 6, 2000], &values).unwrap()).unwrap();
        session.submit(1).unwrap();
        assert_eq!(session.wait().unwrap().candidates[&0], [Candidates { list: Vec::new(), non_finite: 0 }]);

        let mut flat = crate::tensors::session(&Compiling::emulated(machine), &models::increment("N"), 1);
        flat.read_back(&[Readback::Candidates(QUERY)]).unwrap();
        flat.set_input(0, TensorRef::of(&[1, 3], &[1f32; 3]).unwrap()).unwrap();
        assert_eq!(answer(&mut *flat), [2.0; 3]);
    });
}

#[test]
fn an_output_that_nobody_reads_stays_on_the_device() {
    let name = "running::an_output_that_nobody_reads_stays_on_the_device";
    on_emulator(name, &Emulated::new(Profile::Discrete), |machine| {
        let mut session = session(&Compiling::emulated(machine), &models::increment("N"), 1);
        session.set_input(0, TensorRef::of(&[1, 3], &[1f32; 3]).unwrap()).unwrap();
        let downloads = || machine.log().unwrap().calls("cuMemcpyDtoHAsync_v2");
        assert_eq!((answer(&mut *session), downloads()), (vec![2.0; 3], 1));
        session.read_back(&[Readback::Nothing]).unwrap();
        assert_eq!((answer(&mut *session), downloads()), (Vec::new(), 1));
    });
}

#[test]
fn a_surface_of_another_backend_is_refused() {
    let name = "running::a_surface_of_another_backend_is_refused";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let backend = Compiling::emulated(machine);
        let (device, host) = (backend.import(&frame()).unwrap(), Rten.import(&frame()).unwrap());
        assert_eq!((device.copies(), host.copies()), (1, 0));
        let model = models::channel_means("N,3,4,4", [2, 3]);
        let refuses = |backend: &dyn Backend, surface: &Surface| {
            let transform = ImageTransform::stretch(Size::new(4, 4));
            let region = Rect::new(0.0, 0.0, 4.0, 4.0);
            let staged = session(backend, &model, 1).stage(0, 0, surface, region, &transform);
            matches!(staged, Err(EngineError::ForeignSurface))
        };
        assert!(refuses(&backend, &host) && refuses(&Rten, &device));
        assert!(!refuses(&backend, &device) && !refuses(&Rten, &host));
    });
}

#[test]
fn a_device_tells_how_long_each_part_of_a_run_took() {
    let name = "running::a_device_tells_how_long_each_part_of_a_run_took";
    on_emulator(name, &Emulated::new(Profile::Discrete), |machine| {
        let mut session = session(&Compiling::emulated(machine), &models::increment("N"), 2);
        session.set_input(0, TensorRef::of(&[2, 3], &[1f32; 6]).unwrap()).unwrap();
        session.submit(2).unwrap();
        let first = session.wait().unwrap().timings;
        assert!(first.device.is_some_and(|device| device.enqueue > Duration::ZERO), "{first:?}");
        assert_eq!(session.wait().unwrap().timings, first, "asked again");
        session.submit(2).unwrap();
        let second = session.wait().unwrap().timings.device.unwrap();
        assert_eq!(second.upload, Duration::ZERO, "nothing was set since");
    });
    let mut on_cpu = session(&Rten, &models::increment("N"), 1);
    on_cpu.set_input(0, TensorRef::of(&[1, 3], &[1f32; 3]).unwrap()).unwrap();
    on_cpu.submit(1).unwrap();
    assert_eq!(on_cpu.wait().unwrap().timings.device, None);
}

#[test]
fn layers_are_timed_and_described() {
    let name = "running::layers_are_timed_and_described";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let backend = Compiling::emulated(machine);
        let plan = text("increment", 0, "1,3 1,3 1,3 1,3", "1,3")
            + "layer reformat Reformat Float 250\nlayer conv+relu CaskConvolution Half 1500\n";
        let path = backend.seal(backend.class(), plan.as_bytes());
        let engine = backend.load(ModelSource::Plan(&path), &LoadOptions::default()).unwrap();
        let layers = engine.layers().unwrap().unwrap();
        let kinds: Vec<_> = layers.iter().map(|layer| (layer.name.as_str(), layer.kind.as_deref().unwrap())).collect();
        assert_eq!(kinds, [("reformat", "Reformat"), ("conv+relu", "CaskConvolution")]);
        assert_eq!(layers[1].outputs[0].format, "Half");

        let mut session = engine.session(&Shapes::rows(1)).unwrap();
        session.set_input(0, TensorRef::of(&[1, 3], &[1f32; 3]).unwrap()).unwrap();
        for _ in 0..3 {
            assert_eq!(answer(&mut *session), [2.0; 3], "by a graph, from the second run on");
        }
        let times = session.time_layers(1).unwrap().unwrap();
        let told: Vec<_> = times.iter().map(|layer| (layer.name.as_str(), layer.time)).collect();
        assert_eq!(told, [("reformat", Duration::from_micros(250)), ("conv+relu", Duration::from_micros(1500))]);
        assert!(matches!(session.wait(), Err(EngineError::NothingSubmitted)));
        for _ in 0..3 {
            assert_eq!(answer(&mut *session), [2.0; 3], "and after it");
        }
    });
}

#[test]
fn backends_of_onnx_models_know_no_layers() {
    let engine = load(&Rten, &models::increment("N"));
    assert_eq!(engine.layers().unwrap(), None);
    let mut session = engine.session(&Shapes::rows(1)).unwrap();
    session.set_input(0, TensorRef::of(&[1, 3], &[1f32; 3]).unwrap()).unwrap();
    assert_eq!(session.time_layers(1).unwrap(), None);
}
