"""`.pt2`: the student's graph by torch.export, scrubbed of where it was written."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.pytorch.archive import read_text, read_torch_archive
from ecd_deploy.exporters.reason import first_cause
from ecd_deploy.measure.predictors.prediction import Predictor
from ecd_deploy.quiet import library_quiet

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from ecd_deploy.split import SplitStudent

_METADATA_FILE = "ecd_deploy.json"


class Pt2Exporter:
    """Writes what `torch.export.load` takes, and AOTInductor compiles.

    Loading one runs code that it names: open only files that were just verified by their digest.
    """

    format = "pt2"
    filename = "student.pt2"
    runtime: Final = "torch"
    budget = None
    derived_from = None

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        described = describe(given.student, given.metadata)
        data = _written(_exported(given.student), described.model_dump_json())
        return checked(data, _predictor, described, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the program; see `Exporter`."""
        return _predictor(data)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(read_text(data, _METADATA_FILE, self.format), self.format)

    def contents(self, data: bytes) -> Contents:
        """Read the archive; see `Exporter`."""
        return read_torch_archive(data, self.format)


def _exported(student: SplitStudent) -> ExportedProgram:
    import torch

    from ecd_deploy.compat.torch import forget_provenance

    example = (torch.zeros(2, *student.example_shape),)
    try:
        with library_quiet(), torch.no_grad():
            program = torch.export.export(
                student.module, example, dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
            )
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"torch.export cannot express the student: {first_cause(error)}") from error
    program.example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                forget_provenance(node)
    return program


def _written(program: ExportedProgram, text: str) -> bytes:
    import torch

    buffer = io.BytesIO()
    with library_quiet():
        torch.export.save(program, buffer, extra_files={_METADATA_FILE: text})
    return buffer.getvalue()


def _predictor(data: bytes) -> Predictor:
    import torch

    try:
        with library_quiet():
            program = torch.export.load(io.BytesIO(data))
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"not a pt2 artefact: {error}") from error
    module = program.module()

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: torch.Tensor = module(torch.from_numpy(images))
        return logits.numpy()

    return predict
