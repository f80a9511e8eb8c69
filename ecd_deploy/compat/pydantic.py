"""Interfaces of pydantic that are private or not documented; each function names the one that it rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Init = TypeVar("_Init", bound=Callable[..., None])


def only_from_python(init: _Init) -> _Init:
    """Mark a model's `__init__`, so that only Python calls it: `__pydantic_base_init__`.

    Documents and nested sections are then validated as if it were not there, with the paths of their keys.
    """
    marked: Any = init
    marked.__pydantic_base_init__ = True
    return init
