"""ONNX: one file, any batch size, run by onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import onnx

from ecd_deploy.errors import ExportError, SplitError, reraise_machine_fault
from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.files.metadata import INPUT_NAME, OUTPUT_NAME, describe
from ecd_deploy.exporters.onnx.format import OnnxFormat, finish
from ecd_deploy.exporters.onnx.graph import check_opset, strip_provenance
from ecd_deploy.exporters.preprocessing import put_preprocessing_inside
from ecd_deploy.exporters.reason import first_cause
from ecd_deploy.quiet import library_quiet

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from ecd_deploy.split import SplitStudent

Preprocessing = Literal["outside", "inside", "full"]


class OnnxExporter(OnnxFormat):
    """Writes a graph with its weights inside; batch normalisation is folded into the convolutions.

    Args:
        opset: of the standard operators, asserted from what was written.
        preprocessing: what the graph itself does with uint8 pixels.
    """

    format = "onnx"
    filename = "student.onnx"
    derived_from = None

    def __init__(self, opset: int = 20, preprocessing: Preprocessing = "outside") -> None:
        self._opset = opset
        self._preprocessing: Preprocessing = preprocessing

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        student = given.student
        described = describe(student, given.metadata).model_copy(update={"preprocessing": self._preprocessing})
        model = _translated(student, self._opset)
        check_opset(model, self._opset)
        strip_provenance(model)
        if self._preprocessing != "outside":
            put_preprocessing_inside(model, described)
        return finish(model, described, self.format)


def _translated(student: SplitStudent, opset: int) -> onnx.ModelProto:
    import torch

    try:
        return _written(student.program, (), opset)
    except (SplitError, ExportError):  # torch.onnx knows other ways, and the student may have one for it
        return _written(student.module, (torch.zeros(2, *student.example_shape),), opset)


def _written(source: nn.Module | ExportedProgram, example: tuple[Tensor, ...], opset: int) -> onnx.ModelProto:
    import torch

    from ecd_deploy.compat.torch_onnx import registry_kept

    try:
        with library_quiet(), registry_kept():
            program = torch.onnx.export(
                source,
                example,
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: "batch"},),
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"ONNX cannot express the student: {first_cause(error)}") from error
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    return program.model_proto
