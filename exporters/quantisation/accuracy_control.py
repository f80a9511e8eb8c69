"""Keeps the accuracy of a quantised model: the layers that hurt most go back to float until it is there.

The idea of quantisation with accuracy control is that of OpenVINO's NNCF; here a layer's harm is the squared error
of the logits with that layer alone quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data import ImageSet

Model = TypeVar("Model")
_Model_co = TypeVar("_Model_co", covariant=True)
Logits = Callable[[Model, ImageSet], NDArray[np.float32]]
"""Logits (N, classes) of a model on images."""

_SENSITIVITY_IMAGES = 256


class Quantiser(Protocol[_Model_co]):
    """A calibrated model, which a runtime's own tool quantises."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """That are quantised unless they are told to stay in float; in the order of the graph."""

    def quantise(self, nodes: Sequence[str]) -> _Model_co:
        """Quantise these nodes, and leave all others in float."""


@dataclass(frozen=True)
class Controlled(Generic[Model]):
    """A quantised model and what it cost.

    Attributes:
        float_nodes: that went back to float, in the order they did.
        float_top1, full_int8_top1, top1: of fp32, of everything quantised, and of `model`, as fractions; None if there
            were no validation images.
    """

    model: Model
    float_nodes: tuple[str, ...] = ()
    float_top1: float | None = None
    full_int8_top1: float | None = None
    top1: float | None = None


def quantise_within(
    quantiser: Quantiser[Model], source: Model, logits: Logits[Model], validation: ImageSet | None, max_drop: float
) -> Controlled[Model]:
    """Quantise all nodes, then free the most harmful ones, one by one, until top-1 drops by `max_drop` at most.

    Args:
        quantiser: of `source`.
        source: the fp32 model.
        logits: how a model is run.
        validation: the images that top-1 is of; None to quantise all nodes, whatever that costs.
        max_drop: a fraction; the observed drop is compared, the gate decides by its bound.
    """
    model = quantiser.quantise(quantiser.nodes)
    if validation is None:
        return Controlled(model)

    def top1(model: Model) -> float:
        found = logits(model, validation)
        correct = np.isfinite(found).all(axis=1) & (found.argmax(axis=1) == validation.labels)
        return float(correct.mean())

    float_top1 = top1(source)
    full = reached = top1(model)
    freed: list[str] = []
    order: list[str] | None = None
    while float_top1 - reached > max_drop and len(freed) < len(quantiser.nodes):
        order = order or _rank_by_harm(quantiser, source, logits, validation.first(_SENSITIVITY_IMAGES))
        freed.append(order[len(freed)])
        model = quantiser.quantise([node for node in quantiser.nodes if node not in freed])
        reached = top1(model)
    return Controlled(model, tuple(freed), float_top1, full, reached)


def _rank_by_harm(quantiser: Quantiser[Model], source: Model, logits: Logits[Model], images: ImageSet) -> list[str]:
    """All nodes, the one whose quantisation alone moves the logits most first."""
    expected = logits(source, images)
    harm = {node: _error(expected, logits(quantiser.quantise([node]), images)) for node in quantiser.nodes}
    return sorted(quantiser.nodes, key=lambda node: -harm[node])


def _error(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    error = float(np.square(expected.astype(np.float64) - found).mean())
    return error if np.isfinite(error) else float("inf")
