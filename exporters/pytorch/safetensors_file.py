"""safetensors: the student's tensors under its own names, for its own class."""

from __future__ import annotations

import json
from typing import Any, Final

import safetensors
from safetensors import SafetensorError

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.files.contents import Contents, raw_tensor
from ecd_deploy.exporters.files.metadata import METADATA_KEY, ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.files.paths import refuse_local_paths
from ecd_deploy.measure.predictors.prediction import Predictor

_LENGTH_BYTES = 8


class SafetensorsExporter:
    """Writes what `load_state_dict(strict=True)` of the plain student takes, without any prefix."""

    format = "safetensors"
    filename = "student.safetensors"
    runtime: Final = "torch"
    budget = None
    derived_from = None

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        from safetensors.torch import save

        from ecd_deploy.split import plain_state

        text = describe(given.student, given.metadata).model_dump_json()
        data = save(plain_state(given.student.module), metadata={METADATA_KEY: text})
        refuse_local_paths(data, self.format)
        return data

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the tensors, strictly, into a student built anew; see `Exporter`."""
        from safetensors.torch import load

        from ecd_deploy.measure.predictors.torch_predictor import torch_predictor

        module = build()
        try:
            module.load_state_dict(load(data), strict=True)
        except SafetensorError as error:
            raise ExportError(f"not a safetensors artefact: {error}") from error
        except RuntimeError as error:
            raise ExportError(f"the safetensors artefact does not fit {type(module).__name__}: {error}") from error
        return torch_predictor(module)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        _entries(data)
        return parse_metadata(_texts(data).get(METADATA_KEY), self.format)

    def contents(self, data: bytes) -> Contents:
        """Read the header and the tensors, which safetensors demands to be all of the file; see `Exporter`."""
        tensors = tuple(raw_tensor(name, bytes(entry["data"]), entry["dtype"]) for name, entry in _entries(data))
        extra = sorted(set(_texts(data)) - {METADATA_KEY})
        problems = tuple(f"the file has an entry of metadata '{key}'" for key in extra)
        return Contents(tensors, data[: _header_end(data)], 256 + 256 * len(tensors), problems)


def _entries(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    try:
        # It gives them in another order in each process.
        return sorted(safetensors.deserialize(data), key=lambda entry: entry[0])  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ExportError(f"not a safetensors artefact: {error}") from error


def _texts(data: bytes) -> dict[str, str]:
    return json.loads(data[_LENGTH_BYTES : _header_end(data)]).get("__metadata__") or {}


def _header_end(data: bytes) -> int:
    return _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
