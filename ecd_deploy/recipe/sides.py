"""Height and width in pixels as a recipe gives them: one number for a square, or `[height, width]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from ecd_deploy.recipe.section import PositiveInt


def _shortest(sides: int | tuple[int, int]) -> int | tuple[int, int]:
    return sides[0] if isinstance(sides, tuple) and sides[0] == sides[1] else sides


Sides = Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], AfterValidator(_shortest)]
"""One number where both sides are equal, however it was written: equal choices have equal digests."""


def both_sides(sides: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    return (sides, sides) if isinstance(sides, int) else sides


def sides_words(sides: int | tuple[int, int]) -> str:
    """As messages show them: `224`, or `160 x 224`."""
    return str(sides) if isinstance(sides, int) else f"{sides[0]} x {sides[1]}"


def scaling_words(resize: int | tuple[int, int]) -> str:
    """What becomes of an image of any size before its middle is cut out."""
    scaled = "the shorter side scaled to" if isinstance(resize, int) else "scaled to fill"
    return f"{scaled} {sides_words(resize)} pixels (bilinear, antialiased)"


def check_resize(resize: int | tuple[int, int], key: str, size: int | tuple[int, int]) -> None:
    """Check that an image that was scaled to fill `resize` holds the middle of `size`, the value of `key`.

    Raises:
        ValueError: it does not.
    """
    if any(filled < cut for filled, cut in zip(both_sides(resize), both_sides(size), strict=True)):
        raise ValueError(
            f"resize {sides_words(resize)} is below {key} {sides_words(size)}: the middle that is cut out would not fit"
        )
