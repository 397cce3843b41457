"""`revoada bench` against a bare loop of enqueues, and staging against the device's own copies.

Run by `cargo xtask bench gpu`, from the root of the repository, on a machine with a GPU and TensorRT 10 or 11; where
either is missing it says so. Rounds are interleaved and medians shown.
"""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 5
SECONDS = 3
PROGRAM = Path("target/release/revoada").resolve()
STAGING = Path("target/release/examples/stage_cuda").resolve()
HEADERS = {10: ".cache/tensorrt-headers/TRT-Enterprise-10.16", 11: ".cache/tensorrt-headers/TRT-Enterprise-11.4"}
MODELS = [
    ("EfficientNet-Lite0", Path(".cache/models/efficientnet-lite0.onnx"), "1x3x224x224"),
    ("CenterFace 640×640", Path(".cache/models/centerface.onnx"), "1x3x640x640"),
]
COPY_BYTES = 256 << 20
MAGIC = b"REVOADA PLAN\n"


def skip(why):
    print(f"skipped: gpu: {why}")
    sys.exit(0)


def driver():
    """The CUDA driver with a device."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        skip(f"there is no NVIDIA driver ({error})")
    if code := cuda.cuInit(0):
        skip(f"`cuInit` failed with {code}")
    return cuda


def tensorrt():
    """TensorRT's library by its path, and its major version."""
    names = [f"libnvinfer.so.{major}" for major in HEADERS]
    folder = os.environ.get("REVOADA_TENSORRT")
    for name in names:
        path = str(Path(folder) / name) if folder else name
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        version = library.getInferLibVersion()
        return path, version // 10000 if version >= 10000 else version // 1000
    skip("there is no TensorRT 10 or 11")


def copy_speed(cuda):
    """GB/s of a copy on the device, bytes read and bytes written together as staging counts them."""

    def call(name, *arguments):
        if code := getattr(cuda, name)(*arguments):
            sys.exit(f"`{name}` failed with {code}")

    context, source, target = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_uint64()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", ctypes.byref(source), ctypes.c_size_t(COPY_BYTES))
    call("cuMemAlloc_v2", ctypes.byref(target), ctypes.c_size_t(COPY_BYTES))
    started, ended, took = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
    call("cuEventCreate", ctypes.byref(started), 0)
    call("cuEventCreate", ctypes.byref(ended), 0)
    speeds = []
    for _ in range(20):
        call("cuEventRecord", started, None)
        call("cuMemcpyDtoDAsync_v2", target, source, ctypes.c_size_t(COPY_BYTES), None)
        call("cuEventRecord", ended, None)
        call("cuEventSynchronize", ended)
        call("cuEventElapsedTime", ctypes.byref(took), started, ended)
        speeds.append(2 * COPY_BYTES / took.value / 1e6)
    call("cuMemFree_v2", source)
    call("cuMemFree_v2", target)
    return statistics.median(speeds)


def output(*words):
    return subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout


def payload(plan):
    """What TensorRT serialised, out of its envelope: magic, the lengths of two texts, and those."""
    file = plan.read_bytes()
    lengths_start = len(MAGIC)
    lengths = [int.from_bytes(file[start : start + 4], "little") for start in (lengths_start, lengths_start + 4)]
    return file[lengths_start + 8 + sum(lengths) :]


def against_bare_loop(scratch, library, major):
    loader = scratch / "bare_enqueue"
    compiler = ["g++", "-O2", "-std=c++17", "-Wno-deprecated-declarations", "-I", HEADERS[major]]
    compiler += ["-I", "runtime/tensorrt/shim/cuda", "tests/bench/bare_enqueue.cpp", "-ldl", "-o", loader]
    subprocess.run(compiler, check=True)
    print(f"**Throughput over a bare loop of `enqueueV3`** (FP16, two in flight, medians of {ROUNDS} rounds)\n")
    print("| model | bare loop, inferences/s | revoada | ratio |")
    print("|---|---|---|---|")
    for name, model, shape in MODELS:
        bundle, plan, engine = (scratch / f"{model.stem}.{kind}" for kind in ("bundle", "plan", "engine"))
        profile = f"{first_input(model)}={shape}"
        output(PROGRAM, "--log", "error", "build", model, "--target", "local", "--profile", profile, "--output", bundle, "--plan", plan)
        engine.write_bytes(payload(plan))
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare.append(float(output(loader, library, engine, str(SECONDS))))
            words = ["--no-transfers", "--sessions", "2", "--duration", str(SECONDS), "--json"]
            told = json.loads(output(PROGRAM, "--log", "error", "bench", plan, *words))
            ours.append(told["results"][0]["inferences_per_s"])
        ratio = statistics.median(ours) / statistics.median(bare)
        print(f"| {name} | {statistics.median(bare):.1f} | {statistics.median(ours):.1f} | {ratio:.3f} |", flush=True)
    print()


def first_input(model):
    return json.loads(output(PROGRAM, "--log", "off", "inspect", model, "--json"))["summary"]["inputs"][0]["name"]


def staging(cuda):
    told = output(STAGING).splitlines()
    if told and told[0].startswith("skipped"):
        print(told[0])
        return
    speed = copy_speed(cuda)
    print(f"**Staging on the GPU**, bytes read and written; the device copies {speed:.0f} GB/s\n")
    print("| case | GB/s | of a copy |")
    print("|---|---|---|")
    for case in map(json.loads, told):
        rate = case["bytes"] / statistics.median(case["ms"]) / 1e6
        print(f"| {case['case']} | {rate:.0f} | {rate / speed:.2f} |")


def main():
    cuda = driver()
    library, major = tensorrt()
    with tempfile.TemporaryDirectory() as scratch:
        against_bare_loop(Path(scratch), library, major)
    staging(cuda)


main()
