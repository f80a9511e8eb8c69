"""ONNX with weights and arithmetic in float16: half the size; faster only where the processor has float16."""

from __future__ import annotations

import onnx

from ecd_deploy.compat.onnxruntime import half_precision
from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.budget import FLOAT16_BUDGET
from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.onnx.format import OnnxFormat, finish, fp32_source, parse_model
from ecd_deploy.exporters.onnx.graph import sort_nodes, strip_provenance
from ecd_deploy.exporters.preprocessing import preprocessing_nodes
from ecd_deploy.quiet import library_quiet


class HalfOnnxExporter(OnnxFormat):
    """Writes the ONNX student in float16; input and output stay float32 (or uint8 in)."""

    format = "onnx-fp16"
    filename = "student.fp16.onnx"
    budget = FLOAT16_BUDGET

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        source = fp32_source(given, self.format)
        model = _halved(parse_model(source.data, self.format))
        sort_nodes(model)
        strip_provenance(model)
        return finish(model, source.metadata, self.format)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        with library_quiet():  # it warns of weights too small for float16: parity shows whether that matters
            return half_precision(model, keep=preprocessing_nodes(model))
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"the student cannot be written in float16: {error}") from error
