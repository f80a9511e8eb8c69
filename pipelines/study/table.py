"""The result of a study as a table: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any

from ecd_deploy.errors import TrainingError
from ecd_deploy.measure.statistics.paired import paired_interval
from ecd_deploy.pipelines.report.words import NO_VALIDATION
from ecd_deploy.pipelines.study.run import ArmRun, HeadBest, HeadBests
from ecd_deploy.pipelines.study.study import Arm, Study
from ecd_deploy.training import HeadTop1

_ENOUGH_SEEDS = 5


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds, in percent; there is no deviation of one seed."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class Row:
    """One arm over its seeds; accuracies are in percent on the test images, differences in percentage points.

    Attributes:
        arm: its name.
        label: what tables call it.
        baseline: the arm that it is compared with.
        seeds: of which there is a run.
        last: the student, with the weights of the last epoch.
        best: with those of the epoch that was best for the student on the validation split.
        teacher_last: None where there is no teacher.
        teacher_best: at the student's best epoch, whose weights alone are kept.
        ensemble_last: None where there is no learned ensemble.
        ensemble_best: at the student's best epoch.
        validation_best: highest top-1 of the student on the validation split; None in runs that did not record it.
        teacher_validation_best: of the teacher, in whichever epoch it had that.
        ensemble_validation_best: of the ensemble, likewise.
        difference: of `last` to the baseline, mean over the seeds of both.
        difference_low: lower end of its 95 % interval; None for one pair.
        difference_high: upper end.
        minutes: wall time of a run's epochs, mean; of a stack's, those of all its runs together.
        peak_memory_mib: largest of the runs, on the host.
        peak_gpu_memory_mib: the same on a GPU.
        claim: the paper's text.
    """

    arm: str
    label: str
    baseline: str
    seeds: int
    last: Spread
    best: Spread | None
    teacher_last: Spread | None
    teacher_best: Spread | None
    ensemble_last: Spread | None
    ensemble_best: Spread | None
    validation_best: Spread | None
    teacher_validation_best: Spread | None
    ensemble_validation_best: Spread | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    minutes: float
    peak_memory_mib: float | None
    peak_gpu_memory_mib: float | None
    claim: str


def check_pairs(study: Study, runs: Sequence[ArmRun]) -> None:
    """See that for each seed an arm and its baseline started from one student and saw the same images.

    Raises:
        TrainingError: naming the arms and the seed.
    """
    for run in runs:
        baseline = study.baseline_of(study.arm(run.arm)).name
        for other in runs:
            if (other.arm, other.seed) != (baseline, run.seed):
                continue
            for what in ("initial_student", "data_digest"):
                if getattr(run, what) != getattr(other, what):
                    raise TrainingError(
                        f"seed {run.seed}: '{run.arm}' and '{baseline}' differ in {what.replace('_', ' ')}, so they "
                        "cannot be paired; run both with the same versions and thread count"
                    )


def rows(study: Study, runs: Sequence[ArmRun]) -> tuple[Row, ...]:
    """Summarise every arm of which there is a run."""
    return tuple(_row(study, arm, runs) for arm in study.arms if any(run.arm == arm.name for run in runs))


def to_csv(table: Sequence[Row]) -> str:
    """Write one line an arm; what is a `Spread` has two columns, `NAME_mean` and `NAME_std`."""
    text = io.StringIO()
    columns = [column for field in fields(Row) for column in _csv_columns(field)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_cells(row) for row in table)
    return text.getvalue()


def to_markdown(study: Study, table: Sequence[Row], runs: Sequence[ArmRun]) -> str:
    """Write the table with what must be known to read it; columns that would be empty are left out."""
    columns = [(title, [cell(row) for row in table]) for title, cell in _COLUMNS]
    if len(runs) < _planned(study):
        columns.insert(1, ("finished seeds", [str(row.seeds) for row in table]))
    used = [(title, cells) for title, cells in columns if any(cells)]
    lines = [f"# {study.name}", "", study.description, "", _notes(study, runs), ""]
    lines += ["| " + " | ".join(title for title, _ in used) + " |", "|" + "---|" * len(used)]
    lines += ["| " + " | ".join(cells) + " |" for cells in zip(*(cells for _, cells in used), strict=True)]
    return "\n".join(lines) + "\n"


def _notes(study: Study, runs: Sequence[ArmRun]) -> str:
    seeds = ", ".join(str(seed) for seed in study.seeds)
    chosen = any(run.best is not None for run in runs)
    best = "; *best*: of the epoch that was best on the validation split" if chosen else ""
    reading = (
        f"Top-1 in percent on {runs[0].test_images:,} test images, mean (standard deviation) over seeds {seeds}. "
        f"*last*: weights of the last epoch{best}. Differences are paired by seed: same initial student, same images "
        "in the same order; their interval is Student's t over seeds."
    )
    notes = [reading]
    if not chosen:
        notes.append(f"There is no *best*: {NO_VALIDATION}.")
    elif any(run.best is None for run in runs):
        notes.append(f"*best* is empty where {NO_VALIDATION}.")
    if chosen and any(run.last.teacher is not None for run in runs):
        notes.append("Teacher and ensemble are tested in the same two epochs: the best one is the student's own.")
        if any(run.own_best is not None for run in runs):
            notes.append("Their own best on the validation split is in the CSV: `*_validation_best_*`.")
    if any(run.stacked_with for run in runs):
        notes.append(
            f"{sum(bool(run.stacked_with) for run in runs)} runs were trained in the same steps as others (`arm.json` "
            "names them): their minutes are those of all of these together."
        )
    if len(runs) < _planned(study):
        notes.append(f"**Not finished: {len(runs)} of {_planned(study)} runs are in this table.**")
    if len(study.seeds) == 1:
        notes.append("**One seed: no interval can be given, so no difference here is evidence.**")
    elif len(study.seeds) < _ENOUGH_SEEDS:
        notes.append(f"With {len(study.seeds)} seeds the interval is wide; an interval that holds 0 decides nothing.")
    if any(arm.claim for arm in study.arms):
        notes.append("The last column is the paper's text, at the paper's settings; nothing of it was measured here.")
    return "\n".join(notes)


def _planned(study: Study) -> int:
    return len(study.arms) * len(study.seeds)


def _row(study: Study, arm: Arm, runs: Sequence[ArmRun]) -> Row:
    own = {run.seed: run for run in runs if run.arm == arm.name}
    baseline = study.baseline_of(arm)
    others = {run.seed: run for run in runs if run.arm == baseline.name}
    pairs = sorted(own.keys() & others.keys()) if baseline.name != arm.name else []
    differences = [100 * (own[seed].last.student - others[seed].last.student) for seed in pairs]
    low, high = (paired_interval(differences) if differences else None) or (None, None)
    return Row(
        arm=arm.name,
        label=arm.title,
        baseline=baseline.name,
        seeds=len(own),
        last=_spread([run.last.student for run in own.values()]),
        best=_best_of(own.values(), lambda heads: heads.student),
        teacher_last=_spread_of(own.values(), lambda run: run.last.teacher),
        teacher_best=_best_of(own.values(), lambda heads: heads.teacher),
        ensemble_last=_spread_of(own.values(), lambda run: run.last.ensemble),
        ensemble_best=_best_of(own.values(), lambda heads: heads.ensemble),
        validation_best=_validation_of(own.values(), lambda bests: bests.student),
        teacher_validation_best=_validation_of(own.values(), lambda bests: bests.teacher),
        ensemble_validation_best=_validation_of(own.values(), lambda bests: bests.ensemble),
        difference=statistics.fmean(differences) if differences else None,
        difference_low=low,
        difference_high=high,
        minutes=statistics.fmean(run.seconds for run in own.values()) / 60,
        peak_memory_mib=_largest(run.peak_memory_mib for run in own.values()),
        peak_gpu_memory_mib=_largest(run.peak_gpu_memory_mib for run in own.values()),
        claim=arm.claim,
    )


def _spread(fractions: Sequence[float]) -> Spread:
    percent = [100 * fraction for fraction in fractions]
    return Spread(statistics.fmean(percent), statistics.stdev(percent) if len(percent) > 1 else None)


def _spread_of(runs: Iterable[ArmRun], pick: Callable[[ArmRun], float | None]) -> Spread | None:
    values = [value for run in runs if (value := pick(run)) is not None]
    return _spread(values) if values else None


def _best_of(runs: Iterable[ArmRun], pick: Callable[[HeadTop1], float | None]) -> Spread | None:
    return _spread_of(runs, lambda run: None if run.best is None else pick(run.best))


def _validation_of(runs: Iterable[ArmRun], pick: Callable[[HeadBests], HeadBest | None]) -> Spread | None:
    bests = [pick(run.own_best) for run in runs if run.own_best is not None]
    values = [best.validation_top1 for best in bests if best is not None]
    return _spread(values) if values else None


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _accuracy(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{spread.mean:.2f}" if spread.std is None else f"{spread.mean:.2f} ({spread.std:.2f})"


def _mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    if row.difference_low is None or row.difference_high is None:
        return f"{row.difference:+.2f}"
    return f"{row.difference:+.2f} [{row.difference_low:+.2f}, {row.difference_high:+.2f}]"


def _csv_columns(field: Field[Any]) -> tuple[str, ...]:
    return (f"{field.name}_mean", f"{field.name}_std") if field.type in ("Spread", "Spread | None") else (field.name,)


def _csv_cells(row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        columns = _csv_columns(field)
        values = (value.mean, value.std) if isinstance(value, Spread) else [value] * len(columns)
        cells |= zip(columns, values, strict=True)
    return cells


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("arm", lambda row: row.label),
    ("student, last", lambda row: _accuracy(row.last)),
    ("student, best", lambda row: _accuracy(row.best)),
    ("teacher, last", lambda row: _accuracy(row.teacher_last)),
    ("teacher, at the student's best", lambda row: _accuracy(row.teacher_best)),
    ("ensemble, last", lambda row: _accuracy(row.ensemble_last)),
    ("ensemble, at the student's best", lambda row: _accuracy(row.ensemble_best)),
    ("difference, last [95 %]", _difference),
    ("minutes", lambda row: f"{row.minutes:.1f}"),
    ("peak MiB", lambda row: _mebibytes(row.peak_memory_mib)),
    ("peak MiB, GPU", lambda row: _mebibytes(row.peak_gpu_memory_mib)),
    ("the paper says", lambda row: row.claim),
)
