"""Each term against its formula, written out with logarithms and sums."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ecd_deploy.distill import FeaturePair, HeadEnsemble, TrainingOutputs, build_objective
from ecd_deploy.errors import UsageError
from ecd_deploy.recipe.method import MethodConfig

LABELS = torch.tensor([0, 4, 2, 2, 1])
WEIGHTS = torch.tensor([0.5, 1.0, 4.0, 1.0, 0.1, 1.0])  # of the classes
OFFSETS = torch.tensor([-0.1, -3.0, 0.0, -2.0, -1.0, -4.0])


def make(**fields: object) -> MethodConfig:
    return MethodConfig.model_validate(fields)


def heads() -> tuple[Tensor, Tensor]:
    """The logits of a student and of a teacher."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher.requires_grad_()


def cross_entropy(logits: Tensor) -> Tensor:
    return torch.stack([torch.logsumexp(row, 0) - row[label] for row, label in zip(logits, LABELS, strict=True)]).mean()


def divergence(target: Tensor, logits: Tensor, temperature: float) -> float:
    """T^2 sum p log(p / q), averaged over images."""
    p = (target / temperature).exp() / (target / temperature).exp().sum(1, keepdim=True)
    q = (logits / temperature).exp() / (logits / temperature).exp().sum(1, keepdim=True)
    return (temperature**2 * (p * (p / q).log()).sum() / len(p)).item()


def test_without_other_losses_the_total_is_equation_2_bit_by_bit() -> None:
    logits = heads()
    losses = build_objective(make(), label_smoothing=0.1)(TrainingOutputs(*logits), LABELS)
    separate = [torch.nn.functional.cross_entropy(one, LABELS, label_smoothing=0.1) for one in logits]
    assert torch.equal(losses.total, torch.stack(separate).sum())
    assert [term.name for term in losses.terms] == ["student", "teacher"]


