"""The plan of a model by `revoada build`, against a bare TensorRT loader that compiles the same graph.

Run by `cargo xtask bench plan`, from the root of the repository. Rounds are interleaved and medians shown. What
is compared is everything from a converted graph to a plan in its file: for revoada that includes the child
process, the envelope, its signature and the cache.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7
LIBRARIES = Path(".cache/lib").resolve()
HEADERS = Path(".cache/tensorrt-headers/TRT-RTX-1.7").resolve()
PROGRAM = Path("target/release/revoada").resolve()
CAPABILITY = 86
MODELS = [
    ("EfficientNet-Lite0", Path(".cache/models/efficientnet-lite0.onnx"), "1x3x224x224"),
    ("CenterFace 640×640", Path(".cache/models/centerface.onnx"), "1x3x640x640"),
]


def build(folder, model, name):
    """One `revoada build`; what it says of the plan, and the bundle."""
    home = {"HOME": str(folder), "REVOADA_ONNXRUNTIME": str(LIBRARIES / "libonnxruntime.so")}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("REVOADA_", "XDG_"))}
    words = [PROGRAM, "--log", "error", "build", model, "--target", f"sm_{CAPABILITY}", "--tensorrt", LIBRARIES]
    words += ["--output", folder / name, "--json"]
    told = subprocess.run(words, env=environment | home, stdout=subprocess.PIPE, check=True)
    return json.loads(told.stdout)["plan"], folder / name


def bare(loader, folder, bundle, shape):
    """One run of the loader: milliseconds of the process, and of TensorRT in it."""
    plan = folder / "bare.plan"
    name = first_input(bundle / "model.onnx")
    started = time.perf_counter()
    words = [loader, LIBRARIES, bundle / "model.onnx", plan, str(CAPABILITY), name, shape]
    told = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    return (time.perf_counter() - started) * 1e3, float(told.stdout)


def first_input(model):
    told = subprocess.run([PROGRAM, "--log", "off", "inspect", model, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(told.stdout)["summary"]["inputs"][0]["name"]


def main():
    if not (LIBRARIES / "libtensorrt_rtx.so.1").exists() or not HEADERS.exists():
        sys.exit("TensorRT for RTX or its headers are not in `.cache`: set-up has them for x86-64 and aarch64 only")
    print(f"from a converted graph to a plan for sm_{CAPABILITY}, medians of {ROUNDS} interleaved rounds\n")
    print("| model | bare loader | of it TensorRT | revoada | of it TensorRT | ratio | from the cache |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        loader = scratch / "bare_tensorrt"
        compiler = ["g++", "-O2", "-std=c++17", "-Wno-deprecated-declarations", "-I", HEADERS, "-I", "runtime/tensorrt/shim/cuda"]
        subprocess.run([*compiler, "tests/bench/bare_tensorrt.cpp", "-ldl", "-o", loader], check=True)
        for name, model, shape in MODELS:
            ours, ours_inside, theirs, theirs_inside, cached = [], [], [], [], []
            for round_index in range(ROUNDS):
                # A home of its own has an empty cache.
                folder = scratch / f"{model.stem}-{round_index}"
                folder.mkdir()
                plan, bundle = build(folder, model, "a.bundle")
                assert not plan["cached"], "the cache of this round was empty"
                ours.append(plan["plan_ms"])
                ours_inside.append(plan["compile_ms"])
                process, inside = bare(loader, folder, bundle, shape)
                theirs.append(process)
                theirs_inside.append(inside)
                plan, _ = build(folder, model, "b.bundle")
                assert plan["cached"], "the same plan is in the cache"
                cached.append(plan["plan_ms"])
            medians = [statistics.median(times) for times in (theirs, theirs_inside, ours, ours_inside)]
            cells = " | ".join(f"{milliseconds:.0f} ms" for milliseconds in medians)
            ratio = medians[2] / medians[0]
            print(f"| {name} | {cells} | {ratio:.2f} | {statistics.median(cached):.0f} ms |", flush=True)


main()
