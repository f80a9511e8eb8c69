"""ONNX with weights and arithmetic in float16: half the size; faster only where the processor has float16."""

from __future__ import annotations

import warnings
from typing import Final, Literal

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.contract import ParityBudget
from ecd_deploy.exporters.metadata import ArtefactMetadata
from ecd_deploy.exporters.onnx_file import OnnxExporter, OnnxFormat, finish, parse_model
from ecd_deploy.exporters.onnx_graph import sort_nodes, strip_provenance
from ecd_deploy.exporters.preprocessing import preprocessing_nodes
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split import SplitStudent


class HalfOnnxExporter(OnnxFormat):
    """Writes the ONNX student in float16; input and output stay float32 (or uint8 in).

    Args:
        opset: of the standard operators.
        preprocessing: whether the graph itself normalises uint8 pixels.
    """

    format = "onnx-fp16"
    filename = "student.fp16.onnx"
    runtime: Final = "onnxruntime"
    budget = ParityBudget(relative=0.02, agreement=0.98)

    def __init__(self, opset: int = 20, preprocessing: Literal["outside", "inside"] = "outside") -> None:
        self._source = OnnxExporter(opset, preprocessing)

    def export(
        self,
        student: SplitStudent,
        metadata: ArtefactMetadata,
        context: ExportContext | None = None,
    ) -> bytes:
        """Write the student; see `Exporter`."""
        source = self._source.export(student, metadata, context)
        described = self._source.read_metadata(source).model_copy(update={"derived_from": sha256_bytes(source)})
        model = _halved(parse_model(source, self.format))
        sort_nodes(model)
        strip_provenance(model)
        return finish(model, described, self.format)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        with warnings.catch_warnings():
            # Weights too small for float16 become its smallest: parity shows whether that matters.
            warnings.simplefilter("ignore")
            halved: onnx.ModelProto = convert_float_to_float16(
                model, keep_io_types=True, node_block_list=preprocessing_nodes(model)
            )
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"the student cannot be written in float16: {error}") from error
    return halved
