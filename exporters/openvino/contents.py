"""The tensors of an OpenVINO IR: what the constants of `student.xml` take of `student.bin`."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.files.contents import Contents, Span, outside
from ecd_deploy.exporters.files.zip_archive import read_parts

GRAPH: Final = "student.xml"
WEIGHTS: Final = "student.bin"

# OpenVINO's element types, as safetensors calls them.
_TYPES = {"f64": "F64", "f32": "F32", "f16": "F16", "i64": "I64", "i32": "I32", "i16": "I16", "i8": "I8", "u8": "U8"}
_DECLARATION = b"<!"


def read_openvino(data: bytes) -> Contents:
    """Read an IR and the archive that holds it.

    Raises:
        ExportError: a part is missing or too many, the graph is no XML, or a constant lies outside the weights.
    """
    parts = read_parts(data, GRAPH, WEIGHTS, "openvino")
    constants = sorted(_constants(parts.graph), key=lambda span: (span.start, span.stop))
    for span in constants:
        if not 0 <= span.start <= span.stop <= len(parts.weights):
            raise ExportError(f"not an openvino artefact: {span.name} lies outside its weights")
    tensors = tuple(span.read(parts.weights) for span in constants)
    # A layer takes about 900 bytes of XML; a convolution brings a constant, its bias another.
    limit = 16_384 + 4096 * len(tensors)
    return Contents(tensors, parts.graph + outside(parts.weights, constants), limit, parts.problems)


def _constants(graph: bytes) -> list[Span]:
    if _DECLARATION in graph:
        raise ExportError("not an openvino artefact: its graph has declarations of XML entities")
    try:
        layers = ET.fromstring(graph).iter("layer")  # noqa: S314 (no entities, and the file is our own)
        return [_constant(layer) for layer in layers if layer.get("type") == "Const"]
    except (ET.ParseError, ValueError) as error:
        raise ExportError(f"not an openvino artefact: {error}") from error


def _constant(layer: ET.Element) -> Span:
    data = layer.find("data")
    if data is None:
        raise ValueError(f"the constant {layer.get('name')} has no data")
    start = int(data.get("offset", ""))
    # Names need not be unique: the number is.
    name = f"{layer.get('id')}/{layer.get('name')}"
    return Span(name, start, start + int(data.get("size", "")), _TYPES.get(data.get("element_type", ""), "?"))
