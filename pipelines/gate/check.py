"""One limit, what was measured against it, and how that is decided."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum

from ecd_deploy.records import Record


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Check(Record):
    """One limit and what was measured against it."""

    name: str
    value: float | None
    """What was observed; None where it could not be measured."""
    bound: float | None
    """The confidence bound that must meet the limit; None where the value itself must."""
    limit: float
    unit: str
    verdict: Verdict
    reason: str


def overall(checks: Iterable[Check]) -> Verdict:
    """One failure fails; without one, a single undecided limit leaves it undecided."""
    verdicts = {check.verdict for check in checks}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts or not verdicts else Verdict.PASS


def bounded(name: str, value: float, bound: float, limit: float, images: int, *, at_least: bool) -> Check:
    """Decide by a confidence bound: passed where it meets the limit, failed where the value does not either."""
    sign = 1.0 if at_least else -1.0
    if not (math.isfinite(value) and math.isfinite(bound)):
        return undecided(name, limit, "", "it is not a number")
    if sign * bound >= sign * limit:
        verdict, reason = Verdict.PASS, f"{images} images"
    elif sign * value >= sign * limit:
        verdict, reason = Verdict.INCONCLUSIVE, f"{images} images are too few to prove it"
    else:
        verdict, reason = Verdict.FAIL, f"{images} images"
    return Check(name=name, value=value, bound=bound, limit=limit, unit="", verdict=verdict, reason=reason)


def undecided(name: str, limit: float, unit: str, reason: str) -> Check:
    """A limit for which nothing usable was measured."""
    return Check(name=name, value=None, bound=None, limit=limit, unit=unit, verdict=Verdict.INCONCLUSIVE, reason=reason)


def size_checks(size: int, limit_mb: float | None) -> list[Check]:
    """Check the ONNX student's size in bytes against the limit, if there is one."""
    if limit_mb is None:
        return []
    verdict = Verdict.PASS if size / 1e6 <= limit_mb else Verdict.FAIL
    return [
        Check(
            name="max_size_mb",
            value=size / 1e6,
            bound=None,
            limit=limit_mb,
            unit="MB",
            verdict=verdict,
            reason="student.onnx",
        )
    ]
