"""One limit, what was measured against it, and how that is decided."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from pathlib import PurePosixPath

from ecd_deploy.measure.scores.estimates import Estimate
from ecd_deploy.records import Record


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    WARNING = "warning"
    """Nothing that a limit is set on, and so no part of the verdict over all."""


class Check(Record):
    """One limit and what was measured against it."""

    name: str
    value: float | None
    """What was observed; None where it could not be measured."""
    bound: float | None
    """The confidence bound that must meet the limit; None where the value itself must."""
    limit: float | None
    """None where a warning is of nothing that a limit is set on."""
    unit: str
    verdict: Verdict
    reason: str


def overall(checks: Iterable[Check]) -> Verdict:
    """One failure fails; without one, a single undecided limit leaves it undecided."""
    verdicts = {check.verdict for check in checks} - {Verdict.WARNING}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts or not verdicts else Verdict.PASS


def verdict_of(estimate: Estimate, limit: float, *, at_least: bool) -> Verdict:
    """Decide by a confidence bound: passed where it meets the limit, failed where the value does not either."""
    sign = 1.0 if at_least else -1.0
    if sign * estimate.bound >= sign * limit:
        return Verdict.PASS
    missed = sign * estimate.value < sign * limit if estimate.misses is None else estimate.misses(limit)
    return Verdict.FAIL if missed else Verdict.INCONCLUSIVE


def judge(name: str, estimate: Estimate, limit: float, *, at_least: bool) -> Check:
    """Decide about a limit, and where the images are too few, say how many would decide."""
    if not (math.isfinite(estimate.value) and math.isfinite(estimate.bound)):
        return undecided(name, limit, "", estimate.note or "it is not a number")
    verdict = verdict_of(estimate, limit, at_least=at_least)
    reason = f"{estimate.images} images"
    if verdict is Verdict.INCONCLUSIVE:
        reason = f"{reason} are too few to decide; {_would_decide(estimate, limit, at_least=at_least)}"
    if estimate.note:
        reason = f"{estimate.note}; {reason}"
    return Check(
        name=name,
        value=estimate.value,
        bound=estimate.bound,
        limit=limit,
        unit="",
        verdict=verdict,
        reason=reason,
    )


def _would_decide(estimate: Estimate, limit: float, *, at_least: bool) -> str:
    sign = 1.0 if at_least else -1.0
    if estimate.value == limit:
        return "the value is exactly the limit: no number would be enough"
    if sign * estimate.value < sign * limit:
        return "the value misses the limit, and more are needed to show that this is not by chance"
    enough = estimate.images_that_decide(limit, at_least=at_least)
    return f"at these rates {'no number would be enough' if enough is None else f'about {enough} would'}"


def undecided(name: str, limit: float, unit: str, reason: str) -> Check:
    """A limit for which nothing usable was measured."""
    return Check(name=name, value=None, bound=None, limit=limit, unit=unit, verdict=Verdict.INCONCLUSIVE, reason=reason)


def named(check: Check, artefact: str) -> Check:
    """The check with an artefact in its name, where several are decided about."""
    return check.model_copy(update={"name": f"{check.name} {artefact}"})


def size_checks(file: str, size: int, limit_mb: float | None) -> list[Check]:
    """Check the size of a file in bytes against the limit, if there is one."""
    if limit_mb is None:
        return []
    size_mb = size / 1e6
    verdict = Verdict.PASS if size_mb <= limit_mb else Verdict.FAIL
    return [
        Check(
            name="max_size_mb",
            value=size_mb,
            bound=None,
            limit=limit_mb,
            unit="MB",
            verdict=verdict,
            reason=PurePosixPath(file).name,
        )
    ]
