"""What an audit found in one artefact."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import model_validator

from ecd_deploy.records import Record


class Origin(StrEnum):
    """How a tensor of a file comes from the student."""

    EQUAL = "equal"
    """Bit by bit, reshaped or transposed perhaps."""
    CAST = "cast"
    """Rounded to float16."""
    FOLDED = "folded"
    """Equal, within the bound, to a float64 recomputation: of the batch norm folded into it, or of the expression."""
    REORDERED = "reordered"
    """Folded or equal, in the blocked layout of a runtime: the values agree in order of size."""
    QUANTISED = "quantised"
    """Integers that, with the scale in the file, are within half a step of what they stand for."""
    SCALE = "scale"
    """Of a quantised tensor that was traced."""
    STRUCTURE = "structure"
    """One number, a value repeated, or a few integers such as a shape: too small to hold a weight."""


class AuditedTensor(Record):
    """One tensor of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    origin: Origin | None
    """None: left over, which fails the audit."""
    source: str | None = None
    """Name of the student's tensor, or of the expression that was recomputed."""
    error: float | None = None
    """Largest deviation from it, as a share of what the bound allows; None where every bit agrees."""


class ArtefactAudit(Record):
    """That a file holds the student and nothing else, or why not; one entry of `audit.json`."""

    format: str
    sha256: str
    bytes: int
    passed: bool
    findings: tuple[str, ...]
    not_done_reason: str | None = None
    """Set where the format has no reader; then only names were searched for."""
    tensor_bytes: int = 0
    """Of all traced tensors."""
    overhead_bytes: int = 0
    """The rest: graph, names, metadata; limited, and searched for names of the teacher side."""
    overhead_limit: int = 0
    names_sought: int = 0
    digests_sought: int = 0
    """Tensors of the teacher side whose SHA-256, recorded at the split, was compared with every tensor here."""
    tensors: tuple[AuditedTensor, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.passed == bool(self.findings):
            raise ValueError(f"passed is {self.passed} with {len(self.findings)} findings")
        return self
