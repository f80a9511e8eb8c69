"""An ONNX file of any origin, read and parsed, or an .ort file, which onnxruntime alone can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ecd_deploy.compat.onnxruntime import ort_session
from ecd_deploy.errors import ArtefactError, ExportError, UsageError, reraise_machine_fault
from ecd_deploy.exporters.budget import ParityBudget
from ecd_deploy.exporters.files.metadata import METADATA_KEY, ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.onnx.graph import budget_of, check_embedded, get_metadata, outside_tensors
from ecd_deploy.exporters.onnx.session import open_session
from ecd_deploy.files import read_bytes, sha256_bytes, sha256_file
from ecd_deploy.measure.predictors.untrusted import check_untrusted, is_ort

IMAGE_TYPES: Final[Mapping[int, Literal["float32", "float16", "uint8"]]] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
}
"""The types that an image can have, by their numbers in ONNX."""
_RUNTIME_TYPES: Final = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
CHANNELS: Final = (1, 3)
"""Of images."""


@dataclass(frozen=True)
class Port:
    """An input or output of a file; a free side is a name, or `?`."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def words(self) -> str:
        """Name, type and shape."""
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class FilePart:
    """A file that a model is put together from, and its own digest."""

    name: str
    sha256: str


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX or .ort file that was read.

    Attributes:
        path: where it lies.
        data: its bytes, with all weights inside.
        sha256: of these bytes.
        inputs: without those that have a value in the file.
        outputs: in their order.
        metadata: where this project wrote the file.
        parts: the files that it was put together from; none where it is one.
        budget: how far its scores may be off on another processor or provider.
    """

    path: Path
    data: bytes
    sha256: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: ArtefactMetadata | None
    budget: ParityBudget
    parts: tuple[FilePart, ...] = ()

    def words(self) -> str:
        """What the file takes and gives."""
        inputs, outputs = ("; ".join(port.words() for port in ports) for ports in (self.inputs, self.outputs))
        return f"{self.path.name} takes {inputs}, and gives {outputs}"


def read_onnx_file(path: Path) -> OnnxFile:
    """Read and parse a file, with the weights that it keeps in other files of its folder.

    Nothing of it is run, but for an .ort file, by onnxruntime alone.

    Raises:
        UsageError: there is no such file.
        ArtefactError: it is no model, is cut off, or its weights cannot be read or lie outside of its folder.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    data = read_bytes(path)
    if is_ort(data):
        return _described_by_runtime(path, data)
    model = _parsed(path, data)
    try:
        check_embedded(model)
    except ExportError:
        locations = {
            entry.value
            for tensor in outside_tensors(model)
            for entry in tensor.external_data
            if entry.key == "location"
        }
        whole = _with_weights(path, model)
        own = FilePart(path.name, sha256_bytes(data))
        others = (FilePart(name, sha256_file(path.parent / name)) for name in sorted(locations))
        return replace(_described(path, whole, model), parts=(own, *others))
    return _described(path, data, model)


def parse_onnx(path: Path, data: bytes) -> OnnxFile:
    """Parse a model that was read from `path`; nothing of it is run, but for an .ort file, by onnxruntime alone.

    Raises:
        ArtefactError: it is no ONNX model, is cut off, or keeps tensors in another file.
    """
    if is_ort(data):
        return _described_by_runtime(path, data)
    model = _parsed(path, data)
    try:
        check_embedded(model)
    except ExportError as error:
        raise ArtefactError(f"{path}: {error}") from error
    return _described(path, data, model)


