//! A TensorRT that takes ONNX models, as the suite has them: each is made a plan first.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_bundle::bundle::Precision;
use revoada_bundle::hash;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::{Plan, PlanFacts, PlanKey};
use revoada_bundle::sign::SecretKey;
use revoada_core::{Compatibility, DType, DeviceClass, Dim, Frame, TensorRtVersion, TensorSpec};
use revoada_emulator::Emulated;
use revoada_engine::cuda::Device;
use revoada_engine::{Backend, Engine, EngineError, LoadOptions, ModelSource, Surface, TensorRt, TensorRtOptions};
use revoada_tensorrt::{BuildRequest, Cancel, Library, LibraryPaths, Model, Profile, Range};

use crate::machine::{self, Machine, real_compilers};

/// The lengths of open dimensions: smallest, tuned for, and largest.
const OPEN: [u64; 3] = [1, 4, 16];

/// As [`machine::on_emulator`], where the emulator has a TensorRT.
pub(crate) fn on_emulator(test: &str, emulated: &Emulated, body: fn(&Machine)) {
    match revoada_emulator::tensorrt() {
        Some(_) => machine::on_emulator(test, emulated, body),
        None => println!("skipped: the emulator's TensorRT: there were no headers of TensorRT 10.16 to build it from"),
    }
}

/// As [`machine::on_breaking_emulator`].
pub(crate) fn on_breaking_emulator(test: &str, emulated: &Emulated, body: fn(&Machine)) {
    match revoada_emulator::tensorrt() {
        Some(_) => machine::on_breaking_emulator(test, emulated, body),
        None => println!("skipped: the emulator's TensorRT: there were no headers of TensorRT 10.16 to build it from"),
    }
}

pub(crate) struct Compiling {
    inner: TensorRt,
    class: DeviceClass,
    folder: PathBuf,
    /// `None` on the emulator.
    library: Option<Arc<Library>>,
}

pub(crate) fn emulated_options(folder: &Path) -> TensorRtOptions {
    TensorRtOptions {
        libraries: LibraryPaths::in_folder(revoada_emulator::libraries()),
        compilers: vec![revoada_emulator::nvrtc()],
        kernels: Some(folder.join("kernels")),
        device: 0,
    }
}

fn class(tensorrt: TensorRtVersion) -> DeviceClass {
    Device::all().unwrap()[0].class(tensorrt)
}

impl Compiling {
    pub(crate) fn emulated(machine: &Machine) -> Self {
        let options = emulated_options(machine.folder());
        let class = class(Library::open(&options.libraries).unwrap().version());
        Self { inner: TensorRt::new(options), class, folder: machine.folder().to_owned(), library: None }
    }

    /// Without a TensorRT that builds, the test says so and is counted as skipped.
    pub(crate) fn real(machine: &Machine) -> Option<Self> {
        let libraries = LibraryPaths::usual();
        let library = match Library::open(&libraries) {
            Ok(library) if library.can_build() => library,
            Ok(library) => return skipped(&format!("`{}` builds no plans", library.path().display())),
            Err(error) => return skipped(&error.to_string()),
        };
        let folder = machine.folder().to_owned();
        let kernels = Some(folder.join("kernels"));
        let options = TensorRtOptions { libraries, compilers: real_compilers(), kernels, device: 0 };
        let class = class(library.version());
        Some(Self { inner: TensorRt::new(options), class, folder, library: Some(library) })
    }

    pub(crate) fn class(&self) -> &DeviceClass {
        &self.class
    }

    /// Writes the plan of a model.
    pub(crate) fn plan(&self, model: &[u8]) -> PathBuf {
        let payload = match &self.library {
            Some(library) => compile(library, model),
            None => describe(model).into_bytes(),
        };
        let graph = OnnxModel::parse(model.to_vec()).unwrap();
        let (inputs, outputs) = (declared(&graph, true), declared(&graph, false));
        let facts = PlanFacts { inputs, outputs, ..PlanFacts::default() };
        self.write(Plan::seal(key(&self.class, &payload), facts, payload, &SecretKey::generate().unwrap()))
    }

    /// Writes what TensorRT is to read in an envelope for a device.
    pub(crate) fn seal(&self, class: &DeviceClass, payload: &[u8]) -> PathBuf {
        self.seal_with(class, Compatibility::default(), payload)
    }

