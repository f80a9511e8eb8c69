"""What `export` left: each file, and what the audit found in it."""

from __future__ import annotations

from typing import Literal

from ecd_deploy.errors import ArtefactError
from ecd_deploy.exporters import Quantisation
from ecd_deploy.exporters.audit.results import ArtefactAudit
from ecd_deploy.pipelines.record.names import ARTEFACTS_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.records import Record


class Artefact(Record):
    """One exported file."""

    format: str
    file: str
    """Path relative to the run directory."""
    sha256: str
    bytes: int
    derived_from: str | None = None
    """SHA-256 of the file that it was made from; None if from the student alone."""
    quantisation: Quantisation | None = None


class ArtefactList(Record):
    """Written to `artefacts.json`."""

    schema_version: Literal[1] = 1
    student_digest: str
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    artefacts: tuple[Artefact, ...]

    def find(self, format_name: str) -> Artefact:
        """The artefact of a format.

        Raises:
            ArtefactError: it was not exported.
        """
        for artefact in self.artefacts:
            if artefact.format == format_name:
                return artefact
        raise ArtefactError(f"no {format_name} artefact: exported are {', '.join(a.format for a in self.artefacts)}")


class AuditReport(Record):
    """Written to `audit.json`: the third way of the proof, of which `split.json` holds the first two."""

    schema_version: Literal[2] = 2
    student_digest: str
    audits: tuple[ArtefactAudit, ...]


def read_artefacts(directory: RunDirectory) -> ArtefactList:
    """Read what `export` left.

    Raises:
        RunDirectoryError: nothing was exported yet.
        ArtefactError: the file was changed.
    """
    return directory.read_json(ARTEFACTS_NAME, ArtefactList)
