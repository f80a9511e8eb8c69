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

    from ecd_deploy.recipe.method import Features, Logits, MethodConfig

TermName = Literal["student", "teacher", "ensemble", "branches", "logits", "features", "pretrained"]
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
        pretrained: whether the last output is the sum of the losses from a frozen teacher, their factors included.
        branched: whether the heads are the student, the ensemble and the other branches, as of ONE.
    """

    label_smoothing: float = 0.0
    logits: Logits = "none"
    logits_factor: float = 1.0
    logits_temperature: float = 1.0
    features: Features = "none"
    features_factor: float = 1.0
    pretrained: bool = False
    branched: bool = False

    def __call__(self, outputs: tuple[Tensor, ...], labels: Tensor) -> LossTerms:
        """Compute all terms.

        Args:
            outputs: of a `TrainingModel` in training mode: logits (N, classes) of each head, then pairs of
                features (N, C, H, W) if they are compared, then the scalar of a frozen teacher.
            labels: class indices (N,).
        """
        if self.branched:
            return LossTerms(tuple(self._of_branches(outputs, labels)))
        if self.pretrained:
            *others, value = outputs
            from_teacher = LossTerm(name="pretrained", value=value)
            return LossTerms((*self._terms(tuple(others), labels), from_teacher))
        return LossTerms(tuple(self._terms(outputs, labels)))

    def _of_branches(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Iterator[LossTerm]:
        """Each branch learns from the labels and from the ensemble: Lan et al. (2018)."""
        student, ensemble, *others = outputs

        def cross_entropy(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

        yield LossTerm(name="student", value=cross_entropy(student))
        yield LossTerm(name="teacher", value=cross_entropy(ensemble))
        yield LossTerm(name="branches", value=torch.stack([cross_entropy(logits) for logits in others]).sum())
        imitations = [divergence(ensemble, logits, self.logits_temperature) for logits in (student, *others)]
        yield LossTerm(name="logits", value=torch.stack(imitations).sum(), factor=self.logits_factor)

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
        logits=method.used_logits,
        logits_factor=method.used_logits_factor,
        logits_temperature=method.used_logits_temperature,
        features=method.features,
        features_factor=method.used_features_factor,
        pretrained=method.pretrained is not None,
        branched=method.name == "one",
    )
