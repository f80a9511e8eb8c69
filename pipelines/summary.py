"""What a person reads in the terminal at the end of a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from ecd_deploy.pipelines.gate import Check, GateReport, Verdict
from ecd_deploy.pipelines.gate_files import baseline_lines
from ecd_deploy.pipelines.report import HTML_NAME, RunResults
from ecd_deploy.pipelines.report.content import format_number

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow"}


def print_summary(results: RunResults, root: Path, console: Console) -> None:
    """Print accuracy, artefacts, latency and the gate of a finished run."""
    training, paired = results.training, results.validation.onnx_top1
    console.print(
        f"validation top-1: last {training.last.validation_top1:.2%}, "
        f"best {training.best.validation_top1:.2%} (epoch {training.best.epoch})"
    )
    console.print(
        f"test top-1, {paired.candidate.images} images: ONNX {paired.candidate.accuracy:.2%}, "
        f"PyTorch {paired.reference.accuracy:.2%}"
    )
    for artefact in results.artefacts.artefacts:
        mark = "  recommended on this host" if artefact.format == results.validation.recommended else ""
        console.print(f"  {root / artefact.file}  {artefact.bytes / 1e3:.1f} kB{mark}")
    print_gate(results.gate, console)
    console.print(f"report: {root / HTML_NAME}")


def print_gate(report: GateReport, console: Console) -> None:
    """Print each check with its value, bound, limit and verdict."""
    table = Table("check", "value", "bound", "limit", "verdict", "because", box=None, header_style="bold")
    for check in report.checks:
        colour = _COLOURS[check.verdict]
        table.add_row(*_cells(check), f"[{colour}]{check.verdict.value}[/{colour}]", check.reason)
    console.print(table)
    if report.not_limited:
        console.print(f"not limited by the recipe: {', '.join(report.not_limited)}")
    if report.baseline is not None:
        for line in baseline_lines(report.baseline):
            console.print(line)
    colour = _COLOURS[report.verdict]
    console.print(f"gate: [bold {colour}]{report.verdict.value}[/bold {colour}]")


def _cells(check: Check) -> tuple[str, str, str, str]:
    return (
        check.name,
        format_number(check.value, check.unit),
        format_number(check.bound, check.unit),
        format_number(check.limit, check.unit),
    )
