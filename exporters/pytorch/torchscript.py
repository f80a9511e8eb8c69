"""TorchScript: traced or scripted, frozen, and cleaned of what changes from one export to the next."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.files.zip_archive import read_archive
from ecd_deploy.exporters.pytorch.archive import read_text, read_torch_archive
from ecd_deploy.exporters.reason import first_cause
from ecd_deploy.files import stored_zip
from ecd_deploy.measure.predictors.prediction import Predictor
from ecd_deploy.quiet import library_quiet

if TYPE_CHECKING:
    import torch
    from torch import nn

_METADATA_FILE = "metadata.json"

# Stack traces with local paths, the example's tensors, and a hash over both; none is needed to load.
_DROPPED = (".debug_pkl", "traced_inputs.pkl", "serialization_id")

# How often this process has traced a class of the same name.
_MANGLE_PATH = re.compile(r"___torch_mangle_\d+(?=[./])")
_MANGLE_NAME = re.compile(rb"\.___torch_mangle_\d+(?=[.\n])")


class TorchScriptExporter:
    """Writes a program that needs no Python class; deprecated by PyTorch, kept for those who run it.

    Freezing folds constants and batch normalisation into the convolutions. A student that looks at values, as an `if`
    does, is compiled from its source: a trace would take the same way for all images.
    """

    format = "torchscript"
    filename = "student.torchscript.pt"
    runtime: Final = "libtorch"
    budget = None
    derived_from = None

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        student, described = given.student, describe(given.student, given.metadata)
        data = _cleaned(_frozen(student.module, student.example_shape, described.model_dump_json()), self.format)
        return checked(data, _predictor, described, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the program, which runs as it is; see `Exporter`."""
        return _predictor(data)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(read_text(data, _METADATA_FILE, self.format), self.format)

    def contents(self, data: bytes) -> Contents:
        """Read the archive; see `Exporter`."""
        return read_torch_archive(data, self.format)


def _frozen(module: nn.Module, image_shape: tuple[int, int, int], text: str) -> bytes:
    import torch

    from ecd_deploy.compat.torch import value_read

    buffer = io.BytesIO()
    images = torch.zeros(2, *image_shape)
    reads = value_read(module, images)
    try:
        with library_quiet(), torch.no_grad():
            program = torch.jit.script(module) if reads else torch.jit.trace(module, images, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(torch.jit.freeze(program), buffer, _extra_files={_METADATA_FILE: text})
    except Exception as error:  # the compiler raises anything
        reraise_machine_fault(error)
        if reads is not None:
            where = f"module '{reads.module}'" if reads.module else "the student's own forward"
            kind = type(module.get_submodule(reads.module or "")).__name__
            raise ExportError(
                f"{where} ({kind}) looks at the values of the images, and TorchScript cannot compile the student from "
                f"its source: {first_cause(error)}"
            ) from None
        raise ExportError(f"TorchScript cannot express the student: {first_cause(error)}") from error
    return buffer.getvalue()


def _cleaned(data: bytes, format_name: str) -> bytes:
    """Rewrite the archive without what depends on the process."""
    parts: dict[str, bytes] = {}
    for entry in read_archive(data, format_name).entries:
        if entry.name.endswith(_DROPPED):
            continue
        name = _MANGLE_PATH.sub("", entry.name).replace("/.py", ".py")
        if name in parts:
            raise ExportError(f"TorchScript wrote two classes that differ by a counter only, {name}")
        is_code = name.endswith((".py", ".pkl"))
        parts[name] = _MANGLE_NAME.sub(b"", entry.content) if is_code else entry.content
    return stored_zip(parts)


def _predictor(data: bytes) -> Predictor:
    import torch

    from ecd_deploy.measure.predictors.torch_predictor import torch_predictor

    try:
        with library_quiet():
            program: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"not a TorchScript artefact: {error}") from error
    return torch_predictor(program)
