"""Packages whose public names are imported when they are first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def names_of(package: str, homes: Mapping[str, list[str]]) -> Callable[[str], object]:
    """Make the `__getattr__` of a package: who reads the results of a step need not load what the step needs.

    Args:
        package: its `__name__`.
        homes: the public names by the module that defines them.
    """
    module_of = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
