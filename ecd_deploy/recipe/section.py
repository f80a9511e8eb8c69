"""What every section of a recipe has in common: strict, frozen, and nothing but its own keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


def is_default(default: object) -> Callable[[object], bool]:
    """For `exclude_if` of a field that came later: left out at its default, older documents keep their digest."""
    return lambda value: value == default


class Section(BaseModel):
    """A section of the recipe."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
