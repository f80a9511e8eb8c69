"""What a method minimises, term by term."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from ecd_deploy.distill.losses import divergence, ensemble_loss, feature_loss, mutual_loss
from ecd_deploy.distill.outputs import HeadName, TrainingOutputs
from ecd_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecd_deploy.recipe.method import Features, Logits, MethodConfig

TermName = Literal[HeadName, "branches", "logits", "features", "pretrained"]


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
        weighted = (term.value if term.factor == 1 else term.value * term.factor for term in self.terms)
        return reduce(torch.add, weighted)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """`sum of CE(head) + a D(logits) + b d(features)`: equation 2, with the parts of equation 1 that are asked for.

    Attributes:
        label_smoothing: of the cross-entropies.
        class_weights: by which the cross-entropies weigh each class's images, (classes,).
        logit_offsets: what is added to each class's logit before a cross-entropy, (classes,).
        logits: which loss ties the heads' logits.
        logits_factor: a.
        logits_temperature: of that loss.
        features: which features are compared; where is the model's matter.
        features_factor: b.
        pretrained: whether the losses from a teacher trained before are added, for which the model needs the images'
            indices.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    logit_offsets: Tensor | None = None
    logits: Logits = "none"
    logits_factor: float = 1.0
    logits_temperature: float = 1.0
    features: Features = "none"
    features_factor: float = 1.0
    pretrained: bool = False

    def __call__(self, outputs: TrainingOutputs, labels: Tensor) -> LossTerms:
        """Compute all terms.

        Args:
            outputs: of a `TrainingModel` in training mode.
            labels: class indices (N,), or shares of the classes (N, classes).

        Raises:
            UsageError: the model gives nothing that a term needs.
        """
        return LossTerms(tuple(self._terms(outputs, labels)))

    def _terms(self, outputs: TrainingOutputs, labels: Tensor) -> Iterator[LossTerm]:
        for name, logits in outputs.heads().items():
            yield LossTerm(name=name, value=self._cross_entropy(logits, labels))
        if outputs.branches:
            losses = [self._cross_entropy(logits, labels) for logits in outputs.branches]
            yield LossTerm(name="branches", value=torch.stack(losses).sum())
        if self.logits != "none":
            yield LossTerm(name="logits", value=self._between(outputs), factor=self.logits_factor)
        if self.features != "none":
            # where the student left out in this step all that is compared, nothing differs
            value = feature_loss(outputs.pairs) if outputs.pairs else outputs.student.new_zeros(())
            yield LossTerm(name="features", value=value, factor=self.features_factor)
        if self.pretrained:
            yield LossTerm(name="pretrained", value=_given(outputs.transfer, "losses from a teacher trained before"))

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.logit_offsets is not None:
            logits = logits + self.logit_offsets.to(logits.dtype)
        if self.class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        weights = self.class_weights.to(logits.dtype)
        total = F.cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing, reduction="sum")
        # torch divides by the weights of the batch: its parts, and those of processes, would not add up to the whole
        return total / len(labels)

    def _between(self, outputs: TrainingOutputs) -> Tensor:
        student, teacher = outputs.student, _given(outputs.teacher, "a teacher's logits")
        if outputs.branches:
            # each branch learns from the ensemble: Lan et al. (2018), <https://arxiv.org/abs/1806.04606>
            learners = (student, *outputs.branches)
            return torch.stack([divergence(teacher, logits, self.logits_temperature) for logits in learners]).sum()
        if self.logits == "ensemble":
            ensemble = _given(outputs.ensemble, "an ensemble's logits")
            return ensemble_loss(student, teacher, ensemble, self.logits_temperature)
        if self.logits == "mutual":
            return mutual_loss(student, teacher, self.logits_temperature)
        return divergence(teacher, student, self.logits_temperature)


def _given(output: Tensor | None, name: str) -> Tensor:
    if output is None:
        raise UsageError(f"the objective needs {name}, and the model gives none")
    return output


def build_objective(
    method: MethodConfig,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    logit_offsets: Tensor | None = None,
) -> Objective:
    """Make the objective that a recipe's method asks for; see `Objective` for the others."""
    return Objective(
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        logit_offsets=logit_offsets,
        logits=method.used_logits,
        logits_factor=method.used_logits_factor,
        logits_temperature=method.used_logits_temperature,
        features=method.features,
        features_factor=method.used_features_factor,
        pretrained=method.pretrained is not None,
    )
