from __future__ import annotations

import weakref
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ecd_deploy.distill import DynamicConv2d, TeacherOptions
from ecd_deploy.distill.convolution import dynamic_conv, sample_convolution
from ecd_deploy.distill.convolution.dynamic_conv import Backend, Mixture, fresh_like
from ecd_deploy.errors import UsageError

CASES: list[dict[str, Any]] = [
    {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "padding": 1},
    {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "padding": 1, "bias": False},
    {"in_channels": 5, "out_channels": 7, "kernel_size": 3, "stride": 2},
    {"in_channels": 4, "out_channels": 8, "kernel_size": (3, 5), "stride": (2, 1), "padding": (0, 2)},
    {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "padding": 1},
    {"in_channels": 8, "out_channels": 8, "kernel_size": 5, "groups": 8, "padding": 2, "stride": 2},
    {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "dilation": 2, "padding": 2},
    {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "dilation": (1, 2), "padding": "same"},
    {"in_channels": 3, "out_channels": 4, "kernel_size": 4, "padding": "same", "padding_mode": "reflect"},
    {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": "valid"},
    {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1, "padding_mode": "circular", "stride": 2},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": (1, 2), "padding_mode": "reflect", "groups": 2},
    {"in_channels": 3, "out_channels": 2, "kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
    {"in_channels": 40, "out_channels": 3, "kernel_size": 1},
    {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "stride": 2, "padding": 1},  # features above kernels
]


def looped(layer: DynamicConv2d, conv: nn.Conv2d, images: Tensor) -> Tensor:
    """One sample at a time: build its kernel from the definition and apply an ordinary convolution with it."""
    outputs = []
    unit = len(layer.weight) ** 0.5 if layer.mixture == "balanced" else 1.0
    for image in images:
        pooled = torch.stack([channel.sum() / channel.numel() for channel in image])
        hidden = (layer.reduce.weight @ pooled + layer.reduce.bias).clamp(min=0)
        scores = (layer.expand.weight @ hidden + layer.expand.bias) / float(layer.temperature)
        alphas = unit * scores.exp() / scores.exp().sum()
        kernel = sum((a * w for a, w in zip(alphas, layer.weight, strict=True)), torch.zeros_like(layer.weight[0]))
        bias = None
        if layer.bias is not None:
            bias = sum((a * b for a, b in zip(alphas, layer.bias, strict=True)), torch.zeros_like(layer.bias[0]))
        outputs.append(conv._conv_forward(image.unsqueeze(0), kernel, bias))
    return torch.cat(outputs)


@pytest.mark.parametrize(
    ("backend", "mixture"), [("grouped", "convex"), ("chunked", "convex"), ("grouped", "balanced")]
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_gradients_are_those_of_a_loop_over_samples(
    case: dict[str, Any], backend: Backend, mixture: Mixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(**case, dtype=torch.float64)
    layer = DynamicConv2d(
        conv, TeacherOptions(kernels=5, reduction=2, temperature=0.1, mixture=mixture, backend=backend)
    )
    monkeypatch.setattr(dynamic_conv, "CHUNK_BYTES", 2 * layer.weight[0].numel() * 8)  # chunks of 2, 2, 1 samples
    assert layer.samples_per_chunk() == 2
    monkeypatch.setattr(sample_convolution, "SLICE", 2)
    images = (3 * torch.randn(5, case["in_channels"], 9, 8, dtype=torch.float64)).requires_grad_()
    inputs = [images, *layer.parameters()]

    expected = looped(layer, conv, images)
    found = layer(images)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    direction = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, inputs, direction)
    found_gradients = torch.autograd.grad(found, inputs, direction)
    for gradient, reference in zip(found_gradients, expected_gradients, strict=True):
        assert reference.abs().max() > 0
        torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-11)


def test_a_sample_does_not_depend_on_the_others_of_its_batch() -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(nn.Conv2d(4, 4, 3, padding=1), TeacherOptions(kernels=4, temperature=0.05))
    images = 5 * torch.randn(6, 4, 5, 5)
    torch.testing.assert_close(layer(images)[2:3], layer(images[2:3]))


def test_mixing_is_convex_and_conditioned_on_the_sample() -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(nn.Conv2d(4, 4, 3), TeacherOptions(kernels=6, temperature=0.05))
    mixing = layer.mixing_weights(5 * torch.randn(3, 4, 5, 5))
    torch.testing.assert_close(mixing.sum(dim=1), torch.ones(3))
    assert mixing.min() >= 0
    assert not torch.allclose(mixing[0], mixing[1], atol=1e-3)


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(64, 4, 16), (64, 16, 4), (16, 4, 4), (3, 4, 4)])
def test_router_is_as_wide_as_the_reduction_says(channels: int, reduction: int, hidden: int) -> None:
    layer = DynamicConv2d(nn.Conv2d(channels, 2, 3), TeacherOptions(kernels=2, reduction=reduction))
    assert layer.reduce.weight.shape == (hidden, channels)


