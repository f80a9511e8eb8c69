"""A joint model that starts from a student with weights: at its function, and with a gradient for it."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ecd_deploy.distill import DynamicConv2d, ECDModel, TeacherOptions, training_loss
from ecd_deploy.distill.connections import FeatureConnections
from ecd_deploy.distill.convolution.dynamic_conv import spread_like
from ecd_deploy.errors import UsageError
from ecd_deploy.models import build_student
from ecd_deploy.split.checks.values import auxiliary_values, check_values
from tests.small import digit_images, present

LEAST_SHARE = 0.49
"""Of the gradient of the student's own loss; half of it by the derivation in `FeatureConnections`."""

LABELS = torch.arange(16) % 10


def used(name: str, channels: int) -> tuple[nn.Module, Tensor]:
    """A student that has seen images, so that its statistics are of something, and images."""
    torch.manual_seed(0)
    student = build_student(name, num_classes=10, in_channels=channels)
    images = F.interpolate(digit_images(16), size=16).expand(-1, channels, -1, -1).contiguous()
    with torch.no_grad():
        for _ in range(10):
            student.train()(images + 0.1 * torch.randn_like(images))
    return student, images


CASES = [
    ("resnet20", {}, {}),
    ("resnet8", {"mixture": "balanced", "kernels": 3, "temperature": 0.5}, {}),
    ("resnet8", {"backend": "chunked"}, {"connection": "direct"}),
    ("resnet8", {}, {"density": "dense"}),
    ("resnet8", {"teacher": "se"}, {}),
    ("resnet8", {"teacher": "cbam"}, {}),
    pytest.param("timm:test_resnet", {}, {"stages": [2]}, marks=pytest.mark.needs("timm")),
    ("resnet8", {}, {"sites": ["layer1.*.conv1", "layer2.0.relu", "layer3"]}),
]


@pytest.mark.parametrize(("name", "options", "arguments"), CASES)
def test_it_starts_at_the_student_and_its_loss_reaches_the_student(
    name: str, options: dict[str, object], arguments: dict[str, object]
) -> None:
    student, images = used(name, 3 if name.startswith("timm") else 1)
    chosen = TeacherOptions(**{"kernels": 4, "teacher_init": "student", **options})  # type: ignore[arg-type]
    model = ECDModel(student, chosen, example=images, **arguments).eval()  # type: ignore[arg-type]
    outputs = model(images)
    torch.testing.assert_close(outputs.teacher, outputs.student, rtol=1e-5, atol=1e-5)

    own, through_teacher = (
        torch.autograd.grad(
            F.cross_entropy(logits, LABELS), list(student.parameters()), retain_graph=True, allow_unused=True
        )
        for logits in (outputs.student, outputs.teacher)
    )
    connected = 0
    for mine, theirs in zip(own, through_teacher, strict=True):
        if mine is not None and theirs is not None and theirs.norm() > 0 and mine.norm() > 1e-9:
            connected += 1
            assert theirs.norm() >= LEAST_SHARE * mine.norm()
            assert F.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0) > 0.9
    assert connected >= 10
    # nothing of the student is a number of the teacher's, which the split proves
    assert check_values(model, auxiliary_values(model)).findings == ()


def test_the_gradients_of_both_add_up_to_the_students_own() -> None:
    """F_T(w, w) = F_S(w) for any w, so its derivatives are equal; in float64, with every value the same in both."""
    student, images = used("resnet8", 1)
    student.double()
    images = images.double()
    model = ECDModel(student, TeacherOptions(teacher="se", teacher_init="student"), example=images).double().eval()
    of_teacher = dict(model.teacher.named_parameters())
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name in of_teacher:
                of_teacher[name].copy_(parameter)
            else:
                of_teacher[name.replace(".weight", ".convolution.weight")].copy_(2 * parameter)
        for name, buffer in student.named_buffers():
            model.teacher.get_buffer(name).copy_(buffer)
    outputs = model(images)
    torch.autograd.backward(F.cross_entropy(present(outputs.teacher), LABELS), retain_graph=True)
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    expected = torch.autograd.grad(F.cross_entropy(outputs.student, LABELS), list(student.parameters()))
    for (name, mine), whole in zip(gradients.items(), expected, strict=True):
        theirs = of_teacher[name].grad if name in of_teacher else None
        if theirs is None:
            doubled = of_teacher[name.replace(".weight", ".convolution.weight")].grad
            assert doubled is not None
            theirs = 2 * doubled
        torch.testing.assert_close(theirs if mine is None else mine + theirs, whole)


@pytest.mark.parametrize("mixture", ["convex", "balanced"])
def test_the_kernels_differ_and_go_on_to_differ(mixture: str) -> None:
    student, images = used("resnet8", 1)
    options = TeacherOptions(kernels=4, teacher_init="student", mixture=mixture)  # type: ignore[arg-type]
    model = ECDModel(student, options, example=images).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    dynamic = [module for module in model.teacher.modules() if isinstance(module, DynamicConv2d)]
    for _ in range(100):
        optimizer.zero_grad()
        torch.autograd.backward(training_loss(model(images), LABELS))
        optimizer.step()
    for module in dynamic:
        for one, other in combinations(module.weight, 2):
            assert (one - other).norm() > 0.5 * one.norm()
        assert module.expand.weight.abs().max() > 0
        mixing = module.mixing_weights(torch.randn(8, module.in_channels, 4, 4))
        assert mixing.std(dim=0).max() > 0


def test_noise_cancels_in_the_mean_of_the_kernels() -> None:
    torch.manual_seed(0)
    kernel = torch.randn(6, 5, 3, 3, dtype=torch.float64)
    copies = spread_like(kernel, 4, gain=2.0)
    torch.testing.assert_close(copies.mean(dim=0) * 2, kernel)
    assert 0.7 < float((copies - copies.mean(dim=0)).std() / kernel.std()) < 1.0


def test_what_cannot_start_as_the_student_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'conv1x1_bn' cannot start as the identity; 'direct' and 'conv1x1' can"):
        FeatureConnections((), "conv1x1_bn", "student")
    with pytest.raises(UsageError, match="no teacher_init 'same'; choices are fresh, student"):
        TeacherOptions(teacher_init="same")  # type: ignore[arg-type]
