"""Conversion to FP16 and INT8: `revoada build` beside onnxconverter-common and onnxruntime.quantization.

    quantise.py [--program REVOADA] [--json] [--only classifier|detector]

Started by `cargo xtask bench quantise`, from the root of the repository. The rule, made before anything was measured:

- Photographs in colour count, of things as a lens sees them, one of each scene; no drawings, paintings, renderings,
  scans, grey or deliberately blurred pictures.
- INT8 is calibrated on the photographs of scikit-image, Orange, HoloViews and imgaug, each whole and as two corners of
  three quarters of its sides; agreement is judged on those of Foolbox (out of ImageNet) and of OpenCV's samples, each
  whole and as its middle three quarters. The two share no photograph.
- All are shown; none is left out for how a model answers.

Both sides' models are then run on the same tensors by onnxruntime with graph optimisations off, so that models are
compared and not kernels. Its CPU kernel of QuantizeLinear for f16 (1.23) cuts levels off where ONNX rounds them, so
that it quantises from f32 here.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

sys.path.insert(0, "tests/python")
import reference  # noqa: E402

CACHE = Path(".cache").resolve()
LIBRARY = CACHE / "lib/libonnxruntime.so"
CALIBRATION = [CACHE / "pictures", CACHE / "photographs/calibration"]
EVALUATION = [CACHE / "photographs/evaluation", CACHE / "photographs/opencv"]
CLASSIFIER = CACHE / "models/efficientnet-lite0.onnx"
DETECTOR = CACHE / "models/centerface.onnx"
# Of the classifier: what it reads has three channels, and eight bits of them cost more than any other activation.
FIRST_LAYER = "stem.conv"
# A second apart, and the man's face is in each.
CLIP = CACHE / "clips/carphone_pristine.mp4"
CLIP_FRAMES = [0, 30, 60, 90, 119]
# What `revoada build` itself compares on: little, since the other side does not compare at all.
GATE_PICTURES = 4
IOU_MIN = 0.5


def photographs(folders):
    return sorted(path for folder in folders for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def crops(picture, kinds):
    height, width = picture.shape[:2]
    side = min(height, width) * 3 // 4
    top, left = (height - side) // 2, (width - side) // 2
    made = {
        "whole": picture,
        "middle": picture[top : top + side, left : left + side],
        "first": picture[:side, :side],
        "last": picture[height - side :, width - side :],
    }
    return [made[kind] for kind in kinds]


def write(folder, pictures):
    folder.mkdir()
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{index:04}.png"), picture)
    return folder


def measured(*command):
    """Seconds and peak MiB of a child process, and what it printed."""
    started = time.perf_counter()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("REVOADA_", "XDG_"))}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
        )
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            errors.seek(0)
            sys.exit(f"`{' '.join(map(str, command))}` ended with {child.returncode}:\n{errors.read()}")
    return {"seconds": time.perf_counter() - started, "mib": usage.ru_maxrss / 1024, "output": output}


def ours(program, folder, model, precision, *options):
    bundle = Path(tempfile.mkdtemp(dir=folder)) / f"{model.stem}-{precision}.bundle"
    key = folder / "owner.pem"
    if not key.exists():
        measured(program, "key", "--new", key)
    words = ["--log", "warn", "--onnxruntime", LIBRARY, "build", model, "--precision", precision, "--target", "none"]
    # The gate is wide open: what is asked for here is the model, however good it is.
    words += ["--cosine-min", "0", "--key", key, "--output", bundle, "--json", *options]
    built = measured(program, *words)
    accuracy = json.loads(built["output"])["accuracy"]
    return built | {"model": bundle / "model.onnx", "lowered": accuracy["lowered_nodes"], "kept": accuracy["kept"]}


def theirs(folder, model, precision, kind, *calibration):
    target = folder / f"{model.stem}-{precision}-theirs.onnx"
    return measured(sys.executable, "-B", __file__, "--convert", precision, kind, model, target, *calibration) | {
        "model": target
    }


def convert(precision, kind, source, target, *calibration):
    """The other side, in a process of its own."""
    if precision == "fp16":
        from onnxconverter_common import float16

        onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)
        return
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    stage = staging(kind)
    name = onnx.load(source).graph.input[0].name
    staged = ({name: stage(cv2.imread(str(path)))} for path in sorted(Path(calibration[0]).iterdir()))

    class Reader(CalibrationDataReader):
        def get_next(self):
            return next(staged, None)

    prepared = f"{target}.prepared"
    # Symbolic shapes fail on CenterFace, and scales for each channel begin with operator set 13.
    model = onnx.load(source)
    if model.opset_import[0].version < 13:
        model = version_converter.convert_version(model, 13)
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )


def staging(kind):
    return reference.classifier_input if kind == "classifier" else reference.detector_input


def quantising_from_f32(model):
    """The model with what f16 it quantises widened before."""
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes, wide = [], set()
    for node in model.graph.node:
        scale = scales.get(node.input[1]) if node.op_type == "QuantizeLinear" else None
        if scale is not None and scale.data_type == TensorProto.FLOAT16:
            name = f"{scale.name}_f32"
            if name not in wide:
                wide.add(name)
                model.graph.initializer.append(
                    numpy_helper.from_array(numpy_helper.to_array(scale).astype(np.float32), name)
                )
            widened = f"{node.output[0]}_f32"
            nodes.append(helper.make_node("Cast", [node.input[0]], [widened], to=TensorProto.FLOAT))
            node.input[0], node.input[1] = widened, name
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return model


def answers(path, tensors):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    model = quantising_from_f32(onnx.load(path))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [[output.astype(np.float32) for output in session.run(None, {name: tensor})] for tensor in tensors]


def agreement(expected, found):
    expected, found = (np.concatenate([answer[0] for answer in answers]) for answers in (expected, found))
    best = expected.argmax(1)
    five = np.argsort(-found, axis=1, kind="stable")[:, :5]
    cosines = (expected * found).sum(1) / (np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1))
    return {
        "top1": float((found.argmax(1) == best).mean()),
        "top5": float((five == best[:, None]).any(1).mean()),
        "cosine": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
    }


def faces(answers):
    decoded = (reference.faces(*(output[0] for output in answer), 1, 1) for answer in answers)
    return [reference.suppress(candidates) for candidates in decoded]


def matches(expected, found):
    """Faces found in both, in the first alone and in the second alone; each pairs with the best that is left."""
    counts = {"matched": 0, "missed": 0, "added": 0, "iou": []}
    for ours, theirs in zip(expected, found, strict=True):
        left = list(theirs)
        for face in ours:
            best = max(left, key=lambda other: reference.overlap(face["box"], other["box"]), default=None)
            overlap = reference.overlap(face["box"], best["box"]) if best else 0
            if overlap >= IOU_MIN:
                left.remove(best)
                counts["matched"] += 1
                counts["iou"].append(overlap)
            else:
                counts["missed"] += 1
        counts["added"] += len(left)
    return counts | {"iou": float(np.mean(counts["iou"])) if counts["iou"] else 0.0}


def frames():
    with tempfile.TemporaryDirectory() as folder:
        reference.frames(str(CLIP), folder, CLIP_FRAMES)
        return [cv2.imread(str(path)) for path in sorted(Path(folder).iterdir())]


def measure(program, kind):
    classifies = kind == "classifier"
    model, stage = (CLASSIFIER if classifies else DETECTOR), staging(kind)
    seen, judged = photographs(CALIBRATION), photographs(EVALUATION)
    views = (("whole", "first", "last"), ("whole", "middle")) if classifies else (("whole",), ("whole",))
    seen, judged = (
        [crop for path in paths for crop in crops(cv2.imread(str(path)), kinds)]
        for paths, kinds in zip((seen, judged), views, strict=True)
    )
    judged += [] if classifies else frames()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        calibration = write(folder / "calibration", seen)
        gate = ["--evaluation", write(folder / "gate", judged[:GATE_PICTURES])]
        rows = {
            "FP16, revoada": ours(program, folder, model, "fp16", *gate),
            "FP16, onnxconverter-common": theirs(folder, model, "fp16", kind),
            "INT8, revoada": ours(program, folder, model, "int8", "--calibration", calibration, *gate),
            "INT8, onnxruntime": theirs(folder, model, "int8", kind, calibration),
        }
        if classifies:
            first = ours(program, folder, model, "int8", "--calibration", calibration, *gate, "--keep", FIRST_LAYER)
            rows["INT8 behind a first layer in FP16, revoada"] = first
        tensors = [stage(picture) for picture in judged]
        expected = answers(model, tensors)
        for row in rows.values():
            row["bytes"] = os.path.getsize(row["model"])
            found = answers(row.pop("model"), tensors)
            row |= agreement(expected, found) if classifies else matches(faces(expected), faces(found))
            row.pop("output")
    return {"model": model.stem, "calibration": len(seen), "pictures": len(judged), "rows": rows}


def show(kind, result):
    heads = ["", "s", "peak MiB", "MB"]
    heads += ["top-1", "top-5", "cosine", "least"] if kind == "classifier" else ["matched", "missed", "added", "IoU"]
    print(f"\n**{result['model']}**: {result['pictures']} pictures, INT8 calibrated on {result['calibration']} others\n")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, row in result["rows"].items():
        cells = [name, f"{row['seconds']:.1f}", f"{row['mib']:.0f}", f"{row['bytes'] / 1e6:.1f}"]
        if kind == "classifier":
            cells += [f"{row['top1']:.1%}", f"{row['top5']:.1%}", f"{row['cosine']:.4f}", f"{row['cosine_min']:.4f}"]
        else:
            cells += [str(row["matched"]), str(row["missed"]), str(row["added"]), f"{row['iou']:.3f}"]
        print(f"| {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="target/release/revoada")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["classifier", "detector"])
    parser.add_argument("--convert", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        convert(*arguments.convert)
        return
    program = Path(arguments.program).resolve()
    kinds = [arguments.only] if arguments.only else ["classifier", "detector"]
    results = {}
    for kind in kinds:
        results[kind] = measure(program, kind)
        if not arguments.json:
            show(kind, results[kind])
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
