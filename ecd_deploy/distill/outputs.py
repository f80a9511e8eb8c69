"""The feature map in what a module returns, which may be a tuple or list with other things besides."""

from __future__ import annotations

from torch import Tensor


def feature_in(output: object) -> Tensor | None:
    """Return the tensor of shape (N, C, H, W), of a tuple or list the first; None where there is none."""
    items = output if isinstance(output, tuple | list) else (output,)
    return next((item for item in items if isinstance(item, Tensor) and item.ndim == 4), None)


def with_feature(output: object, feature: Tensor) -> object:
    """Return the output with `feature` in the place of the tensor that `feature_in` finds; the rest is the same."""
    if not isinstance(output, tuple | list):
        return feature
    found = feature_in(output)
    items = [feature if item is found else item for item in output]
    if isinstance(output, list):
        return items
    return type(output)(*items) if hasattr(output, "_fields") else tuple(items)
