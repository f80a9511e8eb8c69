"""Students: the networks that are deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

if TYPE_CHECKING:
    from ecd_deploy.models.resolve import build_student, student_names

__all__ = ["build_student", "student_names"]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(
        __name__,
        {"build_student": "ecd_deploy.models.resolve", "student_names": "ecd_deploy.models.resolve"},
    )
