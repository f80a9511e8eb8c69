"""Students with what ordinary networks do not have: each is handled, or refused with its reason."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from ecd_deploy.compat.torch import hooks_of
from ecd_deploy.distill import DynamicConv2d, ECDModel, TeacherOptions, find_structure, training_loss
from ecd_deploy.distill.convolution.dynamic_conv import Backend
from ecd_deploy.errors import StudentError
from tests.triton_launches import standing_in


def network(*blocks: nn.Module, channels: int = 4) -> nn.Module:
    stem = nn.Conv2d(3, channels, 3, padding=1)
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


def batch() -> Tensor:
    return torch.randn(4, 3, 10, 9, generator=torch.Generator().manual_seed(1))


def merged(*blocks: nn.Module, stages: tuple[int, ...] = (2,), backend: Backend = "grouped") -> ECDModel:
    torch.manual_seed(0)
    options = TeacherOptions(kernels=3, backend=backend)
    return ECDModel(network(*blocks), options, connection="conv1x1", stages=stages, example=batch()).train()


def check_training(model: ECDModel) -> None:
    """The student computes what it computes alone, and every parameter learns from the objective."""
    alone = copy.deepcopy(model.student)
    torch.manual_seed(7)
    outputs = model(batch())
    torch.manual_seed(7)
    assert torch.equal(alone(batch()), outputs.student)
    torch.autograd.backward(training_loss(outputs, torch.tensor([0, 1, 2, 0])))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


class Residual(nn.Module):
    """Two convolutions around an activation, and what a test puts between them."""

    def __init__(self, between: nn.Module | None = None, **options: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, **{"kernel_size": 3, "padding": "same", **options})
        self.between = between or nn.Identity()
        self.conv2 = nn.Conv2d(4, 4, 1)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.between(torch.tanh(self.conv1(features)))
        output: Tensor = features + self.conv2(inner)
        return output


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 4},
        {"groups": 2, "bias": False},
        {"dilation": 2},
        {"kernel_size": (1, 5)},
        {"kernel_size": (5, 3), "dilation": (1, 2), "groups": 2},
        {"kernel_size": 4, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": (2, 1), "dilation": (2, 1), "padding_mode": "circular", "groups": 4},
    ],
    ids=str,
)
def test_convolutions_of_every_kind_train(options: dict[str, Any]) -> None:
    model = merged(Residual(**options))
    layer = model.teacher.get_submodule("1.conv1")
    conv = model.student.get_submodule("1.conv1")
    assert isinstance(layer, DynamicConv2d)
    assert isinstance(conv, nn.Conv2d)
    assert (layer.groups, layer.dilation, layer.kernel_size) == (conv.groups, conv.dilation, conv.kernel_size)
    assert layer(torch.ones(2, 4, 10, 9)).shape == conv(torch.ones(2, 4, 10, 9)).shape
    check_training(model)


class Shared(nn.Module):
    """Applies one block twice, at two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Residual()])

    def forward(self, features: Tensor) -> Tensor:
        features = self.blocks[0](features)
        output: Tensor = self.blocks[0](F.max_pool2d(features, 2))
        return output


def test_a_block_called_at_two_resolutions_is_connected_both_times() -> None:
    model = merged(Shared())
    assert [site.name for site in model.connections.sites] == ["1.blocks.0.conv1", "1.blocks.0"]
    calls: list[torch.Size] = []
    handle = model.connections.transforms["1/blocks/0"].register_forward_hook(
        lambda _module, _inputs, output: calls.append(output.shape[2:])
    )
    model(batch())
    handle.remove()
    assert calls == [(10, 9), (5, 4)]
    check_training(model)


class Pair(NamedTuple):
    features: Tensor
    number: int


