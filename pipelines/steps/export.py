"""Step 3: write the split student in every format of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ecd_deploy.data import DataSplits
from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ArtefactMetadata, ExportContext, Written, export_formats
from ecd_deploy.exporters.audit.audit import audit_artefact, refuse
from ecd_deploy.exporters.audit.sources import student_sources
from ecd_deploy.pipelines.record.artefacts import Artefact, ArtefactList, AuditReport
from ecd_deploy.pipelines.record.environment import describe_environment
from ecd_deploy.pipelines.record.names import ARTEFACTS_NAME, AUDIT_NAME, EXPORTS_FOLDER
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.split import SplitStudent


@dataclass(frozen=True)
class Exported:
    """The artefacts, and what the audit found in each."""

    artefacts: ArtefactList
    audit: AuditReport


def export(directory: RunDirectory, student: SplitStudent, data: DataSplits) -> Exported:
    """Write the student to `exports/`, each file complete or absent, and audited before it is there.

    Raises:
        ExportError: a format cannot express the student, or its file breaks a promise or holds anything else.
    """
    recipe = directory.recipe
    directory.record_versions({name: found for name, found in describe_environment().packages.items() if found})
    artefacts = []
    audits = []
    sources = student_sources(student, artefact_metadata(recipe, student, data))
    for written in export_all(recipe, student, data):
        exporter = written.exporter
        described = exporter.read_metadata(written.data)
        if described.derived_from != written.derived_from:
            raise ExportError(
                f"the {exporter.format} artefact says that it was made from {described.derived_from}, not from "
                f"{written.derived_from}: its exporter must write the digest of its source to `derived_from`"
            )
        audits.append(audit_artefact(written.data, exporter, student, sources, described))
        refuse(audits[-1])
        parents = {"student": student.proof.student_digest}
        if exporter.derived_from is not None and written.derived_from is not None:
            parents[exporter.derived_from] = written.derived_from
        file = f"{EXPORTS_FOLDER}/{exporter.filename}"
        entry = directory.write(file, written.data, parents)
        artefacts.append(
            Artefact(
                format=exporter.format,
                file=file,
                sha256=entry.sha256,
                bytes=entry.bytes,
                derived_from=written.derived_from,
                quantisation=described.quantisation,
            )
        )
    result = ArtefactList(
        student_digest=student.proof.student_digest,
        image_shape=student.example_shape,
        artefacts=tuple(artefacts),
    )
    audit = AuditReport(student_digest=result.student_digest, audits=tuple(audits))
    directory.write_json(AUDIT_NAME, audit)
    directory.write_json(ARTEFACTS_NAME, result)
    return Exported(result, audit)


def export_all(recipe: Recipe, student: SplitStudent, data: DataSplits) -> Iterator[Written]:
    """Each artefact of the recipe, one after the other; nothing is written to the run directory.

    Raises:
        ExportError: a format cannot express the student or its file breaks a promise.
    """
    context = ExportContext(data.train, data.validation, data.normalisation, seed=recipe.seed)
    if recipe.gate.max_drop is not None:
        context = replace(context, max_drop=recipe.gate.max_drop)
    metadata = artefact_metadata(recipe, student, data)
    return export_formats(recipe.export.formats, recipe.export, student, metadata, context)


def artefact_metadata(recipe: Recipe, student: SplitStudent, data: DataSplits) -> ArtefactMetadata:
    """What every artefact of a run says about itself, but for what its format adds."""
    return ArtefactMetadata(
        student=recipe.student.name,
        classes=data.classes,
        mean=data.normalisation.mean,
        std=data.normalisation.std,
        input_shape=student.example_shape,
        resize=recipe.data.scaled_to_fill,
        recipe_digest=recipe.digest(),
    )
