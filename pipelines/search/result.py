"""What a search found."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ecd_deploy.pipelines.gate.check import Verdict
from ecd_deploy.pipelines.search.candidate import Candidate, EarlyStop
from ecd_deploy.recipe.gate import GateConfig


class SearchReport(BaseModel):
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

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 2
    recipe: str
    device: str | None
    limits: GateConfig
    rule: EarlyStop | None
    candidates: tuple[Candidate, ...]
    verdict: Verdict
    found: str | None
