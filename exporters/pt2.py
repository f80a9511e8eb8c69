"""`.pt2`: the student's graph by torch.export, scrubbed of where it was written."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.batches import check_batches
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.contract import StudentBuilder
from ecd_deploy.exporters.metadata import ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.onnx_translation import library_quiet
from ecd_deploy.exporters.paths import refuse_local_paths
from ecd_deploy.measure.prediction import Predictor
from ecd_deploy.split import SplitStudent

_METADATA_FILE = "ecd_deploy.json"

# Where in which file each operation was written; nothing of it is needed to run the program.
_PROVENANCE = ("stack_trace", "source_fn_stack", "nn_module_stack", "torch_fn", "from_node")


class Pt2Exporter:
    """Writes what `torch.export.load` takes, and AOTInductor compiles.

    Loading one runs code that it names: open only files that were just verified by their digest.
    """

    format = "pt2"
    filename = "student.pt2"
    runtime: Final = "torch"
    budget = None

    def export(
        self,
        student: SplitStudent,
        metadata: ArtefactMetadata,
        context: ExportContext | None = None,  # noqa: ARG002
    ) -> bytes:
        """Write the student; see `Exporter`."""
        described = describe(student, metadata)
        data = _written(_exported(student), described.model_dump_json())
        refuse_local_paths(data, self.format)
        check_batches(_predictor(_loaded(data)[0]), student.example_shape, len(described.classes), self.format)
        return data

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the program; see `Exporter`."""
        return _predictor(_loaded(data)[0])

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(_loaded(data)[1] or None, self.format)


def _exported(student: SplitStudent) -> ExportedProgram:
    example = (torch.zeros(2, *student.example_shape),)
    try:
        with library_quiet("torch"), torch.no_grad():
            program = torch.export.export(
                student.module, example, dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
            )
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"torch.export cannot express the student: {error}") from error
    program.example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in _PROVENANCE:
                    node.meta.pop(key, None)
    return program


def _written(program: ExportedProgram, text: str) -> bytes:
    buffer = io.BytesIO()
    with library_quiet("torch"):
        torch.export.save(program, buffer, extra_files={_METADATA_FILE: text})
    return buffer.getvalue()


def _loaded(data: bytes) -> tuple[ExportedProgram, str]:
    files: dict[str, str] = {_METADATA_FILE: ""}
    try:
        with library_quiet("torch"):
            program = torch.export.load(io.BytesIO(data), extra_files=files)
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"not a pt2 artefact: {error}") from error
    return program, str(files[_METADATA_FILE])


def _predictor(program: ExportedProgram) -> Predictor:
    module = program.module()

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: torch.Tensor = module(torch.from_numpy(images))
        return logits.numpy()

    return predict
