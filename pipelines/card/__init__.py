"""`MODEL_CARD.md`: what a person who ships the student must know, made from the manifest and the results."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from ecd_deploy.exporters import exporter_for
from ecd_deploy.pipelines.artefacts import ARTEFACTS_NAME, ArtefactList
from ecd_deploy.pipelines.gate import GATE_NAME, GateReport
from ecd_deploy.pipelines.names import SPLIT_NAME
from ecd_deploy.pipelines.run_directory import RunDirectory
from ecd_deploy.pipelines.split_text import describe_proof
from ecd_deploy.pipelines.validation import VALIDATION_NAME, Validation
from ecd_deploy.split import SplitProof

CARD_NAME = "MODEL_CARD.md"
_TEMPLATE = "model_card.md.j2"


def write_model_card(directory: RunDirectory) -> None:
    """Write the model card.

    Raises:
        RunDirectoryError: naming the step that has not been run.
        ArtefactError: a file was changed.
    """
    exported = directory.read_json(ARTEFACTS_NAME, ArtefactList, made_by="export")
    onnx = exported.find("onnx")
    exporter = exporter_for("onnx", directory.recipe.export)
    metadata = exporter.read_metadata(directory.read(onnx.file)).resized(directory.recipe.data.shorter_side)
    validation = directory.read_json(VALIDATION_NAME, Validation, made_by="validate")
    # Markdown, not HTML: what goes in are numbers, digests and names that the recipe or the data gave.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    text = environment.from_string((files(__name__) / _TEMPLATE).read_text(encoding="utf-8")).render(
        recipe=directory.recipe,
        manifest=directory.manifest,
        exported=exported,
        metadata=metadata,
        validation=validation,
        results={entry.format: entry for entry in validation.artefacts},
        gate=directory.read_json(GATE_NAME, GateReport, made_by="gate"),
        proof=describe_proof(directory.read_json(SPLIT_NAME, SplitProof, made_by="split")),
    )
    directory.write(CARD_NAME, text.encode(), {"student": exported.student_digest})