def test_temperature_is_part_of_the_state() -> None:
    saved = DynamicConv2d(nn.Conv2d(4, 4, 3), TeacherOptions(kernels=2, temperature=7.5)).state_dict()
    layer = DynamicConv2d(nn.Conv2d(4, 4, 3), TeacherOptions(kernels=2))
    layer.load_state_dict(saved)
    assert float(layer.temperature) == 7.5


def test_kernels_are_drawn_apart_at_the_scale_of_the_original() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3)
    nn.init.normal_(conv.weight, 0.2, 0.5)
    layer = DynamicConv2d(conv, TeacherOptions(kernels=4))
    for kernel in layer.weight:
        assert kernel.mean().item() == pytest.approx(0.2, abs=0.03)
        assert kernel.std().item() == pytest.approx(0.5, rel=0.05)
    assert not (layer.weight == conv.weight).any()
    assert len(set(layer.weight.flatten().tolist())) > 0.99 * layer.weight.numel()


def mixed_equally(layer: DynamicConv2d, unit: float) -> tuple[Tensor, Tensor]:
    """Kernel and bias of an equal mixture, by the definition."""
    assert layer.bias is not None
    return unit * layer.weight.detach().mean(dim=0), unit * layer.bias.detach().mean(dim=0)


@pytest.mark.parametrize(("mixture", "unit", "deviation"), [("convex", 1.0, 0.125), ("balanced", 4.0, 0.5)])
def test_sixteen_kernels_mixed_equally_have_the_size_of_the_original_if_balanced_and_a_quarter_if_not(
    mixture: Mixture, unit: float, deviation: float
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3)
    nn.init.normal_(conv.weight, 0.2, 0.5)
    nn.init.constant_(cast("Tensor", conv.bias), 0.7)
    kernel, bias = mixed_equally(DynamicConv2d(conv, TeacherOptions(kernels=16, mixture=mixture)), unit)
    assert kernel.mean().item() == pytest.approx(0.2, abs=0.02)
    assert kernel.std().item() == pytest.approx(deviation, rel=0.05)
    torch.testing.assert_close(bias, torch.full((32,), 0.7))


@pytest.mark.parametrize(("mixture", "unit", "share"), [("convex", 1.0, 1 / 16), ("balanced", 4.0, 1.0)])
def test_a_step_of_sgd_moves_an_equal_mixture_as_the_kernel_itself_if_balanced(
    mixture: Mixture, unit: float, share: float
) -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(nn.Conv2d(4, 6, 3, dtype=torch.float64), TeacherOptions(kernels=16, mixture=mixture))
    nn.init.zeros_(layer.expand.weight)
    nn.init.zeros_(layer.expand.bias)
    conv = nn.Conv2d(4, 6, 3, dtype=torch.float64)
    assert conv.bias is not None
    with torch.no_grad():
        for parameter, mixed in zip((conv.weight, conv.bias), mixed_equally(layer, unit), strict=True):
            parameter.copy_(mixed)
    images = torch.randn(3, 4, 7, 7, dtype=torch.float64)
    before = [parameter.detach().clone() for parameter in (conv.weight, conv.bias)]
    for module in (layer, conv):
        module(images).square().sum().backward()
        parameters = (module.weight, module.bias)
        torch.optim.SGD([p for p in parameters if p is not None], lr=1e-3, weight_decay=0.1).step()
    moved = zip(mixed_equally(layer, unit), (conv.weight, conv.bias), before, strict=True)
    for mixed, own, start in moved:
        decay = -1e-3 * 0.1 * start
        torch.testing.assert_close(mixed - start - decay, share * (own.detach() - start - decay))


