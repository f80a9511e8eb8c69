"""The recipe's section `[gate]`: what decides about deployment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ecd_deploy.recipe.section import Fraction, PositiveFloat, Section


class GateConfig(Section):
    """Limits that decide about deployment; a limit that is not given is not checked.

    Accuracies are fractions, not percent. A limit on accuracy must be met by a one-sided confidence
    bound, not only by the observed value.
    """

    min_top1: Fraction | None = Field(default=None, description="Least top-1 of the ONNX student on the test set.")
    max_drop: Fraction | None = Field(
        default=None, description="Largest top-1 loss of an artefact against the PyTorch student, paired by image."
    )
    max_abs_diff: PositiveFloat | None = Field(
        default=1e-4, description="Largest absolute difference of a logit against the PyTorch student."
    )
    p90_ms_max: PositiveFloat | None = Field(default=None, description="Largest p90 latency in milliseconds.")
    p95_ms_max: PositiveFloat | None = Field(default=None, description="Largest p95 latency in milliseconds.")
    p99_ms_max: PositiveFloat | None = Field(default=None, description="Largest p99 latency in milliseconds.")
    peak_memory_mb_max: PositiveFloat | None = Field(
        default=None, description="Largest resident memory of a fresh process in MB (1e6 bytes), Python included."
    )
    max_baseline_drop: Fraction | None = Field(
        default=None, description="Largest top-1 loss against the baseline run, paired by image; needs --baseline."
    )
    max_p50_ratio: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="Largest p50 latency over the baseline's, in interleaved blocks; needs --baseline."
    )
    max_size_mb: PositiveFloat | None = Field(default=None, description="Largest ONNX file in MB (1e6 bytes).")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
