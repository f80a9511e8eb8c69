"""A study's committed result: table, plot, and what each run found.

`results/` gets the study's own table and plot beside the JSON, in which each run says what it was run on.
`python -m benchmarks.study_results NAME` trains nothing: it puts together the runs whose directories are here and, of
the others, those that are committed and of the same recipe.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.figures import RESULTS, Figure, Report, show, write
from benchmarks.studies import STUDIES
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.record.names import ARM_NAME, ENVIRONMENT_NAME
from ecd_deploy.pipelines.study.plot import curve_of, plot
from ecd_deploy.pipelines.study.run import ArmRun
from ecd_deploy.pipelines.study.runner import compare
from ecd_deploy.pipelines.study.study import Study, load_study, recipe_of, run_directory
from ecd_deploy.pipelines.study.table import Row, check_pairs, rows, to_csv, to_markdown

Entry = dict[str, Any]
"""What is kept of a run: `run` (its `arm.json`), `epochs` (its `metrics.jsonl`, without classes) and `environment`."""

_OF_CLASSES = "validation_recall"


def finish(name: str) -> Report:
    """Run what is not done yet of a study; keep its table, its curves and the outcome of each run."""
    study = load_study(STUDIES[name])
    out = Path("studies") / study.name
    compare(study, out, resume=True, jobs=2, console=Console(stderr=True))
    return collect(name, study, out)


def collect(name: str, study: Study, out: Path) -> Report:
    """Write `results/NAME.md`, `.csv` and `.svg` of the runs that are finished; the table says where some are not."""
    planned = [(arm.name, seed) for arm in study.arms for seed in study.seeds]
    kept = _committed(name)
    found = [
        entry for arm, seed in planned if (entry := _here(out, arm, seed) or kept.get(_digest(study, arm, seed, out)))
    ]
    runs = [ArmRun.model_validate(entry["run"]) for entry in found]
    check_pairs(study, runs)
    table = rows(study, runs)
    curves = {(run.arm, run.seed): curve_of(entry["epochs"]) for run, entry in zip(runs, found, strict=True)}
    write_atomic(RESULTS / f"{name}.md", to_markdown(study, table, runs).encode())
    write_atomic(RESULTS / f"{name}.csv", to_csv(table).encode())
    write_atomic(RESULTS / f"{name}.svg", plot(study, curves, table, "svg"))
    counted = Figure(name=f"{study.name}: finished runs", value=len(runs), better="higher", unit=f"of {len(planned)}")
    return Report(
        benchmark=name,
        figures=[counted, *(figure for row in table for figure in _figures(study, row))],
        setting={**study.model_dump(mode="json"), "command": f"ecd-deploy compare {study.name} --jobs 2"},
        raw={"runs": found},
    )


def _figures(study: Study, row: Row) -> list[Figure]:
    title = f"{study.name}, {row.label}"
    last = Figure(
        name=f"{title}: test top-1, last epoch, mean over seeds", value=row.last.mean, better="higher", unit="%"
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


def _here(out: Path, arm: str, seed: int) -> Entry | None:
    root = run_directory(out, arm, seed)
    if not (root / ARM_NAME).is_file():
        return None
    lines = (root / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "run": json.loads((root / ARM_NAME).read_text(encoding="utf-8")),
        "environment": json.loads((root / ENVIRONMENT_NAME).read_text(encoding="utf-8")),
        "epochs": [{key: value for key, value in json.loads(line).items() if key != _OF_CLASSES} for line in lines],
    }


def _committed(name: str) -> dict[str, Entry]:
    """The runs in `results/NAME.json` by their recipe's digest."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        entry["run"]["recipe_digest"]: {"environment": document["environment"], **entry}
        for entry in document["raw"]["runs"]
    }


def _digest(study: Study, arm: str, seed: int, out: Path) -> str:
    return recipe_of(study, study.arm(arm), seed, out).digest()


def main(names: list[str]) -> None:
    """Collect the results of these names, which are those of `STUDIES`."""
    for name in names:
        study = load_study(STUDIES[name])
        report = collect(name, study, Path("studies") / study.name)
        write(report)
        show(report.figures)


if __name__ == "__main__":
    main(sys.argv[1:])
