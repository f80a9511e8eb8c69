"""ExecuTorch's `.pte`, for phones and boards that run PyTorch's own runtime: the extra `[executorch]`.

Convolutions go to the XNNPACK delegate, which is in every build of that runtime for ARM and x86; what it does not
take runs on the portable kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.executorch.contents import read_pte
from ecd_deploy.exporters.executorch.layout import read_layout
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import METADATA_KEY, ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.reason import first_cause
from ecd_deploy.exporters.runtimes import missing_extra, one_by_one, opened_in
from ecd_deploy.measure.predictors.prediction import Predictor
from ecd_deploy.quiet import library_quiet

if TYPE_CHECKING:
    from torch import nn


class ExecuTorchExporter:
    """Writes a program for one image at a time, so that all memory it needs is planned ahead.

    The metadata are what its method `ecd_deploy` returns, one JSON text, so that a device reads them with the
    runtime it has.
    """

    format = "executorch"
    filename = "student.pte"
    runtime: Final = "executorch"
    budget = None
    derived_from = None

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        described = describe(given.student, given.metadata).model_copy(update={"batch": 1})
        data = _written(given.student.module, given.student.example_shape, described.model_dump_json())
        return checked(data, lambda written: one_by_one(opened_in("executorch", written, 1)), described, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the program; it is given one image after the other.

        ExecuTorch has one pool of threads for the process, which cannot be changed while a program is loaded.
        """
        read_layout(data)
        return one_by_one(opened_in("executorch", data, threads))

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata, without ExecuTorch; see `Exporter`."""
        return parse_metadata(read_layout(data).texts.get(METADATA_KEY), self.format)

    def contents(self, data: bytes) -> Contents:
        """Read the segments; see `Exporter`."""
        return read_pte(data)


def _written(module: nn.Module, image_shape: tuple[int, int, int], text: str) -> bytes:
    import torch

    with library_quiet():
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
        except ImportError as error:
            raise missing_extra("executorch", error) from error
        try:
            with torch.no_grad():
                program = torch.export.export(module, (torch.zeros(1, *image_shape),), strict=False)
            lowered = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods={METADATA_KEY: text}
            )
            return bytes(lowered.to_executorch().buffer)
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"ExecuTorch cannot express the student: {first_cause(error)}") from error
