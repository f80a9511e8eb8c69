"""Splits the student off, with a proof that nothing else ships."""

from __future__ import annotations

from ecd_deploy.split.inventory import TensorRecord, state_digest
from ecd_deploy.split.results import (
    CheckResult,
    CopyResult,
    DataflowResult,
    GraphResult,
    HooksResult,
    PerturbationResult,
    ReferencesResult,
    SplitChecks,
    SplitProof,
    StorageResult,
    TrainModeResult,
    ValuesResult,
)
from ecd_deploy.split.splitter import split_student
from ecd_deploy.split.store import load_student, plain_state, read_student, save_student, student_bytes
from ecd_deploy.split.student import SplitStudent

__all__ = [
    "CheckResult",
    "CopyResult",
    "DataflowResult",
    "GraphResult",
    "HooksResult",
    "PerturbationResult",
    "ReferencesResult",
    "SplitChecks",
    "SplitProof",
    "SplitStudent",
    "StorageResult",
    "TensorRecord",
    "TrainModeResult",
    "ValuesResult",
    "load_student",
    "plain_state",
    "read_student",
    "save_student",
    "split_student",
    "state_digest",
    "student_bytes",
]
