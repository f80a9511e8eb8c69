"""One forward of a copy of the student, to see which modules are called and what they give."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import version_of
from ecd_deploy.distill.student.feature_maps import feature_in
from ecd_deploy.distill.student.randomness import check_masks
from ecd_deploy.errors import StudentError, reraise_machine_fault

if TYPE_CHECKING:
    from collections.abc import Callable

PROBE_SIDES = (32, 64, 224)
"""Sides, in pixels, of the square images tried where no example is given."""


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """What a module gave when it was called first: a tensor (N, channels, *resolution), see `feature_in`.

    Attributes:
        name: the module's name in the student.
        channels: of the output.
        resolution: (height, width) in pixels.
        overwritten: whether the student changed the output in place afterwards.
    """

    name: str
    channels: int
    resolution: tuple[int, int]
    overwritten: bool


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The observed forward.

    Attributes:
        image_shape: (C, H, W) of the image.
        called: names of all modules that were called.
        feature_maps: the outputs with four dimensions and one width in all calls, in the order in which the
            first calls ended.
    """

    image_shape: tuple[int, int, int]
    called: frozenset[str]
    feature_maps: tuple[FeatureMap, ...]


def probe(student: nn.Module, example: Tensor | None = None) -> Probe:
    """Run a copy of the student on one image in evaluation mode, then in training mode to see what it draws.

    Args:
        student: any network of images (N, C, H, W) -> logits (N, classes).
        example: images (N, C, H, W), of which the first is used; by default, zeros of the first
            convolution's channels and of a side of `PROBE_SIDES`, the first that works.

    Raises:
        StudentError: the student cannot be copied or run, gives no logits, or draws its teacher's masks.
    """
    try:
        observed = copy.deepcopy(student).eval()
    except Exception as error:
        reraise_machine_fault(error)
        raise StudentError(f"the student cannot be copied: {type(error).__name__}: {error}") from error
    failure = ""
    for image in _images(student, example):
        try:
            found = _run(observed, image)
        except StudentError:
            raise
        except Exception as error:  # noqa: BLE001 (any fault of the user's code is reported below)
            reraise_machine_fault(error)
            failure = f"{type(error).__name__}: {error}"
            shape = tuple(image.shape)
        else:
            check_masks(observed, image.repeat(2, 1, 1, 1))
            return found
    raise StudentError(f"the student cannot be run on an image of shape {shape}: {failure}")


def _images(student: nn.Module, example: Tensor | None) -> list[Tensor]:
    like = next(student.parameters(), torch.zeros(()))
    if example is not None:
        if example.ndim != 4 or len(example) == 0:
            raise StudentError(f"the example must be images (N, C, H, W), its shape is {tuple(example.shape)}")
        return [example[:1].to(device=like.device, dtype=like.dtype)]
    first = next((module for module in student.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise StudentError("the student has no torch.nn.Conv2d, there is nothing to make a teacher from")
    shapes = [(1, first.in_channels, side, side) for side in PROBE_SIDES]
    return [torch.zeros(shape, device=like.device, dtype=like.dtype) for shape in shapes]


def _run(observed: nn.Module, image: Tensor) -> Probe:
    seen: dict[str, list[_Call]] = {}

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            feature = feature_in(output)
            seen.setdefault(name, []).append(_Call(feature, 0 if feature is None else version_of(feature)))

        return record

    handles = [module.register_forward_hook(recorder(name)) for name, module in observed.named_modules() if name]
    try:
        with torch.no_grad():
            logits = observed(image)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise StudentError(f"the student must return logits of shape (N, classes), it returned {found}")
    channels, height, width = image.shape[1:]
    maps = (_feature_map(name, calls) for name, calls in seen.items())
    return Probe(
        image_shape=(channels, height, width),
        called=frozenset(seen),
        feature_maps=tuple(entry for entry in maps if entry is not None),
    )


@dataclass(frozen=True)
class _Call:
    feature: Tensor | None
    version: int


def _feature_map(name: str, calls: list[_Call]) -> FeatureMap | None:
    first = calls[0].feature
    if first is None or any(call.feature is None or call.feature.shape[1] != first.shape[1] for call in calls):
        return None
    return FeatureMap(
        name=name,
        channels=first.shape[1],
        resolution=(first.shape[2], first.shape[3]),
        overwritten=any(call.feature is not None and version_of(call.feature) != call.version for call in calls),
    )
