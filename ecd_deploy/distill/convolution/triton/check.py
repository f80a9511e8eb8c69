"""Each launch of Triton against torch's own operations: only what agrees with them is used.

The fault of a compiler or a driver would otherwise train a network that is silently wrong.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ecd_deploy.distill.convolution.sample_convolution import Geometry
from ecd_deploy.distill.convolution.triton import mixing_operators, operators, references, support
from ecd_deploy.errors import first_line, reraise_machine_fault

_logger = logging.getLogger(__name__)

_unused: list[str] = []

_SAMPLES = 4
_TF32_TOLERANCE = 2e-3  # ten bits of mantissa, as float16


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What decides how the launches of a dynamic convolution are compiled; shape letters as there.

    Attributes:
        features: (N, C, H, W).
        weight: (n, O, C/G, h, w).
        hidden: units of the router.
        connected: whether a connection is added.
        connected_later: whether there is one that is added later.
        has_bias: whether the convolution has one.
        geometry: of the convolution.
        dtype: of features and kernels.
        router_dtype: of the router.
        rounds: whether products are rounded to TF32.
        device: where.
    """

    features: tuple[int, ...]
    weight: tuple[int, ...]
    hidden: int
    connected: bool
    connected_later: bool
    has_bias: bool
    geometry: Geometry
    dtype: torch.dtype
    router_dtype: torch.dtype
    rounds: bool
    device: torch.device


def is_trusted(shape: LayerShape) -> bool:
    """Whether Triton may compute a layer; the first time that it may not, the log says why."""
    lack = support.find_lack(shape.device, shape.dtype)
    if lack is None:
        # a smaller last batch is computed by the same programs
        lack = _find_fault(replace(shape, features=(_SAMPLES, *shape.features[1:])))
    if lack is not None:
        say_unused(lack)
    return lack is None


def say_unused(reason: str) -> None:
    """Log, once for each reason, that layers are computed as with the backend `grouped`."""
    if reason not in _unused:
        _unused.append(reason)
        _logger.warning("method.backend 'triton' is not used, and 'grouped' takes its place: %s", reason)


def reasons_unused() -> tuple[str, ...]:
    """What was logged so far in this process; nothing where no layer wants Triton."""
    return tuple(_unused)


@cache
def _find_fault(shape: LayerShape) -> str | None:
    try:
        with torch.no_grad(), torch.autocast(shape.device.type, enabled=False):
            return _find_difference(shape)
    except Exception as error:  # noqa: BLE001 (whatever a compiler raises: what does not run is not used)
        reraise_machine_fault(error)
        return first_line(error)


def _find_difference(shape: LayerShape) -> str | None:
    for name, arguments in _calls(shape).items():
        is_of_mixing = hasattr(mixing_operators, name)
        operator: Callable[..., Any] = getattr(mixing_operators if is_of_mixing else operators, name)
        reference: Callable[..., Any] = getattr(references, name)
        pairs = zip(_results(operator(*arguments)), _results(reference(*map(_doubled, arguments))), strict=True)
        for one, other in pairs:
            limit = _TF32_TOLERANCE if shape.rounds and not is_of_mixing else support.TOLERANCES[one.dtype]
            error = float((one.double() - other.double()).norm() / other.norm())
            if not error <= limit:  # also where it is not a number
                return f"{name} differs from torch's own result by {error:.1e} of it"
    return None


def _calls(shape: LayerShape) -> dict[str, tuple[Any, ...]]:
    """Arguments of each launch: drawn, but always the same."""
    draw = torch.Generator().manual_seed(0)

    def drawn(*size: int, dtype: torch.dtype = shape.dtype) -> Tensor:
        return torch.randn(size, generator=draw, dtype=torch.float64).to(shape.device, dtype)

    def of_router(*size: int) -> Tensor:
        # scores of about one: a softmax of large ones magnifies rounding
        return drawn(*size, dtype=shape.router_dtype) / math.sqrt(size[-1])

    samples, channels, *places = shape.features
    mixed, outputs, inputs, *kernel = shape.weight
    geometry = shape.geometry.numbers
    size = shape.geometry.output_size(places, kernel)
    features, kernels = drawn(*shape.features), drawn(samples, outputs, inputs, *kernel)
    gradient, bias = drawn(samples, outputs, *size), drawn(samples, outputs) if shape.has_bias else None
    added, later = (
        [drawn(samples, outputs, *size), drawn(outputs, outputs)] if is_connected else []
        for is_connected in (shape.connected, shape.connected_later)
    )
    students, matrices = ([one[place] for one in (added, later) if one] for place in (0, 1))
    received = [drawn(samples, outputs, *size) for _ in students]
    weights = of_router(shape.hidden, channels), of_router(mixed, shape.hidden)
    temperature = torch.full((), 0.5, dtype=shape.router_dtype, device=shape.device)
    router = (weights[0], of_router(shape.hidden), weights[1], of_router(mixed), temperature)
    pooled, weight = of_router(samples, channels), drawn(*shape.weight, dtype=shape.router_dtype)
    _, mixing, hidden = references.mix(pooled, router, 1.0, weight, shape.dtype)
    of_samples = references.differentiate_weights(gradient, features, received, students, kernel, geometry)
    parts = of_router(3, samples, mixed)
    return {
        "convolve_samples": (features, kernels, bias, added, later, geometry),
        "differentiate_features": (gradient, kernels, pooled, received, matrices, places, geometry),
        "differentiate_weights": (gradient, features, received, students, kernel, geometry),
        "mix": (pooled, router, 1.0, weight, shape.dtype),
        "differentiate_mixing": (of_samples, mixing, weight),
        "differentiate_route": (parts, mixing, pooled, hidden, *weights, temperature, 1.0),
    }


def _doubled(argument: Any) -> Any:
    return tree_map(lambda leaf: leaf.double() if isinstance(leaf, Tensor) else leaf, argument)


def _results(found: Any) -> list[Tensor]:
    """Those that have values; of the mixing weights' gradient, whose parts a reference has in one, the sum."""
    tensors = [found] if isinstance(found, Tensor) else list(found)
    return [tensor.sum(dim=0) if tensor.dim() == 3 else tensor for tensor in tensors if tensor.numel()]
