"""Step 3: write the split student in every format of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from ecd_deploy.config import Recipe
from ecd_deploy.data import DataSplits
from ecd_deploy.errors import ArtefactError
from ecd_deploy.exporters import ArtefactMetadata, ExportContext, Quantisation, exporter_for
from ecd_deploy.pipelines.run_directory import RunDirectory
from ecd_deploy.split import SplitStudent

ARTEFACTS_NAME = "artefacts.json"
_FOLDER = "exports"


class Artefact(BaseModel):
    """One exported file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str
    file: str
    """Path relative to the run directory."""
    sha256: str
    bytes: int
    derived_from: str | None = None
    """SHA-256 of the fp32 ONNX file that it was made from."""
    quantisation: Quantisation | None = None


class ArtefactList(BaseModel):
    """Written to `artefacts.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
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


def export(directory: RunDirectory, student: SplitStudent, data: DataSplits) -> ArtefactList:
    """Write the student to `exports/`, each file complete or absent.

    Raises:
        ExportError: a format cannot express the student or its file breaks a promise.
    """
    recipe = directory.recipe
    artefacts = []
    for format_name, filename, content in export_all(recipe, student, data):
        file = f"{_FOLDER}/{filename}"
        entry = directory.write(file, content)
        described = exporter_for(format_name, recipe.export).read_metadata(content)
        artefacts.append(
            Artefact(
                format=format_name,
                file=file,
                sha256=entry.sha256,
                bytes=entry.bytes,
                derived_from=described.derived_from,
                quantisation=described.quantisation,
            )
        )
    result = ArtefactList(
        student_digest=student.proof.student_digest,
        image_shape=student.example_shape,
        artefacts=tuple(artefacts),
    )
    directory.write_json(ARTEFACTS_NAME, result)
    return result


def export_all(recipe: Recipe, student: SplitStudent, data: DataSplits) -> Iterator[tuple[str, str, bytes]]:
    """Format, file name and bytes of each artefact of the recipe, one after the other; nothing is written.

    Raises:
        ExportError: a format cannot express the student or its file breaks a promise.
    """
    metadata = ArtefactMetadata(
        student=recipe.student.name,
        classes=data.classes,
        mean=data.normalisation.mean,
        std=data.normalisation.std,
        input_shape=student.example_shape,
        recipe_digest=recipe.digest(),
    )
    context = ExportContext(data.train, data.validation, data.normalisation, seed=recipe.seed)
    if recipe.gate.max_drop is not None:
        context = replace(context, max_drop=recipe.gate.max_drop)
    for format_name in recipe.export.formats:
        exporter = exporter_for(format_name, recipe.export)
        yield format_name, exporter.filename, exporter.export(student, metadata, context)
