"""ONNX with a batch of one: mobile runtimes compile only graphs whose every size is known."""

from __future__ import annotations

from typing import Final, Literal

import onnx
from onnx import shape_inference

from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.metadata import ArtefactMetadata
from ecd_deploy.exporters.onnx_file import OnnxExporter, OnnxFormat, finish, parse_model
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split import SplitStudent


class StaticOnnxExporter(OnnxFormat):
    """Writes the ONNX student with its batch fixed to one image.

    Args:
        opset: of the standard operators.
        preprocessing: whether the graph itself normalises uint8 pixels.
    """

    format = "onnx-static"
    filename = "student.batch1.onnx"
    runtime: Final = "onnxruntime"
    budget = None

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
        described = self._source.read_metadata(source).model_copy(
            update={"batch": 1, "derived_from": sha256_bytes(source)}
        )
        model = parse_model(source, self.format)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        _forget_sizes(model)
        return finish(shape_inference.infer_shapes(model, strict_mode=True), described, self.format)


def _forget_sizes(model: onnx.ModelProto) -> None:
    """Drop what is said of inner values, so that inference writes every size anew."""
    del model.graph.value_info[:]
