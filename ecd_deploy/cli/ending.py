"""What commands share: the terminal, and the error that a verdict ends with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ecd_deploy.errors import GateFailed, Inconclusive

if TYPE_CHECKING:
    from rich.console import Console

    from ecd_deploy.pipelines.gate.decide import GateReport

_LOG_WIDTH = 120


def console() -> Console:
    """The terminal, or a log of a fixed width."""
    from rich.console import Console

    # Paths and names of classes, students and processors are shown as they are, brackets and colons included.
    terminal = Console(highlight=False, markup=False, emoji=False)
    if not terminal.is_terminal:  # in a log there is no screen to fit: tables keep their lines whole
        terminal.width = _LOG_WIDTH
    return terminal


def finish(report: GateReport, directory: Path) -> None:
    """Turn a verdict into the exit code.

    Raises:
        GateFailed: a limit is violated.
        Inconclusive: a limit could not be decided.
    """
    failed = [check.name for check in report.checks if check.verdict == "fail"]
    undecided = [check.name for check in report.checks if check.verdict == "inconclusive"]
    if failed:
        raise GateFailed(f"gate failed: {', '.join(failed)}; see {directory / 'gate.json'}")
    if undecided:
        raise Inconclusive(f"gate inconclusive: {', '.join(undecided)}; see {directory / 'gate.json'}")