class Returning(Residual):
    """Returns its features among other things; takes what its like returns."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, features: Any) -> Any:
        if not isinstance(features, Tensor):
            features = next(item for item in features if isinstance(item, Tensor) and item.ndim == 4)
        return self.wrap(super().forward(features))


class Unwrapped(nn.Module):
    def forward(self, features: Any) -> Tensor:
        found: Tensor = next(item for item in features if isinstance(item, Tensor) and item.ndim == 4)
        return found


@pytest.mark.parametrize(
    "wrap",
    [lambda x: (x, x.mean()), lambda x: [3, x], lambda x: Pair(x, 2), lambda x: (x.mean(dim=(2, 3)), x)],
    ids=["tuple", "list", "named tuple", "second place"],
)
def test_blocks_that_return_tuples_are_connected_at_their_feature_map(wrap: Callable[[Tensor], Any]) -> None:
    model = merged(Returning(wrap), Returning(wrap), Unwrapped())
    assert [site.name for site in model.connections.sites] == ["1.conv1", "1", "2.conv1", "2"]
    plain = merged(Residual(), Residual(), nn.Identity())
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(batch()), plain(batch()))
    check_training(model)


def test_a_block_that_returns_no_feature_map_leaves_its_convolutions_outside() -> None:
    class Packed(Residual):
        def forward(self, features: Tensor) -> Any:
            return {"features": super().forward(features)}

    class Unpacked(nn.Module):
        def forward(self, packed: dict[str, Tensor]) -> Tensor:
            return packed["features"]

    model = merged(Packed(), Unpacked(), Residual())
    assert [entry.name for entry in model.report.replaced] == ["3.conv1"]
    assert ("1.conv1", "it is outside the blocks") in [(entry.name, entry.reason) for entry in model.report.skipped]


@pytest.mark.parametrize("between", [nn.ReLU(inplace=True), nn.Hardswish(inplace=True)], ids=str)
def test_an_activation_in_place_after_the_connected_tensor_changes_nothing(between: nn.Module) -> None:
    class InPlace(Residual):
        def forward(self, features: Tensor) -> Tensor:
            output: Tensor = features + self.conv2(self.between(self.conv1(features)))
            return output

    model = merged(InPlace(between), nn.ReLU(inplace=True))
    assert all(site.overwritten for site in model.connections.sites)
    clean = copy.deepcopy(model)
    for module in clean.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 (no class of all these has it)
    torch.testing.assert_close(model(batch()), clean(batch()))
    check_training(model)


@contextmanager
def recorded(model: ECDModel, name: str) -> Iterator[dict[str, Tensor]]:
    """The masks that the module of that name applies in student and teacher: where its output is zero."""
    masks: dict[str, Tensor] = {}
    handles = [
        part.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, key=key: masks.__setitem__(key, output == 0)
        )
        for key, part in (("student", model.student), ("teacher", model.teacher))
    ]
    yield masks
    for handle in handles:
        handle.remove()


class OwnGenerator(nn.Module):
    """Dropout from a generator that the module holds."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return features
        return features * torch.empty_like(features).bernoulli_(0.5, generator=self.generator)


def drop_path() -> nn.Module:
    drop = pytest.importorskip("timm.layers.drop", reason="needs timm, which is not installed")
    module: nn.Module = drop.DropPath(0.5)
    return module


RANDOM = {
    "Dropout": lambda: nn.Dropout(0.5),
    "Dropout2d": lambda: nn.Dropout2d(0.5),
    "StochasticDepth": lambda: StochasticDepth(0.5, "row"),
    "DropPath": drop_path,
    "OwnGenerator": OwnGenerator,
}


@pytest.mark.parametrize("between", RANDOM.values(), ids=RANDOM)
def test_student_and_teacher_draw_their_own_masks(between: Callable[[], nn.Module]) -> None:
    model = merged(*(Residual(between()) for _ in range(4)))
    differing = dropped = 0
    for index in range(1, 5):
        with recorded(model, f"{index}.between") as masks:
            model(batch())
        differing += not torch.equal(masks["student"], masks["teacher"])
        dropped += int(masks["student"].sum())
    # Stochastic depth draws one number an image: two times four can agree, four times they do not.
    assert differing >= 2
    assert dropped > 0


