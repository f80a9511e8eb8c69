# mypy: untyped-calls-exclude=accelerate

"""Interfaces of accelerate that are private or not documented; each function names the one that it rests on."""

from __future__ import annotations

from accelerate.state import AcceleratorState, GradientState


def forget_earlier_training() -> None:
    """Drop the global state, which refuses another precision than an earlier training's: `_reset_state` of both."""
    AcceleratorState._reset_state()
    GradientState._reset_state()
