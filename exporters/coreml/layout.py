"""What a Core ML package is made of: the operations of `model.mlmodel`, and what they take of `weight.bin`.

Both are read here without coremltools. Numbers of fields are those of its `mlmodel/format/Model.proto` and `MIL.proto`,
the layout of the weights that of its `mlmodel/src/MILBlob/Blob/StorageFormat.hpp`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.files.contents import Span
from ecd_deploy.exporters.files.protobuf import Message
from ecd_deploy.exporters.files.zip_archive import read_archive

_PACKAGE = "student.mlpackage"
MANIFEST: Final = f"{_PACKAGE}/Manifest.json"
GRAPH: Final = f"{_PACKAGE}/Data/com.apple.CoreML/model.mlmodel"
WEIGHTS: Final = f"{_PACKAGE}/Data/com.apple.CoreML/weights/weight.bin"

_WEIGHTS_NAME = "@model_path/weights/weight.bin"
# Fields of Model, ModelDescription, Metadata, Program, Function, Block, Operation, Argument, Value and TensorType.
_VERSION, _DESCRIPTION, _PROGRAM = 1, 2, 502
_INPUT, _OUTPUT, _METADATA, _USER_DEFINED = 1, 10, 100, 100
_FUNCTIONS, _SPECIALISATIONS, _OUTPUTS, _OPERATIONS = 2, 3, 2, 3
_KIND, _TAKES, _GIVES, _ATTRIBUTES, _BLOCKS = 1, 2, 3, 5, 4
_NAME, _VALUE, _TYPE, _IMMEDIATE, _BLOB = 1, 2, 2, 3, 5
_DATA_TYPE, _DIMENSIONS = 1, 3
# Types of tensors in the weights, as safetensors calls them; fields of TensorValue, which spells tensors out.
_TYPES = {10: "F16", 11: "F32", 21: "I8", 31: "U8"}
_FLOATS, _INTS, _BOOLS, _STRINGS, _LONGS, _DOUBLES = range(1, 7)
# An entry of the weights: a mark, type, size, and where its bytes begin.
_ENTRY, _MARK = struct.Struct("<IIQQ"), 0xDEADBEEF


@dataclass(frozen=True, eq=False)
class Constant:
    """A value of the graph; `span` is where its bytes lie in the weights, None where the graph spells it out."""

    value: NDArray[Any]
    span: Span | None = None


@dataclass(frozen=True)
class Operation:
    """An operation: names of what it takes, by parameter, and of what it gives."""

    kind: str
    takes: Mapping[str, tuple[str, ...]]
    gives: tuple[str, ...]


@dataclass(frozen=True)
class CoreMlModel:
    """A package.

    Attributes:
        image: name of what goes in.
        logits: name of what comes out.
        constants: by the name that operations take them by.
        words: constants that are texts.
        operations: in the order in which they can be done.
        texts: what stands beside the graph.
        manifest: bytes of the list of files.
        graph: bytes of `model.mlmodel`.
        weights: bytes of `weight.bin`.
        problems: what should not be in it.
    """

    image: str
    logits: str
    constants: Mapping[str, Constant]
    words: Mapping[str, str]
    operations: tuple[Operation, ...]
    texts: Mapping[str, str]
    manifest: bytes
    graph: bytes
    weights: bytes
    problems: tuple[str, ...]


def read_model(data: bytes) -> CoreMlModel:
    """Take an artefact apart.

    Raises:
        ExportError: it is no archive, holds something else, or its graph is none with one image and one result.
    """
    archive = read_archive(data, "coreml")
    parts = archive.parts((MANIFEST, GRAPH, WEIGHTS), "coreml")
    try:
        return _model(parts[MANIFEST], parts[GRAPH], parts[WEIGHTS], list(archive.problems))
    except (IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise ExportError(f"not a coreml artefact: {error}") from error


def _model(manifest: bytes, graph: bytes, weights: bytes, problems: list[str]) -> CoreMlModel:
    root = Message(graph)
    if root.fields - {_VERSION, _DESCRIPTION, _PROGRAM}:
        problems.append("the package holds another model beside the program")
    described = root.message(_DESCRIPTION)
    texts = {entry.text(1): entry.text(2) for entry in described.message(_METADATA).messages(_USER_DEFINED)}
    (image,), (logits,) = described.messages(_INPUT), described.messages(_OUTPUT)
    (function,) = root.message(_PROGRAM).entries(_FUNCTIONS).values()
    (block,) = function.entries(_SPECIALISATIONS).values()
    constants: dict[str, Constant] = {}
    words: dict[str, str] = {}
    operations = []

    def keep(name: str, value: Message) -> None:
        spelled = value.message(_IMMEDIATE).message(1)
        if spelled.blobs(_STRINGS):
            words[name] = spelled.message(_STRINGS).text(1)
        else:
            constants[name] = _constant(name, value, spelled, weights)

    for operation in block.messages(_OPERATIONS):
        kind = operation.text(_KIND)
        gives = tuple(output.text(_NAME) for output in operation.messages(_GIVES))
        if operation.blobs(_BLOCKS):
            raise ValueError(f"the operation {kind} has a graph of its own")
        if kind == "const":
            keep(gives[0], operation.entries(_ATTRIBUTES)["val"])
            continue
        takes = {}
        for parameter, argument in operation.entries(_TAKES).items():
            names = []
            for index, binding in enumerate(argument.messages(1)):
                names.append(binding.text(_NAME) or f"{gives[0]}/{parameter}/{index}")
                if binding.blobs(_VALUE):
                    keep(names[-1], binding.message(_VALUE))
            takes[parameter] = tuple(names)
        operations.append(Operation(kind, takes, gives))
    return CoreMlModel(
        image=image.text(_NAME),
        logits=logits.text(_NAME),
        constants=constants,
        words=words,
        operations=tuple(operations),
        texts=texts,
        manifest=manifest,
        graph=graph,
        weights=weights,
        problems=tuple(problems),
    )


def _constant(name: str, value: Message, spelled: Message, weights: bytes) -> Constant:
    tensor = value.message(_TYPE).message(1)
    shape = tuple(size.message(1).number(1) for size in tensor.messages(_DIMENSIONS))
    if value.blobs(_BLOB):
        blob, dtype = value.message(_BLOB), _TYPES[tensor.number(_DATA_TYPE)]
        mark, _, size, start = _ENTRY.unpack_from(weights, blob.number(2))
        if blob.text(1) != _WEIGHTS_NAME or mark != _MARK or start + size > len(weights):
            raise ValueError(f"the constant {name} does not lie in {WEIGHTS}")
        span = Span(name, start, start + size, dtype)
        return Constant(span.read(weights).array.reshape(shape), span)
    (field,) = spelled.fields or {_INTS}
    if field in (_INTS, _BOOLS, _LONGS):
        return Constant(spelled.message(field).integers(1).reshape(shape))
    if field not in (_FLOATS, _DOUBLES):
        raise ValueError(f"the constant {name} is spelled out as bytes")
    return Constant(np.frombuffer(spelled.message(field).blob(1), "<f4" if field == _FLOATS else "<f8").reshape(shape))
