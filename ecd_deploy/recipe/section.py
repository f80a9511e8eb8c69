"""What every section of a recipe has in common: strict, frozen, and nothing but its own keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ecd_deploy.errors import RecipeError, did_you_mean, listed
from ecd_deploy.records import Record

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Section(Record, strict=True, allow_inf_nan=False):
    """A section of the recipe."""


def check_name(path: str, kind: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a key that names a class, a column or the like that the images do not have.

    Raises:
        RecipeError: naming the key, and the choices.
    """
    if name not in known:
        choices = f"there are {listed(known)}" if known else "these images have none"
        raise RecipeError(f'{path}."{name}": there is no such {kind}{did_you_mean(name, known)}; {choices}')
