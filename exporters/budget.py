"""What a format that does not keep float32 may change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ParityBudget(BaseModel):
    """How far an artefact's logits may be from the student's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    relative: float
    """Largest difference of a logit, as a share of the student's largest absolute logit."""
    agreement: float
    """Least share of images for which both choose the same class."""
