"""Runs side by side, and what this one gains or loses against each other one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from ecd_deploy.measure.latency.measurement import Latency
from ecd_deploy.measure.latency.steadiness import why_not_comparable
from ecd_deploy.measure.statistics import drop_upper_bound, mcnemar_p_value
from ecd_deploy.pipelines.record.predictions import lost_and_gained
from ecd_deploy.pipelines.report.page.section import Cell, Section, Table, accuracy_cells
from ecd_deploy.pipelines.report.results import NamedRun, RunResults
from ecd_deploy.pipelines.report.words import format_number

THIS_RUN = "this run"
_CONFIDENCE = 0.95


def comparison_section(results: RunResults, others: Sequence[NamedRun]) -> Section:
    """Accuracy, size and latency of all runs; differences in accuracy are paired by image."""
    runs = (NamedRun(THIS_RUN, results), *others)
    text = (
        "Every student as ONNX on the whole test set. p50 is what each run measured for itself; only gate --baseline "
        "interleaves two runs on one host, and the ratio of this run to its baseline is then below. "
        "Intervals are over images, not over seeds: ecd-deploy compare repeats a training."
    )
    if any(run.results.predictions.test_digest != results.predictions.test_digest for run in others):
        text += " Runs with other test images are not paired; gate --baseline evaluates a baseline on this run's."
    text += "".join(_doubt(results.profile.latency, run) for run in others)
    side_by_side = Table(
        "Runs side by side",
        ("run", "student", "method", "top-1", "95% interval", "ONNX", "p50", "p90 bound", "gate"),
        tuple(_row(run) for run in runs),
    )
    differences = Table(
        "This run minus the other",
        ("other run", "top-1, points", "95% interval", "gained", "lost", "McNemar p", "ONNX", "p50 ratio, interleaved"),
        tuple(_difference(results, other) for other in others),
    )
    return Section("compared", "Compared runs", text, tables=(side_by_side, differences))


def _doubt(latency: Latency, other: NamedRun) -> str:
    doubt = why_not_comparable(latency, other.results.profile.latency)
    return f" The p50 of {THIS_RUN} and of {other.name} cannot be compared: {doubt}." if doubt else ""


def _row(run: NamedRun) -> tuple[Cell, ...]:
    results = run.results
    top1, latency = results.top1, results.profile.latency
    size, verdict = results.shipped.bytes, results.gate.verdict.value
    p50, p90 = latency.at(0.5).value_ms, latency.at(0.9).upper_bound_ms
    return (
        Cell(run.name),
        Cell(results.recipe.student.name),
        Cell(results.recipe.method.name),
        *accuracy_cells(top1.correct, top1.images),
        Cell(f"{size / 1e3:.1f} kB", size),
        *(Cell("invalid") if latency.contended else Cell(format_number(value, "ms"), value) for value in (p50, p90)),
        Cell(verdict, kind=verdict),
    )


def _difference(results: RunResults, other: NamedRun) -> tuple[Cell, ...]:
    size = results.shipped.bytes - other.results.shipped.bytes
    rest = (Cell(f"{size / 1e3:+.1f} kB", size), _ratio(results, other))
    paired = lost_and_gained(results.predictions, other.results.predictions)
    if paired is None:
        return (Cell(other.name), Cell("not paired"), *(Cell("-") for _ in range(4)), *rest)
    lost, gained = paired
    images, one_sided = len(results.predictions.labels), (1 + _CONFIDENCE) / 2
    low = -drop_upper_bound(lost, gained, images, one_sided)
    high = drop_upper_bound(gained, lost, images, one_sided)
    value, chance = (gained - lost) / images, mcnemar_p_value(lost, gained)
    return (
        Cell(other.name),
        Cell(f"{100 * value:+.2f}", value),
        Cell(f"{100 * low:+.2f} to {100 * high:+.2f}", low),
        Cell(f"{gained} images", gained),
        Cell(f"{lost} images", lost),
        Cell(format_number(chance), chance),
        *rest,
    )


def _ratio(results: RunResults, other: NamedRun) -> Cell:
    own, theirs = PurePosixPath(results.shipped.file).name, other.results.shipped.sha256
    measured = (entry for entry in results.gate.comparisons if (entry.file, entry.model_sha256) == (own, theirs))
    if (compared := next(measured, None)) is None:
        return Cell("not measured")
    found = compared.latency
    if found.comparison.host.contended:
        return Cell("invalid")
    return Cell(found.text, found.ratio)
