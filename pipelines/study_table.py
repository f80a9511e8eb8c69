"""The result of a study as a table: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from ecd_deploy.errors import TrainingError
from ecd_deploy.measure.paired import paired_interval
from ecd_deploy.pipelines.study import Arm, Study
from ecd_deploy.pipelines.study_run import ArmRun

_ENOUGH_SEEDS = 5


@dataclass(frozen=True)
class Row:
    """One arm over its seeds; accuracies and differences are in percent and percentage points, on the test images."""

    arm: str
    label: str
    baseline: str
    seeds: int
    last_mean: float
    last_std: float | None
    best_mean: float
    best_std: float | None
    teacher_last_mean: float | None
    ensemble_last_mean: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    minutes: float
    peak_memory_mib: float | None
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
    """Write one line an arm."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in table)
    return text.getvalue()


def to_markdown(study: Study, table: Sequence[Row], runs: Sequence[ArmRun]) -> str:
    """Write the table with what must be known to read it."""
    has_claims = any(row.claim for row in table)
    heading = ["arm", "student, last", "student, best", "teacher, last", "ensemble, last"]
    heading += ["difference, last [95 %]", "minutes", "peak MiB", *(["the paper says"] if has_claims else [])]
    lines = [f"# {study.name}", "", study.description, "", _notes(study, runs), ""]
    lines += ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    for row in table:
        cells = [row.label, _spread(row.last_mean, row.last_std), _spread(row.best_mean, row.best_std)]
        cells += [_number(row.teacher_last_mean), _number(row.ensemble_last_mean), _difference(row)]
        cells += [f"{row.minutes:.1f}", "" if row.peak_memory_mib is None else f"{row.peak_memory_mib:.0f}"]
        lines.append("| " + " | ".join([*cells, *([row.claim] if has_claims else [])]) + " |")
    return "\n".join(lines) + "\n"


def _notes(study: Study, runs: Sequence[ArmRun]) -> str:
    seeds = ", ".join(str(seed) for seed in study.seeds)
    reading = (
        f"Top-1 in percent on {runs[0].test_images:,} test images, mean (standard deviation) over seeds {seeds}. "
        "*last*: weights of the last epoch; *best*: of the epoch that was best on the validation split. Differences "
        "are paired by seed: same initial student, same images in the same order; their interval is Student's t over "
        "seeds."
    )
    notes = [reading]
    planned = len(study.arms) * len(study.seeds)
    if len(runs) < planned:
        notes.append(f"**Not finished: {len(runs)} of {planned} runs are in this table.**")
    if len(study.seeds) == 1:
        notes.append("**One seed: no interval can be given, so no difference here is evidence.**")
    elif len(study.seeds) < _ENOUGH_SEEDS:
        notes.append(f"With {len(study.seeds)} seeds the interval is wide; an interval that holds 0 decides nothing.")
    if any(arm.claim for arm in study.arms):
        notes.append("The last column is the paper's text, at the paper's settings; nothing of it was measured here.")
    return "\n".join(notes)


def _row(study: Study, arm: Arm, runs: Sequence[ArmRun]) -> Row:
    own = {run.seed: run for run in runs if run.arm == arm.name}
    baseline = study.baseline_of(arm)
    others = {run.seed: run for run in runs if run.arm == baseline.name}
    pairs = sorted(own.keys() & others.keys()) if baseline.name != arm.name else []
    differences = [100 * (own[seed].last.student - others[seed].last.student) for seed in pairs]
    low, high = (paired_interval(differences) if differences else None) or (None, None)
    last, best = ([100 * pick(run) for run in own.values()] for pick in (_last, _best))
    memories = [run.peak_memory_mib for run in own.values() if run.peak_memory_mib is not None]
    return Row(
        arm=arm.name,
        label=arm.title,
        baseline=baseline.name,
        seeds=len(own),
        last_mean=statistics.fmean(last),
        last_std=statistics.stdev(last) if len(last) > 1 else None,
        best_mean=statistics.fmean(best),
        best_std=statistics.stdev(best) if len(best) > 1 else None,
        teacher_last_mean=_mean_of(own.values(), lambda run: run.last.teacher),
        ensemble_last_mean=_mean_of(own.values(), lambda run: run.last.ensemble),
        difference=statistics.fmean(differences) if differences else None,
        difference_low=low,
        difference_high=high,
        minutes=statistics.fmean(run.seconds for run in own.values()) / 60,
        peak_memory_mib=max(memories) if memories else None,
        claim=arm.claim,
    )


def _last(run: ArmRun) -> float:
    return run.last.student


def _best(run: ArmRun) -> float:
    return run.best.student


def _mean_of(runs: Iterable[ArmRun], pick: Callable[[ArmRun], float | None]) -> float | None:
    values = [value for run in runs if (value := pick(run)) is not None]
    return 100 * statistics.fmean(values) if values else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ({deviation:.2f})"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    if row.difference_low is None or row.difference_high is None:
        return f"{row.difference:+.2f}"
    return f"{row.difference:+.2f} [{row.difference_low:+.2f}, {row.difference_high:+.2f}]"
