"""What a format that is made from another one's file starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.files.metadata import ArtefactMetadata, describe
from ecd_deploy.files import sha256_bytes


@dataclass(frozen=True)
class SourceFile:
    """A file that another format is made from.

    Attributes:
        data: its bytes.
        metadata: its own, with its digest as what they are derived from.
    """

    data: bytes
    metadata: ArtefactMetadata


def source_file(
    given: ExportInput, format_name: str, source_name: str, read: Callable[[bytes], ArtefactMetadata]
) -> SourceFile:
    """Check that the file to start from is that of the student.

    Args:
        given: to the exporter.
        format_name: of the exporter.
        source_name: of the format that it is made from.
        read: gives the metadata of a file of that.

    Raises:
        ExportError: there is none, it is no such artefact, its metadata are others, or they do not fit the student.
    """
    described = describe(given.student, given.metadata)
    if given.source is None:
        raise ExportError(f"{format_name} is made from the {source_name} artefact, and none was given")
    found = read(given.source)
    own = {name: getattr(found, name) for name in ("preprocessing", "batch", "derived_from")}
    if found != described.model_copy(update=own):
        raise ExportError(
            f"the {source_name} artefact that {format_name} is made from has the metadata of another export"
        )
    return SourceFile(given.source, found.model_copy(update={"derived_from": sha256_bytes(given.source)}))
