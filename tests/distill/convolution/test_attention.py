from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ecd_deploy.distill import AttentionConv2d, ECDModel, TeacherOptions, build_teacher
from ecd_deploy.distill.convolution.dynamic_conv import TeacherKind
from ecd_deploy.errors import UsageError
from ecd_deploy.models import build_student


def reference(module: AttentionConv2d, images: Tensor, kind: str) -> Tensor:
    """Image by image, as the two papers' equations read."""
    weights = dict(module.named_parameters())
    outputs = []
    for image in images:
        output = F.conv2d(image[None], weights["convolution.weight"], weights["convolution.bias"], 2, 1)[0]

        def score(pooled: Tensor) -> Tensor:
            hidden = (weights["channels.reduce.weight"] @ pooled + weights["channels.reduce.bias"]).clamp(min=0)
            return weights["channels.expand.weight"] @ hidden + weights["channels.expand.bias"]

        pools = [torch.stack([channel.mean() for channel in output])]
        if kind == "cbam":
            pools.append(torch.stack([channel.max() for channel in output]))
        output = output * (1 / (1 + (-sum(map(score, pools), torch.zeros(8, dtype=image.dtype))).exp()))[:, None, None]
        if kind == "cbam":
            both = torch.stack([output.mean(0), output.max(0).values])
            output = output * F.conv2d(both[None], weights["places.mix.weight"], padding=3)[0].sigmoid()
        outputs.append(output)
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_output_is_that_of_the_written_out_equations(kind: TeacherKind) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1).double()
    module = AttentionConv2d(conv, TeacherOptions(teacher=kind, reduction=1))
    images = torch.randn(4, 3, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(module(images), reference(module, images, kind))
    assert not torch.equal(module.convolution.weight, conv.weight)
    assert module.convolution.weight.data_ptr() != conv.weight.data_ptr()


@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_a_teacher_has_attention_where_it_would_have_dynamic_convolutions(kind: TeacherKind) -> None:
    student = build_student("resnet8", num_classes=5)
    replaced = [entry.name for entry in build_teacher(student).report.replaced]
    generated = build_teacher(student, TeacherOptions(teacher=kind))
    assert [entry.name for entry in generated.report.replaced] == replaced
    attentive = [name for name, part in generated.module.named_modules() if isinstance(part, AttentionConv2d)]
    assert sorted(attentive) == sorted(replaced)
    outputs = ECDModel(student, TeacherOptions(teacher=kind), stages=(2, 3, 4))(torch.randn(2, 3, 16, 16))
    assert outputs.student.shape == outputs.teacher.shape == (2, 5)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="'daconv' has no attention; those that have are se, cbam"):
        AttentionConv2d(nn.Conv2d(3, 4, 3), TeacherOptions())
