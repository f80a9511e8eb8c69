# mypy: untyped-calls-exclude=accelerate

"""Interfaces of accelerate that are private or not documented; each function names the one that it rests on."""

from __future__ import annotations

from accelerate.state import AcceleratorState, GradientState
from torch import nn


def forget_earlier_training() -> None:
    """Drop the global state, which refuses another precision than an earlier training's: `_reset_state` of both."""
    AcceleratorState._reset_state()
    GradientState._reset_state()


def forget_preparation(model: nn.Module) -> None:
    """Take the mark off a model with which it would not be prepared again: `_is_accelerate_prepared`."""
    vars(model).pop("_is_accelerate_prepared", None)
