"""`ecd-deploy search`: trains students from the smallest up, and returns the first that passes the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from ecd_deploy.data import has_validation
from ecd_deploy.errors import RunDirectoryError, UsageError
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.gate.check import Verdict
from ecd_deploy.pipelines.report.figures import PICTURE_FORMATS
from ecd_deploy.pipelines.search.candidate import (
    CANDIDATE_NAME,
    Candidate,
    Cost,
    EarlyStop,
    State,
    folder_of,
    measure_cost,
    recipe_of,
    train_candidate,
)
from ecd_deploy.pipelines.search.result import SearchReport
from ecd_deploy.pipelines.search.table import pareto, to_markdown
from ecd_deploy.pipelines.steps.start import load_training_data
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.records import Record

SEARCH_NAME = "search.json"
_COST_NAME = "cost.json"
_Model = TypeVar("_Model", bound=Record)
_TRAINED = (State.PASS, State.FAIL, State.INCONCLUSIVE)


def search(
    recipe: Recipe,
    students: Sequence[str],
    out: Path,
    *,
    rule: EarlyStop | None,
    resume: bool,
    every: bool = False,
    host: str | None = None,
    python: str = "python3",
    console: Console,
) -> SearchReport:
    """Measure every student's cost, then train those that can pass, the smallest first; write the result.

    A decided student is not trained again, an interrupted one is resumed.

    Args:
        recipe: of all students but for the student's name; its `[gate]` decides.
        students: names, in any order.
        out: gets a folder a student, `search.json`, `search.md`, `pareto.png` and `pareto.svg`.
        rule: when to give a training up; None for never. Without a validation split it is left out, and said so.
        resume: continue the search in `out`.
        every: train larger ones than the smallest that passes, too.
        host: `user@device`, where latency is measured over ssh; None for here.
        python: the host's Python that has numpy and onnxruntime.
        console: for progress.

    Raises:
        UsageError: a student is named twice, or none is.
        RunDirectoryError: `out` holds something and `resume` is False, or a search of another recipe.
        TrainingError: a training broke.
    """
    if not students or len(set(students)) != len(students):
        raise UsageError(f"name each student once: {', '.join(students) or 'there is none'}")
    if not resume and out.is_dir() and any(out.iterdir()):
        raise RunDirectoryError(f"{out} is not empty; add --resume to continue the search in it, or choose another")
    if rule is not None and not has_validation(recipe.data):
        # not refused: the rule only saves time, and is on unless it is switched off
        console.print("no training is given up early: data.validation_fraction is 0, so there is no validation top-1")
        rule = None
    data = load_training_data(recipe)
    recipes = {name: recipe_of(recipe, name) for name in students}
    measure = partial(measure_cost, data=data, host=host, python=python)
    costs = [_cost(recipes[name], folder_of(out, name), measure, console) for name in students]
    candidates: list[Candidate] = []
    for cost in sorted(costs, key=lambda cost: cost.onnx_bytes):
        passed = any(candidate.state is State.PASS for candidate in candidates) and not every
        folder = folder_of(out, cost.student)
        candidates.append(_candidate(recipes[cost.student], cost, folder, rule, console, passed=passed))
        console.print(f"{cost.student}: {candidates[-1].state}, {candidates[-1].reason}")
    report = _report(recipe, rule, candidates)
    _write(report, out)
    return report


def _cost(recipe: Recipe, folder: Path, measure: Callable[[Recipe], Cost], console: Console) -> Cost:
    known = _read(folder / _COST_NAME, Cost)
    if known is not None:
        if known.recipe_digest != recipe.digest():
            raise RunDirectoryError(f"{folder} belongs to another recipe or gate; choose another --out")
        # What a busy host could not decide is measured again.
        if all(check.verdict is not Verdict.INCONCLUSIVE for check in known.checks):
            return known
    cost = measure(recipe)
    latency = "unknown" if cost.p90_ms is None else f"{cost.p90_ms:.3f} ms"
    console.print(f"{cost.student}: {cost.parameters:,} parameters, {cost.onnx_bytes / 1e6:.3f} MB, p90 {latency}")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / _COST_NAME, cost.to_json())
    return cost


def _candidate(
    recipe: Recipe, cost: Cost, folder: Path, rule: EarlyStop | None, console: Console, *, passed: bool
) -> Candidate:
    failed = [check for check in cost.checks if check.verdict is Verdict.FAIL]
    if failed:
        exceeded = "; ".join(f"{check.name}: {check.value:.3g} {check.unit} > {check.limit:g}" for check in failed)
        return Candidate(cost=cost, state=State.RULED_OUT, reason=exceeded)
    known = _read(folder / CANDIDATE_NAME, Candidate)
    if known is not None and (known.state in _TRAINED or rule is not None):
        return known
    if passed:
        return Candidate(cost=cost, state=State.NOT_NEEDED, reason="a smaller one passes")
    candidate = train_candidate(recipe, cost, folder, rule, console)
    write_atomic(folder / CANDIDATE_NAME, candidate.to_json())
    return candidate


def _report(recipe: Recipe, rule: EarlyStop | None, candidates: Sequence[Candidate]) -> SearchReport:
    found = next((candidate.cost.student for candidate in candidates if candidate.state is State.PASS), None)
    verdict = Verdict.PASS if found is not None else Verdict.FAIL
    if found is None and any(candidate.state is State.INCONCLUSIVE for candidate in candidates):
        verdict = Verdict.INCONCLUSIVE
    return SearchReport(
        recipe=recipe.name,
        device=recipe.profile.device,
        limits=recipe.gate,
        rule=rule,
        candidates=tuple(candidates),
        verdict=verdict,
        found=found,
    )


def _write(report: SearchReport, out: Path) -> None:
    write_atomic(out / SEARCH_NAME, report.to_json())
    write_atomic(out / "search.md", to_markdown(report).encode())
    for format_name in PICTURE_FORMATS:
        write_atomic(out / f"pareto.{format_name}", pareto(report, format_name))


def _read(path: Path, model: type[_Model]) -> _Model | None:
    if not path.is_file():
        return None
    return model.from_json(path.read_bytes(), f"{path} is not a {model.__name__}")
