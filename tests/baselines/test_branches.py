"""ONE: shared stages, fresh branches, a gate, and its objective written out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet
from torchvision.models.vgg import make_layers

from ecd_deploy.baselines.branches import BranchedModel
from ecd_deploy.distill import TrainingOutputs, build_objective
from ecd_deploy.errors import StudentError
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.split import split_student
from ecd_deploy.training.methods import build_training_model

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
    torch.testing.assert_close(found.student, logits[0])
    torch.testing.assert_close(found.teacher, expected)


def test_all_that_counts_is_trained_and_branches_start_apart() -> None:
    model = make()
    outputs = model(IMAGES)
    assert len(outputs.branches) == 2
    logits = (outputs.student, outputs.teacher.square(), *outputs.branches)
    torch.autograd.backward(torch.stack([one.sum() for one in logits]).sum())
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
    student, ensemble, *others = (
        torch.randn(6, 5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(4)
    )
    outputs = TrainingOutputs(student, ensemble, branches=tuple(others))
    losses = build_objective(MethodConfig(name="one"))(outputs, LABELS)

    def log_softmax(logits: Tensor) -> Tensor:
        return logits - logits.exp().sum(1, keepdim=True).log()

    expected = -torch.stack([log_softmax(one)[range(6), LABELS].mean() for one in (student, ensemble, *others)]).sum()
    target = log_softmax(ensemble / 3)
    for one in (student, *others):
        expected = expected + 9 * (target.exp() * (target - log_softmax(one / 3))).sum() / 6
    assert losses.total.item() == pytest.approx(expected.item())
    assert [term.name for term in losses.terms] == ["student", "teacher", "branches", "logits"]
    (from_imitation,) = torch.autograd.grad(losses.terms[-1].value, ensemble, allow_unused=True, materialize_grads=True)
    assert not from_imitation.any()


def test_the_student_is_split_off_its_branches() -> None:
    model = make()
    model(IMAGES).teacher.sum().backward()
    split = split_student(model, IMAGES)
    assert set(split.proof.auxiliary) == {"branches", "gate"}
    torch.testing.assert_close(split.module(IMAGES), model.student.eval()(IMAGES))


@pytest.mark.parametrize("name", ["wrn-10-1", "torchvision:mobilenet_v3_small"])
def test_other_students_are_branched_untouched(name: str) -> None:
    model = make(name, channels=3)
    before = model.student.state_dict().keys()
    outputs = model(torch.randn(4, 3, 32, 32))
    assert [logits.shape for logits in (*outputs.heads().values(), *outputs.branches)] == [(4, 5)] * 4
    assert model.student.state_dict().keys() == before
    assert not any(module._forward_pre_hooks for module in model.modules())


def thin_vgg() -> nn.Module:
    """Batch norm, activation and pooling stand between its blocks, which are convolutions."""
    layers = make_layers([8, "M", 12, "M", 16, 16, "M", 24, 24], batch_norm=True)
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))


def thin_densenet() -> nn.Module:
    """Its layers get a list, its stages are joined by transitions."""
    network: nn.Module = DenseNet(growth_rate=4, block_config=(2, 2, 2), num_init_features=8, num_classes=5)
    return network


class Mixed(nn.Module):
    """One activation with a parameter before and after the cut, an early feature that comes late, and a detached one.

    `act` and `side` are called in both halves, `blocks.0` only in the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.PReLU()
        self.side = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([Block(1), Block(2)])
        self.fc = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        early = self.act(self.stem(images)) + 0.1
        first = self.side(self.blocks[0](early))
        last = self.blocks[1](x=first)
        last = self.act(last + self.side(self.side(early)))
        logits: Tensor = self.fc((last * first.detach().mean()).mean((2, 3)))
        return logits


