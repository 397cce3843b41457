//! What the shim asks of a TensorRT 8, on an emulator whose plans list the calls that led to them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use revoada_tensorrt::{
    BuildError, BuildRequest, Cancel, ContextMemory, DataType, Hardware, LayerTime, Library, LibraryPaths, Model,
    PlanFault, Profile, Range, RunError, Runtime, RuntimeOptions,
};

use crate::{compiler, file};

/// One test at a time: the emulator keeps what it was told in global variables.
static ALONE: Mutex<()> = Mutex::new(());

struct Emulator {
    library: Arc<Library>,
    _alone: MutexGuard<'static, ()>,
}

/// An emulator of TensorRT 8.`minor`.
fn emulator(minor: u32) -> Emulator {
    static COMPILED: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let path = compiled.entry(minor).or_insert_with(|| compile(minor)).clone();
    let library = Library::open(&[LibraryPaths { infer: path.clone(), parser: path }]).expect("the emulator opens");
    assert_eq!(library.version().to_string(), format!("TensorRT 8.{minor}.1"));
    Emulator { library, _alone: alone }
}

fn compile(minor: u32) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libemulator_8_{minor}.so"));
    let mut compile = compiler();
    compile.args(["-shared", "-fPIC"]).arg(format!("-DREVOADA_EIGHT_MINOR={minor}")).arg("-I").arg(file("shim/eight"));
    compile.arg("-I").arg(file("shim/cuda")).arg(file("tests/eight/emulator.cpp")).arg("-o").arg(&path);
    let compiled = compile.output().expect("the compiler of the shim can be started");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    path
}

/// The emulator takes words for models.
fn request(model: &str) -> BuildRequest<'_> {
    let batch = |rows| vec![rows, 3];
    let profile = Profile::default().with("x", Range { min: batch(1), opt: batch(4), max: batch(8) });
    let model = Model::Bytes { bytes: model.as_bytes(), path: None };
    BuildRequest { profiles: vec![profile], ..BuildRequest::new(model) }
}

fn calls(emulator: &Emulator, request: &BuildRequest<'_>) -> Vec<String> {
    let built = emulator.library.build(request, &(), &Cancel::default()).expect("the emulator builds");
    String::from_utf8(built.plan).expect("its plans are words").lines().map(str::to_owned).collect()
}

#[test]
fn precision_in_the_graph_is_demanded_by_flags_and_constraints() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let ranges = ["range x 0 1x3", "range x 1 4x3", "range x 2 8x3", "profile"];
        let half = ["network 1", "precision 1", "output 0 type 1", "flag 0", "flag 10"];
        assert_eq!(calls(&emulator, &request("half")), [&half[..], &ranges].concat());
        let full = ["network 1", "precision 0", "output 0 type 0", "flag 10"];
        assert_eq!(calls(&emulator, &request("full")), [&full[..], &ranges].concat());
    }
}

#[test]
fn every_choice_reaches_the_configuration() {
    for (minor, workspace) in [(2, "workspace 1024"), (5, "pool 0 1024"), (6, "pool 0 1024")] {
        let emulator = emulator(minor);
        let request = BuildRequest {
            workspace_bytes_max: Some(1024),
            timing_cache: Some(b"old"),
            dla_core: Some(1),
            ..request("full")
        };
        let built = emulator.library.build(&request, &(), &Cancel::default()).unwrap();
        assert_eq!(built.timing_cache.as_deref(), Some(&b"timings"[..]));
        assert_eq!(built.layers.len(), 1);
        assert_eq!((built.layers[0].kind.as_str(), built.layers[0].outputs[0]), ("elementwise", DataType::F32));
        assert_eq!(built.inputs[0].dims, [None, Some(3)]);
        let calls = String::from_utf8(built.plan).unwrap();
        assert!(calls.ends_with(&format!("{workspace}\ntimings old\ndevice 1\ndla 1\nflag 3\n")), "{calls}");
    }
}

