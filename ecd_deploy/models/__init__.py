"""Students: the networks that are deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

if TYPE_CHECKING:
    from ecd_deploy.models.resolve import build_student, student_names

__all__ = ["build_student", "student_names"]

_HOMES = {
    "ecd_deploy.models.resolve": ["build_student", "student_names"],
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
