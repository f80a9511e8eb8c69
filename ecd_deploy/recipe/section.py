"""What every section of a recipe has in common: strict, frozen, and nothing but its own keys."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from ecd_deploy.compat.pydantic import only_from_python
from ecd_deploy.errors import RecipeError, did_you_mean, listed
from ecd_deploy.records import Record

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Section(Record, strict=True, allow_inf_nan=False):
    """A section of the recipe, read from TOML or made in Python: `TrainConfig(epochs=20)`.

    Raises:
        RecipeError: naming each key that cannot be used, its value, and the choices.
    """

    @only_from_python
    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self.refusal(error, f"this {type(self).__name__} cannot be used", RecipeError) from error


def check_name(path: str, kind: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a key that names a class, a column or the like that the images do not have.

    Raises:
        RecipeError: naming the key, and the choices.
    """
    if name not in known:
        choices = f"there are {listed(known)}" if known else "these images have none"
        raise RecipeError(f'{path}."{name}": there is no such {kind}{did_you_mean(name, known)}; {choices}')
