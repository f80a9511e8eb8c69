"""What a method minimises, term by term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from ecd_deploy.distill.losses import divergence, ensemble_loss, feature_loss, mutual_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecd_deploy.method_config import Features, Logits, MethodConfig

TermName = Literal["student", "teacher", "ensemble", "logits", "features"]
HEADS: tuple[TermName, ...] = ("student", "teacher", "ensemble")


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """A scalar of the objective, before it is weighted by its factor."""

    name: TermName
    value: Tensor
    factor: float = 1.0


@dataclass(frozen=True)
class LossTerms:
    """The objective, `total`, and what it consists of: a cross-entropy for each head, then the others."""

    terms: tuple[LossTerm, ...]

    @property
    def total(self) -> Tensor:
        """The weighted sum, a scalar."""
        weighted = [term.value if term.factor == 1 else term.value * term.factor for term in self.terms]
        return torch.stack(weighted).sum()


@dataclass(frozen=True, kw_only=True)
class Objective:
    """`sum of CE(head) + a D(logits) + b d(features)`: equation 2, with the parts of equation 1 that are asked for.

    Attributes:
        label_smoothing: of the cross-entropies.
        logits: which loss ties the heads' logits.
        logits_factor: a.
        logits_temperature: of that loss.
        features: whether pairs of features follow the logits.
        features_factor: b.
    """

    label_smoothing: float = 0.0
    logits: Logits = "none"
    logits_factor: float = 1.0
    logits_temperature: float = 1.0
    features: Features = "none"
    features_factor: float = 1.0

    def __call__(self, outputs: tuple[Tensor, ...], labels: Tensor) -> LossTerms:
        """Compute all terms.

        Args:
            outputs: of a `TrainingModel` in training mode: logits (N, classes) of each head, then pairs of
                features (N, C, H, W) if they are compared.
            labels: class indices (N,).
        """
        return LossTerms(tuple(self._terms(outputs, labels)))

    def _terms(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Iterator[LossTerm]:
        heads = outputs if self.features == "none" else outputs[: 3 if self.logits == "ensemble" else 2]
        for name, logits in zip(HEADS, heads, strict=False):
            yield LossTerm(name=name, value=F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing))
        if self.logits != "none":
            yield LossTerm(name="logits", value=self._between(heads), factor=self.logits_factor)
        if self.features != "none":
            value = feature_loss(outputs[len(heads) :])
            yield LossTerm(name="features", value=value, factor=self.features_factor)

    def _between(self, heads: tuple[Tensor, ...]) -> Tensor:
        student, teacher, *ensemble = heads
        if self.logits == "ensemble":
            return ensemble_loss(student, teacher, ensemble[0], self.logits_temperature)
        if self.logits == "mutual":
            return mutual_loss(student, teacher, self.logits_temperature)
        return divergence(teacher, student, self.logits_temperature)


def build_objective(method: MethodConfig, *, label_smoothing: float = 0.0) -> Objective:
    """Make the objective that a recipe asks for."""
    return Objective(
        label_smoothing=label_smoothing,
        logits=method.logits,
        logits_factor=method.used_logits_factor,
        logits_temperature=method.used_logits_temperature,
        features=method.features,
        features_factor=method.used_features_factor,
    )
