"""The gate's verdict in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecd_deploy.pipelines.gate.ci import baseline_lines
from ecd_deploy.pipelines.gate.decide import Check, GateReport, Verdict
from ecd_deploy.pipelines.report.words import format_number

if TYPE_CHECKING:
    from ecd_deploy.measure.scores.power import Power

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.WARNING: "yellow"}


def print_gate(report: GateReport, console: Console) -> None:
    """Print each check with its value, bound, limit and verdict."""
    table = Table("check", "value", "bound", "limit", "verdict", "reason", box=None, header_style="bold")
    for check in report.checks:
        verdict = Text(check.verdict.value, style=_COLOURS[check.verdict])
        table.add_row(*_cells(check), verdict, check.reason)
    console.print(table)
    if report.limits.replaces_recipe or report.not_proved:
        console.print(report.basis, soft_wrap=True)
    if report.not_limited:
        console.print(f"not limited: {', '.join(report.not_limited)}")
    for found in report.comparisons:
        for line in baseline_lines(found):
            console.print(line)
    if report.warning:
        console.print(report.warning, style="bold yellow")
    console.print(Text.assemble("gate: ", (report.verdict.value, f"bold {_COLOURS[report.verdict]}")))


def print_power(power: Power, console: Console) -> None:
    """Print the strictest limits that the test images can decide in favour of a student."""
    table = Table("limit", "can pass at all", "no worse passes 8 times in 10", box=None, header_style="bold")
    for limit in power.limits:
        table.add_row(limit.name, format_number(limit.best), format_number(limit.usual))
    console.print(table)
    guess = ", a guess without --baseline" if power.assumed else " as by this student and the baseline"
    console.print(
        f"{power.images} test images, {power.disagreement:.1%} of them judged differently{guess}. A limit can pass at "
        "all with a student that makes no mistake, or none that the baseline does not make.",
        soft_wrap=True,
    )


def _cells(check: Check) -> tuple[str, str, str, str]:
    return (
        check.name,
        format_number(check.value, check.unit),
        format_number(check.bound, check.unit),
        format_number(check.limit, check.unit),
    )
