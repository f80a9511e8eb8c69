"""The tensors of a LiteRT model, and the rest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.files.contents import Affine, Contents, FileTensor, Span, outside
from ecd_deploy.exporters.litert.layout import Steps, Tensor, read_layout

_CONVOLUTION = 4
"""Dimensions of a convolution's weights, whose channels of the input come last."""


def read_tflite(data: bytes) -> Contents:
    """Read a LiteRT model.

    Raises:
        ExportError: it is none.
    """
    layout = read_layout(data)
    tensors: list[FileTensor] = []
    spans: list[Span] = []
    for tensor in layout.tensors:
        spans.append(tensor)
        if tensor.steps is None:
            tensors.append(tensor.read(data))
        else:
            tensors += _quantised(data, tensor, tensor.steps)
            spans += (tensor.steps.scale, tensor.steps.zero)
    # An operator and its output take about 300 bytes, names among them; a tensor is padded and has an entry as well.
    limit = 4096 + 512 * layout.operators + 256 * len(layout.tensors)
    return Contents(tuple(tensors), outside(data, spans), limit, layout.problems)


def _quantised(data: bytes, tensor: Tensor, steps: Steps) -> Iterator[FileTensor]:
    """The integers, in PyTorch's order of dimensions where they are a convolution's, their scales and zero points."""
    array, scale, zero = (span.read(data).array for span in (tensor, steps.scale, steps.zero))
    try:
        array = array.reshape(tensor.shape)
        channels = array.shape[steps.axis] if array.ndim else 1
    except (ValueError, IndexError) as error:
        raise ExportError(f"not a litert artefact: {tensor.name} has another shape than it says") from error
    if scale.size not in (1, channels) or zero.size not in (1, scale.size):
        raise ExportError(f"not a litert artefact: {tensor.name} has {scale.size} scales and {zero.size} zero points")
    axis = steps.axis
    if array.ndim == _CONVOLUTION:
        # a depthwise one is (1, H, W, C), with a scale for each of C
        array, axis = array.transpose((3, 0, 1, 2) if axis == _CONVOLUTION - 1 else (0, 3, 1, 2)), 0
    affine = Affine(scale.astype(np.float64), zero.astype(np.float64), axis)
    yield FileTensor(tensor.name, array, affine)
    yield FileTensor(steps.scale.name, scale, role=f"scale of {tensor.name}")
    yield FileTensor(steps.zero.name, zero)
