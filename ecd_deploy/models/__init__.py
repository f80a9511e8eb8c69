"""Students: the networks that are deployed."""

from __future__ import annotations

from ecd_deploy.models.resolve import build_student, student_names

__all__ = ["build_student", "student_names"]