def _parsed(path: Path, data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ArtefactError(f"{path} is not an ONNX model or .ort file, or is cut off: it cannot be parsed") from error
    if not model.graph.node or not model.graph.output:
        raise ArtefactError(f"{path} is not an ONNX model: it has no operators or no outputs")
    return model


def _with_weights(path: Path, model: onnx.ModelProto) -> bytes:
    """The bytes of the model with the weights inside that it keeps in other files."""
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        data: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:
        reraise_machine_fault(error)
        cause = " ".join(str(error).split())
        raise ArtefactError(f"{path}: weights that it keeps in another file cannot be read: {cause}") from error
    return data


def _described(path: Path, data: bytes, model: onnx.ModelProto) -> OnnxFile:
    text = get_metadata(model)
    inside = {tensor.name for tensor in model.graph.initializer}
    return OnnxFile(
        path=path,
        data=data,
        sha256=sha256_bytes(data),
        inputs=_ports(value for value in model.graph.input if value.name not in inside),
        outputs=_ports(model.graph.output),
        metadata=None if text is None else parse_metadata(text, path.name),
        budget=budget_of(
            (node.op_type for node in model.graph.node), (tensor.data_type for tensor in model.graph.initializer)
        ),
    )


def _described_by_runtime(path: Path, data: bytes) -> OnnxFile:
    """An .ort file as onnxruntime opens it, which checks it, after it was tried in another process."""
    check_untrusted(data, str(path))
    session = open_session(data, 1, "ort")
    inputs, outputs = (
        tuple(Port(value.name, _RUNTIME_TYPES.get(value.type, value.type), _runtime_shape(value.shape)) for value in of)
        for of in (session.get_inputs(), session.get_outputs())
    )
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    graph = ort_session(data).Model().Graph()
    nodes = map(graph.Nodes, range(graph.NodesLength()))
    tensors = map(graph.Initializers, range(graph.InitializersLength()))
    return OnnxFile(
        path=path,
        data=data,
        sha256=sha256_bytes(data),
        inputs=inputs,
        outputs=outputs,
        metadata=None if text is None else parse_metadata(text, path.name),
        budget=budget_of((node.OpType().decode() for node in nodes), (tensor.DataType() for tensor in tensors)),
    )


def _runtime_shape(sides: Sequence[int | str | None]) -> tuple[int | str, ...]:
    return tuple(side if side is not None else "?" for side in sides)


def with_sides(file: OnnxFile, sides: tuple[int, int, int]) -> bytes:
    """The file's bytes, with the sides of its one input after the batch fixed to these where any is free.

    Raises:
        UsageError: they are free in an .ort file, which cannot be changed.
    """
    (port,) = file.inputs
    if all(isinstance(side, int) for side in port.shape[1:]):
        return file.data
    if is_ort(file.data):
        raise UsageError(
            "free height and width of an .ort file cannot be fixed: give the ONNX file that it was made from, or an "
            f".ort file made from one whose sides are fixed; {file.words()}"
        )
    model = onnx.load_model_from_string(file.data)
    value = next(value for value in model.graph.input if value.name == port.name)
    for dimension, side in zip(value.type.tensor_type.shape.dim[1:], sides, strict=True):
        dimension.dim_value = side
    # What is written of values in between holds for the free sides, by their names.
    del model.graph.value_info[:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def with_shape(file: OnnxFile, shape: tuple[int, int] | None) -> bytes:
    """The file's bytes, with height and width of its images fixed where they are free.

    Raises:
        UsageError: they are free and not given, or given otherwise than they are fixed.
    """
    free = [port for port in file.inputs if any(isinstance(side, str) for side in port.shape[1:])]
    if shape is None:
        if free:
            raise UsageError(f"give --shape HEIGHTxWIDTH: only the number of images may be free; {file.words()}")
        return file.data
    if len(file.inputs) != 1 or len(file.inputs[0].shape) != 4:
        raise UsageError(f"--shape is for a model with one input, images; {file.words()}")
    sides = file.inputs[0].shape[1:]
    last = sides[2] in CHANNELS and sides[0] not in CHANNELS
    channels = sides[2] if last else sides[0]
    if isinstance(channels, str):
        raise UsageError(f"--shape: the number of channels is free as well; {file.words()}")
    given = (*shape, channels) if last else (channels, *shape)
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(sides, given, strict=True)):
        raise UsageError(f"--shape {shape[0]}x{shape[1]} is not the model's height and width; {file.words()}")
    return with_sides(file, given)


def _ports(values: Iterable[onnx.ValueInfoProto]) -> tuple[Port, ...]:
    return tuple(_port(value) for value in values)


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    number = tensor.elem_type
    known = IMAGE_TYPES.get(number)
    name = onnx.TensorProto.DataType.Name(number).lower() if number in onnx.TensorProto.DataType.values() else "unknown"
    shape = tuple(side.dim_value if side.dim_value > 0 else side.dim_param or "?" for side in tensor.shape.dim)
    return Port(value.name, known or name, shape)
