"""Splits the student off, with a proof that nothing else ships."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

if TYPE_CHECKING:
    from ecd_deploy.split.inventory import state_digest
    from ecd_deploy.split.records import TensorRecord
    from ecd_deploy.split.results import (
        ConstructionResult,
        GraphResult,
        SplitProof,
    )
    from ecd_deploy.split.splitter import split_student
    from ecd_deploy.split.store import load_student, plain_state, student_bytes
    from ecd_deploy.split.student import SplitStudent

__all__ = [
    "ConstructionResult",
    "GraphResult",
    "SplitProof",
    "SplitStudent",
    "TensorRecord",
    "load_student",
    "plain_state",
    "split_student",
    "state_digest",
    "student_bytes",
]

_HOMES = {
    "ecd_deploy.split.inventory": ["state_digest"],
    "ecd_deploy.split.records": ["TensorRecord"],
    "ecd_deploy.split.results": ["ConstructionResult", "GraphResult", "SplitProof"],
    "ecd_deploy.split.splitter": ["split_student"],
    "ecd_deploy.split.store": ["load_student", "plain_state", "student_bytes"],
    "ecd_deploy.split.student": ["SplitStudent"],
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
