"""Normalisation inside an ONNX graph: uint8 images (N, H, W, C) in, so that a device needs no code of its own for it.

Images come in the input's size: scaling and cutting stay outside, as the metadata's `resize` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ecd_deploy.exporters.metadata import INPUT_NAME, ArtefactMetadata

_PREFIX = "preprocessing"
_NORMALISED = f"{_PREFIX}.normalised"


def put_preprocessing_inside(model: onnx.ModelProto, metadata: ArtefactMetadata) -> None:
    """Let the graph take pixels: transposed, cast, then pixel * scale + offset for each channel.

    The constants `preprocessing.scale` = 1 / (255 std) and `preprocessing.offset` = -mean / std, float32 (C, 1, 1),
    are rounded once from float64.
    """
    graph = model.graph
    channels, height, width = metadata.input_shape
    std = np.array(metadata.std, dtype=np.float64).reshape(-1, 1, 1)
    mean = np.array(metadata.mean, dtype=np.float64).reshape(-1, 1, 1)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[index] = _NORMALISED
    steps: tuple[tuple[str, tuple[str, ...], str, dict[str, Any]], ...] = (
        ("Transpose", (INPUT_NAME,), "channels_first", {"perm": [0, 3, 1, 2]}),
        ("Cast", ("channels_first",), "float", {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ("float", "scale"), "scaled", {}),
        ("Add", ("scaled", "offset"), "normalised", {}),
    )
    nodes = [
        helper.make_node(
            operator,
            [name if name == INPUT_NAME else f"{_PREFIX}.{name}" for name in inputs],
            [f"{_PREFIX}.{output}"],
            name=f"{_PREFIX}.{operator.lower()}",
            **attributes,
        )
        for operator, inputs, output, attributes in steps
    ]
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend((*nodes, *body))
    for name, values in (("scale", 1 / (255 * std)), ("offset", -mean / std)):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), f"{_PREFIX}.{name}"))
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    sizes = [batch.dim_param or batch.dim_value, height, width, channels]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.UINT8, sizes))


def preprocessing_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that normalise: they stay in float, whatever the rest becomes."""
    return [node.name for node in model.graph.node if node.name.startswith(f"{_PREFIX}.")]


def to_pixels(images: NDArray[np.float32], metadata: ArtefactMetadata) -> NDArray[np.uint8]:
    """The uint8 images (N, H, W, C) that normalise to `images` (N, C, H, W); exact for what came from pixels."""
    mean, std = (np.array(values, dtype=np.float64).reshape(1, -1, 1, 1) for values in (metadata.mean, metadata.std))
    pixels = np.rint((images * std + mean) * 255).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
