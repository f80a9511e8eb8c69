from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill.batch_norm import TeacherBatchNorm2d


def ordinary(dtype: torch.dtype = torch.float64) -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, dtype=dtype, momentum=0.3)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias):
            tensor.normal_()
    return norm


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.0, 30.0), (1e-3, 1.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_results_gradients_and_statistics_are_torchs(
    scale: float, offset: float, dtype: torch.dtype, tolerance: float
) -> None:
    theirs = ordinary(dtype)
    ours = TeacherBatchNorm2d.taking_over(copy.deepcopy(theirs))
    results: list[list[Tensor]] = []
    features = scale * torch.randn(7, 5, 6, 4, dtype=dtype) + offset
    direction = torch.randn_like(features)
    for norm in (theirs, ours):
        images = features.clone().requires_grad_()
        output = norm(images)
        gradients = torch.autograd.grad(output, [images, norm.weight, norm.bias], direction)
        results.append([output, *gradients, *norm.buffers()])
    for reference, found in zip(*results, strict=True):
        largest = reference.abs().max().item()
        torch.testing.assert_close(found, reference, rtol=0, atol=tolerance * max(largest, 1.0))


def test_it_is_torchs_in_evaluation_and_where_the_quick_way_does_not_hold() -> None:
    theirs = ordinary().eval()
    ours = TeacherBatchNorm2d.taking_over(copy.deepcopy(theirs))
    images = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    assert torch.equal(ours(images), theirs(images))
    for norm in (ours, theirs):
        norm.train()
    assert torch.equal(
        ours(images.contiguous(memory_format=torch.channels_last)),
        theirs(images.contiguous(memory_format=torch.channels_last)),
    )
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        ours(torch.randn(1, 5, 1, 1, dtype=torch.float64))


def test_it_takes_over_the_parameters_themselves() -> None:
    theirs = ordinary()
    ours = TeacherBatchNorm2d.taking_over(theirs)
    assert ours.weight is theirs.weight
    assert ours.state_dict().keys() == theirs.state_dict().keys()
