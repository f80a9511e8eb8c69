"""The tensors and numbers of a Core ML package, for the audit."""

from __future__ import annotations

from ecd_deploy.exporters.coreml.layout import read_model
from ecd_deploy.exporters.files.contents import Contents, FileTensor, outside, telling

_HEAD = 4096
_VALUE_BYTES = 256
"""Of the graph, what an operation or a constant takes, its names among it; of the weights, an entry and its padding."""


def read_coreml(data: bytes) -> Contents:
    """Read a package.

    Raises:
        ExportError: a part is missing or too many, or one of them does not fit the others.
    """
    model = read_model(data)
    weights = {
        name: constant
        for name, constant in model.constants.items()
        if constant.span is not None or (constant.value.dtype.kind == "f" and constant.value.size > 1)
    }
    numbers = (
        number
        for name, constant in model.constants.items()
        if name not in weights
        for number in constant.value.reshape(-1).tolist()
    )
    rest = outside(model.weights, (constant.span for constant in weights.values() if constant.span is not None))
    return Contents(
        tuple(FileTensor(name, constant.value) for name, constant in weights.items()),
        model.manifest + model.graph + rest,
        _HEAD + _VALUE_BYTES * (len(model.operations) + len(model.constants) + len(model.words)),
        model.problems,
        tuple(telling(numbers)),
    )
