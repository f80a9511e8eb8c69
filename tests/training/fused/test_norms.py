"""The launches of batch norms, interpreted: indices, masks and formulas, and neither speed nor what a GPU rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ecd_deploy.training.fused import operators
from tests.triton_launches import interpreting

SHAPES = [(3, 5, 4, 3), (2, 3, 40, 33), (9, 2, 32, 32), (70, 3)]


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> Callable[..., Tensor]:
    torch.manual_seed(0)

    def draw(*size: int, exact: bool = False) -> Tensor:
        return torch.randn(size or shape, dtype=torch.float64).to(torch.float32 if exact else dtype)

    return draw


def assert_same(operator: Any, reference: Any, arguments: tuple[Any, ...], tolerance: float) -> None:
    """Results, and what is changed in place."""
    copies = tuple(one.clone() if isinstance(one, Tensor) else one for one in arguments)
    with interpreting():
        found = operator(*arguments)
    for one, other in zip(found, reference(*copies), strict=True):
        torch.testing.assert_close(one, other.contiguous(), rtol=0, atol=tolerance * (1 + float(other.norm())))
    for one, other in zip(arguments, copies, strict=True):
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.needs("triton")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("is_added", "rectifies", "is_behind", "pools"),
    [(False, True, False, False), (True, True, True, True), (True, False, False, True)],
)
def test_a_norm_is_torchs(
    shape: tuple[int, ...], is_added: bool, rectifies: bool, is_behind: bool, pools: bool
) -> None:
    draw, channels = drawn(shape, torch.float64), shape[1]
    features = draw() + 30
    statistics = [draw(channels), draw(channels), draw(channels), draw(channels).square()]
    others = [draw() if is_there else None for is_there in (is_added, is_behind)]
    arguments = (features, *statistics, *others, 0.3, 1e-3, rectifies, torch.float64 if pools else None)
    assert_same(operators.normalise, operators.normalise_by_torch, arguments, 1e-12)


@pytest.mark.needs("triton")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("count", "is_beside", "passes", "sums"), [(1, False, False, False), (2, True, True, True), (4, False, True, False)]
)
def test_gradients_of_a_norm_are_torchs(
    shape: tuple[int, ...], count: int, is_beside: bool, passes: bool, sums: bool
) -> None:
    draw, channels = drawn(shape, torch.float64), shape[1]
    gradients = [draw() for _ in range(count)]
    given = [draw().relu(), draw(), draw(channels), draw(channels), draw(channels).square() + 0.1]
    arguments = (gradients, *given, draw() if is_beside else None, passes, sums)
    assert_same(operators.differentiate_rectified, operators.differentiate_by_torch, arguments, 1e-11)


@pytest.mark.needs("triton")
def test_features_in_half_precision_have_statistics_in_full() -> None:
    draw = drawn((4, 3, 5, 5), torch.bfloat16)
    statistics = [draw(3, exact=True) for _ in range(3)] + [draw(3, exact=True).square()]
    arguments: tuple[Any, ...] = (draw(), *statistics, draw(), draw(), 0.1, 1e-5, True, torch.float32)
    exact: tuple[Any, ...] = tuple(one.clone().double() if isinstance(one, Tensor) else one for one in arguments)
    with interpreting():
        found = operators.normalise(*arguments)
    half, full = torch.bfloat16, torch.float32
    assert [one.dtype for one in found] == [half, full, full, half, full]
    for one, other in zip(found, operators.normalise_by_torch(*exact), strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-2, atol=1e-2)


@pytest.mark.needs("triton")
def test_what_is_no_number_is_not_hidden_by_the_relu() -> None:
    draw = drawn((4, 3, 5, 5), torch.float64)
    features = draw()
    features[1, 2, 0, 0] = float("nan")
    with interpreting():
        output, *_ = operators.normalise(
            *(features, draw(3), draw(3), draw(3), draw(3).square(), None, None, 0.1, 1e-5),
            rectifies=True,
            pooled=None,
        )
    assert output[:, 2].isnan().all()
    assert output[:, :2].isfinite().all()
