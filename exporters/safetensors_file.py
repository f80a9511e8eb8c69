"""safetensors: the student's tensors under its own names, for its own class."""

from __future__ import annotations

import json
from typing import Final

import safetensors
import safetensors.torch
from safetensors import SafetensorError

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.contract import StudentBuilder
from ecd_deploy.exporters.metadata import METADATA_KEY, ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.paths import refuse_local_paths
from ecd_deploy.measure.prediction import Predictor, torch_predictor
from ecd_deploy.split import SplitStudent, plain_state

_LENGTH_BYTES = 8


class SafetensorsExporter:
    """Writes what `load_state_dict(strict=True)` of the plain student takes, without any prefix."""

    format = "safetensors"
    filename = "student.safetensors"
    runtime: Final = "torch"
    budget = None

    def export(
        self,
        student: SplitStudent,
        metadata: ArtefactMetadata,
        context: ExportContext | None = None,  # noqa: ARG002
    ) -> bytes:
        """Write the student; see `Exporter`."""
        text = describe(student, metadata).model_dump_json()
        data = safetensors.torch.save(plain_state(student.module), metadata={METADATA_KEY: text})
        refuse_local_paths(data, self.format)
        return data

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the tensors, strictly, into a student built anew; see `Exporter`."""
        module = build()
        try:
            module.load_state_dict(safetensors.torch.load(data), strict=True)
        except SafetensorError as error:
            raise ExportError(f"not a safetensors artefact: {error}") from error
        except RuntimeError as error:
            raise ExportError(f"the safetensors artefact does not fit {type(module).__name__}: {error}") from error
        return torch_predictor(module)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        try:
            safetensors.deserialize(data)  # type: ignore[no-untyped-call]
            header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
            text = header["__metadata__"][METADATA_KEY]
        except SafetensorError as error:
            raise ExportError(f"not a safetensors artefact: {error}") from error
        except (KeyError, TypeError) as error:
            raise ExportError(f"the {self.format} artefact has no metadata '{METADATA_KEY}'") from error
        return parse_metadata(text, self.format)