def weighted(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> float:
    """The mean over the images of -sum target x weight x log softmax, each image by itself."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        norm = sum(math.exp(logit) for logit in row)
        for number, logit in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing) * (number == label)
            total -= target * weights[number].item() * math.log(math.exp(logit) / norm)
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_and_offsets_of_classes_are_in_every_cross_entropy_and_nowhere_else(smoothing: float) -> None:
    student, teacher = heads()
    branch = student.detach() * 2
    terms: dict[str, Any] = {"label_smoothing": smoothing, "class_weights": WEIGHTS, "logit_offsets": OFFSETS}
    outputs, mutual = TrainingOutputs(student, teacher), make(name="joint", logits="mutual")
    found = [term.value.item() for term in build_objective(mutual, **terms)(outputs, LABELS).terms]
    expected = [weighted(logits + OFFSETS, LABELS, WEIGHTS, smoothing) for logits in (student, teacher)]
    assert found[:2] == pytest.approx(expected, rel=1e-6)
    assert found[2] == build_objective(mutual)(outputs, LABELS).terms[2].value.item()
    branched = TrainingOutputs(student, teacher, branches=(branch, branch))
    of_branches = build_objective(make(name="one"), **terms)(branched, LABELS).terms[2].value.item()
    assert of_branches == pytest.approx(2 * weighted(branch + OFFSETS, LABELS, WEIGHTS, smoothing), rel=1e-6)


def test_weighted_parts_of_a_batch_add_up_to_the_whole() -> None:
    """Torch's own mean divides by the weights of each part, and does not."""
    student, _ = heads()
    objective = build_objective(make(name="plain"), class_weights=WEIGHTS)

    def loss(images: slice) -> float:
        return objective(TrainingOutputs(student[images]), LABELS[images]).total.item()

    assert (2 * loss(slice(0, 2)) + 3 * loss(slice(2, 5))) / 5 == pytest.approx(loss(slice(0, 5)), rel=1e-12)


def test_soft_labels_are_weighed_as_hard_ones_are() -> None:
    student, _ = heads()
    objective = build_objective(make(name="plain"), class_weights=WEIGHTS, logit_offsets=OFFSETS)

    def loss(labels: Tensor) -> float:
        return objective(TrainingOutputs(student), labels).total.item()

    soft = torch.nn.functional.one_hot(LABELS, 6).double()
    assert loss(soft) == pytest.approx(loss(LABELS), rel=1e-12)
    mixed = 0.3 * soft + 0.7 * soft.flip(0)
    assert loss(mixed) == pytest.approx(0.3 * loss(LABELS) + 0.7 * loss(LABELS.flip(0)), rel=1e-12)


def test_with_offsets_a_constant_student_is_best_where_it_prefers_no_class() -> None:
    """Menon et al. (2021): without them it would learn the logarithms of the classes' shares."""
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    shares = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    constant = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for offsets, is_best in ((shares.log(), True), (None, False)):
        objective = build_objective(make(name="plain"), logit_offsets=offsets)
        (gradient,) = torch.autograd.grad(objective(TrainingOutputs(constant.expand(10, 3)), labels).total, constant)
        assert (gradient.abs().max().item() < 1e-12) is is_best


@pytest.mark.parametrize(
    ("fields", "factor", "temperature"),
    [({}, 1.0, 1.0), ({"logits_factor": 0.3, "logits_temperature": 2.0}, 0.3, 2.0)],
)
def test_mutual_learning(fields: dict[str, float], factor: float, temperature: float) -> None:
    student, teacher = heads()
    losses = build_objective(make(name="joint", logits="mutual", **fields))(TrainingOutputs(student, teacher), LABELS)
    tie = divergence(teacher, student, temperature) + divergence(student, teacher, temperature)
    expected = (cross_entropy(student) + cross_entropy(teacher)).item() + factor * tie
    assert losses.total.item() == pytest.approx(expected, rel=1e-12)
    assert losses.terms[2].value.item() == pytest.approx(tie, rel=1e-12)


def test_a_head_that_imitates_leaves_its_target_alone() -> None:
    student, teacher = heads()
    losses = build_objective(make(logits="teacher"))(TrainingOutputs(student, teacher), LABELS)
    (term,) = [term for term in losses.terms if term.name == "logits"]
    assert term.factor == 0.1
    assert term.value.item() == pytest.approx(divergence(teacher, student, 4.0), rel=1e-12)
    gradient, nothing = torch.autograd.grad(term.value, (student, teacher), allow_unused=True, materialize_grads=True)
    assert not nothing.any()
    # the gradient of T^2 KL(p || softmax(z / T)) by z is T (q - p)
    expected = 4.0 * ((student / 4).softmax(1) - (teacher / 4).softmax(1)) / 5
    torch.testing.assert_close(gradient, expected)


def test_ensemble_distillation() -> None:
    student, teacher = heads()
    ensemble = HeadEnsemble().double()
    torch.testing.assert_close(ensemble((student, teacher)), (student + teacher) / 2)
    with torch.no_grad():
        ensemble.scores.copy_(torch.tensor([0.0, 1.0]))
    weight = 1 / (1 + torch.e)
    mixed = weight * student + (1 - weight) * teacher
    outputs = TrainingOutputs(student, teacher, ensemble((student, teacher)))
    losses = build_objective(make(logits="ensemble"))(outputs, LABELS)
    expected = torch.stack([cross_entropy(head) for head in (student, teacher, mixed)]).sum().item()
    expected += divergence(mixed, student, 3.0) + divergence(mixed, teacher, 3.0)
    assert losses.total.item() == pytest.approx(expected, rel=1e-6)
    assert [term.name for term in losses.terms] == ["student", "teacher", "ensemble", "logits"]
    # the ensemble learns from the labels alone, not by agreeing with its heads
    (scores,) = torch.autograd.grad(losses.total, ensemble.scores, retain_graph=True)
    (alone,) = torch.autograd.grad(losses.terms[2].value, ensemble.scores)
    torch.testing.assert_close(scores, alone)
    assert scores.abs().min() > 0


@pytest.mark.parametrize(("features", "factor"), [("stage", 1e-2), ("block", 1e-4)])
def test_feature_loss_has_the_papers_factor_and_reaches_both_networks(features: str, factor: float) -> None:
    student, teacher = heads()
    maps = [torch.randn(5, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    pairs = (FeaturePair(maps[0], maps[1]), FeaturePair(maps[2], maps[3]))
    outputs = TrainingOutputs(student, teacher, ensemble=student + teacher, pairs=pairs)
    losses = build_objective(make(name="joint", features=features, logits="ensemble"))(outputs, LABELS)
    distance = sum(((own - other) ** 2).sum().item() / 90 for own, other in pairs)
    assert losses.terms[-1].value.item() == pytest.approx(distance)
    assert losses.terms[-1].factor == factor
    assert len(losses.terms) == 5
    gradients = torch.autograd.grad(losses.total, maps)
    for own, other in (gradients[:2], gradients[2:]):
        torch.testing.assert_close(own, -other)
        assert own.abs().max() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "joint", "logits": "mutual"}, "a teacher's logits"),
        ({"logits": "ensemble"}, "an ensemble's logits"),
        ({"name": "distil", "pretrained": {"run": "r", "losses": ("kd",)}}, "losses from a teacher trained before"),
    ],
)
def test_what_the_model_does_not_give_is_named(fields: dict[str, object], message: str) -> None:
    student, teacher = heads()
    outputs = TrainingOutputs(student, teacher if fields.get("logits") == "ensemble" else None)
    with pytest.raises(UsageError, match=f"needs {message}, and the model gives none"):
        build_objective(make(**fields))(outputs, LABELS)