#[test]
fn what_a_version_lacks_is_said_by_its_name() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let compatible = BuildRequest { version_compatible: true, ..request("full") };
        let ampere = BuildRequest { hardware: Hardware::AmperePlus, ..request("full") };
        if minor == 6 {
            assert_eq!(calls(&emulator, &compatible).last().map(String::as_str), Some("flag 15"));
            assert_eq!(calls(&emulator, &ampere).last().map(String::as_str), Some("hardware 1"));
        } else {
            let refused = |request| emulator.library.build(request, &(), &Cancel::default()).unwrap_err().to_string();
            assert_eq!(refused(&compatible), format!("TensorRT 8.{minor}.1 has no plans that later versions run"));
            assert_eq!(refused(&ampere), format!("TensorRT 8.{minor}.1 has no plans for all devices from Ampere on"));
        }
        let many = BuildRequest { dla_core: Some(2), ..request("full") };
        let error = emulator.library.build(&many, &(), &Cancel::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("TensorRT 8.{minor}.1 has no DLA core 2 here: there are 2"));
    }
}

#[test]
fn errors_of_the_recorder_and_the_parser_come_back() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let error = emulator.library.build(&request("refuse"), &(), &Cancel::default()).unwrap_err();
        assert!(matches!(&error, BuildError::Compile { layer: Some(layer), messages, .. }
            if layer == "double" && messages[0].code == Some(4)));
        let expected = "cannot compile the network at layer `double`: double: no kernel is fast enough";
        assert_eq!(error.to_string(), format!("TensorRT 8.{minor}.1 {expected}"));
        let error = emulator.library.build(&request("unknown"), &(), &Cancel::default()).unwrap_err();
        let expected = "cannot read the model: node 7: the operator is unknown";
        assert_eq!(error.to_string(), format!("TensorRT 8.{minor}.1 {expected}"));
    }
}

#[test]
fn an_exception_stops_at_the_shim_and_becomes_an_error() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let error = emulator.library.build(&request("throw"), &(), &Cancel::default()).unwrap_err();
        let expected = "cannot read the model: the parser has lost its way";
        assert_eq!(error.to_string(), format!("TensorRT 8.{minor}.1 {expected}"));
    }
}

#[test]
fn an_engine_tells_its_tensors_and_its_ranges() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let runtime =
            Runtime::new(&emulator.library, RuntimeOptions { dla_core: Some(1), host_code: minor == 6 }).unwrap();
        let engine = runtime.engine(b"network 1\n").unwrap();
        let told: Vec<_> = engine.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.is_input)).collect();
        assert_eq!(told, [("x", true), ("y", false)]);
        assert_eq!(engine.tensors()[1].dims, [None, Some(3)]);
        let profiles = engine.profiles();
        assert_eq!(profiles.len(), 2);
        let shape = |rows| vec![rows, 3];
        assert_eq!(profiles[0]["x"], Range { min: shape(1), opt: shape(2), max: shape(3) });
        assert_eq!(profiles[1]["x"], Range { min: shape(2), opt: shape(4), max: shape(6) });
        assert_eq!((engine.device_memory_bytes(), engine.layer_count()), (4096, 1));
        assert_eq!(engine.inspect().unwrap(), r#"{"Layers": ["double"]}"#);
    }
}

