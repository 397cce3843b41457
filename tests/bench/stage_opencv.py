"""Compares staging with OpenCV and numpy on one thread, in turn, and prints medians.

Usage: stage_opencv.py STAGE_BENCH [--rounds N] [--json]

STAGE_BENCH is the program built by
`cargo build --release -p revoada-engine --example stage_bench`. Each round runs it and then
OpenCV, so that whatever else the machine does meets both alike.

OpenCV is measured in the two forms people write: with `cv2.dnn.blobFromImage`, and with numpy
in its place where that is faster. The comparison is with the faster of both.
"""

import argparse
import json
import statistics
import subprocess
import time

import cv2
import numpy as np

REPETITIONS = 30


def blob(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    return cv2.dnn.blobFromImage(rgb, 1 / 255, (width, height), (0, 0, 0), swapRB=False)


def with_numpy(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((rgb.astype(np.float32) * np.float32(1 / 255)).transpose(2, 0, 1))[None]


def letterbox(rgb: np.ndarray, side: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    ratio = min(side / width, side / height)
    inner_width, inner_height = int(width * ratio + 1e-6), int(height * ratio + 1e-6)
    left, top = (side - inner_width) // 2, (side - inner_height) // 2
    resized = cv2.resize(rgb, (inner_width, inner_height))
    right, bottom = side - inner_width - left, side - inner_height - top
    return cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def picture(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def cases() -> dict:
    """What is measured, by the names that `stage_bench` gives; without the last step."""
    full_hd, hd = picture((1620, 1920)), picture((1080, 1280))
    packed = picture((1080, 1920, 3))

    def rgb(nv12: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12)

    return {
        "nv12-1080p-stretch-640-f32": lambda: cv2.resize(rgb(full_hd), (640, 640)),
        "nv12-1080p-letterbox-640-f32": lambda: letterbox(rgb(full_hd), 640),
        "nv12-1080p-stretch-224-f32": lambda: cv2.resize(rgb(full_hd), (224, 224)),
        "nv12-720p-letterbox-640-f32": lambda: letterbox(rgb(hd), 640),
        "rgb-1080p-stretch-640-f32": lambda: cv2.resize(packed, (640, 640)),
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
    stage: dict[str, dict] = {}
    opencv: dict[str, dict[str, list[float]]] = {}
    for _ in range(arguments.rounds):
        command = [arguments.stage_bench, str(REPETITIONS)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        for line in map(json.loads, lines.splitlines()):
            known = stage.setdefault(line["case"], {"stage_ms": [], "copy_ms": [], "bytes_moved": line["bytes_moved"]})
            known["stage_ms"] += line["stage_ms"]
            known["copy_ms"] += line["copy_ms"]
        for name, resized in cases().items():
            known_times = opencv.setdefault(name, {"blob": [], "numpy": []})
            known_times["blob"] += measure(lambda resized=resized: blob(resized()))
            known_times["numpy"] += measure(lambda resized=resized: with_numpy(resized()))

    results = []
    for name, times in stage.items():
        stage_ms, copy_ms = statistics.median(times["stage_ms"]), statistics.median(times["copy_ms"])
        result = {
            "case": name,
            "stage_ms": stage_ms,
            "stage_gb_per_s": times["bytes_moved"] / stage_ms / 1e6,
            "copy_gb_per_s": times["bytes_moved"] / copy_ms / 1e6,
        }
        if name in opencv:
            result["opencv_blob_ms"] = statistics.median(opencv[name]["blob"])
            result["opencv_numpy_ms"] = statistics.median(opencv[name]["numpy"])
            result["times_as_fast"] = min(result["opencv_blob_ms"], result["opencv_numpy_ms"]) / stage_ms
        results.append(result)

    if arguments.json:
        print(json.dumps({"opencv": cv2.__version__, "numpy": np.__version__, "results": results}))
        return
    print(f"OpenCV {cv2.__version__}, numpy {np.__version__}, one thread, medians of {arguments.rounds * REPETITIONS}")
    header = ("case", "stage ms", "GB/s", "copy GB/s", "cv2+blob ms", "cv2+numpy ms", "faster by")
    print("{:32} {:>9} {:>6} {:>10} {:>12} {:>13} {:>10}".format(*header))
    for result in results:
        line = "{case:32} {stage_ms:9.3f} {stage_gb_per_s:6.1f} {copy_gb_per_s:10.1f}".format(**result)
        if "times_as_fast" in result:
            line += " {opencv_blob_ms:12.2f} {opencv_numpy_ms:13.2f} {times_as_fast:9.1f}×".format(**result)
        print(line)


if __name__ == "__main__":
    main()
