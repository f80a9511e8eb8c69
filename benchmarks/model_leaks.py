"""Ways in which something of the teacher can get into, or near, a student, planted in a joint model."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ecd_deploy.distill import DynamicConv2d, ECDModel, TrainingOutputs

GLOBAL: list[nn.Module] = []
"""Where one of the leaks hides a teacher."""


@dataclass(frozen=True)
class ModelLeak:
    """A leak that is planted before the split.

    Attributes:
        name: what is done.
        plant: changes the joint model; the images are (N, C, H, W).
        caught_by: the check that is made for it; others may find it too.
    """

    name: str
    plant: Callable[[ECDModel, Tensor], None]
    caught_by: str


def _keep(joint: ECDModel, value: object) -> None:
    vars(joint.student)["kept"] = value


def _classifier(joint: ECDModel) -> nn.Linear:
    return next(module for module in joint.student.modules() if isinstance(module, nn.Linear))


def _norm(module: nn.Module) -> nn.BatchNorm2d:
    return next(child for child in module.modules() if isinstance(child, nn.BatchNorm2d))


def _dynamic(joint: ECDModel) -> DynamicConv2d:
    return next(child for child in joint.teacher.modules() if isinstance(child, DynamicConv2d))


def change_logits(joint: ECDModel, change: Callable[[Tensor], Tensor]) -> None:
    """Let the student's classifier, by a forward of its own, give other logits than its weights do."""
    layer = _classifier(joint)

    def forward(self: nn.Linear, features: Tensor) -> Tensor:
        return change(nn.functional.linear(features, self.weight, self.bias))

    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]


