//! From a model to a plan.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};

use revoada_tensorrt::{
    BuildError, BuildRequest, Cancel, DataType, Flavour, Library, LibraryPaths, Model, Progress, Target,
};

use crate::onnx::{self, Graph};
use crate::{folder, library, request};

/// Writes down what it hears, and can act on a step.
#[derive(Default)]
struct Heard<F> {
    events: Mutex<Events>,
    at_step: F,
}

#[derive(Clone, Default)]
struct Events {
    started: Vec<(String, Option<String>, u32)>,
    steps: Vec<(String, u32)>,
    finished: Vec<String>,
}

impl<F: Fn() + Sync> Heard<F> {
    fn new(at_step: F) -> Self {
        Self { events: Mutex::default(), at_step }
    }

    fn events(&self) -> Events {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Events> {
        self.events.lock().expect("no test panics while it writes")
    }
}

impl<F: Fn() + Sync> Progress for Heard<F> {
    fn started(&self, phase: &str, parent: Option<&str>, steps: u32) {
        self.locked().started.push((phase.to_owned(), parent.map(str::to_owned), steps));
    }

    fn step(&self, phase: &str, step: u32) {
        self.locked().steps.push((phase.to_owned(), step));
        (self.at_step)();
    }

    fn finished(&self, phase: &str) {
        self.locked().finished.push(phase.to_owned());
    }
}

#[test]
fn a_convolution_compiles_for_sm_86() {
    let Some(library) = library() else { return };
    assert_eq!(library.version().flavour, Flavour::Rtx);
    let built = library.build(&request(&onnx::convolution("1")), &(), &Cancel::default()).unwrap();
    assert!(!built.plan.is_empty());
    assert_eq!(built.timing_cache, None, "none was asked for");

    assert_eq!(built.inputs.len(), 1);
    assert_eq!((built.inputs[0].name.as_str(), built.inputs[0].data_type), ("pictures", DataType::F32));
    assert_eq!(built.inputs[0].dims, [Some(1), Some(3), Some(32), Some(32)]);
    let layers: Vec<_> = built.layers.iter().map(|layer| (layer.name.as_str(), layer.kind.as_str())).collect();
    assert_eq!(layers, [("sharpen", "convolution"), ("clip", "activation")]);
    assert_eq!(
        (built.layers[0].inputs.as_slice(), built.layers[0].outputs.as_slice()),
        (&[DataType::F32][..], &[DataType::F32][..])
    );
}

#[test]
fn the_graph_s_types_are_the_network_s() {
    let Some(library) = library() else { return };
    let model = onnx::convolution_graph("1").halved().encode();
    let built = library.build(&request(&model), &(), &Cancel::default()).unwrap();
    assert_eq!(built.inputs[0].data_type, DataType::F16);
    for layer in &built.layers {
        assert_eq!((layer.inputs[0], layer.outputs[0]), (DataType::F16, DataType::F16), "{}", layer.name);
    }
    let float = library.build(&request(&onnx::convolution("1")), &(), &Cancel::default()).unwrap();
    assert_ne!(built.plan.len(), float.plan.len());
}

#[test]
fn progress_is_told_from_the_first_phase_to_its_end() {
    let Some(library) = library() else { return };
    let heard = Heard::new(|| ());
    library.build(&request(&onnx::convolution("1")), &heard, &Cancel::default()).unwrap();
    let events = heard.events();
    let (outermost, parent, steps) = &events.started[0];
    assert_eq!(*parent, None);
    let of_outermost: Vec<u32> =
        events.steps.iter().filter(|(phase, _)| phase == outermost).map(|(_, step)| *step).collect();
    assert!(!of_outermost.is_empty() && of_outermost.iter().all(|step| step < steps), "{of_outermost:?} of {steps}");
    assert!(of_outermost.is_sorted());
    assert_eq!(events.finished.last(), Some(outermost));
    assert_eq!(events.finished.len(), events.started.len());
    assert!(events.started.iter().skip(1).all(|(_, parent, _)| parent.is_some()));
}

#[test]
fn a_build_that_is_cancelled_ends_in_the_middle() {
    let Some(library) = library() else { return };
    let model = onnx::deep(24);
    let whole = Heard::new(|| ());
    library.build(&request(&model), &whole, &Cancel::default()).unwrap();

    let cancel = Cancel::default();
    let cut = Heard::new(|| cancel.cancel());
    let error = library.build(&request(&model), &cut, &cancel).unwrap_err();
    assert!(matches!(error, BuildError::Cancelled), "{error}");
    let (whole, cut) = (whole.events().steps.len(), cut.events().steps.len());
    assert!(0 < cut && cut < whole / 2, "{cut} of {whole} steps were made");
}

#[test]
fn a_build_that_is_cancelled_before_it_begins_makes_no_step() {
    let Some(library) = library() else { return };
    let (cancel, heard) = (Cancel::default(), Heard::new(|| ()));
    cancel.cancel();
    let error = library.build(&request(&onnx::convolution("1")), &heard, &cancel).unwrap_err();
    assert!(matches!(error, BuildError::Cancelled), "{error}");
    assert!(heard.events().started.is_empty());
}

#[test]
fn a_panic_of_the_caller_s_own_ends_the_build_and_comes_back_to_it() {
    let Some(library) = library() else { return };
    let model = onnx::convolution("1");
    let clumsy = Heard::new(|| panic!("the bar is full"));
    let cancel = Cancel::default();
    let caught = catch_unwind(AssertUnwindSafe(|| library.build(&request(&model), &clumsy, &cancel)));
    let panic = caught.expect_err("the panic goes on");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the bar is full"));
    // Neither TensorRT nor the caller's wish is the worse for it.
    assert!(library.build(&request(&model), &(), &cancel).is_ok());
}

fn with_two_unknown_operators() -> Vec<u8> {
    Graph::new()
        .input("x", "1,3,8,8")
        .node("fine", "Relu", &["x"], "y")
        .node("wild", "Frobnicate", &["y"], "z")
        .node("good", "Relu", &["z"], "a")
        .node("worse", "Defenestrate", &["a"], "b")
        .output("b", "1,3,8,8")
        .encode()
}

#[test]
fn a_model_with_unknown_operators_is_refused_by_the_name_of_each_node() {
    let Some(library) = library() else { return };
    let error = library.build(&request(&with_two_unknown_operators()), &(), &Cancel::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "TensorRT for RTX 1.7.1 cannot read the model: node `wild` (`Frobnicate`): TensorRT has no such operator; node \
         `worse` (`Defenestrate`): TensorRT has no such operator"
    );
}

#[test]
fn the_nodes_that_are_refused_are_named_without_a_build() {
    let Some(library) = library() else { return };
    let refused = |model: &[u8]| {
        let nodes = library.refused_nodes(Model::Bytes { bytes: model, path: None }).unwrap();
        nodes.into_iter().map(|node| (node.index, node.node, node.operator)).collect::<Vec<_>>()
    };
    let named = |index, node: &str, operator: &str| (Some(index), node.to_owned(), operator.to_owned());
    assert_eq!(
        refused(&with_two_unknown_operators()),
        [named(1, "wild", "Frobnicate"), named(3, "worse", "Defenestrate")]
    );
    let narrow = Graph::new()
        .input("x", "1,4,8,8")
        .weights("kernel", &[2, 3, 3, 3])
        .node("narrow", "Conv", &["x", "kernel"], "y")
        .output("y", "1,2,6,6")
        .encode();
    assert_eq!(refused(&narrow), [named(0, "narrow", "Conv")]);
    assert_eq!(refused(&onnx::convolution("1")), []);
}

#[test]
fn what_is_no_model_is_said_to_be_none() {
    let Some(library) = library() else { return };
    for bytes in [&b"these are words, not weights"[..], &[0xff; 64], &[]] {
        let error = library.build(&request(bytes), &(), &Cancel::default()).unwrap_err();
        assert!(matches!(error, BuildError::Parse { .. }), "{error}");
        let error = library.refused_nodes(Model::Bytes { bytes, path: None }).unwrap_err();
        assert!(error.to_string().starts_with("TensorRT for RTX 1.7.1 cannot read the model: "), "{error}");
    }
}

#[test]
fn weights_beside_the_model_are_found_by_its_path() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let (model, weights) = onnx::with_weights_outside("weights.bin");
    fs::write(&path, model).unwrap();
    let request = BuildRequest { model: Model::File(&path), ..request(&[]) };
    let error = library.build(&request, &(), &Cancel::default()).unwrap_err();
    assert!(error.to_string().contains("weights.bin"), "{error}");
    fs::write(folder.path().join("weights.bin"), weights).unwrap();
    assert!(!library.build(&request, &(), &Cancel::default()).unwrap().plan.is_empty());
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let Some(library) = library() else { return };
    let request = BuildRequest { model: Model::File("nowhere/model.onnx".as_ref()), ..request(&[]) };
    let error = library.build(&request, &(), &Cancel::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read model `nowhere/model.onnx`");
}

#[test]
fn a_timing_cache_goes_from_one_build_to_the_next() {
    let Some(library) = library() else { return };
    let model = onnx::convolution("1");
    let with = |cache| BuildRequest { timing_cache: Some(cache), ..request(&model) };
    let first = library.build(&with(&[]), &(), &Cancel::default()).unwrap();
    let cache = first.timing_cache.expect("an empty cache begins one");
    let second = library.build(&with(&cache), &(), &Cancel::default()).unwrap();
    assert!(second.timing_cache.is_some_and(|kept| kept.len() >= cache.len()));
}

#[test]
fn a_target_that_it_cannot_build_for_is_refused_by_name() {
    let Some(library) = library() else { return };
    let model = onnx::convolution("1");
    for (capabilities, names) in [(vec![53], "`sm_53`"), (vec![86, 87], "`sm_86`, `sm_87`"), (vec![0], "`sm_0`")] {
        let request = BuildRequest { target: Target::ComputeCapabilities(capabilities), ..request(&model) };
        let error = library.build(&request, &(), &Cancel::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("TensorRT for RTX 1.7.1 has no way to build for {names} from here"));
    }
}

#[test]
fn a_dla_that_is_not_there_is_refused() {
    let Some(library) = library() else { return };
    let model = onnx::convolution("1");
    let request = BuildRequest { dla_core: Some(0), ..request(&model) };
    let error = library.build(&request, &(), &Cancel::default()).unwrap_err();
    assert_eq!(error.to_string(), "TensorRT for RTX 1.7.1 has no DLA core 0 here: there are 0");
}

#[test]
fn several_targets_and_a_limited_workspace_are_taken() {
    let Some(library) = library() else { return };
    let model = onnx::convolution("1");
    let target = Target::ComputeCapabilities(vec![75, 86, 120]);
    let request = BuildRequest { target, workspace_bytes_max: Some(64 << 20), ..request(&model) };
    let several = library.build(&request, &(), &Cancel::default()).unwrap().plan.len();
    let one = library.build(&crate::request(&model), &(), &Cancel::default()).unwrap().plan.len();
    assert!(several > one, "a plan for three devices has {several} bytes, and one for one {one}");
}

#[test]
fn a_workspace_that_is_too_small_is_said_to_be() {
    let Some(library) = library() else { return };
    let model = onnx::deep(3);
    let request = BuildRequest { workspace_bytes_max: Some(1), ..request(&model) };
    let error = library.build(&request, &(), &Cancel::default()).unwrap_err();
    assert!(error.to_string().contains("no tactics to implement the operation within workspace limit"), "{error}");
    assert!(!error.to_string().contains(".cpp"), "{error}");
}

#[test]
fn without_its_parser_a_library_says_what_it_lacks() {
    if library().is_none() {
        return;
    }
    let mut paths = LibraryPaths::in_folder(&folder());
    for paths in &mut paths {
        paths.parser = "/nowhere/libparser.so".into();
    }
    let library = Library::open(&paths).unwrap();
    assert!(!library.can_build());
    let error = library.build(&request(&onnx::convolution("1")), &(), &Cancel::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot build plans without TensorRT's ONNX parser, looked for `/nowhere/libparser.so`: cannot open shared \
         object file: No such file or directory"
    );
}
