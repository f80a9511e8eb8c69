"""Writes in place are followed by memory as they are by the library's own functional form of the graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from ecd_deploy.models import build_student
from ecd_deploy.split.exported import exported_program, first_output, functional
from ecd_deploy.split.writes import are_followed


class Writing(nn.Module):
    """Two parameters, and a forward that writes."""

    def __init__(self, forward: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
        self.spare = nn.Parameter(torch.ones(4))
        self.written = forward

    def forward(self, images: Tensor) -> Tensor:
        return self.written(images * 1.0, self.one, self.two + self.spare.detach() * 0)


def names(module: nn.Module, images: Tensor) -> set[str]:
    program = exported_program(module, images)
    return {found.name for found in first_output(program if are_followed(program) else functional(program)).inputs}


def functional_names(module: nn.Module, images: Tensor) -> set[str]:
    program = exported_program(module, images).run_decompositions({})
    return {found.name for found in first_output(program).inputs}


def through_a_view(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    images[:2].add_(one)
    return images.mul(two)


def from_behind(images: Tensor, one: Tensor, _two: Tensor) -> Tensor:
    row = images[0]
    images.mul_(one)
    return row


def too_late(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    copied = images + two
    images.add_(one)
    return copied


def returned_view(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    flat = images.reshape(-1)
    images.unsqueeze(0).mul_(two).relu_()
    return flat.add(one.sum())


def into_a_part(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    first, second = images[:2], images[2:]
    first.add_(second.mul(one)).clamp_(max=3.0)
    return torch.cat([images.sigmoid_(), two.expand_as(images)])


@pytest.mark.parametrize("forward", [through_a_view, from_behind, too_late, returned_view, into_a_part])
def test_memory_tells_what_the_functional_graph_tells(forward: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    module, images = Writing(forward), torch.ones(4, 4)
    assert are_followed(exported_program(module, images))
    assert names(module, images) == functional_names(module, images)


def overwritten(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    images.copy_(one.expand_as(images))
    return images + two


def written_parameter(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    one.detach().add_(two)
    return images + one


@pytest.mark.parametrize("forward", [overwritten, written_parameter])
def test_other_writes_are_left_to_the_functional_graph(forward: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    module, images = Writing(forward), torch.ones(4, 4)
    assert not are_followed(exported_program(module, images))
    assert names(module, images) == functional_names(module, images)


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-1"])
def test_students_that_write_in_place_need_no_functional_graph(name: str) -> None:
    student, images = build_student(name, num_classes=10).eval(), torch.zeros(2, 3, 8, 8)
    assert are_followed(exported_program(student, images))
    assert names(student, images) == functional_names(student, images)


HELD = torch.tensor(2.0)


def masked(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    mask = images.new_zeros(images.shape)
    for place, value in ((slice(0, 2), 1), (slice(2, 3), 3)):
        mask[place] = value
    return images * mask + one * two


def masked_by_a_held_tensor(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    mask = images.new_zeros(images.shape)
    mask[:2] = 1
    mask[2:] = HELD.clone()
    return images * mask + one * two


@pytest.mark.parametrize(("forward", "held"), [(masked, 0), (masked_by_a_held_tensor, 1)])
def test_a_number_that_a_forward_spells_out_is_known_in_the_functional_graph(
    forward: Callable[[Tensor, Tensor, Tensor], Tensor], held: int
) -> None:
    module, images = Writing(forward), torch.ones(4, 4)
    program = exported_program(module, images)
    assert not are_followed(program)
    inputs = first_output(functional(program)).inputs
    constants = [found for found in inputs if found.kind is InputKind.CONSTANT_TENSOR]
    assert len(constants) == 2
    assert [found.tensor is HELD for found in constants if not found.literal] == [True] * held
