//! Networks of several kinds in every precision, compiled by TensorRT for RTX for a GPU that is not here: into a bundle
//! that is whole and a plan that is what it says. Whether a plan computes rightly only its GPU can tell.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::{Path, PathBuf};

use revoada_bundle::bundle::{Bundle, Precision, Trust};
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::plan::Plan;
use revoada_core::{Architecture, TensorRef};
use revoada_tests::{asset, finish, revoada, root};

const PRECISIONS: [Precision; 3] = [Precision::Fp32, Precision::Fp16, Precision::Int8];

/// The ONNX project's networks without their weights, from its Python package.
fn light(name: &str) -> PathBuf {
    let libraries = root().join(".cache/venv/lib");
    let versions = std::fs::read_dir(&libraries).unwrap().map(|entry| entry.unwrap().path());
    let inside = format!("site-packages/onnx/backend/test/data/light/light_{name}.onnx");
    let found = versions.map(|version| version.join(&inside)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("there is no `{inside}` in `{}`: run `cargo xtask setup`", libraries.display()))
}

/// Gives a network weights with which numbers neither vanish nor explode on their way through it (He et al.: "Delving
/// Deep into Rectifiers", 2015), the same ones every time, in place of the constants that stand for them.
fn weighted(name: &str, folder: &Path) -> PathBuf {
    let mut graph = OnnxModel::read(&light(name)).unwrap().edit().unwrap();
    let constants: Vec<NodeProto> = graph.nodes().iter().filter(|node| node.is("ConstantOfShape")).cloned().collect();
    let mut random = fastrand::Rng::with_seed(1);
    for constant in &constants {
        let shape = graph.tensor(constant.input_name(0).unwrap()).unwrap();
        let shape: Vec<usize> = shape.as_ref().as_slice::<i64>().unwrap().iter().map(|size| *size as usize).collect();
        let output = &constant.output[0];
        let reads = |node: &&NodeProto| node.input.contains(output);
        let reader = graph.nodes().iter().find(reads).unwrap();
        let place = reader.input.iter().position(|input| input == output).unwrap();
        let elements = shape.iter().product();
        let numbers: Vec<f32> = match (reader.op_type(), place) {
            ("Conv" | "Gemm", 1) => {
                let bound = (6.0 / shape[1..].iter().product::<usize>() as f32).sqrt();
                (0..elements).map(|_| (2.0 * random.f32() - 1.0) * bound).collect()
            }
            // Halved, so that what goes around by residual connections does not double the numbers each time.
            ("BatchNormalization", 1) => vec![0.5; elements],
            ("BatchNormalization", 4) => vec![1.0; elements],
            _ => vec![0.0; elements],
        };
        graph.set_tensor(output, TensorRef::of(&shape, &numbers).unwrap());
    }
    graph.nodes_mut().retain(|node| !node.is("ConstantOfShape"));
    let path = folder.join(format!("{name}.onnx"));
    std::fs::write(&path, graph.finish().unwrap().encode()).unwrap();
    let scale = 1.0 / 255.0;
    std::fs::write(
        path.with_extension("toml"),
        format!("version = 1\n\n[input]\nscale = [{scale}, {scale}, {scale}]\n"),
    )
    .unwrap();
    path
}

fn network(name: &str, folder: &Path) -> PathBuf {
    match name {
        "resnet50" | "squeezenet" => weighted(name, folder),
        known => asset(&format!("models/{known}.onnx")),
    }
}

/// Builds for SM 86 and looks at what came of it.
fn compiles(name: &str, precision: Precision) {
    let libraries = root().join(".cache/lib");
    if !libraries.join("libtensorrt_rtx.so.1").exists() {
        println!("skipped: {name} in {}: there is no TensorRT for RTX in `.cache/lib`", precision.name());
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let model = network(name, home.path());
    let mut command = revoada();
    command.env("HOME", home.path()).env_remove("XDG_DATA_HOME").env_remove("XDG_CACHE_HOME").current_dir(home.path());
    command.arg("build").arg(&model).args([
        "--precision",
        precision.name(),
        "--target",
        "sm_86",
        "--output",
        "it.bundle",
    ]);
    command.args(["--calibration"]).arg(asset("pictures")).arg("--tensorrt").arg(&libraries);
    if precision == Precision::Int8 {
        // What is compiled matters here: on four pictures without a crowd a detector's maps are next to nothing, and so
        // is what their cosine tells. Of accuracy `int8.rs` has more.
        command.args(["--cosine-min", "0.5"]);
    }
    finish(&mut command).expect_code(0);

    let bundle = Bundle::open(&home.path().join("it.bundle")).unwrap().verify(Trust::Anybody).unwrap();
    assert_eq!(bundle.index().precision, precision);
    let plan = Plan::read(&home.path().join("it.plan")).unwrap();
    assert_eq!((plan.key().bundle, plan.key().precision), (bundle.digest(), precision));
    assert_eq!(plan.key().device.architecture, Architecture::new(8, 6));
    let parameters = OnnxModel::read(&bundle.model_path()).unwrap().encode().len();
    println!("{name} {}: model {parameters} bytes, plan {} bytes", precision.name(), plan.payload().len());
    assert!(plan.payload().len() > 100_000, "a plan has the network's weights and kernels in it");
}

#[test]
fn one_network_of_each_precision_compiles() {
    compiles("centerface", Precision::Fp32);
    compiles("efficientnet-lite0", Precision::Fp16);
    compiles("squeezenet", Precision::Int8);
}

#[test]
fn every_network_compiles_in_every_precision() {
    if std::env::var_os("REVOADA_FULL").is_none() {
        println!("skipped: four networks in three precisions are compiled by `cargo xtask test --full`");
        return;
    }
    for name in ["resnet50", "squeezenet", "efficientnet-lite0", "centerface"] {
        PRECISIONS.into_iter().for_each(|precision| compiles(name, precision));
    }
}
