"""`MODEL_CARD.md`: what a person who ships the student must know, made from the manifest and the results."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from ecd_deploy.pipelines.gate.ci import escape
from ecd_deploy.pipelines.record.names import CARD_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.start import read_start
from ecd_deploy.pipelines.report.results import RunResults
from ecd_deploy.pipelines.report.words import DEPLOYED_EPOCH, describe_overlap, describe_proof

_TEMPLATE = "model_card.md.j2"


def write_model_card(directory: RunDirectory, results: RunResults) -> None:
    """Write the model card.

    Raises:
        ArtefactError: the ONNX artefact was changed.
    """
    from ecd_deploy.exporters import exporter_for

    exported, validation = results.artefacts, results.validation
    onnx = exported.find("onnx")
    exporter = exporter_for("onnx", directory.recipe.export)
    metadata = exporter.read_metadata(directory.read(onnx.file))
    # Markdown, not HTML: every name that goes in, of the recipe's or the data's, is escaped as such.
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
        finalize=_escaped,
    )
    text = environment.from_string(
        (files("ecd_deploy.pipelines.report") / _TEMPLATE).read_text(encoding="utf-8")
    ).render(
        recipe=directory.recipe,
        manifest=directory.manifest,
        start=read_start(directory),
        exported=exported,
        metadata=metadata,
        validation=validation,
        results={entry.format: entry for entry in validation.artefacts},
        gate=results.gate,
        deployed_epoch=DEPLOYED_EPOCH[directory.recipe.train.select],
        overlap=describe_overlap(validation),
        proof=describe_proof(results.proof),
    )
    directory.write(CARD_NAME, text.encode(), {"student": exported.student_digest})


def _escaped(value: object) -> object:
    return escape(value) if isinstance(value, str) else value
