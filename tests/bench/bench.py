"""Measures `revoada` beside what people use today, and prints tables for the README.

    bench.py [--rounds N] [python] [pipeline] [start] [streams] [latency]

Started by `cargo xtask bench`, in the root of the repository, after everything it runs was built. The programs
take turns, round after round, so that a machine that slows down slows all of them; each figure is a median.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

CLIP = ".cache/clips/bench-1080p.mp4"
LIBRARY = ".cache/lib/libonnxruntime.so"
REVOADA = "target/release/revoada"
BARE_ORT = "target/release/examples/bare_ort"
CLASSIFIER = ".cache/models/efficientnet-lite0.onnx"
CAMERA_CLIP = ".cache/clips/bench-360p.mp4"
SERVE_CLIP = "target/release/examples/serve_clip"
LATENCY_BENCH = "target/release/examples/latency_bench"
DETECTOR = ".cache/models/centerface.onnx"
PICTURE = ".cache/pictures/chelsea.png"
MODELS = [("EfficientNet-Lite0", CLASSIFIER, 224), ("CenterFace 640×640", DETECTOR, 640)]


@dataclass
class Ran:
    """What the system charged a program with, and what it printed."""

    output: str
    wall_s: float
    first_line_s: float
    cpu_s: float
    memory_mib: float


def run(*command):
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        first = child.stdout.readline()
        first_line = time.perf_counter() - started
        output = first + child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            errors.seek(0)
            sys.exit(f"`{' '.join(command)}` ended with {child.returncode}:\n{errors.read()}")
    return Ran(output, wall, first_line, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def revoada(*arguments):
    return run(REVOADA, "--onnxruntime", LIBRARY, "--log", "warn", *arguments)


def pipeline(model, *options):
    return revoada("run", "--source", CLIP, "--model", model, "--no-output", "--json", *options)


def loop(kind, model, threads):
    return run(sys.executable, "-B", "tests/bench/loop_opencv.py", kind, model, CLIP, str(threads))


def decode_alone():
    chain = ["filesrc", f"location={CLIP}", "!", "decodebin", "!", "fakesink", "sync=false"]
    return run("gst-launch-1.0", "--quiet", *chain)


def bare_inference(model, threads, count, side):
    return run(BARE_ORT, LIBRARY, model, str(threads), str(count), str(side), str(side))


def interleave(rounds, programs):
    """Runs each program once a round; the results of each, round by round."""
    results = {name: [] for name in programs}
    for index in range(rounds):
        for name, program in programs.items():
            print(f"round {index + 1} of {rounds}: {name}", file=sys.stderr)
            results[name].append(program())
    return results


def median(values):
    return statistics.median(values)


def fps(ran):
    report = json.loads(ran.output)
    if "fps" in report:
        return report["fps"]
    return report["frames"] / report["seconds"]


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def against_python(rounds):
    print("**Against the loop in Python** (OpenCV, onnxruntime; 1080p H.264)\n")
    rows = []
    for name, model, _ in MODELS:
        kind = "classify" if model == CLASSIFIER else "detect"
        results = interleave(
            rounds,
            {
                "python, 1 thread": lambda: loop(kind, model, 1),
                "revoada": lambda: pipeline(model),
                "python, 2 threads": lambda: loop(kind, model, 2),
            },
        )
        rates = {program: median(map(fps, runs)) for program, runs in results.items()}
        better = max((program for program in rates if program != "revoada"), key=rates.get)
        memory = {program: median(ran.memory_mib for ran in results[program]) for program in ("revoada", better)}
        rows.append(
            [
                name,
                f"{rates[better]:.1f} ({better.removeprefix('python, ')})",
                f"{rates['revoada']:.1f}",
                f"{rates['revoada'] / rates[better]:.2f}",
                f"{memory[better]:.0f}",
                f"{memory['revoada']:.0f}",
                f"{memory['revoada'] / memory[better]:.2f}",
            ]
        )
    table(["model", "Python, frames/s", "revoada, frames/s", "ratio", "Python, MiB", "revoada, MiB", "ratio"], rows)


def overhead(rounds):
    print("**Processor time of the whole pipeline** (nothing written)\n")
    count = json.loads(pipeline(CLASSIFIER).output)["frames_out"]
    rows = []
    for name, model, side in MODELS:
        for threads in (1, 2):
            results = interleave(
                rounds,
                {
                    "pipeline": lambda: pipeline(model, "--threads", str(threads)),
                    "decoding": decode_alone,
                    "inference": lambda: bare_inference(model, threads, count, side),
                },
            )
            cpu = {program: median(ran.cpu_s for ran in runs) for program, runs in results.items()}
            parts = cpu["decoding"] + cpu["inference"]
            latency = json.loads(results["pipeline"][-1].output)["latency"]
            rows.append(
                [
                    name,
                    str(threads),
                    str(count),
                    f"{cpu['pipeline']:.2f} s",
                    f"{cpu['decoding']:.2f} s",
                    f"{cpu['inference']:.2f} s",
                    f"{cpu['pipeline'] / parts:.3f}",
                    f"{latency['staging']['p50_ms']:.2f} ms",
                    f"{latency['inference']['p50_ms']:.2f} ms",
                ]
            )
    table(
        ["model", "threads", "frames", "pipeline", "decode alone", "bare inference", "ratio", "staging", "inference"],
        rows,
    )


def start(rounds):
    print("**From start to the first result, and size**\n")
    results = interleave(
        max(rounds, 5),
        {
            "classify": lambda: revoada("classify", "--json", "--model", CLASSIFIER, PICTURE),
            "video": lambda: pipeline(DETECTOR, "--frames", "1"),
        },
    )
    table(
        ["", ""],
        [
            ["EfficientNet-Lite0 names a picture", f"{median(ran.first_line_s for ran in results['classify']) * 1e3:.0f} ms"],
            ["CenterFace, first frame of the clip", f"{median(ran.first_line_s for ran in results['video']) * 1e3:.0f} ms"],
            ["peak memory of the first", f"{median(ran.memory_mib for ran in results['classify']):.0f} MiB"],
            ["the program", f"{os.path.getsize(REVOADA) / 2**20:.1f} MiB"],
        ],
    )


def cameras(count, seconds):
    """So many cameras of 360p at 5 frames a second, each watched for so long."""
    server = subprocess.Popen([SERVE_CLIP, CAMERA_CLIP, str(count)], stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        sources = [word for camera in range(count) for word in ("--source", f"{address}{camera}")]
        options = ["--model", CLASSIFIER, "--batch", "4", "--frames", str(seconds * 5), "--no-output", "--json"]
        return revoada("run", *sources, *options)
    finally:
        server.kill()
        server.wait()


def streams(rounds):
    print("**Many cameras** (RTSP, 360p H.264 at 5 frames/s each, EfficientNet-Lite0 on every frame)\n")
    results = interleave(rounds, {count: lambda count=count: cameras(count, 60) for count in (1, 16)})
    rows = []
    for count, runs in results.items():
        summaries = [json.loads(ran.output) for ran in runs]
        memory = median(ran.memory_mib for ran in runs)
        cores = median(ran.cpu_s / summary["elapsed_s"] for ran, summary in zip(runs, summaries))
        rows.append(
            [
                str(count),
                str(median(summary["frames_out"] for summary in summaries)),
                str(max(summary["frames_dropped"] for summary in summaries)),
                f"{cores:.2f}",
                f"{cores / count * 100:.1f} %",
                f"{memory:.0f}",
                f"{median(summary['latency']['total']['p50_ms'] for summary in summaries):.1f} ms",
                f"{median(summary['latency']['total']['p99_ms'] for summary in summaries):.1f} ms",
            ]
        )
    head = ["cameras", "frames", "dropped", "cores", "of a core each", "MiB", "decoded to told, median", "p99"]
    table(head, rows)
    one, many = (median(ran.memory_mib for ran in results[count]) for count in (1, 16))
    print(f"Each further camera takes {(many - one) / 15:.1f} MiB.\n")


def latency(rounds):
    print("**From a picture to its results** (RTSP, 360p H.264 at 25 frames/s, encoding and sending included)\n")
    rows = json.loads(run(LATENCY_BENCH, LIBRARY, CLASSIFIER, str(rounds)).output)
    both = {reader: [row for row in rows if row["reader"] == reader] for reader in ("gstreamer", "revoada")}
    figures = {
        reader: [median(row[key] for row in runs) for key in ("p50_ms", "p99_ms")] for reader, runs in both.items()
    }
    names = {"gstreamer": "plain GStreamer, decoded", "revoada": "revoada, EfficientNet-Lite0, told"}
    table(
        ["", "median", "p99"],
        [[names[reader], *(f"{figure:.1f} ms" for figure in figures[reader])] for reader in names],
    )
    inference = median(row["inference_p50_ms"] for row in both["revoada"])
    staging = median(row["staging_p50_ms"] for row in both["revoada"])
    print(f"Of it inference {inference:.1f} ms and staging {staging:.1f} ms.\n")


def machine():
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {system}, Python {platform.python_version()}"


if __name__ == "__main__":
    parts = {"python": against_python, "pipeline": overhead, "start": start, "streams": streams, "latency": latency}
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("parts", nargs="*", default=[])
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"there is no benchmark `{unknown.pop()}`; there are {', '.join(parts)}")
    print(f"Measured on {machine()}; medians of {arguments.rounds} interleaved rounds.\n")
    for name in arguments.parts or parts:
        parts[name](arguments.rounds)
