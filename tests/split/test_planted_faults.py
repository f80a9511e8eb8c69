"""Each way that something of the teacher can hide in a student, and the check that finds it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill import ECDModel, PlainModel, TeacherOptions, TrainingOutputs
from ecd_deploy.errors import SplitError
from ecd_deploy.models import build_student
from ecd_deploy.split import split_student


def refusal(model: ECDModel | PlainModel, images: Tensor) -> str:
    with pytest.raises(SplitError) as caught:
        split_student(model, images)
    return str(caught.value)


def classifier(model: ECDModel | PlainModel) -> nn.Linear:
    return [module for module in model.student.modules() if isinstance(module, nn.Linear)][-1]


def wire(joint: ECDModel, images: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    teacher = joint.teacher

    def add_teacher(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + change(teacher(images))

    classifier(joint).register_forward_hook(add_teacher)


def test_a_teacher_feature_wired_by_a_hook_is_found_with_its_path(joint: ECDModel, images: Tensor) -> None:
    wire(joint, images, lambda logits: logits)
    text = refusal(joint, images)
    assert re.search(r"dataflow: the student's logits <- AddBackward0 <- \w+Backward0 <- .*teacher\.", text)
    assert "perturbation: the student's logits change" in text
    assert "add_teacher" in text
    assert ".__closure__[teacher] is the auxiliary module teacher" in text


def test_a_frozen_teacher_does_not_hide_from_the_graph(joint: ECDModel, images: Tensor) -> None:
    joint.teacher.requires_grad_(False)
    wire(joint, images, lambda logits: logits)
    assert re.search(r"dataflow: .*<- teacher\.", refusal(joint, images))
    assert not any(parameter.requires_grad for parameter in joint.teacher.parameters())


def test_a_detached_teacher_feature_is_found_by_nan(joint: ECDModel, images: Tensor) -> None:
    wire(joint, images, lambda logits: logits.detach())
    text = refusal(joint, images)
    assert "dataflow" not in text
    assert "perturbation: the student's logits change alone with all auxiliary tensors NaN: 40 of 40 differ" in text


class Singular(nn.Module):
    """A student with an operation that raises on NaN; its teacher has it too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build_student("resnet8", num_classes=10, in_channels=1)
        self.mix = nn.Linear(2, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        mixed: Tensor = self.mix(torch.linalg.svdvals(logits.reshape(-1, 2, 5)))
        return logits + mixed


@pytest.mark.parametrize("wired", [False, True])
def test_where_nan_cannot_pass_random_values_decide(images: Tensor, wired: bool) -> None:
    torch.manual_seed(0)
    joint = ECDModel(Singular(), TeacherOptions(kernels=2), example=images)
    joint(images)
    if wired:
        wire(joint, images, lambda logits: logits.detach())
        text = refusal(joint, images)
        assert "change in the joint forward with all auxiliary tensors randomised" in text
    else:
        checked = split_student(joint, images).proof.checks.perturbation
        assert checked.passed
        assert "linalg.svd" in checked.nan_refused


def test_a_feature_that_is_there_in_the_joint_forward_only_is_found(joint: ECDModel, images: Tensor) -> None:
    whole_forward = joint.forward

    def forward(batch: Tensor) -> TrainingOutputs:
        outputs = whole_forward(batch)
        assert outputs.teacher is not None
        return outputs._replace(student=outputs.student + 1e-6 * outputs.teacher.detach())

    vars(joint)["forward"] = forward
    text = refusal(joint, images)
    assert "perturbation: the student's logits change in the joint forward" in text


def test_an_unknown_leaf_is_an_offender(joint: ECDModel, images: Tensor) -> None:
    stranger = torch.zeros(10, requires_grad=True)
    classifier(joint).register_forward_hook(lambda _module, _inputs, output: output + stranger)
    assert re.search(r"<- an unknown tensor of shape \(10,\)", refusal(joint, images))


def test_a_parameter_that_is_not_used_is_reported(plain: PlainModel, images: Tensor) -> None:
    plain.student.register_parameter("spare", nn.Parameter(torch.zeros(3)))
    assert "dataflow: the student's logits do not depend on student.spare" in refusal(plain, images)


def test_a_shared_parameter_is_found(joint: ECDModel, images: Tensor) -> None:
    joint.teacher.taken = classifier(joint).weight
    text = refusal(joint, images)
    assert re.search(r"storage: student\.\w+\.weight shares storage with teacher\.taken", text)
    assert re.search(r"dataflow: the student's logits <- .* <- teacher\.taken", text)


def test_a_transposed_view_is_found(joint: ECDModel, images: Tensor) -> None:
    joint.connections.register_buffer("view", classifier(joint).weight.detach().t()[1:])
    assert re.search(r"storage: student\.\w+\.weight shares storage with connections\.view", refusal(joint, images))


def test_an_aliased_buffer_is_found(joint: ECDModel, images: Tensor) -> None:
    norm = next(module for module in joint.student.modules() if isinstance(module, nn.BatchNorm2d))
    joint.teacher.register_buffer("statistics", norm.running_mean)
    assert re.search(
        r"storage: student\..*running_mean shares storage with teacher\.statistics", refusal(joint, images)
    )


def test_memory_shared_below_torch_is_found(joint: ECDModel, images: Tensor) -> None:
    array = torch.zeros(16).numpy()
    joint.student.register_buffer("mine", torch.from_numpy(array[:8]))
    joint.teacher.register_buffer("yours", torch.from_numpy(array[4:]))
    assert "storage: student.mine shares storage with teacher.yours" in refusal(joint, images)


def test_a_plain_tensor_attribute_counts_as_well(joint: ECDModel, images: Tensor) -> None:
    joint.student.kept = {"first": [next(joint.teacher.parameters()).detach()]}  # type: ignore[assignment]
    assert re.search(r"storage: student\.kept\['first'\]\[0\] shares storage with teacher\.", refusal(joint, images))


def hide_in_list(joint: ECDModel) -> None:
    joint.student.notes = ["a note", {"deep": (joint.teacher,)}]  # type: ignore[assignment]


def hide_joint_model(joint: ECDModel) -> None:
    joint.student.notes = [joint]  # type: ignore[assignment]


def hide_as_child(joint: ECDModel) -> None:
    classifier(joint).extra = joint.connections


def hide_whole_as_child(joint: ECDModel) -> None:
    joint.student.parent = joint


def hide_in_closure(joint: ECDModel) -> None:
    teacher = joint.teacher
    joint.student.later = lambda: teacher  # type: ignore[assignment]


def hide_in_patched_forward(joint: ECDModel) -> None:
    layer, teacher = classifier(joint), joint.teacher

    def forward(self: nn.Linear, features: Tensor, unused: nn.Module = teacher) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias) if unused is not None else features

    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]


