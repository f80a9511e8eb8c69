"""What a search found."""

from __future__ import annotations

from typing import Literal

from ecd_deploy.pipelines.gate.check import Verdict
from ecd_deploy.pipelines.search.candidate import Candidate, EarlyStop
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.records import Record


class SearchReport(Record):
    """Written to `search.json`.

    Attributes:
        recipe: its name.
        device: the limits hold for; None for the host.
        limits: of the gate.
        rule: by which trainings were stopped early; None where none was.
        candidates: the ladder, by size of the ONNX file.
        verdict: whether one passes; inconclusive where none does, but one may.
        found: the smallest that passes.
    """

    schema_version: Literal[2] = 2
    recipe: str
    device: str | None
    limits: GateConfig
    rule: EarlyStop | None
    candidates: tuple[Candidate, ...]
    verdict: Verdict
    found: str | None