class Block(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, 6, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv2(self.conv1(x).relu())
        return output


FAMILIES: list[object] = [
    thin_vgg,
    thin_densenet,
    Mixed,
    "timm:dla46_c",
    "timm:ese_vovnet19b_slim_dw",
    pytest.param("timm:ghostnet_050", marks=pytest.mark.slow),
    pytest.param("torchvision:mobilenet_v3_small", marks=pytest.mark.slow),
    pytest.param("timm:hrnet_w18_small", marks=pytest.mark.slow),
    pytest.param("timm:inception_next_atto", marks=pytest.mark.slow),
    pytest.param("torchvision:convnext_tiny", marks=pytest.mark.slow),
]


def branched(family: str | Callable[[], nn.Module]) -> BranchedModel:
    torch.manual_seed(0)
    student = build_student(family, num_classes=5) if isinstance(family, str) else family()
    return BranchedModel(student, 3, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_branched(family: str | Callable[[], nn.Module]) -> None:
    model = branched(family).train()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = copy.deepcopy(model.student)
    torch.manual_seed(1)
    outputs = model(images)
    torch.manual_seed(1)
    assert torch.equal(outputs.student, alone(images))
    others = (outputs.teacher, *outputs.branches)
    torch.autograd.backward(torch.stack([logits.square().sum() for logits in others]).sum())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    first = next(model.student.parameters())
    assert first.grad is not None
    assert first.grad.abs().max() > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())
    branched(family).load_state_dict(model.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_with_the_student_s_values_gives_its_logits_without_its_early_layers(
    family: str | Callable[[], nn.Module],
) -> None:
    model = branched(family).eval()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for module in model.modules():
        # by statistics not yet learned, some families' logits would hardly show the image
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    student = (apart := model(images)).student
    scale = float(student.detach().abs().max())
    assert (student - apart.teacher).abs().max() > 0.1 * scale
    for branch in model.branches:
        assert not branch.load_state_dict(model.student.state_dict(), strict=False).missing_keys
        frozen = [parameter for parameter in branch.parameters() if not parameter.requires_grad]
        assert frozen
        for parameter in frozen:
            parameter.detach().fill_(math.nan)
    for model.layout in (torch.contiguous_format, torch.channels_last):
        together = model(images)
        torch.testing.assert_close(together.student, student, rtol=0, atol=1e-3 * scale)
        torch.testing.assert_close(together.teacher, student, rtol=0, atol=1e-3 * scale)


@pytest.mark.slow
def test_a_student_whose_blocks_get_lists_is_split_off() -> None:
    model = branched(thin_densenet)
    images = torch.randn(3, 3, 64, 64)
    split = split_student(model, images)
    assert set(split.proof.auxiliary) == {"branches", "gate"}
    torch.testing.assert_close(split.module(images), model.student.eval()(images))


def test_names_and_values_of_a_copy_are_those_of_before() -> None:
    model = make()
    stem = {
        f"{module}.{name}" for module in ("conv1", "bn1") for name in model.student.get_submodule(module).state_dict()
    }
    kept = {name for name in model.student.state_dict() if name.startswith(("layer3.", "fc."))}
    assert set(model.branches[0].state_dict()) == stem | kept


class Unused(Mixed):
    """An activation in place whose result is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        early = self.stem(images)
        self.relu(early)
        logits: Tensor = self.fc(self.blocks[1](self.blocks[0](early)).mean((2, 3)) + early.mean((2, 3)))
        return logits


class Packed(Mixed):
    """Its last block gets its feature in a dict."""

    class Unpacking(Block):
        def forward(self, x: Any) -> Tensor:
            return super().forward(x["feature"])

    def __init__(self) -> None:
        super().__init__()
        self.blocks[1] = self.Unpacking(2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.blocks[1]({"feature": self.blocks[0](self.stem(images))}).mean((2, 3)))
        return logits


class Keeping(Mixed):
    """A late module reads what an early one keeps."""

    def forward(self, images: Tensor) -> Tensor:
        early = self.blocks[0](self.stem(images))
        logits: Tensor = self.fc((self.blocks[1](early) + self.blocks[0].kept).mean((2, 3)))
        return logits

    def __init__(self) -> None:
        super().__init__()
        self.blocks[0].register_forward_hook(lambda module, _arguments, output: setattr(module, "kept", output.mean()))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Unused, r"before 'blocks.1', .* an activation in place whose result is not used"),
        (Packed, r"its first block, 'blocks.1', is not called with a tensor \(N, C, H, W\)"),
        (Keeping, r"cannot branch the student off before 'blocks.1', .*: AttributeError: .*kept"),
    ],
)
def test_what_cannot_be_branched_is_refused_with_the_reason(family: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(StudentError, match=message):
        branched(family)


class Skipping(Mixed):
    """Can leave its first block out."""

    skips = False

    def forward(self, images: Tensor) -> Tensor:
        early = self.stem(images)
        early = early if self.skips else self.blocks[0](early)
        logits: Tensor = self.fc(self.blocks[1](early).mean((2, 3)))
        return logits


@pytest.mark.parametrize(("who", "message"), [("student", "more often than"), ("branches.1", "less often than")])
def test_a_student_that_leaves_modules_out_at_random_is_refused(who: str, message: str) -> None:
    model = branched(Skipping).train()
    vars(model.get_submodule(who))["skips"] = True
    with pytest.raises(StudentError, match=f"calls blocks.0 {message} the student did; .* at random"):
        model(torch.randn(2, 3, 64, 64))
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())


class OtherWay(Mixed):
    """Calls the parts of its container in training mode, and the container otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(Block(1), Block(1))

    def forward(self, images: Tensor) -> Tensor:
        feature = self.stem(images)
        for part in self.early if self.training else [self.early]:
            feature = part(feature)
        logits: Tensor = self.fc(self.blocks[1](feature).mean((2, 3)))
        return logits


def test_a_student_that_takes_another_way_in_training_is_refused() -> None:
    model = branched(OtherWay).train()
    with pytest.raises(StudentError, match=r"leaves 'early.0' out of the student's copies"):
        model(torch.randn(2, 3, 64, 64))


def test_a_student_of_one_stage_is_refused() -> None:
    student = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    )
    with pytest.raises(StudentError, match="has only one"):
        BranchedModel(student, 3, IMAGES)
