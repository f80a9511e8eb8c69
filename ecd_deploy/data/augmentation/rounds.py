"""Which operations each image goes through, and how strongly: rotation, RandAugment, TrivialAugment, colour jitter.

RandAugment: Cubuk et al. (2019), <https://arxiv.org/abs/1909.13719>. TrivialAugment: Müller and Hutter (2021),
<https://arxiv.org/abs/2103.10158>. Operations and ranges are torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torchvision.transforms import v2

from ecd_deploy.compat.torchvision import policy_operations
from ecd_deploy.data.draws import Purpose, draw_fraction, stream_key
from ecd_deploy.recipe.augment import AugmentConfig


@dataclass(frozen=True)
class Round:
    """One operation for each of n images: its name, and its strength, float64, as `apply_operations` takes them."""

    names: NDArray[np.str_]
    strengths: NDArray[np.float64]


def draw_rounds(
    config: AugmentConfig, size: tuple[int, int], draws: NDArray[np.int64], *, seed: int, epoch: int
) -> Iterator[Round]:
    """Yield what the images go through, one operation each after the other.

    Args:
        config: of the recipe.
        size: height and width of the images.
        draws: int64, (n,), of each image, such as its index in the training split: what is drawn depends on it.
        seed: of the run.
        epoch: counted from 1.
    """

    def fractions(purpose: Purpose, *parts: int) -> NDArray[np.float64]:
        return draw_fraction(stream_key(seed, epoch, purpose, *parts), draws)

    if config.rotation:
        angles = config.rotation * (2 * fractions(Purpose.ROTATION) - 1)
        yield Round(np.full(len(draws), "Rotate"), angles)
    if config.policy != "none":
        kind = v2.RandAugment if config.policy == "randaugment" else v2.TrivialAugmentWide
        operations = policy_operations(kind, *size)
        names = np.array([operation.name for operation in operations])
        strengths = np.stack([operation.strengths for operation in operations])
        signed = np.array([operation.is_signed for operation in operations])
        for number in range(config.operations if config.policy == "randaugment" else 1):
            chosen = (fractions(Purpose.POLICY, number, 0) * len(names)).astype(np.int64)
            magnitudes = (fractions(Purpose.POLICY, number, 1) * strengths.shape[1]).astype(np.int64)
            if config.policy == "randaugment":
                magnitudes[:] = config.magnitude
            is_negative = signed[chosen] & (fractions(Purpose.POLICY, number, 2) < 1 / 2)
            yield Round(names[chosen], np.where(is_negative, -1, 1) * strengths[chosen, magnitudes])
    jitter = {
        "Brightness": config.brightness,
        "Contrast": config.contrast,
        "Color": config.saturation,
        "Hue": config.hue,
    }
    used = {name: largest for name, largest in jitter.items() if largest}
    if used:
        order = np.stack([fractions(Purpose.JITTER, 0, place) for place in range(len(used))]).argsort(axis=0)
        names, largest = np.array(list(used)), np.array(list(used.values()))
        for place, chosen in enumerate(order):
            yield Round(names[chosen], largest[chosen] * (2 * fractions(Purpose.JITTER, 1, place) - 1))
