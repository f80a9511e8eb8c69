"""ONNX with a batch of one: mobile runtimes compile only graphs whose every size is known."""

from __future__ import annotations

from onnx import shape_inference

from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.onnx.format import OnnxFormat, finish, fp32_source, parse_model


class StaticOnnxExporter(OnnxFormat):
    """Writes the ONNX student with its batch fixed to one image."""

    format = "onnx-static"
    filename = "student.batch1.onnx"

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        source = fp32_source(given, self.format)
        model = parse_model(source.data, self.format)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        del model.graph.value_info[:]  # so that inference writes every inner size anew
        described = source.metadata.model_copy(update={"batch": 1})
        return finish(shape_inference.infer_shapes(model, strict_mode=True), described, self.format)
