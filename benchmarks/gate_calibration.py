"""How often the gate's bounds err: simulated rates of false passes and false failures against the nominal ones.

A false pass is a model that is truly at or beyond a limit and passes; its rate must not exceed 1 - confidence.
A false failure is a model that is truly within the limit and fails: the gate fails only where the observed
value itself misses the limit, so for a model exactly at the limit this happens about half of the time, and
for an equal model hardly ever. Latencies are drawn from a log-normal with a slow tail of 5 %.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks import gate_calibration_scores
from benchmarks.figures import Figure, Report
from ecd_deploy.measure.scores.drops import paired_drop
from ecd_deploy.measure.scores.estimates import share
from ecd_deploy.measure.statistics import percentile_upper_bound
from ecd_deploy.measure.statistics.series import median_bounds
from ecd_deploy.pipelines.gate.check import Verdict, verdict_of

_TRIALS = 20_000
_LATENCY_TRIALS = 2_000
_CONFIDENCE = 0.95
_TAIL_CONFIDENCE = 0.99
_LIMIT = 0.9
_MARGIN = 0.01
_DISAGREEMENT = 0.03


def measure() -> Report:
    """Simulate every bound."""
    generator = np.random.default_rng(0)
    figures = [*_accuracy(generator), *_drop(generator), *_tails(generator), *_medians(generator)]
    figures += gate_calibration_scores.figures(generator)
    figures += _losses(generator)
    figures += gate_calibration_scores.low_recalls(generator)
    setting = {
        "seed": 0,
        "trials": _TRIALS,
        "latency_trials": _LATENCY_TRIALS,
        "trials_of_scores": gate_calibration_scores.TRIALS,
        "trials_of_bootstraps": gate_calibration_scores.BOOTSTRAP_TRIALS,
        "confidence": _CONFIDENCE,
        "tail_confidence": _TAIL_CONFIDENCE,
        "least_accuracy": _LIMIT,
        "largest_drop": _MARGIN,
        "share_of_disagreements": _DISAGREEMENT,
    }
    return Report(benchmark="gate_calibration", figures=figures, setting=setting)


def _accuracy(generator: np.random.Generator) -> list[Figure]:
    figures = []
    for images in (500, 2_000, 10_000):
        verdict = _cached(
            lambda correct, images=images: verdict_of(share(correct, images, _CONFIDENCE), _LIMIT, at_least=True)
        )
        for truth, name, wrong in ((_LIMIT, "false pass at the limit", True), (0.93, "pass 3 points above", False)):
            draws = generator.binomial(images, truth, _TRIALS)
            rate = float(np.mean([verdict(int(correct)) is Verdict.PASS for correct in draws]))
            figures.append(_figure(f"accuracy, {images} images: {name}", rate, 1 - _CONFIDENCE if wrong else None))
        draws = generator.binomial(images, 0.93, _TRIALS)
        rate = float(np.mean([verdict(int(correct)) is Verdict.FAIL for correct in draws]))
        figures.append(_figure(f"accuracy, {images} images: false failure 3 points above", rate, None))
    return figures


def _drop(generator: np.random.Generator) -> list[Figure]:
    figures = []
    for images in (500, 2_000, 10_000):
        verdict = _cached(
            lambda key, images=images: verdict_of(
                paired_drop(key[0], key[1], images, _CONFIDENCE), _MARGIN, at_least=False
            )
        )
        for truth, name, wrong in (
            (_MARGIN, "false pass at the limit", True),
            (2 * _MARGIN, "false pass at twice the limit", True),
            (0.0, "pass of an equal model", False),
        ):
            lose, gain = (_DISAGREEMENT + truth) / 2, (_DISAGREEMENT - truth) / 2
            draws = generator.multinomial(images, [lose, gain, 1 - lose - gain], _TRIALS)
            found = [verdict((int(lost), int(gained))) for lost, gained, _ in draws]
            rate = float(np.mean([entry is Verdict.PASS for entry in found]))
            figures.append(_figure(f"paired drop, {images} images: {name}", rate, 1 - _CONFIDENCE if wrong else None))
            if not wrong:
                rate = float(np.mean([entry is Verdict.FAIL for entry in found]))
                figures.append(_figure(f"paired drop, {images} images: false failure of an equal model", rate, None))
    return figures


def _losses(generator: np.random.Generator) -> list[Figure]:
    """Candidates that lose and never gain, whose numbers of images are the worst for the score bound alone."""
    figures = []
    for images, limit in ((25, 0.1), (52, 0.05), (268, 0.01), (1_000, 0.01)):
        verdict = _cached(
            lambda lost, images=images, limit=limit: verdict_of(
                paired_drop(lost, 0, images, _CONFIDENCE), limit, at_least=False
            )
        )
        draws = generator.binomial(images, limit, _TRIALS)
        rate = float(np.mean([verdict(int(lost)) is Verdict.PASS for lost in draws]))
        name = f"paired drop of {limit:.0%} without a gain, {images} images: false pass at the limit"
        figures.append(_figure(name, rate, 1 - _CONFIDENCE))
    return figures


def _tails(generator: np.random.Generator) -> list[Figure]:
    reference = np.sort(_latencies(generator, 4_000_000))
    figures = []
    for fraction, counts in ((0.9, (44, 500, 5_000)), (0.95, (90, 500, 5_000)), (0.99, (459, 5_000))):
        truth = float(reference[int(fraction * len(reference))])
        for count in counts:
            below = 0
            for _ in range(_LATENCY_TRIALS):
                bound = percentile_upper_bound(_latencies(generator, count).tolist(), fraction, _TAIL_CONFIDENCE)
                below += bound is not None and bound < truth
            name = f"p{fraction * 100:.0f} bound, {count} samples: false pass at the limit"
            figures.append(_figure(name, below / _LATENCY_TRIALS, 1 - _TAIL_CONFIDENCE))
    return figures


def _medians(generator: np.random.Generator) -> list[Figure]:
    """Blocks whose ratio is truly at the limit; those that remember their neighbours carry less than they seem."""
    figures = []
    for blocks in (40, 200):
        for memory, noise, name, promised in (
            (0.0, 0.0, "independent blocks", True),
            (0.3, 0.0, "blocks that remember 30 %", True),
            (0.5, 0.0, "blocks that remember half", True),
            (0.7, 0.0, "blocks that remember 70 %", True),
            (0.9, 0.0, "blocks that remember 90 %", False),
            (0.9, 1.0, "blocks that remember 90 %, half of it noise", False),
        ):
            below = unbounded = 0
            for _ in range(_LATENCY_TRIALS):
                samples = _remembering(generator, blocks, memory) + noise * generator.standard_normal(blocks)
                _, upper = median_bounds(samples.tolist(), _CONFIDENCE)
                below += upper < 0.0
                unbounded += upper == np.inf
            title = f"p50 ratio bound, {blocks} {name}"
            rate = below / _LATENCY_TRIALS
            figures.append(_figure(f"{title}: false pass at the limit", rate, 1 - _CONFIDENCE if promised else None))
            figures.append(_figure(f"{title}: no bound, inconclusive", unbounded / _LATENCY_TRIALS, None))
    return figures


def _latencies(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    slow = generator.random(count) < 0.05
    latencies: NDArray[np.float64] = np.exp(0.05 * generator.standard_normal(count)) * np.where(slow, 1.8, 1.0)
    return latencies


def _remembering(generator: np.random.Generator, count: int, memory: float) -> NDArray[np.float64]:
    """A first-order process of variance one."""
    values = generator.standard_normal(count)
    for index in range(1, count):
        values[index] = memory * values[index - 1] + (1 - memory * memory) ** 0.5 * values[index]
    return values


def _figure(name: str, rate: float, nominal: float | None) -> Figure:
    return gate_calibration_scores.rate_figure(name, rate, nominal, _LATENCY_TRIALS)


def _cached(decide: Callable[..., Verdict]) -> Callable[[object], Verdict]:
    known: dict[object, Verdict] = {}

    def look_up(key: object) -> Verdict:
        if key not in known:
            known[key] = decide(key)
        return known[key]

    return look_up
