"""How latencies are distributed."""

from __future__ import annotations

from collections.abc import Sequence

from ecd_deploy.pipelines.report.page.charts.axes import (
    LINE_HEIGHT,
    STUDENT_COLOUR,
    WIDTH,
    Panel,
    Scale,
    polyline,
    scale_of,
    svg,
    text,
)

_TOP = 10.0
_BOTTOM = 220.0
_LEAST_MS = 1e-4  # as samples are rounded


def latency_distribution(samples_ms: Sequence[float], marks: Sequence[tuple[str, float]]) -> str:
    """Share of runs that took no longer than each latency, of at least one, with percentiles marked by their names."""
    latencies = sorted(max(sample, _LEAST_MS) for sample in samples_ms)
    x = scale_of(latencies, 70, WIDTH - 40, logarithmic=True)
    panel = Panel(x, Scale(0, 1, _BOTTOM, _TOP))
    # By pixel: of thousands of samples, no more steps than can be told apart.
    shares = {round(x.place(latency)): place / len(latencies) for place, latency in enumerate(latencies, start=1)}
    steps, share = [(x.start, _BOTTOM)], 0.0
    for pixel, reached in shares.items():
        steps += [(pixel, panel.y.place(share)), (pixel, panel.y.place(reached))]
        share = reached
    parts = [
        panel.frame("milliseconds, logarithmic", "share of runs"),
        polyline([*steps, (x.end, _TOP)], STUDENT_COLOUR),
    ]
    for row, (name, value) in enumerate(marks):
        at = x.place(max(value, _LEAST_MS))
        parts.append(polyline([(at, _BOTTOM), (at, _TOP)], "currentColor", 1, "2 4"))
        parts.append(text(at + 4, _BOTTOM - 6 - LINE_HEIGHT * row, name))  # one above the other: they may be close
    return svg(_BOTTOM + 50, parts)
