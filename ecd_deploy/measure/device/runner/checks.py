"""What `run.py` of a bundle decides: a row for each check, with its verdict, value, limit and reason."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PERCENTILES = ((0.5, None), (0.9, "p90_ms_max"), (0.95, "p95_ms_max"), (0.99, "p99_ms_max"))


def row_of(
    name: str, verdict: str, reason: str, *, value: float | None = None, limit: float | None = None
) -> dict[str, Any]:
    """A row."""
    return {"name": name, "verdict": verdict, "value": value, "limit": limit, "reason": reason}


def parity_row(
    name: str, description: dict[str, Any], expected: NDArray[np.float32], found: NDArray[np.float32], size: int
) -> dict[str, Any]:
    """Do scores of real images, in batches of `size`, lie within the limits of those where the bundle was made?"""
    import numpy as np

    scores = description["scores"]
    if found.shape != expected.shape:
        return row_of(name, "fail", f"{scores} have shape {list(found.shape)}, expected {list(expected.shape)}")
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        return row_of(name, "fail", f"one of the {scores} of sample {bad[0]} is not finite")
    difference = np.abs(expected.astype(np.float64) - found)
    value, limit = float(difference.max()), description["max_difference"]
    same = float((expected.argmax(axis=1) == found.argmax(axis=1)).mean())
    batches = "one at a time" if size == 1 else f"in batches of {size}"
    reason = f"{scores} differ by at most {value:.2g} (limit {limit:.2g}) over {len(found)} samples, {batches}"
    verdict = "pass"
    if value > limit:
        reason += f", most at sample {int(difference.max(axis=1).argmax())}"
        verdict = "fail"
    if same < description["min_same_class"]:
        reason += f"; {same:.1%} keep their class, limit {description['min_same_class']:.0%}"
        verdict = "fail"
    return row_of(name, verdict, reason, value=value, limit=limit)


def accuracy_row(description: dict[str, Any], labels: NDArray[np.int64], found: NDArray[np.float32]) -> dict[str, Any]:
    """Are as many images right as where the bundle was made?"""
    correct, before = int((found.argmax(axis=1) == labels).sum()), int(description["samples_correct"])
    drop, limit = (before - correct) / len(labels), description["max_drop"]
    reason = f"{correct} of {len(labels)} samples are right, {before} where the bundle was made"
    return row_of("accuracy", "pass" if drop <= limit else "fail", reason, value=drop, limit=limit)


def latency_rows(description: dict[str, Any], latency: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of percentiles, and one for each limit of the run, decided by the upper bound."""
    entries = {entry["fraction"]: entry for entry in latency["percentiles"]}
    shown = [f"p{100 * at:.0f} {entries[at]['value_ms']:.4g} ms" for at, _ in _PERCENTILES if entries[at]["value_ms"]]
    reason = f"{', '.join(shown)}; {len(latency['samples_ms'])} samples, {latency['threads']} thread(s)"
    undecided = "; ".join(latency["reasons"])
    rows = [row_of("latency", "inconclusive" if undecided else "pass", f"{reason}{': ' * bool(undecided)}{undecided}")]
    conditions = description["latency"]
    expected = conditions["machine"]
    if expected is not None and platform.machine() != expected:
        undecided = f"this is a {platform.machine()}, and the limit is that of {conditions['device']} ({expected})"
    for fraction, name in _PERCENTILES:
        limit = conditions["limits"].get(name)
        if limit is not None:
            rows.append(_tail(str(name), entries[fraction], limit, undecided))
    return rows


def _tail(name: str, entry: dict[str, Any], limit: float, undecided: str) -> dict[str, Any]:
    value, bound = entry["value_ms"], entry["upper_bound_ms"]
    if undecided or value is None or bound is None:
        return row_of(name, "inconclusive", undecided or f"{entry['samples_needed']} samples are needed", limit=limit)
    reason = f"{value:.4g} ms, upper bound {bound:.4g} ms, limit {limit:.4g} ms"
    verdict = "pass" if bound <= limit else "inconclusive" if value <= limit else "fail"
    return row_of(name, verdict, reason, value=bound, limit=limit)
