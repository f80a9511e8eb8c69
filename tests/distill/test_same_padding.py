from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ecd_deploy.distill import DynamicConv2d, TeacherOptions, build_teacher
from ecd_deploy.distill.same_padding import SamePaddedDynamicConv2d, pads_as_tensorflow
from ecd_deploy.errors import StudentError
from ecd_deploy.models import build_student

layers = pytest.importorskip("timm.layers", reason="needs timm, which is not installed")


@pytest.mark.parametrize("size", [(9, 8), (7, 12), (2, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": (3, 5), "stride": (2, 1), "bias": False},
        {"kernel_size": 4, "stride": 3, "groups": 2},
        {"kernel_size": 3, "stride": 2, "dilation": (2, 1)},
        {"kernel_size": 1, "stride": 2},
    ],
    ids=str,
)
def test_each_sample_is_convolved_as_timm_does_with_its_mixed_kernel(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    conv = layers.Conv2dSame(4, 6, **options).double()
    layer = SamePaddedDynamicConv2d(conv, TeacherOptions(kernels=3, temperature=0.1))
    images = 3 * torch.randn(4, 4, *size, dtype=torch.float64)
    # The router sees the features without their padding.
    mixing = layer.mixing_weights(images)
    expected = []
    for image, weights in zip(images, mixing, strict=True):
        with torch.no_grad():
            conv.weight.copy_(torch.einsum("n,nochw->ochw", weights, layer.weight))
            if conv.bias is not None and layer.bias is not None:
                conv.bias.copy_(weights @ layer.bias)
        expected.append(conv(image[None]))
    torch.testing.assert_close(layer(images), torch.cat(expected), rtol=1e-10, atol=1e-12)


def test_a_student_padded_as_tensorflow_does_gets_such_a_teacher() -> None:
    made = build_teacher(
        build_student("timm:tf_mobilenetv3_small_minimal_100", num_classes=4), TeacherOptions(kernels=2)
    )
    kinds = {type(made.module.get_submodule(entry.name)) for entry in made.report.replaced}
    assert kinds == {DynamicConv2d, SamePaddedDynamicConv2d}  # timm uses torch.nn.Conv2d where the padding is even
    with torch.no_grad():
        made.module(torch.randn(2, 3, 37, 32))


def test_convolutions_of_other_classes_are_not_taken_for_these() -> None:
    assert not pads_as_tensorflow(nn.Conv2d(3, 3, 3))
    assert not pads_as_tensorflow(layers.StdConv2d(3, 3, 3))
    with pytest.raises(StudentError, match=r"can be replaced .*its class ScaledStdConv2d may compute something else"):
        build_teacher(build_student("timm:test_nfnet", num_classes=4), TeacherOptions(kernels=2))
