"""Interfaces of onnxruntime that are private or not documented; each names the one that it rests on.

The schema of .ort files is not documented: its readers and writers are generated code that onnxruntime's own tools
use, in `onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs`.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import (
    ArgTypeAndIndex,
    Graph,
    InferenceSession,
    KernelTypeStrArgsEntry,
    KernelTypeStrResolver,
    OpIdKernelTypeStrArgsEntry,
    Tensor,
)

__all__ = [
    "ArgTypeAndIndex",
    "Graph",
    "KernelTypeStrArgsEntry",
    "KernelTypeStrResolver",
    "OpIdKernelTypeStrArgsEntry",
    "Tensor",
    "half_precision",
    "ort_session",
    "table_position",
    "table_slot",
]


def ort_session(data: bytes) -> InferenceSession.InferenceSession:
    """The root table of a .ort file: `fbs.InferenceSession.InferenceSession.GetRootAs`."""
    return InferenceSession.InferenceSession.GetRootAs(data, 0)


def table_position(session: InferenceSession.InferenceSession) -> int:
    """Where in the file the root table begins, in bytes: `_tab.Pos` of the generated reader."""
    return int(session._tab.Pos)


def table_slot(session: InferenceSession.InferenceSession, field: int) -> int:
    """How far behind the root table's beginning a field of this place in the vtable stands, in bytes: `_tab.Offset`."""
    return int(session._tab.Offset(field))


def half_precision(model: onnx.ModelProto, *, keep: list[str]) -> onnx.ModelProto:
    """Convert a model to float16 but for its input, its output and some nodes, by their names.

    Rests on `onnxruntime.transformers.float16.convert_float_to_float16`.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: Any = convert_float_to_float16(model, keep_io_types=True, node_block_list=keep)
    if not isinstance(converted, onnx.ModelProto):
        raise TypeError(f"onnxruntime's conversion to float16 gave a {type(converted).__name__}")
    return converted
