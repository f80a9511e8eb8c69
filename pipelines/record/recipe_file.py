"""The resolved recipe as TOML, so that a run directory's own recipe can be run again."""

from __future__ import annotations

import json
from typing import Any

from ecd_deploy.recipe.recipe import Recipe


def recipe_to_toml(recipe: Recipe) -> str:
    """Write every field that has a value; `parse_recipe` reads the text back to an equal recipe."""
    return "\n".join(_table(recipe.model_dump(mode="json"), ())) + "\n"


def _table(section: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [
        _assignment(key, value) for key, value in section.items() if value is not None and not isinstance(value, dict)
    ]
    for key, value in section.items():
        if isinstance(value, dict):
            below = (*path, key)
            lines += ["", f"[{'.'.join(below)}]", *_table(value, below)]
    return lines


def _assignment(key: str, value: Any) -> str:
    # A JSON string, number, boolean or array is also TOML, save for DEL, which TOML wants escaped.
    text = json.dumps(value).replace("\x7f", "\\u007f")
    return f"{key} = {text}"
