"""`report.html`: one file, complete in itself, that asks the network for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import PurePosixPath

from jinja2 import Environment, StrictUndefined

from ecd_deploy.measure.latency.measurement import Latency
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.pipelines.report.page.calibration import bins
from ecd_deploy.pipelines.report.page.charts.latency import latency_distribution
from ecd_deploy.pipelines.report.page.charts.scores import class_scores, reliability_diagram
from ecd_deploy.pipelines.report.page.charts.split import split_picture
from ecd_deploy.pipelines.report.page.charts.training import Curve, compared_curves, training_curves
from ecd_deploy.pipelines.report.page.classes import class_rows
from ecd_deploy.pipelines.report.page.comparison import THIS_RUN
from ecd_deploy.pipelines.report.page.page import Chart, Page, Tile
from ecd_deploy.pipelines.report.results import NamedRun, RunResults
from ecd_deploy.pipelines.report.words import format_number

_MARKED = (0.5, 0.9, 0.99)


def with_figures(page: Page, results: RunResults, others: Sequence[NamedRun] = ()) -> Page:
    """The page of a run with what only the HTML page shows of its results: tiles and charts."""
    return replace(
        page,
        tiles=_tiles(results),
        charts=_charts(results, others),
        package_version=results.environment.packages["ecd-deploy"] or "",
    )


def page_html(page: Page) -> str:
    """Write a page as one HTML file with charts, sortable tables and a dark theme."""
    folder = files("ecd_deploy.pipelines.report.page")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        lead_in=page.lead_in.replace("`", ""),
        style=(folder / "page.css").read_text(encoding="utf-8"),
        script=(folder / "page.js").read_text(encoding="utf-8"),
    )


def _tiles(results: RunResults) -> tuple[Tile, ...]:
    top1, shipped = results.top1, results.shipped
    latency = results.profile.latency
    p90, place = format_number(latency.at(0.9).value_ms, "ms"), results.profile.place
    if latency.contended:
        p90, place = "invalid", f"{place}, which was busy"
    return (
        Tile(f"top-1 of {top1.images} test images", f"{top1.accuracy:.2%}"),
        Tile(f"p90 latency on the {place}", p90),
        Tile(PurePosixPath(shipped.file).name, f"{shipped.bytes / 1e3:.0f} kB"),
        Tile("parameters", f"{results.proof.parameters:,}"),
    )


def _charts(results: RunResults, others: Sequence[NamedRun]) -> dict[str, Chart]:
    return {
        **_compared(results, others),
        "training": Chart(
            training_curves(results.epochs),
            f"{_drawn(results)} over {results.training.epochs} epochs; the student {_end(results)}",
        ),
        **score_charts(results.predictions),
        "latency": latency_chart(results.profile.latency),
        "split": Chart(
            split_picture(results.proof),
            "Images go into student and teacher; connections lead from the student to the teacher only; "
            "teacher and connections are cut off and discarded",
        ),
    }


def score_charts(images: ScoredImages) -> dict[str, Chart]:
    """How well each class is told from the others, and how far probabilities can be believed."""
    return {
        "classes": Chart(
            class_scores(class_rows(images)),
            "Recall, precision and F1 of each class with 95% intervals; all are in the table below",
        ),
        "calibration": Chart(
            reliability_diagram(bins(images)), "Accuracy by confidence; the bins are in the table below"
        ),
    }


def latency_chart(latency: Latency) -> Chart:
    """How the latencies are distributed."""
    marks = [
        (f"p{entry.fraction * 100:.0f}", entry.value_ms)
        for entry in latency.percentiles
        if entry.value_ms and entry.fraction in _MARKED
    ]
    said = f"Distribution of {len(latency.samples_ms)} latencies; the percentiles are in the table below"
    return Chart(latency_distribution(latency.samples_ms, marks), said)


def _compared(results: RunResults, others: Sequence[NamedRun]) -> dict[str, Chart]:
    if not others:
        return {}
    runs = (NamedRun(THIS_RUN, results), *others)
    first, *rest = (Curve(run.name, run.results.epochs) for run in runs)
    ends = ", ".join(f"{run.name} {_end(run.results)}" for run in runs)
    drawn = _drawn(*(run.results for run in runs))
    label = f"{drawn} of each run's student by epoch: {ends}"
    return {"compared": Chart(compared_curves(first, rest), label)}


def _drawn(*runs: RunResults) -> str:
    """What curves there are of these runs."""
    evaluated = any(run.training.last.validation_top1 is not None for run in runs)
    return "Top-1 on the validation split and cross-entropy" if evaluated else "Cross-entropy"


def _end(run: RunResults) -> str:
    top1 = run.training.last.validation_top1
    return "has no validation split" if top1 is None else f"ends at {top1:.2%}"
