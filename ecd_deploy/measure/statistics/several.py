"""Which of several groups of images are shown to miss a limit that holds for each, all errors counted together.

That *all* groups meet it needs no such correction: the least of their lower bounds is a lower bound of the least
accuracy, since it errs only where the bound of the worst group does (an intersection-union test: Berger 1982).
"""

from __future__ import annotations

from collections.abc import Sequence

from ecd_deploy.compat.scipy import special
from ecd_deploy.measure.statistics.proportions import paired_score


def shown_below(correct: Sequence[int], images: Sequence[int], limit: float, confidence: float) -> list[int]:
    """The groups whose accuracy is shown to be below a limit, by index.

    Exact binomial tests, the inverse of the bounds of Clopper and Pearson, with the correction of Holm (1979): that
    any of these groups meets the limit after all has at most the chance 1 - confidence.
    """
    return _holm(
        [float(special.bdtr(right, total, limit)) for right, total in zip(correct, images, strict=True)], confidence
    )


def shown_above(
    lost: Sequence[int], gained: Sequence[int], images: Sequence[int], limit: float, confidence: float
) -> list[int]:
    """The groups whose paired drop is shown to exceed a limit, by index: score tests (Tango 1998), as above."""
    scores = (paired_score(*counts, limit) for counts in zip(lost, gained, images, strict=True))
    return _holm([float(special.ndtr(-score)) for score in scores], confidence)


def _holm(p_values: Sequence[float], confidence: float) -> list[int]:
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = []
    for rank, index in enumerate(order):
        if p_values[index] > (1 - confidence) / (len(p_values) - rank):
            break
        rejected.append(index)
    return sorted(rejected)
