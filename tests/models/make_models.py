"""Makes the models and labels that the demo and the tests use, from files that registry packages carry.

    make_models.py efficientnet-lite0 WEIGHTS ONNX    PyTorch weights to a graph with a dynamic batch
    make_models.py centerface SOURCE ONNX             the published graph with every dimension that can vary, dynamic
    make_models.py imagenet-labels JSON TEXT          one class name a line, in the order of the indices
"""

import json
import sys

import numpy as np
import onnx
import torch_weights
from onnx import TensorProto, helper, numpy_helper

# EfficientNet-Lite0, from the inside out: repeats, kernel, stride of the first, expansion, channels.
# These are EfficientNet-B0's stages without squeeze-and-excitation, and with ReLU6 for swish.
LITE0_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
LITE0_SIZE = 224
LITE0_STEM_CHANNELS = 32
BATCH_NORM_EPSILON = 1e-3


class Graph:
    """Nodes and initializers of a convolutional network, and the size of the picture after the latest node."""

    def __init__(self, weights, size):
        self.weights = dict(weights)
        self.size = size
        self.nodes = []
        self.initializers = []

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, picture, name, batch_norm, output, kernel=1, stride=1, groups=1, activation=True):
        """A convolution with its batch normalisation folded in, and ReLU6 after it where `activation`."""
        weight = self.weights.pop(f"{name}.weight")
        gamma, beta, mean, variance = (
            self.weights.pop(f"{batch_norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
        )
        self.weights.pop(f"{batch_norm}.num_batches_tracked")
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
        folded = (weight * scale[:, None, None, None]).astype(np.float32)
        bias = (beta - mean * scale).astype(np.float32)

        # The weights were trained with TensorFlow's "same" padding, which puts the odd pixel at the end.
        size = -(-self.size // stride)
        padding = max((size - 1) * stride + kernel - self.size, 0)
        before, after = padding // 2, padding - padding // 2
        self.size = size

        result = self.node(
            "Conv",
            [picture, self.constant(f"{name}.weight", folded), self.constant(f"{name}.bias", bias)],
            f"{output}.conv" if activation else output,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        return self.node("Clip", [result, "zero", "six"], output) if activation else result


def efficientnet_lite0(source, target):
    graph = Graph(torch_weights.load(source), LITE0_SIZE)
    graph.constant("zero", np.float32(0))
    graph.constant("six", np.float32(6))
    picture = graph.convolution("input", "_conv_stem", "_bn0", "stem", kernel=3, stride=2)
    channels = LITE0_STEM_CHANNELS
    block = 0
    for repeats, kernel, first_stride, expansion, wide in LITE0_STAGES:
        for repeat in range(repeats):
            name, stride, start = f"_blocks.{block}", first_stride if repeat == 0 else 1, picture
            inner = channels * expansion
            if expansion != 1:
                picture = graph.convolution(picture, f"{name}._expand_conv", f"{name}._bn0", f"block{block}.expand")
            picture = graph.convolution(
                picture,
                f"{name}._depthwise_conv",
                f"{name}._bn1",
                f"block{block}.depthwise",
                kernel=kernel,
                stride=stride,
                groups=inner,
            )
            picture = graph.convolution(
                picture, f"{name}._project_conv", f"{name}._bn2", f"block{block}.project", activation=False
            )
            if stride == 1 and channels == wide:
                picture = graph.node("Add", [picture, start], f"block{block}")
            channels = wide
            block += 1
    picture = graph.convolution(picture, "_conv_head", "_bn1", "head")
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [picture], "pool")], "flat", axis=1)
    weight = graph.constant("fc.weight", graph.weights.pop("_fc.weight"))
    bias = graph.constant("fc.bias", graph.weights.pop("_fc.bias"))
    graph.node("Gemm", [pooled, weight, bias], "logits", transB=1)
    if graph.weights:
        raise ValueError(f"weights that no layer uses: {', '.join(graph.weights)}")

    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, LITE0_SIZE, LITE0_SIZE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "efficientnet_lite0", inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def centerface(source, target):
    """The published graph declares 10×3×32×32 but holds only convolutions, so any batch and any multiple of 32 will do."""
    model = onnx.load(source)
    graph = model.graph
    initializers = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    del graph.input[:]
    graph.input.extend(inputs)
    # Training counters, of which ONNX Runtime complains one by one.
    used = {name for node in graph.node for name in node.input}
    kept = [initializer for initializer in graph.initializer if initializer.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    declare(graph.input[0], ["N", 3, "H", "W"])
    for output, channels in zip(graph.output, (1, 2, 2, 10), strict=True):
        declare(output, ["N", channels, "H/4", "W/4"])
    # Shapes in between were inferred from the declared input and would contradict it now.
    del graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, target)


def declare(value, shape):
    for dimension, extent in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dimension.Clear()
        if isinstance(extent, str):
            dimension.dim_param = extent
        else:
            dimension.dim_value = extent


def imagenet_labels(source, target):
    """ImageNet names a class by a list of synonyms; the first is the usual one."""
    with open(source, encoding="utf-8") as file:
        names = json.load(file)
    with open(target, "w", encoding="utf-8") as file:
        for index in range(1000):
            file.write(names[str(index)].split(", ")[0] + "\n")


if __name__ == "__main__":
    make = {
        "efficientnet-lite0": efficientnet_lite0,
        "centerface": centerface,
        "imagenet-labels": imagenet_labels,
    }
    kind, source, target = sys.argv[1:]
    make[kind](source, target)
