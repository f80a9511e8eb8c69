"""The recipe's section `[profile]`: how latency is measured."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.recipe.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section

_PROVIDER = re.compile(r"[A-Za-z]+(:[^=,\s]+=[^=,\s]*(,[^=,\s]+=[^=,\s]*)*)?")

Runtime = Literal["onnxruntime", "executorch", "libtorch", "litert", "ncnn", "openvino"]


class ProfileConfig(Section):
    """How latency is measured, and with which runtimes."""

    runtimes: tuple[Runtime, ...] = Field(
        default=("onnxruntime",),
        description="Runtimes that the target has, onnxruntime among them: what these run is measured on the whole "
        "test set, and the fastest artefact that helps is recommended.",
    )
    threads: PositiveInt = Field(default=1, description="CPU threads of the runtime within an operator.")
    batch_size: PositiveInt = Field(
        default=1, description="Images of one call, for latency and for the accuracy of the artefacts."
    )
    warmup_seconds: NonNegativeFloat = Field(default=0.5, description="Seconds of calls before the first sample.")
    min_seconds: PositiveFloat = Field(default=2.0, description="Seconds that are measured at least.")
    min_samples: PositiveInt = Field(
        default=500, description="Samples that are taken at least; 44 are needed for p90, 459 for p99."
    )
    max_seconds: PositiveFloat = Field(
        default=60.0, description="Seconds after which the measurement ends, whatever the number of samples."
    )
    cpus: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, min_length=1, description="Pin the measurement to these CPUs; makes it a constrained host."
    )
    memory_mb: PositiveInt | None = Field(
        default=None, description="Limit the measured process's data, in 1e6 bytes; makes it a constrained host."
    )
    provider: str | None = Field(
        default=None,
        description="onnxruntime's execution provider, `NAME` or `NAME:key=value,...`; operators that it does not take "
        "are left to the CPU and named. Default: the CPU.",
    )
    device: str | None = Field(
        default=None, description="The device that latency and memory are limited for; other places decide nothing."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "onnxruntime" not in self.runtimes:
            raise ValueError("runtimes must contain 'onnxruntime': all others are compared with it")
        if self.max_seconds < self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds} is below min_seconds {self.min_seconds}")
        if self.provider is not None and not _PROVIDER.fullmatch(self.provider):
            raise ValueError(f"provider {self.provider!r} is neither NAME nor NAME:key=value,...")
        return self
