"""Evaluates the graph of a Core ML package with PyTorch, for Core ML itself runs on Apple's systems alone.

What each operation does is as coremltools describes it (`converters/mil/mil/ops/defs`). Operations that a student's
conversion is not known to give are missing, and named.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.coreml.layout import CoreMlModel, Operation
from ecd_deploy.measure.predictors.prediction import Predictor

_Taken = SimpleNamespace
"""What an operation takes, by parameter: tensors, numbers, lists of numbers, or texts."""


def coreml_predictor(model: CoreMlModel) -> Predictor:
    """What gives the logits of images (N, C, H, W), one after the other.

    Raises:
        ExportError: an operation is not known here.
    """
    unknown = sorted({operation.kind for operation in model.operations} - _OPERATIONS.keys())
    if unknown:
        raise ExportError(
            f"Core ML's operations {', '.join(unknown)} cannot be evaluated here, so nothing proves the file"
        )
    constants = {name: _plain(constant.value) for name, constant in model.constants.items()}

    def logits(image: NDArray[np.float32]) -> NDArray[np.float32]:
        values: dict[str, Any] = {**constants, **model.words, model.image: torch.from_numpy(image[np.newaxis])}
        try:
            for operation in model.operations:
                values.update(_results(operation, values))
            found: NDArray[np.float32] = values[model.logits].numpy()
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"the coreml artefact cannot be evaluated: {error}") from error
        return found

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.concatenate([logits(image) for image in images])

    return predict


def _plain(value: NDArray[Any]) -> Any:
    """Floats as a tensor, integers as Python's."""
    return torch.from_numpy(value.copy()) if value.dtype.kind == "f" else value.tolist()


def _results(operation: Operation, values: dict[str, Any]) -> dict[str, Any]:
    taken = _Taken()
    for parameter, names in operation.takes.items():
        found = [values[name] for name in names]
        setattr(taken, parameter, found if len(found) > 1 or parameter == "values" else found[0])
    result = _OPERATIONS[operation.kind](taken)
    return dict(zip(operation.gives, result if isinstance(result, tuple) else (result,), strict=True))


def _padded(x: Tensor, of: _Taken, value: float = 0.0) -> Tensor:
    """With the margins of a convolution or a pooling: before and after in each dimension, the outermost first."""
    if of.pad_type == "valid":
        return x
    if of.pad_type != "custom":
        raise ValueError(f"margins of the kind {of.pad_type}")
    return F.pad(x, _margins(of.pad), value=value)


def _margins(pad: list[int]) -> list[int]:
    return [size for at in range(len(pad) - 2, -1, -2) for size in pad[at : at + 2]]


def _convolution(of: _Taken) -> Tensor:
    bias = getattr(of, "bias", None)
    return F.conv2d(_padded(of.x, of), of.weight, bias, of.strides, 0, of.dilations, of.groups)


def _largest(of: _Taken) -> Tensor:
    x = _padded(of.x, of, -float("inf"))
    return F.max_pool2d(x, of.kernel_sizes, of.strides, ceil_mode=bool(of.ceil_mode))


def _average(of: _Taken) -> Tensor:
    def over(x: Tensor) -> Tensor:
        return F.avg_pool2d(_padded(x, of), of.kernel_sizes, of.strides, ceil_mode=bool(of.ceil_mode))

    return over(of.x) / over(torch.ones_like(of.x)) if of.exclude_padding_from_average else over(of.x)


def _product(of: _Taken) -> Tensor:
    left, right = (
        matrix.transpose(-1, -2) if turned else matrix
        for matrix, turned in ((of.x, of.transpose_x), (of.y, of.transpose_y))
    )
    result: Tensor = left @ right
    return result


def _slice(of: _Taken) -> Tensor:
    rank = of.x.dim()
    steps = getattr(of, "stride", [1] * rank)
    from_first, to_last = getattr(of, "begin_mask", [0] * rank), getattr(of, "end_mask", [0] * rank)
    single = getattr(of, "squeeze_mask", [0] * rank)
    parts = tuple(
        of.begin[at]
        if single[at]
        else slice(None if from_first[at] else of.begin[at], None if to_last[at] else of.end[at], steps[at])
        for at in range(rank)
    )
    result: Tensor = of.x[parts]
    return result


def _split(of: _Taken) -> tuple[Tensor, ...]:
    sizes = getattr(of, "split_sizes", None)
    return of.x.split(sizes or of.x.shape[of.axis] // of.num_splits, of.axis)  # type: ignore[no-any-return]


def _squeezed(of: _Taken) -> Tensor:
    axes = getattr(of, "axes", None)
    return of.x.squeeze() if axes is None else of.x.squeeze(tuple(axes))  # type: ignore[no-any-return]


def _expanded(of: _Taken) -> Tensor:
    x: Tensor = of.x
    for axis in sorted(axis % (x.dim() + len(of.axes)) for axis in of.axes):
        x = x.unsqueeze(axis)
    return x


def _normalised(of: _Taken) -> Tensor:
    shape = [of.x.shape[axis] for axis in of.axes]
    return F.layer_norm(of.x, shape, getattr(of, "gamma", None), getattr(of, "beta", None), float(of.epsilon))


_OPERATIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "add": lambda of: of.x + of.y,
    "avg_pool": _average,
    "batch_norm": lambda of: F.batch_norm(of.x, of.mean, of.variance, of.gamma, of.beta, eps=float(of.epsilon)),
    "clip": lambda of: of.x.clamp(float(of.alpha), float(of.beta)),
    "concat": lambda of: torch.cat(of.values, of.axis),
    "conv": _convolution,
    "expand_dims": _expanded,
    "gelu": lambda of: F.gelu(of.x, approximate="none" if of.mode == "EXACT" else "tanh"),
    "identity": lambda of: of.x,
    "layer_norm": _normalised,
    "leaky_relu": lambda of: F.leaky_relu(of.x, float(of.alpha)),
    "linear": lambda of: F.linear(of.x, of.weight, getattr(of, "bias", None)),
    "matmul": _product,
    "max_pool": _largest,
    "mul": lambda of: of.x * of.y,
    "pad": lambda of: F.pad(of.x, _margins(of.pad), of.mode, float(of.constant_val)),
    "prelu": lambda of: F.prelu(of.x, of.alpha),
    "real_div": lambda of: of.x / of.y,
    "reduce_mean": lambda of: of.x.mean(of.axes, keepdim=bool(of.keep_dims)),
    "relu": lambda of: F.relu(of.x),
    "relu6": lambda of: F.relu6(of.x),
    "reshape": lambda of: of.x.reshape(of.shape),
    "sigmoid": lambda of: torch.sigmoid(of.x),
    "sigmoid_hard": lambda of: (float(of.alpha) * of.x + float(of.beta)).clamp(0, 1),
    "silu": lambda of: F.silu(of.x),
    "slice_by_index": _slice,
    "softmax": lambda of: of.x.softmax(of.axis),
    "split": _split,
    "squeeze": _squeezed,
    "sub": lambda of: of.x - of.y,
    "tanh": lambda of: torch.tanh(of.x),
    "thresholded_relu": lambda of: torch.where(of.x >= float(of.alpha), of.x, 0.0),
    "transpose": lambda of: of.x.permute(of.perm),
}
