"""The result of a search as a table and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.pipelines.report.figures import PictureFormat, render
from ecd_deploy.pipelines.search.candidate import Candidate, State
from ecd_deploy.pipelines.search.result import SearchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {State.PASS: "o", State.FAIL: "x", State.INCONCLUSIVE: "D"}


def to_markdown(report: SearchReport) -> str:
    """The ladder, smallest first, with what decided each student."""
    found = f"**{report.found}** is the smallest that passes." if report.found else f"None passes: {report.verdict}."
    lines = [f"# Search: {report.recipe}", "", found, ""]
    lines += [
        "| student | parameters | MB | p90 ms | top-1 | epochs | outcome | reason |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for candidate in report.candidates:
        cost = candidate.cost
        p90 = "-" if cost.p90_ms is None else f"{cost.p90_ms:.3f}"
        top1 = "-" if candidate.top1 is None else f"{candidate.top1:.2%}"
        reason = candidate.reason.replace("|", "/")
        lines.append(
            f"| {cost.student} | {cost.parameters:,} | {cost.onnx_bytes / 1e6:.3f} | {p90} | {top1} "
            f"| {candidate.epochs} | {candidate.state} | {reason} |"
        )
    places = ", ".join(sorted({candidate.cost.place for candidate in report.candidates}))
    lines += ["", f"Size and latency were measured before the training, with random weights, on: {places}."]
    if report.rule is not None:
        lines.append(
            f"A training was given up if, after {report.rule.share:.0%} of its epochs, its best validation top-1 was "
            f"more than {100 * report.rule.margin:g} points below gate.min_top1."
        )
    return "\n".join(lines) + "\n"


def front(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The trained students that no other beats in both size and accuracy, by size."""
    trained = sorted((r for r in candidates if r.top1 is not None), key=lambda r: (r.cost.onnx_bytes, -(r.top1 or 0.0)))
    kept: list[Candidate] = []
    for candidate in trained:
        if not kept or (candidate.top1 or 0.0) > (kept[-1].top1 or 0.0):
            kept.append(candidate)
    return tuple(kept)


def pareto(report: SearchReport, format_name: PictureFormat) -> bytes:
    """Draw accuracy over size, and over latency, with the limits and the Pareto front by size."""
    from matplotlib.figure import Figure

    limits = report.limits
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    by_size, by_latency = figure.subplots(1, 2, sharey=True)
    by_size.set(xlabel="ONNX file (MB)", ylabel="test top-1 (%)", title="size, with the Pareto front")
    by_latency.set(xlabel="p90 latency (ms)", title="latency")
    _points(by_size, [(candidate, candidate.cost.onnx_bytes / 1e6) for candidate in report.candidates], report.found)
    _points(by_latency, [(candidate, candidate.cost.p90_ms) for candidate in report.candidates], report.found)
    best = [(candidate.cost.onnx_bytes / 1e6, 100 * (candidate.top1 or 0.0)) for candidate in front(report.candidates)]
    by_size.plot([size for size, _ in best], [top1 for _, top1 in best], color="C0", alpha=0.4)
    for axes, limit in ((by_size, limits.max_size_mb), (by_latency, limits.p90_ms_max)):
        if limit is not None:
            axes.axvline(limit, color="C3", linestyle="--", linewidth=1)
        if limits.min_top1 is not None:
            axes.axhline(100 * limits.min_top1, color="C3", linestyle="--", linewidth=1)
    return render(figure, format_name)


def _points(axes: Axes, candidates: list[tuple[Candidate, float | None]], found: str | None) -> None:
    for candidate, value in candidates:
        if value is None:
            continue
        name = candidate.cost.student
        if candidate.top1 is None:  # not trained to the end: only its cost is known
            axes.axvline(value, color="0.8", linewidth=1)
            axes.annotate(name, (value, 0.02), xycoords=("data", "axes fraction"), fontsize="x-small", rotation=90)
        else:
            axes.scatter(
                value, 100 * candidate.top1, marker=_MARKERS[candidate.state], color="C2" if name == found else "C0"
            )
            axes.annotate(name, (value, 100 * candidate.top1), fontsize="small")
