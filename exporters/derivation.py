"""Exports a student in several formats, each after the one that it is made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.contract import Exporter, ExportInput
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.exporters.registry import exporter_for
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.export import ExportConfig
from ecd_deploy.split import SplitStudent


@dataclass(frozen=True)
class Written:
    """An artefact as it was written.

    Attributes:
        exporter: that wrote it.
        data: the whole of it.
        derived_from: SHA-256 of the file it was made from; None if from the student alone.
    """

    exporter: Exporter
    data: bytes
    derived_from: str | None


def export_formats(
    names: Iterable[str],
    config: ExportConfig,
    student: SplitStudent,
    metadata: ArtefactMetadata,
    context: ExportContext | None = None,
) -> Iterator[Written]:
    """Export a student in these formats, in this order; what several are made from is exported once, before them.

    A format that others are made from need not be among the names: then it is made in memory, and not returned.

    Args:
        names: of the formats.
        config: of the recipe.
        student: proved separate.
        metadata: that the files carry.
        context: real images, for formats that are calibrated.

    Raises:
        ExportError: there is no such format, formats are made from each other or name their files alike, or one cannot
            express the student.
    """
    wanted = tuple(names)
    exporters = _with_sources(wanted, config)
    by_file = {exporters[name].filename: name for name in wanted}
    for name in wanted:
        filename = exporters[name].filename
        if by_file[filename] != name:
            raise ExportError(f"formats {name} and {by_file[filename]} both call their file {filename}")
    sources = {exporter.derived_from for exporter in exporters.values()}
    kept: dict[str, Written] = {}

    def written(name: str) -> Written:
        if name in kept:
            return kept[name]
        exporter = exporters[name]
        source = None if exporter.derived_from is None else written(exporter.derived_from).data
        data = exporter.export(ExportInput(student, metadata, context, source))
        result = Written(exporter, data, None if source is None else sha256_bytes(source))
        if name in sources:
            kept[name] = result
        return result

    for name in wanted:
        yield written(name)


def _with_sources(names: Iterable[str], config: ExportConfig) -> dict[str, Exporter]:
    """The exporters of these formats, and of those that they are made from."""
    exporters: dict[str, Exporter] = {}
    for name in names:
        chain: list[str] = []
        needed: str | None = name
        while needed is not None:
            if needed in chain:
                raise ExportError(f"no format can be made from itself: {' from '.join((*chain, needed))}")
            chain.append(needed)
            if needed not in exporters:
                exporters[needed] = exporter_for(needed, config)
            needed = exporters[needed].derived_from
    return exporters
