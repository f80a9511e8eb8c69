"""The tensors and numbers of an ncnn artefact, for the audit."""

from __future__ import annotations

from ecd_deploy.exporters.files.contents import Contents, telling
from ecd_deploy.exporters.files.zip_archive import read_parts
from ecd_deploy.exporters.ncnn.layout import GRAPH, WEIGHTS, read_layers, read_weights

_LINE = 256
"""Bytes that a layer's line of the graph takes at most, about."""


def read_ncnn(data: bytes) -> Contents:
    """Read a graph, its weights and the archive that holds them.

    Raises:
        ExportError: a part is missing or too many, or one of them does not fit the others.
    """
    parts = read_parts(data, GRAPH, WEIGHTS, "ncnn")
    layers = read_layers(parts.graph)
    found = read_weights(layers, parts.weights)
    tensors = tuple(span.read(parts.weights) for span in found)
    read = found[-1].stop if found else 0
    rest = len(parts.weights) - read
    unknown = (f"{rest} bytes of {WEIGHTS} belong to no layer whose weights are known",) if rest else ()
    numbers = telling(number for layer in layers for values in layer.numbers.values() for number in values)
    return Contents(
        tensors,
        parts.graph + parts.weights[read:],
        1024 + _LINE * len(layers),
        (*parts.problems, *unknown),
        tuple(numbers),
    )
