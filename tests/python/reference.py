"""What a plain script with OpenCV and onnxruntime finds in pictures: the measure of our accuracy.

    reference.py classify MODEL PICTURE...    EfficientNet-Lite0: the five best classes of each
    reference.py detect MODEL PICTURE...      CenterFace at 640x640: boxes and landmarks
    reference.py frames CLIP FOLDER INDEX...  writes frames of a clip as PNG, pictures like any other

One JSON object per picture on standard output. Nothing here comes from the Rust code: the preprocessing is
OpenCV's and the decoding follows the models' own publications.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

# ImageNet's, in units of 0 to 1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

FACE_INPUT = 640
FACE_STRIDE = 4
FACE_SCORE_MIN = 0.5
FACE_IOU_MAX = 0.3


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def classifier_input(picture):
    height, width = picture.shape[:2]
    side = min(height, width)
    # The middle square as `resize` would take it, but at its exact place: an odd margin is half a pixel off whole
    # ones, and that alone moves a score by 0.03.
    scale = side / 224
    left, top = (width - side) / 2, (height - side) / 2
    inverse = np.array([[scale, 0, left + scale / 2 - 0.5], [0, scale, top + scale / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    square = cv2.warpAffine(picture, inverse, (224, 224), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    rgb = cv2.cvtColor(square, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
    return ((rgb - MEAN) / DEVIATION).transpose(2, 0, 1)[None]


def classify(model, paths):
    network = session(model)
    for path in paths:
        logits = network.run(None, {"input": classifier_input(cv2.imread(path))})[0][0].astype(np.float64)
        exponents = np.exp(logits - logits.max())
        scores = exponents / exponents.sum()
        best = np.argsort(-scores, kind="stable")[:5]
        yield [{"class": int(index), "score": float(scores[index])} for index in best]


def detector_input(picture):
    resized = cv2.resize(picture, (FACE_INPUT, FACE_INPUT), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).astype(np.float32).transpose(2, 0, 1)[None]


def detect(model, paths):
    network = session(model)
    for path in paths:
        picture = cv2.imread(path)
        height, width = picture.shape[:2]
        outputs = network.run(["537", "538", "539", "540"], {"input.1": detector_input(picture)})
        yield suppress(faces(*(output[0] for output in outputs), width / FACE_INPUT, height / FACE_INPUT))


def faces(heat, size, offset, landmarks, scale_x, scale_y):
    """Each cell of the heat map above the threshold is a face; pairs of channels are y, x."""
    for row, column in zip(*np.nonzero(heat[0] >= FACE_SCORE_MIN)):
        box_height, box_width = np.exp(size[:, row, column].astype(np.float64)) * FACE_STRIDE
        center_y = (row + offset[0, row, column] + 0.5) * FACE_STRIDE
        center_x = (column + offset[1, row, column] + 0.5) * FACE_STRIDE
        left, top = center_x - box_width / 2, center_y - box_height / 2
        points = landmarks[:, row, column].reshape(5, 2)
        yield {
            "score": float(heat[0, row, column]),
            "box": [left * scale_x, top * scale_y, box_width * scale_x, box_height * scale_y],
            "landmarks": [[(left + x * box_width) * scale_x, (top + y * box_height) * scale_y] for y, x in points],
        }


def suppress(candidates):
    candidates = sorted(candidates, key=lambda face: -face["score"])
    kept = []
    for face in candidates:
        if all(overlap(face["box"], other["box"]) <= FACE_IOU_MAX for other in kept):
            kept.append(face)
    return kept


def overlap(one, other):
    """Intersection over union."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def frames(clip, folder, indices):
    video = cv2.VideoCapture(clip)
    wanted = {int(index) for index in indices}
    for index in range(max(wanted) + 1):
        there, picture = video.read()
        if not there:
            raise SystemExit(f"`{clip}` ends before frame {index}")
        if index in wanted:
            cv2.imwrite(f"{folder}/{index:06}.png", picture)


if __name__ == "__main__":
    verb, first, *rest = sys.argv[1:]
    if verb == "frames":
        frames(first, rest[0], rest[1:])
    else:
        for path, results in zip(rest, {"classify": classify, "detect": detect}[verb](first, rest), strict=True):
            print(json.dumps({"picture": path, "results": results}))