def test_fresh_like_repeats_a_constant_to_the_bit() -> None:
    constant = torch.full((7, 3), 0.1)
    assert torch.equal(fresh_like(constant, copies=2), constant.expand(2, 7, 3))


def test_options_and_dtype_are_those_of_the_original() -> None:
    layer = DynamicConv2d(
        nn.Conv2d(4, 8, 3, 2, 1, groups=2, bias=False, dtype=torch.float64), TeacherOptions(kernels=3)
    )
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
    assert (layer.in_channels, layer.out_channels, layer.stride, layer.groups) == (4, 8, (2, 2), 2)
    assert layer.weight.shape == (3, 8, 2, 3, 3)
    assert layer.bias is None


class LargestLive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the bytes of the matrix products alive at one time, which include the mixed kernels."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default:
            self.live.add(result.untyped_storage())
            self.bytes = max(self.bytes, sum(storage.nbytes() for storage in self.live))
        return result


@pytest.mark.parametrize(("backend", "bounded"), [("grouped", False), ("chunked", True)])
def test_chunked_bounds_the_memory_of_the_kernels_in_forward_and_backward(
    backend: Backend, bounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_bytes = 32 * 32 * 9 * 4
    monkeypatch.setattr(dynamic_conv, "CHUNK_BYTES", 2 * kernel_bytes)
    layer = DynamicConv2d(nn.Conv2d(32, 32, 3, padding=1, bias=False), TeacherOptions(kernels=2, backend=backend))
    with LargestLive() as watch:
        layer(torch.randn(16, 32, 4, 4)).sum().backward()
    # Backward also holds gradients: of one chunk's kernels and of all kernels.
    small = 6 * kernel_bytes
    assert (watch.bytes <= small) is bounded
    assert watch.bytes >= 2 * kernel_bytes


def test_chunked_works_without_gradients() -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(nn.Conv2d(4, 4, 3), TeacherOptions(kernels=2, backend="chunked"))
    images = torch.randn(3, 4, 5, 5)
    with torch.inference_mode():
        found = layer(images)
    layer.backend = "grouped"
    torch.testing.assert_close(found, layer(images))


@pytest.mark.parametrize("backend", ["grouped", "chunked"])
def test_autocast_gives_bf16_and_gradients(backend: Backend) -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(nn.Conv2d(8, 8, 3, padding=1), TeacherOptions(kernels=4, backend=backend))
    images = torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(images)
    found.float().sum().backward()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(images), rtol=0.05, atol=0.05)
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_channels_last_images_give_the_same() -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(nn.Conv2d(4, 6, 3, padding=1), TeacherOptions(kernels=3))
    images = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(layer(images.to(memory_format=torch.channels_last)), layer(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "wide"}, "no teacher 'wide'; choices are daconv, se, cbam"),
        ({"kernels": 1}, "kernels must be at least 2, it is 1"),
        ({"reduction": 0}, "reduction must be at least 1, it is 0"),
        ({"temperature": 0.0}, r"temperature must be above 0, it is 0\.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, it is nan"),
        ({"mixture": "sum"}, "no mixture 'sum'; choices are convex, balanced"),
        ({"backend": "loop"}, "no backend 'loop'; choices are grouped, chunked, triton"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TeacherOptions(**cast("Any", options))


def test_ordinary_convolution_is_the_special_case_of_equal_kernels() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    layer = DynamicConv2d(conv, TeacherOptions(kernels=3))
    assert layer.bias is not None
    assert conv.bias is not None
    with torch.no_grad():
        layer.weight.copy_(conv.weight.expand_as(layer.weight))
        layer.bias.copy_(conv.bias.expand_as(layer.bias))
    images = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(images), F.conv2d(images, conv.weight, conv.bias, padding=1))
