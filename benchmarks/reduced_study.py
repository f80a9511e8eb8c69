"""ECD against its student alone on real images, at a size that two CPU cores train: table, curves, every run.

Runs what is not done yet of the study in `studies/reduced-cifar100`, as `ecd-deploy compare reduced-cifar100 --jobs 2
--resume` does. Beside the JSON, `results/` gets the study's own table and plot.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.figures import RESULTS, Figure, Report
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.compare import compare
from ecd_deploy.pipelines.study import Study, load_study, run_directory
from ecd_deploy.pipelines.study_plot import plot_curves
from ecd_deploy.pipelines.study_run import RUN_NAME, ArmRun
from ecd_deploy.pipelines.study_table import Row, check_pairs, rows, to_csv, to_markdown

NAME = "reduced_study"
STUDY = "reduced-cifar100"


def measure() -> Report:
    """Finish the study; keep its table, its curves and the outcome of each run."""
    study, out = load_study(STUDY), Path("studies") / STUDY
    compare(study, out, resume=True, jobs=2, console=Console(stderr=True))
    return collect(study, out)


def collect(study: Study, out: Path) -> Report:
    """Write table and plot of the runs that are finished, and return them; the table says where some are not."""
    planned = [(arm.name, seed) for arm in study.arms for seed in study.seeds]
    found = [_run(out, arm, seed) for arm, seed in planned if (run_directory(out, arm, seed) / RUN_NAME).is_file()]
    runs = [ArmRun.model_validate(entry["run"]) for entry in found]
    check_pairs(study, runs)
    table = rows(study, runs)
    write_atomic(RESULTS / f"{NAME}.md", to_markdown(study, table, runs).encode())
    write_atomic(RESULTS / f"{NAME}.csv", to_csv(table).encode())
    write_atomic(RESULTS / f"{NAME}.svg", plot_curves(study, runs, out, "svg"))
    counted = Figure(name=f"{study.name}: finished runs", value=len(runs), better="higher", unit=f"of {len(planned)}")
    return Report(
        benchmark=NAME,
        figures=[counted, *(figure for row in table for figure in _figures(study, row))],
        setting={**study.model_dump(mode="json"), "command": f"ecd-deploy compare {STUDY} --jobs 2"},
        raw={"runs": found},
    )


def _figures(study: Study, row: Row) -> list[Figure]:
    title = f"{study.name}, {row.label}"
    last = Figure(
        name=f"{title}: test top-1, last epoch, mean over seeds", value=row.last_mean, better="higher", unit="%"
    )
    if row.difference is None:
        return [last]
    difference = Figure(
        name=f"{title}: minus {row.baseline}, paired by seed, 95 % interval",
        value=row.difference,
        lower=row.difference_low,
        upper=row.difference_high,
        better="higher",
        unit="points",
    )
    return [last, difference]


def _run(out: Path, arm: str, seed: int) -> dict[str, Any]:
    root = run_directory(out, arm, seed)
    lines = (root / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "run": json.loads((root / RUN_NAME).read_text(encoding="utf-8")),
        "epochs": [json.loads(line) for line in lines],
    }
