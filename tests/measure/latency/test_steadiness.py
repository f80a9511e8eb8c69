from __future__ import annotations

import pytest

from ecd_deploy.measure.latency.measurement import Latency
from ecd_deploy.measure.latency.steadiness import why_not_comparable, why_unsteady


def latency(low: float = 1.0, high: float = 1.01, reference: float | None = 0.2) -> Latency:
    return Latency(
        cpu_over_wall=1.0,
        involuntary_switches=0,
        contended=False,
        threads=1,
        batch_size=1,
        load_ms=1.0,
        first_run_ms=1.0,
        percentiles=(),
        p50_range_ms=(low, high),
        reference_ms=reference,
        samples_ms=(1.0,),
    )


def test_a_p50_known_to_two_percent_is_steady() -> None:
    assert why_unsteady(latency(1.0, 1.0199)) is None
    assert "between 1.0000 and 1.0210 ms" in (why_unsteady(latency(1.0, 1.021)) or "")


def test_a_run_without_a_range_is_not_called_steady() -> None:
    short = latency().model_copy(update={"p50_range_ms": None})
    assert "too short" in (why_unsteady(short) or "")


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (latency(), None),
        (latency(1.3, 1.31, reference=0.209), None),
        (latency(reference=0.212), "6% slower"),
        (latency(1.0, 1.2), "speed changed"),
        (latency(reference=None), "not known"),
    ],
)
def test_runs_are_comparable_where_the_host_was_the_same(second: Latency, reason: str | None) -> None:
    for found in (why_not_comparable(latency(), second), why_not_comparable(second, latency())):
        assert (found is None) is (reason is None)
        assert reason is None or reason in (found or "")
