"""Which chains of a step are replaced, and that the step stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from ecd_deploy.training.fused.chains import fuse
from ecd_deploy.training.fused.operators import DIFFERENTIATE, NORMALISE
from ecd_deploy.training.fused.program import Call, Program, View, record
from tests.triton_launches import standing_in

aten = torch.ops.aten
Forward = Callable[["Network", Tensor], Tensor]


class Network(nn.Module):
    """Two convolutions and norms, in a forward that is given."""

    def __init__(self, forward: Forward, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.norm, self.other = (nn.BatchNorm2d(3, **options) for _ in range(2))
        self.double()
        self.way = forward

    def forward(self, images: Tensor) -> Tensor:
        return self.way(self, images)


def step_of(network: Network, images: Tensor) -> Callable[[], None]:
    parameters = list(network.parameters())

    def step() -> None:
        gradients = torch.autograd.grad(network(images).square().mean(), parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient, alpha=0.1)

    return step


def assert_fused(network: Network, norms: int, gradients: int, layout: torch.memory_format) -> Program:
    """The step by its program, twice over, is the step; so many launches took the place of chains."""
    images = torch.randn(4, 3, 6, 5, dtype=torch.float64).contiguous(memory_format=layout)
    step, state = step_of(network, images), [*network.parameters(), *network.buffers()]
    before = [tensor.detach().clone() for tensor in state]
    program = record(step)
    step()
    expected = [tensor.detach().clone() for tensor in state]
    with torch.no_grad():
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    fused = fuse(program)
    found = [call.operator for call in fused.calls]
    assert (found.count(NORMALISE), found.count(DIFFERENTIATE)) == (norms, gradients)
    with standing_in():
        fused.run()
        fused.run()
    for tensor, value in zip(state, expected, strict=True):
        torch.testing.assert_close(tensor.detach(), value, rtol=1e-9, atol=1e-11)
    return fused


def overwritten(network: Network, images: Tensor) -> Tensor:
    """What is added is changed between the norm and the sum."""
    normalised, shortcut = network.norm(network.first(images)), network.second(images)
    shortcut.mul_(2)
    return F.relu(normalised + shortcut)


def reader(readers: int) -> Forward:
    """What is rectified has as many gradients as readers."""

    def forward(network: Network, images: Tensor) -> Tensor:
        features = F.relu(network.norm(network.first(images)))
        found: Tensor = network.second(features)
        for number in range(1, readers):
            found = found * (features + number)
        return found

    return forward


def changed_after_the_sum(network: Network, images: Tensor) -> Tensor:
    shortcut = network.second(images)
    total = network.norm(network.first(images)) + shortcut
    shortcut.mul_(2)
    found: Tensor = F.relu(total) + shortcut
    return found


def changed_before_the_relu(network: Network, images: Tensor) -> Tensor:
    normalised = network.norm(network.first(images))
    normalised.mul_(2)
    return F.relu(normalised)


def behind(network: Network, images: Tensor) -> Tensor:
    """A sum behind the ReLU, and its means; the gradient of the sum is read by the ReLU and then by `second`."""
    shortcut = network.second(images)
    total: Tensor = F.relu(network.norm(network.first(images))) + shortcut
    return total * total.mean(dim=(-2, -1), keepdim=True)


def changed_before_the_means(network: Network, images: Tensor) -> Tensor:
    features = F.relu(network.norm(network.first(images))) + images
    features.mul_(2)
    return features.mean(dim=(2, 3))


FUSED: dict[str, tuple[Forward, int, int]] = {
    "relu": (lambda net, x: F.relu(net.norm(net.first(x))), 1, 1),
    "relu in place": (lambda net, x: F.relu_(net.norm(net.first(x))), 1, 1),
    "sum and relu": (lambda net, x: F.relu(net.norm(net.first(x)) + net.second(x)), 1, 1),
    "sum the other way round": (lambda net, x: F.relu(net.second(x) + net.norm(net.first(x))), 1, 1),
    "sums in place": (lambda net, x: net.norm(net.first(x)).add_(net.second(x)).relu_(), 1, 1),
    "into what is added": (lambda net, x: net.second(x).add_(net.norm(net.first(x))).relu_(), 1, 1),
    "of two norms": (lambda net, x: F.relu(net.norm(net.first(x)) + net.other(net.second(x))), 1, 1),
    "sum alone": (lambda net, x: net.norm(net.first(x)) + net.second(x), 1, 0),
    "sum behind the relu": (behind, 1, 1),
    "into what is added behind": (lambda net, x: net.second(x).add_(F.relu(net.norm(net.first(x)))), 1, 1),
    "what is added behind is read first": (lambda net, x: F.relu(net.norm(net.first(x))) + net.second(x), 1, 1),
    "changed before the means": (changed_before_the_means, 1, 1),
    "images are added": (lambda net, x: F.relu(net.norm(net.first(x)) + x), 1, 1),
    "overwritten between": (overwritten, 1, 1),
    "one norm twice": (lambda net, x: F.relu(net.norm(net.second(F.relu(net.norm(net.first(x)))))), 2, 2),
    **{f"{readers} readers": (reader(readers), 1, 1) for readers in (3, 4, 6)},
    "a block": (
        lambda net, x: F.relu(net.other(net.second(y := F.relu(net.norm(net.first(x))))) + y).add(y),
        2,
        2,
    ),
}
LEFT: dict[str, tuple[Forward, int, int]] = {
    "read besides": (lambda net, x: F.relu(y := net.norm(net.first(x))) + y, 0, 0),
    "read after it was changed": (lambda net, x: (y := net.norm(net.first(x))) * 2 + F.relu(y), 0, 0),
    "changed after the sum": (changed_after_the_sum, 0, 1),
    "changed before the relu": (changed_before_the_relu, 0, 0),
    "added to itself": (lambda net, x: F.relu((y := net.norm(net.first(x))) + y), 0, 0),
    "a broadcast sum": (lambda net, x: F.relu(net.norm(net.first(x)) + net.second(x)[:1]), 0, 1),
    "a weighed sum": (lambda net, x: F.relu(torch.add(net.norm(net.first(x)), net.second(x), alpha=2)), 0, 1),
    "another end": (lambda net, x: torch.sigmoid(net.norm(net.first(x))), 0, 0),
    "relu first": (lambda net, x: net.norm(F.relu(net.first(x))), 0, 0),
}


@pytest.mark.parametrize("name", FUSED)
def test_chains_are_replaced(name: str) -> None:
    forward, norms, gradients = FUSED[name]
    assert_fused(Network(forward), norms, gradients, torch.contiguous_format)


@pytest.mark.parametrize(
    ("way", "means"),
    [
        (behind, 0),
        (lambda net, x: F.relu(net.norm(net.first(x))).mean(dim=(2, 3)), 0),
        (changed_before_the_means, 1),
        (lambda net, x: F.relu(net.norm(net.first(x))).mean(dim=(1, 2)), 1),
    ],
    ids=["sum and means", "means alone", "changed before the means", "means over channels"],
)
def test_what_follows_a_relu_is_done_by_the_same_launch(way: Forward, means: int) -> None:
    """And the gradients that meet there are added up by that of the norm, although another layer reads their sum."""
    program = fuse(record(step_of(Network(way), torch.randn(4, 3, 6, 5, dtype=torch.float64))))
    found = [call.operator for call in program.calls]
    assert found.count(aten.mean.dim) == means
    assert not {aten.add.Tensor, aten.relu.default} & set(found)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_a_chain_is_left(name: str) -> None:
    forward, norms, gradients = LEFT[name]
    assert_fused(Network(forward), norms, gradients, torch.contiguous_format)


@pytest.mark.parametrize(
    ("options", "norms", "gradients"),
    [
        ({"momentum": 0.0}, 1, 1),
        ({"affine": False}, 0, 0),
        ({"track_running_stats": False}, 0, 1),
    ],
    ids=str,
)
def test_norms_of_every_kind_are_right(options: dict[str, Any], norms: int, gradients: int) -> None:
    network = Network(lambda net, x: F.relu(net.norm(net.first(x)) + net.second(x)), **options)
    assert_fused(network, norms, gradients, torch.contiguous_format)


def test_a_norm_whose_momentum_changes_is_no_program() -> None:
    network = Network(lambda net, x: F.relu(net.norm(net.first(x))), momentum=None)
    with pytest.raises(RuntimeError, match="gives the host a value"):
        record(step_of(network, torch.randn(4, 3, 6, 5, dtype=torch.float64)))


def test_frozen_norms_and_other_layouts_are_left() -> None:
    network = Network(lambda net, x: F.relu(net.norm(net.first(x))))
    assert_fused(network, 0, 0, torch.channels_last)
    network.norm.eval()
    assert_fused(network, 0, 0, torch.contiguous_format)


def test_norms_of_cudnn_are_read_by_their_own_order_of_arguments() -> None:
    """No CPU computes them; their operations are given as a GPU would list them."""
    network = Network(lambda net, x: F.relu(net.norm(net.first(x))))
    program = record(step_of(network, torch.randn(4, 3, 6, 5, dtype=torch.float64)))
    fused = fuse(replace(program, calls=tuple(map(as_by_cudnn, program.calls))))
    expected = [(call.operator, call.arguments) for call in fuse(program).calls]
    assert [(call.operator, call.arguments) for call in fused.calls] == expected
    assert {NORMALISE, DIFFERENTIATE} <= {call.operator for call in fused.calls}
    # without the gradient's launch cuDNN's own needs what only its own forward gives
    kept = tuple(call for call in program.calls if call.operator is not aten.threshold_backward.default)
    left = fuse(replace(program, calls=tuple(map(as_by_cudnn, kept))))
    assert aten.cudnn_batch_norm.default in {call.operator for call in left.calls}


def as_by_cudnn(call: Call) -> Call:
    reserve = View(1000, torch.uint8, (8,), (1,), 0)
    if call.operator is aten.native_batch_norm.default:
        return replace(call, operator=aten.cudnn_batch_norm.default, results=(*call.results, reserve))
    if call.operator is aten.native_batch_norm_backward.default:
        gradient, features, *others = call.arguments
        arguments = (features, gradient, *others[:5], 1e-5, reserve)
        return replace(call, operator=aten.cudnn_batch_norm_backward.default, arguments=arguments)
    return call
