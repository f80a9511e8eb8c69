"""A classifier of images by their mean colour, written by hand, and images of these colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

CLASSES = ("blue", "green", "red")
SIDE = 8
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
INPUT = "[input]\nmean = [0.5, 0.4, 0.3]\nstd = [0.2, 0.25, 0.5]\n"

_ELEMENTS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
# Of red, green and blue, the logits of blue, green and red.
_WEIGHTS = 4 * np.eye(3, dtype=np.float32)[:, ::-1]


def write_model(
    path: Path,
    *,
    dtype: str = "float32",
    layout: str = "nchw",
    batch: int | str = "n",
    sides: tuple[int | str, int | str] = (SIDE, SIDE),
    outputs: int = 3,
    softmax: bool = False,
    factor: float = 1.0,
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0),
    second_input: bool = False,
    second_output: bool = False,
    flat: bool = True,
    minus_batch_mean: bool = False,
) -> Path:
    """Write it; `factor` multiplies the pixels first, and without `flat` the output is no row of scores.

    `bias` is added to the logits, and with `minus_batch_mean` their mean over the batch is subtracted.
    """
    colour = 3
    shape = [batch, colour, *sides] if layout == "nchw" else [batch, *sides, colour]
    axes = [2, 3] if layout == "nchw" else [1, 2]
    weights = np.zeros((3, outputs), dtype=np.float32)
    weights[:, :3] = _WEIGHTS[:, : min(outputs, 3)]
    biases = np.zeros(outputs, dtype=np.float32)
    biases[:3] = bias[: min(outputs, 3)]
    constants = {"bias": biases, "axes": np.array(axes), "w": weights, "factor": np.array(factor, dtype=np.float32)}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "factor"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["colour"], keepdims=0),
        helper.make_node("Gemm", ["colour", "w", "bias"], ["logits"]),
        helper.make_node("Softmax" if softmax else "Identity", ["logits"], ["scores"]),
    ]
    if minus_batch_mean:
        constants["first"] = np.array([0])
        nodes[-2].output[0] = "own"
        nodes[-1:-1] = [
            helper.make_node("ReduceMean", ["own", "first"], ["batch_mean"]),
            helper.make_node("Sub", ["own", "batch_mean"], ["logits"]),
        ]
    inputs = [helper.make_tensor_value_info("pixels", _ELEMENTS[dtype], shape)]
    if second_input:
        inputs.append(helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 4]))
        nodes.append(helper.make_node("Identity", ["boxes"], ["same_boxes"]))
    name = "scores" if flat else "scaled"
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, outputs] if flat else shape)]
    if second_output:
        outs.append(helper.make_tensor_value_info("colour", TensorProto.FLOAT, [batch, 3]))
    stored = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "colours", inputs, outs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def draw(name: str, number: int, side: int = SIDE) -> NDArray[np.uint8]:
    """An image (side, side, 3) in which the colour of this name is the strongest, but for every fifth."""
    random = np.random.default_rng([number, *name.encode()])
    pixels = random.integers(40, 160, (side, side, 3), dtype=np.uint8)
    strong = ("red", "green", "blue").index(name)
    pixels[..., (strong + (number % 5 == 4)) % 3] += 80
    return pixels


def save_images(root: Path, each: int = 10, classes: tuple[str, ...] = CLASSES, side: int = SIDE) -> Path:
    """Write `each` images of every class to `root/CLASS/`."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(draw(name, number, side)).save(root / name / f"{number}.png")
    return root


def expected_probabilities(
    each: int, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> NDArray[np.float64]:
    """What the model gives for `save_images`, in float64 by another way: (3 * each, 3)."""
    colours = np.array([draw(name, number).mean(axis=(0, 1)) for name in CLASSES for number in range(each)])
    logits = ((colours / 255 - mean) / std) @ _WEIGHTS.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
