"""Stages a raw picture with OpenCV and writes the tensor, for `tests/opencv.rs` to compare.

Usage: stage.py PICTURE FORMAT WIDTH HEIGHT SIDE FIT TENSOR

PICTURE holds the planes one after the other; the tensor is planar float32 in RGB order, 0..=255.
"""

import sys

import cv2
import numpy as np


def to_rgb(data: np.ndarray, pixel_format: str, width: int, height: int) -> np.ndarray:
    if pixel_format == "nv12":
        return cv2.cvtColor(data.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_NV12)
    if pixel_format == "i420":
        return cv2.cvtColor(data.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_I420)
    if pixel_format == "bgr":
        return cv2.cvtColor(data.reshape(height, width, 3), cv2.COLOR_BGR2RGB)
    if pixel_format == "gray":
        return cv2.cvtColor(data.reshape(height, width), cv2.COLOR_GRAY2RGB)
    return data.reshape(height, width, 3)


def letterbox(rgb: np.ndarray, side: int) -> np.ndarray:
    """Centred on grey 114, as the YOLO families do."""
    height, width = rgb.shape[:2]
    ratio = min(side / width, side / height)
    inner_width, inner_height = int(width * ratio + 1e-6), int(height * ratio + 1e-6)
    left, top = (side - inner_width) // 2, (side - inner_height) // 2
    resized = cv2.resize(rgb, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    right, bottom = side - inner_width - left, side - inner_height - top
    return cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def main() -> None:
    picture, pixel_format, width, height, side, fit, tensor = sys.argv[1:]
    width, height, side = int(width), int(height), int(side)
    rgb = to_rgb(np.fromfile(picture, dtype=np.uint8), pixel_format, width, height)
    if fit == "letterbox":
        rgb = letterbox(rgb, side)
    else:
        rgb = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_LINEAR)
    cv2.dnn.blobFromImage(rgb, 1.0, (side, side), (0, 0, 0), swapRB=False).astype("<f4").tofile(tensor)


if __name__ == "__main__":
    main()
