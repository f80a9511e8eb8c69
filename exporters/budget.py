"""What a format that does not keep float32 may change."""

from __future__ import annotations

from typing import Final

from ecd_deploy.records import Record


class ParityBudget(Record):
    """How far an artefact's logits may be from the student's."""

    relative: float
    """Largest difference of a logit, as a share of the student's largest absolute logit."""
    agreement: float
    """Least share of images for which both choose the same class."""


FLOAT32_BUDGET: Final = ParityBudget(relative=1e-3, agreement=1.0)
"""Of one model on two processors or providers: a format that keeps float32 has none against the student."""
FLOAT16_BUDGET: Final = ParityBudget(relative=0.02, agreement=0.98)
# The gate's limit on the drop of top-1 is the strict one; this finds a file that is broken.
INT8_BUDGET: Final = ParityBudget(relative=0.5, agreement=0.9)
COARSE_BATCH_SPREAD: Final = 0.05
"""How far a logit may be off in another batch, as a share of the largest, where it is rounded to few bits."""
