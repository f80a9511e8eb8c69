"""The report about a model of any origin: the page of a run, without what only a run has."""

from __future__ import annotations

from pathlib import Path

from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.gate.model import GatedModel
from ecd_deploy.pipelines.record.names import HTML_NAME, MARKDOWN_NAME
from ecd_deploy.pipelines.report.page.calibration import calibration_section
from ecd_deploy.pipelines.report.page.classes import class_section
from ecd_deploy.pipelines.report.page.content import gate_section, latency_section, layer_section, why_sections
from ecd_deploy.pipelines.report.page.html import latency_chart, page_html, score_charts
from ecd_deploy.pipelines.report.page.markdown import page_markdown
from ecd_deploy.pipelines.report.page.page import Page, Tile
from ecd_deploy.pipelines.report.page.section import Cell, Section, Table, accuracy_cells
from ecd_deploy.pipelines.report.words import format_number


def write_model_report(out: Path, gated: GatedModel) -> Path:
    """Write `report.html` and `report.md`.

    Returns:
        The path of `report.html`.
    """
    page = model_page(gated)
    write_atomic(out / MARKDOWN_NAME, page_markdown(page).encode())
    write_atomic(out / HTML_NAME, page_html(page).encode())
    return out / HTML_NAME


def model_page(gated: GatedModel) -> Page:
    """What is said of a model."""
    evaluation, profile, report = gated.evaluated.evaluation, gated.profile, gated.report
    p90 = profile.latency.at(0.9)
    valid = not profile.latency.contended
    return Page(
        name=evaluation.model.file,
        verdict=report.verdict.value,
        lead_in=f"Evaluated on {evaluation.images.images} images of {evaluation.images.source}.",
        sections=(
            *why_sections(report),
            gate_section(report),
            _accuracy(gated),
            class_section(gated.evaluated.scored, evaluation.model.file),
            calibration_section(gated.evaluated.scored),
            latency_section(profile),
            layer_section(profile),
            _model(gated),
        ),
        tiles=(
            Tile(f"top-1 of {evaluation.images.images} images", f"{evaluation.top1:.2%}"),
            Tile("balanced accuracy", f"{evaluation.balanced_accuracy:.2%}"),
            Tile(f"p90 latency on the {profile.place}", format_number(p90.value_ms, "ms") if valid else "invalid"),
            Tile(evaluation.model.file, f"{evaluation.model.bytes / 1e3:.0f} kB"),
        ),
        charts={**score_charts(gated.evaluated.scored), "latency": latency_chart(profile.latency)},
    )


def _accuracy(gated: GatedModel) -> Section:
    evaluation = gated.evaluated.evaluation
    images = evaluation.images.images
    rows = [_share("top-1", evaluation.correct, images)]
    if evaluation.correct_top5 is not None:
        rows.append(_share("top-5", evaluation.correct_top5, images))
    skipped = f" {evaluation.images.skipped} files could not be used." if evaluation.images.skipped else ""
    text = (
        f"By onnxruntime on {images} images of {evaluation.images.source}.{skipped} Balanced accuracy "
        f"{evaluation.balanced_accuracy:.2%}, mean confidence {evaluation.mean_confidence:.2%}."
    )
    table = Table("Accuracy on these images", ("figure", "value", "95% interval", "correct"), tuple(rows))
    return Section("accuracy", "Accuracy", text, (table,))


def _share(name: str, correct: int, images: int) -> tuple[Cell, ...]:
    return Cell(name), *accuracy_cells(correct, images), Cell(f"{correct} of {images}", correct)


def _model(gated: GatedModel) -> Section:
    evaluation, runtime = gated.evaluated.evaluation, gated.profile.measurement.runtime
    given = {
        "model": f"{evaluation.model.file}, SHA-256 {evaluation.model.sha256}",
        "output": f"{evaluation.model.output}, {evaluation.model.scores}",
        "preprocessing": f"{evaluation.preprocessing.words()}; from {evaluation.preprocessing_from}",
        "names of the classes": f"from {evaluation.classes_from}",
        "images": f"{evaluation.images.source}, SHA-256 {evaluation.images.sha256}",
        "runtime": f"onnxruntime {evaluation.onnxruntime}, {evaluation.provider}, Python {runtime.python}",
        "place": f"{runtime.processor}, {runtime.system} on {runtime.machine}",
    }
    rows = tuple((Cell(name), Cell(said)) for name, said in given.items())
    return Section("model", "Model and images", "", (Table("What was evaluated", ("part", "found"), rows),))
