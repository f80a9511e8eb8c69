"""What every section of a recipe has in common: strict, frozen, and nothing but its own keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ecd_deploy.records import Record

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Section(Record, strict=True, allow_inf_nan=False):
    """A section of the recipe."""
