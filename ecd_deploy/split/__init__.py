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
    "ConstructionResult": "ecd_deploy.split.results",
    "GraphResult": "ecd_deploy.split.results",
    "SplitProof": "ecd_deploy.split.results",
    "SplitStudent": "ecd_deploy.split.student",
    "TensorRecord": "ecd_deploy.split.records",
    "load_student": "ecd_deploy.split.store",
    "plain_state": "ecd_deploy.split.store",
    "split_student": "ecd_deploy.split.splitter",
    "state_digest": "ecd_deploy.split.inventory",
    "student_bytes": "ecd_deploy.split.store",
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
