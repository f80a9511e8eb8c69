"""The feature map in what a module gets or returns, which may be a tuple or list with other things besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def feature_in(output: object) -> Tensor | None:
    """Return the tensor of shape (N, C, H, W), of a tuple or list the first; None where there is none."""
    items = output if isinstance(output, tuple | list) else (output,)
    return next((item for item in items if isinstance(item, Tensor) and item.ndim == 4), None)


def with_feature(output: object, feature: Tensor) -> object:
    """Return the output with `feature` in the place of the tensor that `feature_in` finds; the rest is the same."""
    if not isinstance(output, tuple | list):
        return feature
    found = feature_in(output)
    return _like(output, [feature if item is found else item for item in output])


def feature_given(arguments: tuple[object, ...], keywords: Mapping[str, object]) -> Tensor | None:
    """Return the first tensor of shape (N, C, H, W) that a call gets, by itself or in a list; None if there is none.

    DenseNet's layers, for one, get the list of all features before them.
    """
    found = (feature_in(argument) for argument in (*arguments, *keywords.values()))
    return next((feature for feature in found if feature is not None), None)


def mapped(output: object, change: Callable[[Tensor], Tensor]) -> object:
    """Return the output with every tensor in it changed, also in tuples, lists and dicts; other objects are kept."""
    if isinstance(output, Tensor):
        return change(output)
    if type(output) is dict:
        return {key: mapped(item, change) for key, item in output.items()}
    if not isinstance(output, tuple | list):
        return output
    return _like(output, [mapped(item, change) for item in output])


def _like(output: Any, items: list[object]) -> object:
    """The items as a tuple or list of the output's kind."""
    if isinstance(output, list):
        return items
    return type(output)(*items) if hasattr(output, "_fields") else tuple(items)
