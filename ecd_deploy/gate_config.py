"""The recipe's sections `[profile]` and `[gate]`: how latency is measured, and what decides."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ecd_deploy.section import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Section


class ProfileConfig(Section):
    """How latency is measured with onnxruntime."""

    threads: PositiveInt = 1
    batch_size: PositiveInt = 1
    warmup_seconds: NonNegativeFloat = 0.5
    min_seconds: PositiveFloat = 2.0
    min_samples: PositiveInt = Field(default=500, description="44 are needed for p90, 459 for p99.")
    max_seconds: PositiveFloat = 60.0
    cpus: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, min_length=1, description="Pin the measurement to these CPUs; makes it a constrained host."
    )
    memory_mb: PositiveInt | None = Field(
        default=None, description="Limit the measured process's data, in 1e6 bytes; makes it a constrained host."
    )
    device: str | None = Field(
        default=None, description="The device that latency and memory are limited for; other places decide nothing."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_seconds < self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds} is below min_seconds {self.min_seconds}")
        return self


class GateConfig(Section):
    """Limits that decide over deployment; a limit that is not given is not checked.

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
        default=None, description="Largest p50 latency over the baseline's, both measured in turns; needs --baseline."
    )
    max_size_mb: PositiveFloat | None = Field(default=None, description="Largest ONNX file in MB (1e6 bytes).")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
