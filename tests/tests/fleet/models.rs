//! Models of one shape: which channel of a picture is brightest says which of three classes it is.

use std::path::Path;

use revoada_bundle::bundle::{Bundle, BundleWriter, Index, Lineage, MANIFEST, MODEL, Precision};
use revoada_bundle::onnx::{Attribute, GraphBuilder};
use revoada_bundle::sign::SecretKey;
use revoada_core::{DType, TensorRef};

/// What is to become a bundle.
pub(crate) struct Model {
    onnx: Vec<u8>,
    manifest: &'static str,
    /// Makes bundles of the same model different.
    note: &'static str,
}

fn graph(name: &str) -> GraphBuilder {
    GraphBuilder::new(name)
        .input("x", DType::F32, "N,3,32,32")
        .initializer("bias", TensorRef::of(&[1, 3], &[0.3f32, 0.2, 0.1]).unwrap())
        .node("GlobalAveragePool", &["x"], &["mean"])
        .node("Flatten", &["mean"], &["flat"])
        .output("y", DType::F32, "N,3")
}

pub(crate) fn good(note: &'static str) -> Model {
    Model { onnx: graph("good").node("Add", &["flat", "bias"], &["y"]).encode(), manifest: MANIFEST_TEXT, note }
}

/// Sees another class than the good one in every picture.
pub(crate) fn blind(note: &'static str) -> Model {
    Model { onnx: graph("blind").node("Sub", &["flat", "bias"], &["y"]).encode(), manifest: MANIFEST_TEXT, note }
}

/// Has a head that knows nothing yet.
pub(crate) fn ignorant(note: &'static str) -> Model {
    let graph = GraphBuilder::new("ignorant")
        .input("x", DType::F32, "N,3,32,32")
        .initializer("weight", TensorRef::of(&[3, 3], &[0f32; 9]).unwrap())
        .initializer("bias", TensorRef::of(&[3], &[0f32; 3]).unwrap())
        .node("GlobalAveragePool", &["x"], &["mean"])
        .node("Flatten", &["mean"], &["flat"])
        .node_with("Gemm", &["flat", "weight", "bias"], &["y"], &[("transB", Attribute::Int(1))])
        .output("y", DType::F32, "N,3");
    Model { onnx: graph.encode(), manifest: MANIFEST_TEXT, note }
}

/// One whose plans `tests/emulator` runs, by its name.
pub(crate) fn channel_means(note: &'static str) -> Model {
    let graph = GraphBuilder::new("channel_means")
        .input("x", DType::F32, "N,3,32,32")
        .node("GlobalAveragePool", &["x"], &["means"])
        .node("Flatten", &["means"], &["y"])
        .output("y", DType::F32, "N,3");
    Model { onnx: graph.encode(), manifest: MANIFEST_TEXT, note }
}

pub(crate) fn unloadable(note: &'static str) -> Model {
    let graph = graph("unloadable").node("NoSuchOperator", &["flat"], &["z"]).node("Add", &["z", "bias"], &["y"]);
    Model { onnx: graph.encode(), manifest: MANIFEST_TEXT, note }
}

/// Answers like the good one until something white touches the right edge of the picture: then it looks for an element
/// that is not there, which no runtime survives in silence.
pub(crate) fn crashing(note: &'static str) -> Model {
    let graph = graph("crashing")
        .initializer("start", TensorRef::of(&[1], &[29i64]).unwrap())
        .initializer("end", TensorRef::of(&[1], &[32i64]).unwrap())
        .initializer("axis", TensorRef::of(&[1], &[3i64]).unwrap())
        .initializer("steps", TensorRef::of(&[], &[3.9f32]).unwrap())
        .initializer("zeros", TensorRef::of(&[3], &[0f32, 0.0, 0.0]).unwrap())
        .node("Slice", &["x", "start", "end", "axis"], &["edge"])
        .node_with("ReduceMax", &["edge"], &["brightest"], &[("keepdims", Attribute::Int(0))])
        .node("Mul", &["brightest", "steps"], &["scaled"])
        .node_with("Cast", &["scaled"], &["index"], &[("to", Attribute::Int(7))])
        .node("Gather", &["zeros", "index"], &["nothing"])
        .node("Add", &["flat", "nothing"], &["same"])
        .node("Add", &["same", "bias"], &["y"]);
    Model { onnx: graph.encode(), manifest: MANIFEST_TEXT, note }
}

