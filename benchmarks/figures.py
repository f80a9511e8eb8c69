"""Figures with what they must and should reach, their table, and the JSON that keeps them."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.record.environment import describe_environment

RESULTS = Path(__file__).parent / "results"
_IMAGES = "ECD_DEPLOY_CIFAR100"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table.

    Attributes:
        name: what it is.
        value: reached.
        lower, upper: quartiles over the rounds, or None where it was measured once.
        better: the direction in which it is good.
        must, aim: limits; None where the row is for information.
        unit: "x" for a ratio, "%", "images/s", ...
    """

    name: str
    value: float
    lower: float | None = None
    upper: float | None = None
    better: Literal["higher", "lower"]
    must: float | None = None
    aim: float | None = None
    unit: str = "x"

    @classmethod
    def over(
        cls,
        name: str,
        rounds: Sequence[float],
        *,
        better: Literal["higher", "lower"],
        must: float | None = None,
        aim: float | None = None,
        unit: str = "x",
    ) -> Figure:
        """The median of what several rounds gave, between the quartiles."""
        lower, median, upper = statistics.quantiles(rounds, n=4, method="inclusive")
        return cls(name=name, value=median, lower=lower, upper=upper, better=better, must=must, aim=aim, unit=unit)

    def reached(self, limit: float | None) -> bool | None:
        """Whether the limit is met; None without a limit."""
        if limit is None:
            return None
        return self.value >= limit if self.better == "higher" else self.value <= limit


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one benchmark found.

    Attributes:
        benchmark: its name, which is also that of its file in `results/`.
        figures: rows of the table.
        setting: what was measured, in plain values.
        raw: everything that the figures were made from.
    """

    benchmark: str
    figures: Sequence[Figure]
    setting: Mapping[str, Any]
    raw: Mapping[str, Any] = field(default_factory=dict)


class Skipped(Exception):
    """Why a benchmark cannot be run here."""


def cifar100() -> Path:
    """The folder with CIFAR-100's train/ and test/, as image files.

    Raises:
        Skipped: the environment names none.
    """
    folder = os.environ.get(_IMAGES)
    if folder is None:
        raise Skipped(f"{_IMAGES} does not name a folder with CIFAR-100's train/ and test/")
    return Path(folder).resolve()


def rows_so_far(benchmark: str, setting: Mapping[str, Any], key: str = "student") -> dict[str, dict[str, Any]]:
    """Rows of `results/BENCHMARK.json` by their student, or another key, so that an interrupted run goes on.

    None are taken where the file has another value for a key of `setting`, such as the version of a package.
    """
    path = RESULTS / f"{benchmark}.json"
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    if any(document["setting"].get(key) != value for key, value in setting.items()):
        return {}
    return {row[key]: row for row in document["raw"]["rows"]}


def write(report: Report) -> Path:
    """Write `results/NAME.json`, with the environment: no names of hosts, users or folders."""
    document = {
        **asdict(report),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": torch.get_num_threads(),
        "load_average_1_min": round(os.getloadavg()[0], 2),
        "environment": describe_environment().model_dump(mode="json"),
    }
    path = RESULTS / f"{report.benchmark}.json"
    write_atomic(path, (json.dumps(document, indent=2) + "\n").encode())
    return path


def show(figures: Sequence[Figure], console: Console | None = None) -> None:
    """Print the table; rows without limits are for information."""
    table = Table("figure", "reached", "quartiles", "must", "aim", "")
    for figure in figures:
        sign = ">=" if figure.better == "higher" else "<="
        spread = "" if figure.lower is None else f"{figure.lower:.3g} to {figure.upper:.3g}"
        limits = ("" if limit is None else f"{sign} {limit:g}" for limit in (figure.must, figure.aim))
        table.add_row(figure.name, f"{figure.value:.3g} {figure.unit}", spread, *limits, _verdict(figure))
    (console or Console()).print(table)


def _verdict(figure: Figure) -> str:
    if figure.reached(figure.aim):
        return "aim"
    if (must := figure.reached(figure.must)) is None:
        return ""
    return "must" if must else "MISSED"