    pub(crate) fn seal_with(&self, class: &DeviceClass, compatibility: Compatibility, payload: &[u8]) -> PathBuf {
        let key = PlanKey { compatibility, ..key(class, payload) };
        self.write(Plan::seal(key, PlanFacts::default(), payload, &SecretKey::generate().unwrap()))
    }

    fn write(&self, plan: Plan) -> PathBuf {
        let path = self.folder.join(format!("{}.plan", hash(plan.bytes())));
        std::fs::write(&path, plan.bytes()).unwrap();
        path
    }
}

fn skipped(why: &str) -> Option<Compiling> {
    println!("skipped: tensorrt: {why}");
    None
}

fn key(class: &DeviceClass, payload: &[u8]) -> PlanKey {
    PlanKey {
        bundle: hash(payload),
        device: class.clone(),
        compatibility: Compatibility::default(),
        precision: Precision::Fp32,
        profile: Default::default(),
        dla_core: None,
        builder: "test".to_owned(),
    }
}

fn declared(model: &OnnxModel, inputs: bool) -> Vec<TensorSpec> {
    let graph = model.graph();
    let ports = if inputs { &graph.input } else { &graph.output };
    let spec = |info: &revoada_bundle::onnx::proto::ValueInfoProto| {
        let tensor = info.tensor_type().unwrap();
        let dtype = tensor.element_type().dtype().unwrap();
        TensorSpec { name: info.name().to_owned(), dtype, dims: tensor.dims().unwrap() }
    };
    ports.iter().map(spec).collect()
}

/// The emulator's plan for one of the suite's models, which it knows by name.
fn describe(model: &[u8]) -> String {
    let model = OnnxModel::parse(model.to_vec()).unwrap();
    let operation = match model.graph().name() {
        "means" => "channel_means",
        "picture" => "widen",
        "two by two" => "sum_and_scaled_difference",
        "network" => "mixture",
        "named" => "sum",
        same => same,
    };
    let mut text = format!("EMULATED PLAN\noperation {operation}\nworkspace 64\n");
    let lengths = |spec: &TensorSpec, open: i64| {
        let length = |dim: &Dim| dim.fixed().map_or(open, |size| i64::try_from(size).unwrap()).to_string();
        spec.dims.iter().map(length).collect::<Vec<_>>().join(",")
    };
    let shape = |spec: &TensorSpec| format!("{} {} {}", spec.name, spec.dtype, lengths(spec, -1));
    for spec in declared(&model, true) {
        let ranges = OPEN.map(|open| lengths(&spec, open.cast_signed())).join(" ");
        writeln!(text, "input {} {ranges}", shape(&spec)).unwrap();
    }
    for spec in declared(&model, false) {
        writeln!(text, "output {}", shape(&spec)).unwrap();
    }
    text
}

fn compile(library: &Library, bytes: &[u8]) -> Vec<u8> {
    let model = OnnxModel::parse(bytes.to_vec()).unwrap();
    let mut profile = Profile::default();
    for spec in declared(&model, true).iter().filter(|spec| spec.dims.iter().any(|dim| dim.fixed().is_none())) {
        let shape = |open: u64| spec.dims.iter().map(|dim| dim.fixed().map_or(open, |size| size as u64)).collect();
        let [min, opt, max] = OPEN.map(shape);
        profile = profile.with(&spec.name, Range { min, opt, max });
    }
    let mut request = BuildRequest::new(Model::Bytes { bytes, path: None });
    if !profile.ranges.is_empty() {
        request.profiles = vec![profile];
    }
    library.build(&request, &(), &Cancel::default()).unwrap().plan
}

impl Backend for Compiling {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn version(&self) -> Result<String, EngineError> {
        self.inner.version()
    }

    fn check(&self) -> Result<(), EngineError> {
        self.inner.check()
    }

    fn load(&self, source: ModelSource<'_>, options: &LoadOptions) -> Result<Arc<dyn Engine>, EngineError> {
        match source {
            ModelSource::Bytes(model) => self.inner.load(ModelSource::Plan(&self.plan(model)), options),
            other => self.inner.load(other, options),
        }
    }

    fn import(&self, frame: &Arc<Frame>) -> Result<Surface, EngineError> {
        self.inner.import(frame)
    }
}

/// A plan of the emulator with one input and one output of f32.
pub(crate) fn text(operation: &str, workspace: usize, input: &str, output: &str) -> String {
    let dtype = DType::F32;
    format!(
        "EMULATED PLAN\noperation {operation}\nworkspace {workspace}\ninput x {dtype} {input}\noutput y {dtype} {output}\n"
    )
}