@pytest.mark.parametrize("between", RANDOM.values(), ids=RANDOM)
def test_masks_leave_the_students_forward_as_it_is_alone(between: Callable[[], nn.Module]) -> None:
    model = merged(Residual(between()))
    alone = copy.deepcopy(model.student)
    for step in range(3):
        torch.manual_seed(step)
        logits = model(batch())[0]
        torch.manual_seed(step)
        assert torch.equal(alone(batch()), logits)


class Seeding(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            torch.manual_seed(0)
        return F.dropout(features, 0.5, self.training)


def test_a_student_that_seeds_in_its_forward_is_refused() -> None:
    with pytest.raises(StudentError, match="seeds torch's random numbers in its forward: its teacher would draw the s"):
        merged(Residual(Seeding()))


class Skipping(nn.Module):
    """Stochastic depth that does not even call what it leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Residual(), Residual()])

    def forward(self, features: Tensor) -> Tensor:
        features = self.blocks[0](features)
        if self.training and torch.rand(()) < 0.5:
            return features
        output: Tensor = self.blocks[1](features)
        return output


def test_modules_left_out_at_random_are_connected_in_the_steps_in_which_both_run() -> None:
    model = merged(Skipping())
    transform = model.connections.transforms["1/blocks/1"].weight
    connected = set()
    for seed in range(12):
        torch.manual_seed(seed)
        draws = [bool(torch.rand(()) >= 0.5), bool(torch.rand(()) >= 0.5)]
        torch.manual_seed(seed)
        model.zero_grad()
        torch.autograd.backward(training_loss(model(batch()), torch.zeros(len(batch()), dtype=torch.int64)))
        assert (transform.grad is not None) == all(draws)
        connected.add(all(draws))
    assert connected == {False, True}


@pytest.fixture
def _standing_in() -> Iterator[None]:
    with standing_in():
        yield


class Checkpointing(nn.Module):
    """A block whose activations are computed again in the backward pass, or the block alone."""

    def __init__(self, *, active: bool) -> None:
        super().__init__()
        self.block = Residual()
        self.active = active

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = checkpoint(self.block, features, use_reentrant=False) if self.active else self.block(features)
        return output


@pytest.mark.parametrize("backend", ["grouped", "triton"])
@pytest.mark.usefixtures("_standing_in")
def test_activation_checkpointing_changes_no_gradient(backend: Backend) -> None:
    gradients = []
    for active in (False, True):
        torch.manual_seed(0)
        model = merged(Checkpointing(active=active), backend=backend)
        for _ in range(2):  # hooks that stayed for the first backward pass must be gone in the second forward
            model.zero_grad()
            torch.autograd.backward(training_loss(model(batch()), torch.zeros(len(batch()), dtype=torch.int64)))
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        assert not any(hooks for module in model.student.modules() for hooks in hooks_of(module).values())
    assert gradients[0].keys() == gradients[1].keys()
    assert all(gradient is not None for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_probe_leaves_the_random_state_and_the_student_alone() -> None:
    student = network(Residual(nn.Dropout(0.5)), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    state = torch.get_rng_state()
    find_structure(student, batch())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (lambda logits: (logits, logits), "in training mode the student returns tuple"),
        (lambda logits: logits.view(-1, 7), r"in training mode on images of shape \(2, 3, 10, 9\): RuntimeError"),
    ],
)
def test_students_that_only_evaluate_are_refused(training: Callable[[Tensor], Any], message: str) -> None:
    class TwoWays(nn.Sequential):
        def forward(self, input: Tensor) -> Any:
            logits: Tensor = self[0](input)
            return training(logits) if self.training else logits

    with pytest.raises(StudentError, match=message):
        ECDModel(TwoWays(network(Residual())), TeacherOptions(kernels=2), stages=(2,), example=batch())