#[test]
fn a_context_runs_in_the_profile_that_it_has_taken() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let engine =
            Runtime::new(&emulator.library, RuntimeOptions::default()).unwrap().engine(b"network 1\n").unwrap();
        let mut context = engine.context(ContextMemory::Own).unwrap();
        drop(engine);
        for (profile, rows) in [(0, 2), (1, 5)] {
            // SAFETY: the emulator has no streams.
            unsafe { context.set_profile(profile, 0) }.unwrap();
            if profile == 0 {
                assert_eq!(context.missing().unwrap(), ["x"]);
            }
            context.set_shape(0, &[rows, 3]).unwrap();
            assert_eq!(context.missing().unwrap(), Vec::<String>::new());
            assert_eq!(context.shape(1).unwrap(), [Some(rows), Some(3)]);
            let input: Vec<f32> = (0..rows * 3).map(|value| value as f32).collect();
            let mut output = vec![0f32; input.len()];
            context.set_address(0, input.as_ptr() as u64).unwrap();
            context.set_address(1, output.as_mut_ptr() as u64).unwrap();
            // SAFETY: the emulator's device is this program's memory, it is done when it returns, and both tensors have
            // as many elements as their shapes say.
            unsafe { context.enqueue(0) }.unwrap();
            assert!(output.iter().zip(&input).all(|(output, input)| *output == 2.0 * input), "{output:?}");
        }
        let error = context.set_shape(0, &[1, 2, 3]).unwrap_err();
        assert!(error.to_string().starts_with("cannot give input `x` the shape [1, 2, 3]: "), "{error}");
        let error = context.set_memory(0, 4096).unwrap_err();
        assert!(error.to_string().starts_with("cannot give the context memory"), "{error}");
    }
}

#[test]
fn layers_are_timed_in_runs_of_their_own() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let engine =
            Runtime::new(&emulator.library, RuntimeOptions::default()).unwrap().engine(b"network 1\n").unwrap();
        let mut context = engine.context(ContextMemory::Own).unwrap();
        let (input, mut output) = ([1f32; 6], [0f32; 6]);
        // SAFETY: the emulator has no streams.
        unsafe { context.set_profile(0, 0) }.unwrap();
        context.set_shape(0, &[2, 3]).unwrap();
        context.set_address(0, input.as_ptr() as u64).unwrap();
        context.set_address(1, output.as_mut_ptr() as u64).unwrap();
        for _ in 0..2 {
            // SAFETY: the emulator's device is this program's memory, it is done when it returns, and both tensors have
            // as many elements as their shapes say.
            let times = unsafe { context.time_layers(0) }.unwrap();
            assert_eq!(times, [LayerTime { name: "double".to_owned(), time: Duration::from_millis(1) }]);
            assert_eq!(output, [2.0; 6]);
            // A profiler that was left attached would be gone by now.
            // SAFETY: as above.
            unsafe { context.enqueue(0) }.unwrap();
        }
    }
}

#[test]
fn a_runtime_that_lacks_what_is_asked_for_says_so() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let refused = |options| Runtime::new(&emulator.library, options).map(drop).unwrap_err().to_string();
        let no_core = RuntimeOptions { dla_core: Some(2), host_code: false };
        assert_eq!(refused(no_core), format!("TensorRT 8.{minor}.1 has no DLA core 2 here"));
        if minor < 6 {
            let code = RuntimeOptions { dla_core: None, host_code: true };
            assert_eq!(refused(code), format!("TensorRT 8.{minor}.1 has no plans with code for the host"));
        }
    }
}

#[test]
fn words_are_no_plan() {
    for minor in [2, 5, 6] {
        let emulator = emulator(minor);
        let Err(error) = Runtime::new(&emulator.library, RuntimeOptions::default()).unwrap().engine(b"words") else {
            panic!("8.{minor} took words for a plan");
        };
        assert!(matches!(&error, RunError::Plan { fault: PlanFault::Damaged { .. }, .. }), "{error:?}");
        let expected = "cannot open the plan: it is damaged or no plan (Magic tag does not match)";
        assert_eq!(error.to_string(), format!("TensorRT 8.{minor}.1 {expected}"));
    }
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nothing panics while it logs").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_tensorrt_logs_goes_to_tracing_under_its_name() {
    let emulator = emulator(2);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        emulator.library.build(&request("refuse"), &(), &Cancel::default()).unwrap_err()
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.lines().any(|line| line == "DEBUG tensorrt: a builder begins"), "{log}");
    assert!(log.contains("double: no kernel is fast enough"), "{log}");
}
