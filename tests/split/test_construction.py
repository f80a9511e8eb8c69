"""The student that leaves is a fresh build with the trained values, or says that it is a copy."""

from __future__ import annotations

import copy
import re
from functools import partial
from types import MethodType

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from ecd_deploy.distill import ECDModel, PlainModel
from ecd_deploy.errors import SplitError
from ecd_deploy.models import build_student
from ecd_deploy.split import split_student
from ecd_deploy.split.checks.references import check_references
from ecd_deploy.split.checks.values import auxiliary_values

fresh = partial(build_student, "resnet8", num_classes=10, in_channels=1)


class Counting(nn.Module):
    """A buffer that training changes and that the logits need, a table that is not kept, and a frozen weight."""

    temperature: Tensor
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)
        self.fixed = nn.Parameter(torch.linspace(-1.1, 1.3, 10), requires_grad=False)
        self.register_buffer("temperature", torch.ones(1))
        self.register_buffer("table", torch.linspace(0.3, 0.7, 10), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(images.flatten(1)) / self.temperature + self.table * self.fixed
        return logits


def test_with_a_factory_a_fresh_build_leaves(joint: ECDModel, images: Tensor) -> None:
    joint.student.note = {"left": "behind"}  # type: ignore[assignment]
    split = split_student(joint, images, factory=fresh)
    assert split.proof.method == "by construction"
    assert split.proof.checks.not_done == {}
    assert split.proof.checks.construction.tensors_compared == len(joint.student.state_dict())
    assert not hasattr(split.module, "note")
    with torch.no_grad():
        assert torch.equal(split.module(images), joint.eval()(images).student)


def test_without_a_factory_the_proof_says_that_a_copy_left(joint: ECDModel, images: Tensor) -> None:
    proof = split_student(joint, images).proof
    assert proof.method == "by copy"
    assert list(proof.checks.not_done) == ["construction"]
    assert proof.passed


def test_what_was_not_trained_and_is_not_as_built_is_listed(images: Tensor) -> None:
    model = PlainModel(Counting())
    with torch.no_grad():
        model.student.temperature.fill_(2.5)  # type: ignore[operator]
    proof = split_student(model, images, factory=Counting).proof
    assert proof.checks.construction.own_values == ("temperature",)


def test_what_is_lost_with_the_object_is_refused(images: Tensor) -> None:
    model = PlainModel(Counting())
    with torch.no_grad():
        model.student.table.mul_(2)  # type: ignore[operator]
    with pytest.raises(SplitError, match="copy: table of the copy differs from the original"):
        split_student(model, images, factory=Counting)


def add_buffer(joint: ECDModel) -> None:
    joint.student.register_buffer("extra", torch.zeros(3))


def other_type(joint: ECDModel) -> None:
    joint.student.double()


def lost_buffer(joint: ECDModel) -> None:
    norm = next(module for module in joint.student.modules() if isinstance(module, nn.BatchNorm2d))
    norm.num_batches_tracked = None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (add_buffer, r"student\.extra is not in a fresh build"),
        (lost_buffer, r"a fresh build has \S+num_batches_tracked, which the student has not"),
        (other_type, r"student\.\S+ is a parameter of float64 .* in a fresh build a parameter of float32"),
    ],
)
def test_another_set_of_tensors_is_refused(joint: ECDModel, images: Tensor, change: object, found: str) -> None:
    assert callable(change)
    change(joint)
    with pytest.raises(SplitError) as caught:
        split_student(joint, images, factory=fresh)
    assert re.search(f"construction: {found}", str(caught.value))


def test_a_patched_forward_does_not_leave(joint: ECDModel, images: Tensor) -> None:
    layer = next(module for module in joint.student.modules() if isinstance(module, nn.Linear))

    def forward(self: nn.Linear, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias) + 0.123

    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]
    with pytest.raises(SplitError) as caught:
        split_student(joint, images, factory=fresh)
    assert "spells out 1 numbers that are not there in a fresh build: 0.123" in str(caught.value)
    assert "copy" not in str(caught.value)


def test_a_patched_forward_of_other_operations_is_found(joint: ECDModel, images: Tensor) -> None:
    layer = next(module for module in joint.student.modules() if isinstance(module, nn.Linear))
    vars(layer)["forward"] = MethodType(lambda self, x: nn.functional.linear(x, self.weight, self.bias).tanh(), layer)
    with pytest.raises(SplitError, match=r"operation aten\.tanh\.default in .* is not there in a fresh build"):
        split_student(joint, images, factory=fresh)


def test_a_factory_that_gives_the_trained_object_is_refused(joint: ECDModel, images: Tensor) -> None:
    with pytest.raises(SplitError, match="is not fresh, it shares storage with the joint model"):
        split_student(joint, images, factory=lambda: joint.student)
    with pytest.raises(SplitError, match="gives Tensor, not a torch"):
        split_student(joint, images, factory=lambda: images)  # type: ignore[arg-type, return-value]


def test_the_layout_in_memory_is_kept(joint: ECDModel, images: Tensor) -> None:
    joint.student.to(memory_format=torch.channels_last)
    split = split_student(joint, images, factory=fresh)
    strides = {name: parameter.stride() for name, parameter in joint.student.named_parameters()}
    assert {name: parameter.stride() for name, parameter in split.module.named_parameters()} == strides


def test_what_nothing_reads_leaves_only_if_it_is_listed(images: Tensor) -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 10)
            self.head = nn.Linear(3, 3)
            self.head.register_buffer("frozen", torch.zeros(2))

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.fc(images.flatten(1))
            return logits

    model = PlainModel(Spare())
    with pytest.raises(SplitError, match=r"graph: nothing reads student\.head\.weight: .*list it as unused"):
        split_student(model, images, factory=Spare)
    proof = split_student(copy.deepcopy(model), images, factory=Spare, unused=("head",)).proof
    assert proof.checks.graph.unused == ("head.weight", "head.bias", "head.frozen")


def test_what_is_kept_beside_tensors_is_found(joint: ECDModel, images: Tensor) -> None:
    secret = torch.randn(9)
    joint.student.register_state_dict_post_hook(lambda _module, state, *_: state.update(secret=secret))  # type: ignore[no-untyped-call]
    with pytest.raises(SplitError, match=r"hooks: student\._state_dict_hooks.* is a hook on the student's state"):
        split_student(joint, images)


def test_a_tensor_that_only_says_its_shape_leads_nowhere() -> None:
    class Noted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, given: Tensor) -> Tensor:
            logits: Tensor = self.layers(given) * len(notes)
            return logits

    with FakeTensorMode():
        notes = [torch.empty(16, 1, 3, 3)]
    model = PlainModel(Noted())
    assert check_references(model, auxiliary_values(model)).passed


def test_extra_state_is_found(images: Tensor) -> None:
    class Extra(nn.Sequential):
        def get_extra_state(self) -> Tensor:
            return torch.ones(3)

        def set_extra_state(self, state: object) -> None:
            assert state is not None

    def build() -> nn.Module:
        return Extra(nn.Flatten(), nn.Linear(64, 10))

    with pytest.raises(SplitError, match=r"hooks: student\.get_extra_state adds to the student's state"):
        split_student(PlainModel(build()), images, factory=build)