def _wire(joint: ECDModel, images: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    teacher = joint.teacher

    def add_teacher(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + change(teacher(images))

    _classifier(joint).register_forward_hook(add_teacher)


def _rewire(joint: ECDModel, mixed: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Replace the student's logits in the joint forward; the student itself stays clean."""
    whole_forward = joint.forward

    def forward(images: Tensor) -> TrainingOutputs:
        outputs = whole_forward(images)
        return outputs._replace(student=mixed(images, outputs.student, outputs.heads()["teacher"]))

    vars(joint)["forward"] = forward


class _AddTeacher(nn.Module):
    """A parametrisation that mixes the teacher's classifier into a weight."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        layer = next(module for module in teacher.modules() if isinstance(module, nn.Linear) and module.bias.numel())
        self.weight = layer.weight

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 1e-6 * self.weight.sum()


def _default_argument(joint: ECDModel, _images: Tensor) -> None:
    layer, teacher = _classifier(joint), joint.teacher

    def forward(self: nn.Linear, features: Tensor, unused: nn.Module = teacher) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias) if unused is not None else features

    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]


def _function_with_global(joint: ECDModel, _images: Tensor) -> None:
    GLOBAL[:] = [joint.teacher]

    def forward(self: nn.Linear, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias) if GLOBAL else features

    layer = _classifier(joint)
    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]


def _patched_class(joint: ECDModel, _images: Tensor) -> None:
    joint.student.__class__ = type("Patched", (type(joint.student),), {"helper": joint.teacher})


def _slots(joint: ECDModel, _images: Tensor) -> None:
    class Slotted:
        __slots__ = ("held",)

    holder = Slotted()
    holder.held = iter([joint.teacher])  # type: ignore[attr-defined]
    _keep(joint, holder)


def _statistics_from_teacher(joint: ECDModel, _images: Tensor) -> None:
    whole_forward, student = joint.forward, _norm(joint.student)

    def forward(images: Tensor) -> TrainingOutputs:
        outputs = whole_forward(images)
        if joint.training or student.training:
            with torch.no_grad():
                student.running_mean.lerp_(outputs.heads()["teacher"].mean().expand_as(student.running_mean), 0.1)  # type: ignore[union-attr, arg-type]
        return outputs

    vars(joint)["forward"] = forward


def _gradient_hook(joint: ECDModel, _images: Tensor) -> None:
    weight = next(joint.teacher.parameters())
    parameter = _classifier(joint).weight
    parameter.register_hook(lambda gradient: gradient + weight.detach().sum())  # type: ignore[no-untyped-call]


def _written_by_teacher(joint: ECDModel, _images: Tensor) -> None:
    bias = _classifier(joint).bias

    def write(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        with torch.no_grad():
            bias.add_(output.mean())

    joint.teacher.register_forward_hook(write)


def _spelled_out(joint: ECDModel, _images: Tensor) -> None:
    layer = next(module for module in joint.teacher.modules() if isinstance(module, nn.Linear))
    table = (1e-3 * layer.weight.detach().flatten()[:10]).tolist()
    change_logits(joint, lambda logits: logits + torch.tensor(table))


def _constant_tensor(joint: ECDModel, _images: Tensor) -> None:
    secret = torch.tanh(next(joint.teacher.parameters()).detach().flatten()[:10])
    change_logits(joint, lambda logits: logits + secret)


def _share_below_torch(joint: ECDModel, _images: Tensor) -> None:
    array = torch.zeros(16).numpy()
    joint.student.register_buffer("mine", torch.from_numpy(array[:8]))
    joint.teacher.register_buffer("yours", torch.from_numpy(array[4:]))


def _parametrise(joint: ECDModel, _images: Tensor) -> None:
    parametrize.register_parametrization(_classifier(joint), "weight", _AddTeacher(joint.teacher))


def _copied_statistics(joint: ECDModel, _images: Tensor) -> None:
    with torch.no_grad():
        _norm(joint.student).running_mean.copy_(_norm(joint.teacher).running_mean)  # type: ignore[union-attr, arg-type]


MODEL_LEAKS = (
    ModelLeak("the student holds the teacher", lambda j, _: _keep(j, [j.teacher]), "references"),
    ModelLeak("the student holds the joint model", lambda j, _: _keep(j, {"parent": j}), "references"),
    ModelLeak("a connection is a child of a layer", lambda j, _: setattr(j.student, "x", j.connections), "references"),
    ModelLeak("a closure", lambda j, _: _keep(j, (lambda teacher: lambda: teacher)(j.teacher)), "references"),
    ModelLeak("a bound method of the teacher", lambda j, _: _keep(j, j.teacher.forward), "references"),
    ModelLeak("a partial function", lambda j, _: _keep(j, functools.partial(print, end=j.teacher)), "references"),
    ModelLeak("a weak reference", lambda j, _: _keep(j, weakref.ref(j.teacher)), "references"),
    ModelLeak("an iterator in a slot", _slots, "references"),
    ModelLeak("a patched forward with a default argument", _default_argument, "references"),
    ModelLeak("a patched forward that names a global", _function_with_global, "references"),
    ModelLeak("an attribute of the class", _patched_class, "references"),
    ModelLeak("a view of a connection's weight, in a list", lambda j, _: _keep(j, [_view(j)]), "references"),
    ModelLeak("a copy of a teacher's weight, as an array", lambda j, _: _keep(j, _copy(j).numpy()), "references"),
    ModelLeak("a forward hook", lambda j, x: _wire(j, x, lambda logits: logits), "dataflow"),
    ModelLeak("a hook on detached logits", lambda j, x: _wire(j, x, Tensor.detach), "perturbation"),
    ModelLeak("a shared parameter", lambda j, _: setattr(j.teacher, "taken", _classifier(j).weight), "storage"),
    ModelLeak("a transposed view", lambda j, _: j.teacher.register_buffer("view", _transposed(j)), "storage"),
    ModelLeak(
        "an aliased buffer", lambda j, _: j.teacher.register_buffer("b", _norm(j.student).running_mean), "storage"
    ),
    ModelLeak("memory shared below torch", _share_below_torch, "storage"),
    ModelLeak("running statistics copied by value", _copied_statistics, "values"),
    ModelLeak("a weight copied by value", lambda j, _: j.student.register_buffer("copy", _copy(j)), "values"),
    ModelLeak(
        "a weight copied transposed", lambda j, _: j.student.register_buffer("t", _copy(j).flatten(1).t()), "values"
    ),
    ModelLeak("one kernel copied", lambda j, _: j.student.register_buffer("one", _copy(j)[1].clone()), "values"),
    ModelLeak("a parametrisation", _parametrise, "references"),
    ModelLeak("a constant made from a weight", _constant_tensor, "graph"),
    ModelLeak("numbers of a weight spelled out in a forward", _spelled_out, "graph"),
    ModelLeak("a connection drawn the wrong way", lambda j, _: _rewire(j, lambda _, s, t: s + 1e-6 * t), "dataflow"),
    ModelLeak(
        "the same, detached and tiny", lambda j, _: _rewire(j, lambda _, s, t: s + 1e-6 * t.detach()), "perturbation"
    ),
    ModelLeak(
        "the same, for some images only",
        lambda j, _: _rewire(j, lambda x, s, t: torch.where(x.mean() > 1e3, s + t, s)),
        "graph",
    ),
    ModelLeak(
        "the same, detached and for some images only",
        lambda j, _: _rewire(j, lambda x, s, t: torch.where(x.mean() > 1e3, s + t.detach(), s)),
        "graph",
    ),
    ModelLeak(
        "the same, by a branch of the program",
        lambda j, _: _rewire(j, lambda x, s, t: s + t if x.mean() > 1e3 else s),
        "graph",
    ),
    ModelLeak("batch statistics drawn from the teacher", _statistics_from_teacher, "train_mode"),
    ModelLeak("a gradient hook", _gradient_hook, "train_mode"),
    ModelLeak("a bias that the teacher writes to", _written_by_teacher, "perturbation"),
)


def _view(joint: ECDModel) -> Tensor:
    return next(joint.connections.parameters()).detach()[:1]


def _copy(joint: ECDModel) -> Tensor:
    return _dynamic(joint).weight.detach().clone()


def _transposed(joint: ECDModel) -> Tensor:
    return _classifier(joint).weight.detach().t()[1:]
