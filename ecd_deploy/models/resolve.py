"""From a student's name to a network with fresh weights."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ecd_deploy.compat.torch import unwrapped
from ecd_deploy.errors import StudentError, UsageError, did_you_mean, first_line, reraise_machine_fault
from ecd_deploy.models.cifar_resnet import CifarResNet
from ecd_deploy.models.half_resnet import HalfResNet50
from ecd_deploy.models.libraries import timm_student, torchvision_student
from ecd_deploy.models.preact_resnet import PreActivationResNet
from ecd_deploy.models.wide_resnet import WideResNet

if TYPE_CHECKING:
    from collections.abc import Callable

_BASIC_DEPTHS = (8, 20, 32, 44, 56, 110)
_BOTTLENECK_DEPTHS = (164,)
_HALF = "resnet50-half"
_COMMON_WIDE = ("wrn-16-2", "wrn-16-4", "wrn-28-4", "wrn-28-10", "wrn-40-1", "wrn-40-2", "wrn-40-4")
_WIDE = re.compile(r"wrn-(\d+)-(\d+)")
_TORCHVISION_PREFIX = "torchvision:"
_TIMM_PREFIX = "timm:"


def student_names() -> tuple[str, ...]:
    """Names of the built-in students; any other `wrn-D-K` with D = 6n + 4 is accepted too."""
    return (*(f"resnet{depth}" for depth in (*_BASIC_DEPTHS, *_BOTTLENECK_DEPTHS)), _HALF, *_COMMON_WIDE)


def build_student(name: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build a student with fresh weights from the global random state.

    Args:
        name: a built-in name, `wrn-D-K`, `torchvision:NAME` (RGB only), `timm:NAME` (no pretrained weights
            of either), or `package.module:factory`, called as `factory(num_classes=..., in_channels=...)`;
            its module is looked for on Python's path and in the current folder, and what it wraps in
            torch.compile or DataParallel is taken out of it.
        num_classes: width of the logits.
        in_channels: channels of the images.

    Returns:
        A network of images (N, in_channels, H, W) -> logits (N, num_classes).

    Raises:
        StudentError: the name is unknown, timm is not installed, or the factory cannot be found, fails or
            gives no module.
    """
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise StudentError(f"student '{name}': {what} must be at least 1, it is {value}")
    if name.startswith(_TORCHVISION_PREFIX):
        return torchvision_student(name.removeprefix(_TORCHVISION_PREFIX), num_classes, in_channels)
    if name.startswith(_TIMM_PREFIX):
        return timm_student(name.removeprefix(_TIMM_PREFIX), num_classes, in_channels)
    if ":" in name:
        return _factory_student(name, num_classes, in_channels)
    if wide := _WIDE.fullmatch(name):
        return WideResNet(int(wide[1]), int(wide[2]), num_classes=num_classes, in_channels=in_channels)
    if name in (f"resnet{depth}" for depth in _BASIC_DEPTHS):
        return CifarResNet(int(name.removeprefix("resnet")), num_classes=num_classes, in_channels=in_channels)
    if name in (f"resnet{depth}" for depth in _BOTTLENECK_DEPTHS):
        return PreActivationResNet(int(name.removeprefix("resnet")), num_classes=num_classes, in_channels=in_channels)
    if name == _HALF:
        return HalfResNet50(num_classes=num_classes, in_channels=in_channels)
    raise StudentError(
        f"no student '{name}'{did_you_mean(name, student_names())}; choices are {', '.join(student_names())}, "
        "wrn-D-K, torchvision:NAME, timm:NAME and package.module:factory"
    )


def _factory_student(name: str, num_classes: int, in_channels: int) -> nn.Module:
    factory = find_factory(name)
    try:
        network = factory(num_classes=num_classes, in_channels=in_channels)
    except Exception as error:
        reraise_machine_fault(error)
        raise StudentError(
            f"student '{name}': calling it with num_classes={num_classes}, in_channels={in_channels} failed with "
            f"{first_line(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise StudentError(f"student '{name}' returned {type(network).__name__}, not a torch.nn.Module")
    return unwrapped(network)


def find_factory(name: str, *, what: str = "student", failure: type[UsageError] = StudentError) -> Callable[..., Any]:
    """Import what `package.module:factory` names; errors are a `failure`, and say by `what` what it makes.

    Raises:
        UsageError: of the kind given: it cannot be found, imported or called.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or module_name.startswith("."):
        raise failure(f"{what} '{name}': expected package.module:factory")
    _look_in_current_folder()
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        reraise_machine_fault(error)
        missing = isinstance(error, ModuleNotFoundError) and error.name in _parents(module_name)
        hint = f"; it is neither in the current folder, {Path.cwd()}, nor on PYTHONPATH" if missing else ""
        raise failure(
            f"{what} '{name}': module '{module_name}' cannot be imported, {first_line(error)}{hint}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = sorted(key for key, value in vars(found).items() if callable(value) and not key.startswith("_"))
            raise failure(
                f"{what} '{name}': '{module_name}' has no '{attribute}'{did_you_mean(part, tuple(public))}; "
                f"callables there are {', '.join(public) or 'none'}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise failure(f"{what} '{name}' is of type {type(found).__name__} and cannot be called")
    factory: Callable[..., Any] = found
    return factory


def _look_in_current_folder() -> None:
    """Put it at the end of Python's path, where it hides no other module; a student may import more of it later."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def _parents(module_name: str) -> tuple[str, ...]:
    parts = module_name.split(".")
    return tuple(".".join(parts[:count]) for count in range(1, len(parts) + 1))
