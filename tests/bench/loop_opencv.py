"""The loop that people write: OpenCV reads and converts the video, onnxruntime runs the model.

    loop_opencv.py classify|detect MODEL CLIP THREADS

Its clock runs from the first decoded frame to the last result, as that of `revoada run` does: neither counts
the loading of libraries and of the model. The answers are left as tensors; ours are decoded as well.
"""

import json
import sys
import time

import cv2
import numpy as np
import onnxruntime

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
SCALE = np.array([1 / 58.395, 1 / 57.12, 1 / 57.375], np.float32)


def classifier_input(frame):
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    rgb = cv2.cvtColor(frame[top : top + side, left : left + side], cv2.COLOR_BGR2RGB)
    resized = cv2.resize(rgb, (224, 224)).astype(np.float32)
    return np.ascontiguousarray(((resized - MEAN) * SCALE).transpose(2, 0, 1)[None])


def detector_input(frame):
    rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    resized = cv2.resize(rgb, (640, 640)).astype(np.float32)
    return np.ascontiguousarray(resized.transpose(2, 0, 1)[None])


def main(kind, model, clip, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    prepare = {"classify": classifier_input, "detect": detector_input}[kind]
    video = cv2.VideoCapture(clip)
    frames = 0
    there, frame = video.read()
    started = time.perf_counter()
    while there:
        session.run(None, {name: prepare(frame)})
        frames += 1
        there, frame = video.read()
    print(json.dumps({"frames": frames, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
