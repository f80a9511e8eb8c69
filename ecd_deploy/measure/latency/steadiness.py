"""Whether a median latency can be told from that of another run: a shared host gets slower and faster unseen."""

from __future__ import annotations

from ecd_deploy.measure.latency.measurement import Latency

P50_TOLERANCE = 0.02
"""Two runs of one model on a quiet host agree in their p50 to this share."""
REFERENCE_TOLERANCE = 0.05
"""A fixed matrix product may differ by this share between two runs on a host of one speed."""


def why_unsteady(latency: Latency) -> str | None:
    """Why the p50 of one run is inconclusive; None where it is known to `P50_TOLERANCE`."""
    if latency.p50_range_ms is None:
        return "the run was too short to say how steady its p50 is"
    low, high = latency.p50_range_ms
    if high - low <= P50_TOLERANCE * low:
        return None
    return f"the host's speed changed during the run, and the p50 moved between {low:.4f} and {high:.4f} ms"


def why_not_comparable(first: Latency, second: Latency) -> str | None:
    """Why a difference of two runs' p50 may be the host's and not the model's; None where it is the model's."""
    unsteady = why_unsteady(first) or why_unsteady(second)
    if unsteady is not None:
        return unsteady
    if first.reference_ms is None or second.reference_ms is None:
        return "the speed of the host is not known"
    slower = max(first.reference_ms, second.reference_ms) / min(first.reference_ms, second.reference_ms) - 1
    if slower <= REFERENCE_TOLERANCE:
        return None
    return f"the host ran a fixed matrix product {slower:.0%} slower in one of the runs"