def hide_in_bound_method(joint: ECDModel) -> None:
    joint.student.later = joint.teacher.forward  # type: ignore[assignment]


def hide_in_partial(joint: ECDModel) -> None:
    joint.student.later = functools.partial(print, end=joint.teacher)  # type: ignore[assignment]


def hide_in_object(joint: ECDModel) -> None:
    class Slotted:
        __slots__ = ("held",)

    class Holder:
        def __init__(self) -> None:
            self.slotted = Slotted()

    holder = Holder()
    holder.slotted.held = iter([joint.teacher])  # type: ignore[attr-defined]
    joint.student.holder = holder  # type: ignore[assignment]


def hide_view_in_closure(joint: ECDModel) -> None:
    row = next(iter(joint.connections.parameters())).detach()[:1]
    joint.student.later = lambda: row  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("hide", "found"),
    [
        (hide_in_list, r"student\.notes\[1\]\['deep'\]\[0\] is the auxiliary module teacher"),
        (hide_joint_model, r"student\.notes\[0\] is the joint model, ECDModel"),
        (hide_as_child, r"student\.\w+\.extra is the auxiliary module connections"),
        (hide_whole_as_child, r"student\.parent is the joint model, ECDModel"),
        (hide_in_closure, r"student\.later\.__closure__\[teacher\] is the auxiliary module teacher"),
        (hide_in_patched_forward, r"student\.fc\.forward\.__func__\.__defaults__\[0\] is the auxiliary module teacher"),
        (hide_in_bound_method, r"student\.later\.__self__ is the auxiliary module teacher"),
        (hide_in_partial, r"student\.later\.keywords\['end'\] is the auxiliary module teacher"),
        (hide_in_object, r"student\.holder\.slotted\.held.*is the auxiliary module teacher"),
        (hide_view_in_closure, r"student\.later\.__closure__\[row\] is a tensor in the storage of connections\."),
    ],
)
def test_a_hidden_reference_is_found_with_its_path(
    joint: ECDModel, images: Tensor, hide: Callable[[ECDModel], None], found: str
) -> None:
    hide(joint)
    assert re.search(f"references: {found}", refusal(joint, images))


def test_a_hook_left_behind_is_found_even_if_it_leads_nowhere(plain: PlainModel, images: Tensor) -> None:
    def forgotten(*_: Any) -> None:
        return None

    classifier(plain).register_forward_hook(forgotten)
    assert re.search(
        r"hooks: student\.\w+\._forward_hooks\[\d+\] \(.*forgotten\) is a hook that was left behind",
        refusal(plain, images),
    )


def test_a_copy_that_still_runs_through_the_original_is_found(plain: PlainModel, images: Tensor) -> None:
    layer = classifier(plain)
    vars(layer)["forward"] = lambda features: nn.functional.linear(features, layer.weight, layer.bias)
    text = refusal(plain, images)
    assert re.search(r"copy: the copy's .*__closure__\[layer\] is the original module student\.", text)


def test_a_student_that_computes_no_numbers_is_refused(plain: PlainModel, images: Tensor) -> None:
    with torch.no_grad():
        classifier(plain).bias.fill_(torch.nan)
    assert "perturbation: the student's logits on the example are not finite" in refusal(plain, images)
