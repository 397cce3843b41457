"""Compares staging with OpenCV on one thread, in turn, and prints medians and the fastest of all.

Usage: stage_opencv.py STAGE_BENCH [--rounds N] [--json]

STAGE_BENCH is the program built by
`cargo build --release -p revoada-engine --example stage_bench`. Each round runs it and then
OpenCV, so that whatever else the machine does meets both alike; where much does, the fastest
repetition says more than the median.

OpenCV is measured in two forms: the three calls that people write, with
`cv2.dnn.blobFromImage` as the last (`blob`), and the fastest that we know how to write with
OpenCV and numpy, into buffers made beforehand (`reuse`). Factors are against the second.
"""

import argparse
import json
import statistics
import subprocess
import time

import cv2
import numpy as np

REPETITIONS = 30
SCALE = np.float32(1 / 255)


class Case:
    """One picture, one network input; buffers are kept from call to call."""

    def __init__(self, pixel_format: str, width: int, height: int, side: int, fit: str) -> None:
        shape = (height * 3 // 2, width) if pixel_format == "nv12" else (height, width, 3)
        self.source = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        self.is_yuv = pixel_format == "nv12"
        self.side = side
        ratio = min(side / width, side / height)
        inner = (int(width * ratio + 1e-6), int(height * ratio + 1e-6)) if fit == "letterbox" else (side, side)
        self.inner = inner
        left, top = (side - inner[0]) // 2, (side - inner[1]) // 2
        self.border = (top, side - inner[1] - top, left, side - inner[0] - left)
        self.rgb = np.empty((height, width, 3), np.uint8)
        self.resized = np.empty((inner[1], inner[0], 3), np.uint8)
        self.padded = np.empty((side, side, 3), np.uint8)
        self.planes = [np.empty((side, side), np.uint8) for _ in range(3)]
        self.tensor = np.empty((1, 3, side, side), np.float32)

    def blob(self) -> np.ndarray:
        rgb = cv2.cvtColor(self.source, cv2.COLOR_YUV2RGB_NV12) if self.is_yuv else self.source
        rgb = cv2.resize(rgb, self.inner)
        if any(self.border):
            rgb = cv2.copyMakeBorder(rgb, *self.border, cv2.BORDER_CONSTANT, value=(114, 114, 114))
        return cv2.dnn.blobFromImage(rgb, 1 / 255, (self.side, self.side), (0, 0, 0), swapRB=False)

    def reuse(self) -> np.ndarray:
        rgb = cv2.cvtColor(self.source, cv2.COLOR_YUV2RGB_NV12, dst=self.rgb) if self.is_yuv else self.source
        rgb = cv2.resize(rgb, self.inner, dst=self.resized)
        if any(self.border):
            constant = cv2.BORDER_CONSTANT
            rgb = cv2.copyMakeBorder(rgb, *self.border, constant, dst=self.padded, value=(114, 114, 114))
        cv2.split(rgb, self.planes)
        for plane, channel in zip(self.planes, self.tensor[0]):
            np.multiply(plane, SCALE, out=channel)
        return self.tensor


def cases() -> dict[str, Case]:
    """By the names that `stage_bench` gives them; it has more."""
    return {
        "nv12-1080p-stretch-640-f32": Case("nv12", 1920, 1080, 640, "stretch"),
        "nv12-1080p-letterbox-640-f32": Case("nv12", 1920, 1080, 640, "letterbox"),
        "nv12-1080p-stretch-224-f32": Case("nv12", 1920, 1080, 224, "stretch"),
        "nv12-720p-letterbox-640-f32": Case("nv12", 1280, 720, 640, "letterbox"),
        "rgb-1080p-stretch-640-f32": Case("rgb", 1920, 1080, 640, "stretch"),
    }


def measure(work) -> list[float]:
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage_bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    opencv = cases()
    for case in opencv.values():
        assert np.allclose(case.blob(), case.reuse(), atol=1e-6), "both forms compute the same"
    times: dict[str, dict[str, list[float]]] = {}
    moved: dict[str, int] = {}
    for _ in range(arguments.rounds):
        command = [arguments.stage_bench, str(REPETITIONS)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        for line in map(json.loads, lines.splitlines()):
            known = times.setdefault(line["case"], {"stage": [], "copy": [], "blob": [], "reuse": []})
            known["stage"] += line["stage_ms"]
            known["copy"] += line["copy_ms"]
            moved[line["case"]] = line["bytes_moved"]
        for name, case in opencv.items():
            times[name]["blob"] += measure(case.blob)
            times[name]["reuse"] += measure(case.reuse)

    results = []
    for name, known in times.items():
        for statistic, of in (("median", statistics.median), ("fastest", min)):
            stage, copy = of(known["stage"]), of(known["copy"])
            result = {
                "case": name,
                "statistic": statistic,
                "stage_ms": stage,
                "stage_gb_per_s": moved[name] / stage / 1e6,
                "copy_gb_per_s": moved[name] / copy / 1e6,
            }
            if known["blob"]:
                result["opencv_blob_ms"], result["opencv_reuse_ms"] = of(known["blob"]), of(known["reuse"])
                result["times_as_fast"] = result["opencv_reuse_ms"] / stage
            results.append(result)

    if arguments.json:
        print(json.dumps({"opencv": cv2.__version__, "numpy": np.__version__, "results": results}))
        return
    print(f"OpenCV {cv2.__version__}, numpy {np.__version__}, one thread, {arguments.rounds * REPETITIONS} repetitions")
    header = ("case", "", "stage ms", "GB/s", "copy GB/s", "blob ms", "reuse ms", "factor")
    print("{:31} {:>7} {:>9} {:>6} {:>9} {:>8} {:>8} {:>7}".format(*header))
    for result in results:
        line = "{case:31} {statistic:>7} {stage_ms:9.3f} {stage_gb_per_s:6.1f} {copy_gb_per_s:9.1f}".format(**result)
        if "times_as_fast" in result:
            line += " {opencv_blob_ms:8.2f} {opencv_reuse_ms:8.2f} {times_as_fast:6.1f}×".format(**result)
        print(line)


if __name__ == "__main__":
    main()
