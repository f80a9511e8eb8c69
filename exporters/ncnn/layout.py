"""What an ncnn model is made of: the layers that `student.ncnn.param` lists, and what each takes of `student.ncnn.bin`.

Both are read here without ncnn. Keys of parameters and the order of weights are those of ncnn's own layers, in
`src/layer/*.cpp`, which say them in `load_param` and `load_model`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.files.contents import Span

GRAPH: Final = "student.ncnn.param"
WEIGHTS: Final = "student.ncnn.bin"

_MAGIC = "7767517"
_FLOAT_BYTES = 4
_TAG = struct.Struct("<I")  # before weights that may be float16 or int8; 0 says float32
_FIRST_ARRAY, _FIRST_TEXT = -23300, -23400  # the key -23300 - n holds parameter n, an array
_CONVOLUTIONS = (
    "Convolution", "Convolution1D", "ConvolutionDepthWise", "ConvolutionDepthWise1D", "Deconvolution",
    "DeconvolutionDepthWise",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A line of the graph; `numbers` are its parameters by key, an array's one after the other."""

    kind: str
    name: str
    numbers: Mapping[int, tuple[int | float, ...]]

    def integer(self, key: int, default: int = 0) -> int:
        """A parameter that counts something."""
        return int(self.numbers.get(key, (default,))[0])


@dataclass(frozen=True)
class _Share:
    """How many numbers a layer takes; `tagged` where a tag before them says their type."""

    count: int
    tagged: bool = False


def read_layers(graph: bytes) -> tuple[Layer, ...]:
    """Read the graph.

    Raises:
        ExportError: it is none, or has lines beside those of its layers.
    """
    try:
        lines = graph.decode("ascii").splitlines()
        layers, _ = map(int, lines[1].split())
        if lines[0] != _MAGIC or len(lines) != 2 + layers:
            raise ValueError(f"{GRAPH} does not begin or end as such a file does")
        return tuple(_layer(line) for line in lines[2:])
    except (ValueError, IndexError) as error:
        raise ExportError(f"not an ncnn artefact: {error}") from error


def read_weights(layers: tuple[Layer, ...], weights: bytes) -> tuple[Span, ...]:
    """Where each layer's tensors lie, one after the other.

    Raises:
        ExportError: they are not float32, or end before the last layer has all of its own.
    """
    found = []
    place = 0
    for layer in layers:
        for index, share in enumerate(_shares(layer)):
            if share.tagged:
                if weights[place : place + _TAG.size] != _TAG.pack(0):
                    raise ExportError(f"not an ncnn artefact: the weights of {layer.name} are not float32")
                place += _TAG.size
            stop = place + _FLOAT_BYTES * share.count
            if not place <= stop <= len(weights):
                raise ExportError(f"not an ncnn artefact: the weights of {layer.name} lie outside {WEIGHTS}")
            found.append(Span(f"{layer.name}/{index}", place, stop, "F32"))
            place = stop
    return tuple(found)


def _layer(line: str) -> Layer:
    kind, name, inputs, outputs, *rest = line.split()
    blobs = int(inputs) + int(outputs)
    if not 0 <= blobs <= len(rest):
        raise ValueError(f"the layer {name} lacks the names of its inputs and outputs")
    return Layer(kind, name, dict(_parameter(word) for word in rest[blobs:]))


def _parameter(word: str) -> tuple[int, tuple[int | float, ...]]:
    key, _, value = word.partition("=")
    number = int(key)
    if number <= _FIRST_TEXT:
        raise ValueError(f"a parameter is a text: {word[:40]}")
    if number > _FIRST_ARRAY:
        return number, (_number(value),)
    count, *entries = value.split(",")
    if int(count) != len(entries):
        raise ValueError(f"a list of parameters has another length than it says: {word[:40]}")
    return _FIRST_ARRAY - number, tuple(map(_number, entries))


def _number(text: str) -> int | float:
    return float(text) if set(text.lower()) & set(".einf") else int(text)


def _shares(layer: Layer) -> Iterator[_Share]:
    of = layer.integer
    if layer.kind in _CONVOLUTIONS:
        yield from (_Share(of(6), tagged=True), *([_Share(of(0))] if of(5) else []))
    elif layer.kind == "InnerProduct":
        yield from (_Share(of(2), tagged=True), *([_Share(of(0))] if of(1) else []))
    elif layer.kind == "MemoryData":
        sizes = [size for key in (0, 1, 11, 2) if (size := of(key))]
        count = 1
        for size in sizes:
            count *= size
        yield _Share(count, tagged=of(21, 1) == 0)
    else:
        yield from (_Share(count) for count in _plain_counts(layer))


def _plain_counts(layer: Layer) -> list[int]:
    """Of layers whose tensors all have one number a channel."""
    of = layer.integer
    if layer.kind == "BatchNorm":
        return [of(0)] * 4  # slope, mean, variance, bias
    if layer.kind == "PReLU":
        return [of(0)]
    if layer.kind == "Scale":
        return [of(0)] * (2 if of(1) else 1)
    if layer.kind in ("LayerNorm", "InstanceNorm"):
        return [of(0)] * 2 if of(2, 1) else []
    if layer.kind == "GroupNorm":
        return [of(1)] * 2 if of(3, 1) else []
    return []
