from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ecd_deploy.distill import additive
from ecd_deploy.distill.additive import add_conv1x1

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("for_cudnn", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("theirs", "ours"), list(itertools.product(LAYOUTS, LAYOUTS)), ids=str)
def test_it_is_a_convolution_and_an_addition(
    theirs: torch.memory_format,
    ours: torch.memory_format,
    in_place: bool,
    for_cudnn: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(additive, "_is_for_cudnn", lambda _student: for_cudnn)
    torch.manual_seed(0)
    teacher = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    teacher = teacher if in_place else teacher.contiguous(memory_format=theirs)
    student = torch.randn(3, 7, 5, 6, dtype=torch.float64).contiguous(memory_format=ours)
    weight = torch.randn(4, 7, 1, 1, dtype=torch.float64)
    direction = torch.randn(3, 4, 5, 6, dtype=torch.float64).contiguous(memory_format=theirs)
    inputs: list[Tensor] = [tensor.clone().requires_grad_() for tensor in (teacher, student, weight)]
    expected = inputs[0] + F.conv2d(inputs[1], inputs[2])
    fresh = inputs[0] * 1
    found = add_conv1x1(fresh, inputs[1], inputs[2], in_place=in_place)
    torch.testing.assert_close(found, expected)
    assert (found.data_ptr() == fresh.data_ptr()) is in_place
    for gradient, reference in zip(
        torch.autograd.grad(found, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        torch.testing.assert_close(gradient, reference)


def test_the_result_may_be_overwritten() -> None:
    student, weight = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(3, 3, 1, 1, requires_grad=True)
    for in_place in (False, True):
        found = add_conv1x1(torch.randn(2, 3, 4, 4), student, weight, in_place=in_place)
        torch.autograd.backward(found.relu_().sum())
    assert student.grad is not None
