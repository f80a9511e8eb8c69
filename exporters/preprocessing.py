"""Preprocessing inside an ONNX graph: uint8 images (N, H, W, C) in, so that a device needs no code of its own for it.

`inside` normalises images of the input's size. `full` takes images of any size and frames them as training did:
scaled, the middle cut out. It differs from Pillow, whose resizing onnxruntime follows with less precise
weights, by at most `FRAMING_BOUND`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.files.metadata import INPUT_NAME, OUTPUT_NAME, PROBABILITIES_NAME, ArtefactMetadata
from ecd_deploy.recipe.sides import both_sides

_PREFIX = "preprocessing"
_NORMALISED = f"{_PREFIX}.normalised"


@dataclass(frozen=True)
class FramingBound:
    """How far pixels of 0..255 that the graph frames may be from Pillow's.

    Attributes:
        largest: of any pixel, of noise; where neighbours resemble each other, as in photographs, `usual`.
        usual: see there.
        largest_average: over the pixels of an image, of noise.
        average: likewise, where neighbours resemble each other.
    """

    largest: int = 16
    usual: int = 2
    largest_average: float = 1.0
    average: float = 0.25


FRAMING_BOUND: Final = FramingBound()


@dataclass
class _Steps:
    """Nodes and constants in the order in which they are added, their names below that of the preprocessing."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, gives: str, **attributes: Any) -> str:
        output = f"{_PREFIX}.{gives}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=f"{output}.{operator.lower()}", **attributes)
        )
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(values, f"{_PREFIX}.{name}"))
        return f"{_PREFIX}.{name}"


def put_preprocessing_inside(model: onnx.ModelProto, metadata: ArtefactMetadata) -> None:
    """Let the graph take pixels: framed where the metadata say so, transposed, then pixel * scale + offset by channel.

    The constants `preprocessing.scale` = 1 / (255 std) and `preprocessing.offset` = -mean / std, float32 (C, 1, 1),
    are rounded once from float64. With framing, the graph also gives `probabilities`.

    Raises:
        ExportError: images are to be framed, and the metadata do not say how.
    """
    graph, steps = model.graph, _Steps()
    channels, height, width = metadata.input_shape
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[index] = _NORMALISED
    sides: tuple[int | str, int | str] = (height, width)
    pixels = INPUT_NAME
    if metadata.preprocessing == "full":
        sides, pixels = ("height", "width"), _framed(steps, metadata)
    std = np.array(metadata.std, dtype=np.float64).reshape(-1, 1, 1)
    mean = np.array(metadata.mean, dtype=np.float64).reshape(-1, 1, 1)
    scale = steps.constant("scale", (1 / (255 * std)).astype(np.float32))
    offset = steps.constant("offset", (-mean / std).astype(np.float32))
    transposed = steps.add("Transpose", pixels, gives="channels_first", perm=[0, 3, 1, 2])
    floats = steps.add("Cast", transposed, gives="float", to=onnx.TensorProto.FLOAT)
    steps.add("Add", steps.add("Mul", floats, scale, gives="scaled"), offset, gives="normalised")
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend((*steps.nodes, *body))
    graph.initializer.extend(steps.constants)
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    free = batch.dim_param or batch.dim_value
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.UINT8, [free, *sides, channels]))
    if metadata.preprocessing == "full":
        name = f"{_PREFIX}.softmax"
        graph.node.append(helper.make_node("Softmax", [OUTPUT_NAME], [PROBABILITIES_NAME], name=name, axis=1))
        shape = [free, len(metadata.classes)]
        graph.output.append(helper.make_tensor_value_info(PROBABILITIES_NAME, onnx.TensorProto.FLOAT, shape))


def _framed(steps: _Steps, metadata: ArtefactMetadata) -> str:
    """Scale to fill, rounding as Pillow does on uint8, and cut the middle out: halves go to the even side."""
    if metadata.resize is None:
        raise ExportError("preprocessing 'full' brings images to size, and the recipe sets no data.image_size")
    axes, side = steps.constant("axes", np.array([1, 2])), steps.constant("side", np.array(metadata.input_shape[1:]))
    half = steps.constant("half", np.array([0.5], dtype=np.float32))
    given = steps.add("Shape", INPUT_NAME, gives="given", start=1, end=3)
    sizes = _sizes(steps, given, metadata.resize)
    scaled = steps.add("Resize", INPUT_NAME, "", "", sizes, gives="resized", mode="linear", antialias=1, axes=[1, 2])
    around = steps.add("Cast", steps.add("Sub", sizes, side, gives="around"), gives="float_around", to=1)
    rounded = steps.add("Round", steps.add("Mul", around, half, gives="before"), gives="rounded")
    start = steps.add("Cast", rounded, gives="start", to=onnx.TensorProto.INT64)
    return steps.add("Slice", scaled, start, steps.add("Add", start, side, gives="end"), axes, gives="framed")


def _sizes(steps: _Steps, given: str, resize: int | tuple[int, int]) -> str:
    """Height and width of an image of size `given` after it was scaled to fill `resize`."""
    if isinstance(resize, int):
        shorter = steps.constant("shorter", np.array([resize]))
        least = steps.add("ReduceMin", given, gives="least", keepdims=1)
        return steps.add("Div", steps.add("Mul", given, shorter, gives="product"), least, gives="sizes")
    scaled = []
    for axis, name in enumerate(("height", "width")):
        wanted = steps.constant(f"fill_{name}", np.array([resize[axis]]))
        side = steps.add("Shape", INPUT_NAME, gives=f"given_{name}", start=axis + 1, end=axis + 2)
        product = steps.add("Mul", given, wanted, gives=f"{name}_product")
        scaled.append(steps.add("Div", product, side, gives=f"by_{name}"))
    return steps.add("Max", *scaled, gives="sizes")


def preprocessing_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes before and after the student's own: they stay as they are, whatever the rest becomes."""
    return [node.name for node in model.graph.node if node.name.startswith(f"{_PREFIX}.")]


def to_pixels(images: NDArray[np.float32], metadata: ArtefactMetadata) -> NDArray[np.uint8]:
    """The uint8 images (N, H, W, C) that become `images` (N, C, H, W) in the graph; exact for what came from pixels.

    For a graph that frames them they stand in the middle of a black image whose size needs no scaling.
    """
    mean, std = (np.array(values, dtype=np.float64).reshape(1, -1, 1, 1) for values in (metadata.mean, metadata.std))
    pixels = np.rint((images * std + mean) * 255).clip(0, 255).astype(np.uint8)
    return on_canvas(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), metadata)


def on_canvas(pixels: NDArray[np.uint8], metadata: ArtefactMetadata) -> NDArray[np.uint8]:
    """Framed images (N, H, W, C) as the graph takes them: where it frames them itself, what it will cut out."""
    if metadata.preprocessing != "full" or metadata.resize is None:
        return pixels
    count, height, width, channels = pixels.shape
    high, wide = both_sides(metadata.resize)
    canvas = np.zeros((count, high, wide, channels), dtype=np.uint8)
    top, left = round((high - height) / 2), round((wide - width) / 2)
    canvas[:, top : top + height, left : left + width] = pixels
    return canvas