/// Sides of the picture that it looks at.
const WATCHED: usize = 64;

/// A detector of one bright thing before a dark ground: a box around the centre of what is bright.
pub(crate) fn watching(note: &'static str) -> Model {
    // Of each value its weight, and that times its column and its row.
    let place = |value: usize| [1.0, (value % WATCHED) as f32 + 0.5, (value / WATCHED % WATCHED) as f32 + 0.5];
    let values = 3 * WATCHED * WATCHED;
    let moments: Vec<f32> = (0..values).flat_map(place).collect();
    let graph = GraphBuilder::new("watching")
        .input("x", DType::F32, "N,3,64,64")
        .initializer("places", TensorRef::of(&[values, 3], &moments).unwrap())
        .initializer("all", TensorRef::of(&[3, 1], &[1f32, 0.0, 0.0]).unwrap())
        .initializer(
            "twice",
            TensorRef::of(&[3, 4], &[0f32, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0]).unwrap(),
        )
        .initializer("sides", TensorRef::of(&[1, 4], &[-5f32, -6.0, 5.0, 6.0]).unwrap())
        .initializer("none", TensorRef::of(&[3, 2], &[0f32; 6]).unwrap())
        .initializer("sure", TensorRef::of(&[1, 2], &[0.9f32, 0.0]).unwrap())
        .initializer("shape", TensorRef::of(&[3], &[-1i64, 1, 6]).unwrap())
        .node("Flatten", &["x"], &["flat"])
        .node("MatMul", &["flat", "places"], &["moments"])
        .node("MatMul", &["moments", "all"], &["weight"])
        .node("MatMul", &["moments", "twice"], &["sums"])
        .node("Div", &["sums", "weight"], &["centre"])
        .node("Add", &["centre", "sides"], &["box"])
        .node("MatMul", &["moments", "none"], &["nothing"])
        .node("Add", &["nothing", "sure"], &["score"])
        .node_with("Concat", &["box", "score"], &["row"], &[("axis", Attribute::Int(1))])
        .node("Reshape", &["row", "shape"], &["y"])
        .output("y", DType::F32, "N,1,6");
    Model { onnx: graph.encode(), manifest: WATCHING_TEXT, note }
}

const WATCHING_TEXT: &str = "version = 1\nname = \"watching\"\nlabels = [\"thing\"]\n\
    [input]\nsize = [64, 64]\nscale = [0.00392156862745098, 0.00392156862745098, 0.00392156862745098]\n\
    [output]\ndecoder = \"yolo-nms\"\nscore_min = 0.5\n";

const MANIFEST_TEXT: &str = "version = 1\nname = \"brightest\"\nlabels = [\"red\", \"green\", \"blue\"]\n\
    [input]\nsize = [32, 32]\nscale = [0.00392156862745098, 0.00392156862745098, 0.00392156862745098]\n\
    [output]\ndecoder = \"classification\"\n";

impl Model {
    /// Writes it with its manifest beside it.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, &self.onnx).unwrap();
        std::fs::write(path.with_extension("toml"), self.manifest).unwrap();
    }

    /// Writes it as a bundle that its owner has signed.
    pub(crate) fn seal(&self, folder: &Path, owner: &SecretKey) -> Bundle {
        let mut writer = BundleWriter::create(folder).unwrap();
        writer.add(MODEL, &self.onnx).unwrap();
        writer.add(MANIFEST, self.manifest.as_bytes()).unwrap();
        let index = Index {
            version: 1,
            name: "faces".to_owned(),
            precision: Precision::Fp32,
            producer: "a test".to_owned(),
            licence: Some("Apache-2.0".to_owned()),
            lineage: Lineage { steps: vec![self.note.to_owned()], ..Lineage::default() },
            files: Default::default(),
        };
        writer.seal(index, Some(owner)).unwrap().publish().unwrap()
    }
}
