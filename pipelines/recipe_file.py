"""The resolved recipe as TOML, so that a run directory's own recipe can be run again."""

from __future__ import annotations

import json
from typing import Any

from ecd_deploy.config import Recipe


def recipe_to_toml(recipe: Recipe) -> str:
    """Write every field that has a value; `parse_recipe` reads the text back to an equal recipe."""
    document = recipe.model_dump(mode="json")
    lines = [_assignment(key, value) for key, value in document.items() if not isinstance(value, dict)]
    for section, fields in document.items():
        if isinstance(fields, dict):
            lines += ["", f"[{section}]"]
            lines += [_assignment(key, value) for key, value in fields.items() if value is not None]
    return "\n".join(lines) + "\n"


def _assignment(key: str, value: Any) -> str:
    # A JSON string, number, boolean or array is also TOML, save for DEL, which TOML wants escaped.
    text = json.dumps(value).replace("\x7f", "\\u007f")
    return f"{key} = {text}"
