"""Numbers of the teacher are found in whatever type, order or part a student's buffer holds them."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill import ECDModel
from ecd_deploy.errors import SplitError
from ecd_deploy.split import split_student
from ecd_deploy.split.checks.values import auxiliary_values, check_values
from ecd_deploy.split.inventory import NamedTensor
from ecd_deploy.split.runs import common_runs

ENCODINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "float64": lambda weight: weight.double(),
    "float16": lambda weight: weight.half(),
    "bfloat16": lambda weight: weight.bfloat16(),
    "int32 view": lambda weight: weight.view(torch.int32),
    "uint8 view": lambda weight: weight.view(torch.uint8),
    "complex view": lambda weight: torch.view_as_complex(weight.reshape(-1, 2).contiguous()),
    "complex": lambda weight: torch.complex(weight, torch.zeros_like(weight)),
    "rows": lambda weight: weight.flatten(1)[:, 3:9],
    "column": lambda weight: weight.flatten(1)[:, 5],
    "transposed part": lambda weight: weight.flatten(1)[:, 2:9].t(),
    "concatenated": lambda weight: torch.cat([torch.randn(33), weight.flatten()[7:90], torch.randn(5)]),
    "negated": lambda weight: -weight,
    "reversed": lambda weight: weight.flatten()[7:90].flip(0),
    "sign flipped in parts": lambda weight: weight.flatten()[:64] * torch.tensor([1.0, -1.0]).repeat(32),
    "imaginary part": lambda weight: torch.complex(torch.zeros_like(weight), weight),
}


def weight_of(joint: ECDModel) -> Tensor:
    return next(p for p in joint.teacher.parameters() if p.dim() == 5).detach()[0].flatten(1).clone()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoded_weight_is_found(joint: ECDModel, encoding: str) -> None:
    joint.student.register_buffer("statistics", ENCODINGS[encoding](weight_of(joint)).clone())
    assert any("student.statistics has" in finding for finding in check_values(joint, auxiliary_values(joint)).findings)


def test_a_weight_in_pieces_is_found(joint: ECDModel) -> None:
    for number, piece in enumerate(weight_of(joint).flatten()[:35].reshape(5, 7)):
        joint.student.register_buffer(f"piece{number}", piece.clone())
    assert any("student.piece0" in finding for finding in check_values(joint, auxiliary_values(joint)).findings)


@pytest.mark.parametrize("name", ["moving_mean", "running_average", "table"])
def test_a_name_is_no_exemption(joint: ECDModel, name: str) -> None:
    secret = weight_of(joint)
    joint.student.register_buffer(name, secret.clone())
    joint.teacher.register_buffer(name, secret.clone())
    assert f"student.{name} has" in " ".join(check_values(joint, auxiliary_values(joint)).findings)


def spelled(joint: ECDModel, change: Callable[[list[float]], Callable[[Tensor], Tensor]], count: int) -> None:
    added = change(weight_of(joint).flatten()[:count].tolist())
    layer = next(module for module in joint.student.modules() if isinstance(module, nn.Linear))

    def forward(self: nn.Linear, features: Tensor) -> Tensor:
        return added(nn.functional.linear(features, self.weight, self.bias))

    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]


def one_at_a_time(numbers: list[float]) -> Callable[[Tensor], Tensor]:
    def add(logits: Tensor) -> Tensor:
        for number in numbers:
            logits = logits + number
        return logits

    return add


def in_fours(numbers: list[float]) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits + torch.cat([torch.tensor(numbers[i : i + 4]) for i in range(0, 40, 4)])[:10]


@pytest.mark.parametrize(("change", "count"), [(one_at_a_time, 100), (in_fours, 40)])
def test_numbers_spelled_out_are_bounded_in_all(
    joint: ECDModel, images: Tensor, change: Callable[[list[float]], Callable[[Tensor], Tensor]], count: int
) -> None:
    spelled(joint, change, count)
    with pytest.raises(SplitError, match=r"graph: the student's forward spells out \d+ different numbers"):
        split_student(joint, images)


def test_few_numbers_that_change_all_the_time_are_bounded(joint: ECDModel, images: Tensor) -> None:
    digits = (weight_of(joint).flatten()[:200].abs() * 1e4).long() % 16

    def add(_: list[float]) -> Callable[[Tensor], Tensor]:
        return one_at_a_time([0.001 * digit for digit in digits.tolist()])

    spelled(joint, add, 1)
    with pytest.raises(SplitError, match=r"graph: the numbers .* change \d+ times from operation to operation"):
        split_student(joint, images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_nearly_equal_are_nobodys(dtype: torch.dtype) -> None:
    """The variances of channels that hardly ever fire: any two tensors have some of these in a row."""

    def variances(seed: int) -> Tensor:
        drawn = torch.rand(20_000, generator=torch.Generator().manual_seed(seed))
        return 0.9 + drawn * 4 * torch.finfo(dtype).eps

    mine, theirs = variances(1).to(dtype), variances(2)
    assert common_runs([NamedTensor("mine", "buffer", mine)], [NamedTensor("theirs", "buffer", theirs)]) == ()
    mine[100:108] = theirs[7:15] = torch.rand(8, generator=torch.Generator().manual_seed(3)).to(dtype) / 16
    (found,) = common_runs([NamedTensor("mine", "buffer", mine)], [NamedTensor("theirs", "buffer", theirs)])
    assert (found.name, found.other) == ("mine", "theirs")


def test_what_rounding_leaves_is_nobodys() -> None:
    """Means of what has none: small multiples of the last place of what was summed."""

    def means(seed: int) -> Tensor:
        return torch.randint(-60, 60, (20_000,), generator=torch.Generator().manual_seed(seed)) * (0.1 * 2.0**-27)

    theirs = [NamedTensor("theirs", "buffer", means(2))]
    assert common_runs([NamedTensor("mine", "buffer", means(1))], theirs) == ()
