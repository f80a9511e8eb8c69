"""ONE: shared stages, fresh branches, a gate, and its objective written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ecd_deploy.distill import BranchedModel, build_objective, build_training_model
from ecd_deploy.errors import StudentError
from ecd_deploy.method_config import MethodConfig
from ecd_deploy.models import build_student
from ecd_deploy.split import split_student

LABELS = torch.tensor([0, 4, 2, 2, 1, 3])
IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def make(name: str = "resnet8", channels: int = 1) -> BranchedModel:
    torch.manual_seed(0)
    student = build_student(name, num_classes=5, in_channels=channels)
    model = build_training_model(MethodConfig(name="one"), student, example=IMAGES.expand(-1, channels, -1, -1))
    assert isinstance(model, BranchedModel)
    return model.train()


def test_branches_share_the_student_s_early_stages() -> None:
    model = make().eval()
    student = model.student
    shared = student.layer2(student.layer1(student.relu(student.bn1(student.conv1(IMAGES)))))  # type: ignore[operator]
    logits = [student(IMAGES)]
    for branch in model.branches:
        feature = branch.layer3(shared)  # type: ignore[operator]
        logits.append(branch.fc(feature.mean((2, 3))))  # type: ignore[operator]
    scores = model.gate.norm(shared.mean((2, 3)) @ model.gate.linear.weight.T + model.gate.linear.bias).clamp(min=0)
    weights = scores.exp() / scores.exp().sum(1, keepdim=True)
    expected = sum(weights[:, [number]] * one for number, one in enumerate(logits))
    found = model(IMAGES)
    assert len(logits) == 3
    torch.testing.assert_close(found[0], logits[0])
    torch.testing.assert_close(found[1], expected)


def test_all_that_counts_is_trained_and_branches_start_apart() -> None:
    model = make()
    student, ensemble, *others = model(IMAGES)
    assert len(others) == 2
    (student.sum() + ensemble.square().sum() + sum(one.sum() for one in others)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    first, second = (dict(branch.named_parameters()) for branch in model.branches)
    own = dict(model.student.named_parameters())
    for name in ("layer3.0.conv1.weight", "fc.weight"):
        assert not torch.equal(first[name], second[name])
        assert first[name].std().item() == pytest.approx(own[name].std().item(), rel=0.2)
    assert not any(name.startswith(("layer1", "layer2")) for name in first)


def test_the_objective_is_the_article_s() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = tuple(torch.randn(6, 5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(4))
    losses = build_objective(MethodConfig(name="one"))(outputs, LABELS)

    def log_softmax(logits: Tensor) -> Tensor:
        return logits - logits.exp().sum(1, keepdim=True).log()

    expected = -torch.stack([log_softmax(one)[range(6), LABELS].mean() for one in outputs]).sum()
    target = log_softmax(outputs[1] / 3)
    for one in (outputs[0], *outputs[2:]):
        expected = expected + 9 * (target.exp() * (target - log_softmax(one / 3))).sum() / 6
    assert losses.total.item() == pytest.approx(expected.item())
    assert [term.name for term in losses.terms] == ["student", "teacher", "branches", "logits"]
    (from_imitation,) = torch.autograd.grad(
        losses.terms[-1].value, outputs[1], allow_unused=True, materialize_grads=True
    )
    assert not from_imitation.any()


def test_the_student_is_split_off_its_branches() -> None:
    model = make()
    model(IMAGES)[1].sum().backward()
    split = split_student(model, IMAGES)
    assert set(split.proof.auxiliary) == {"branches", "gate"}
    torch.testing.assert_close(split.module(IMAGES), model.student.eval()(IMAGES))


@pytest.mark.parametrize("name", ["wrn-10-1", "torchvision:mobilenet_v3_small"])
def test_other_students_are_branched_untouched(name: str) -> None:
    model = make(name, channels=3)
    before = model.student.state_dict().keys()
    outputs = model(torch.randn(4, 3, 32, 32))
    assert [output.shape for output in outputs] == [(4, 5)] * 4
    assert model.student.state_dict().keys() == before
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_student_of_one_stage_is_refused() -> None:
    student = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    )
    with pytest.raises(StudentError, match="has only one"):
        BranchedModel(student, 3, IMAGES)
