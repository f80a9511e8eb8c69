"""`scipy.special`, imported in two thirds of its time; every module of this package takes it from here.

`scipy._lib.array_api_compat` asks for every public name of numpy when it is imported, and with that for packages that
nothing here uses: they are put in their places unloaded, and load when one of their names is asked for.
"""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec


def _defer(name: str) -> None:
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    package, _, own = name.rpartition(".")
    setattr(sys.modules[package], own, module)


for _package in ("char", "ctypeslib", "f2py", "fft", "ma", "polynomial", "rec", "strings", "testing"):
    _defer(f"numpy.{_package}")

from scipy import special  # noqa: E402 (what it imports must be in its place before)

__all__ = ["special"]
