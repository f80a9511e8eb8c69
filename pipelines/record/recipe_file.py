"""The resolved recipe as TOML, so that a run directory's own recipe can be run again."""

from __future__ import annotations

import tomli_w

from ecd_deploy.recipe.recipe import Recipe


def recipe_to_toml(recipe: Recipe) -> str:
    """Write every field that has a value; `parse_recipe` reads the text back to an equal recipe."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))
