"""The recipe's `[method]`: what the student is trained with, piece by piece.

The paper's systems are combinations of four pieces: the generated teacher, the connections, a loss
between the heads' logits, and a loss between their features.

| system | fields |
|---|---|
| baseline | `name = "plain"` |
| ECD | `name = "ecd"` |
| ECD* | `name = "ecd"`, `logits = "ensemble"` |
| ECD (dens), ECD (dens)* | the same with `density = "dense"` |
| the teacher by itself, T of table 8 | `name = "joint"` |
| mutual learning (DML) with that teacher | `name = "joint"`, `logits = "mutual"` |
| ensemble distillation (ED) with it | `name = "joint"`, `logits = "ensemble"` |
| feature loss, table 5 | `name = "joint"`, `features = "stage"` or `"block"` |
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.section import PositiveFloat, PositiveInt, Section

Logits = Literal["none", "ensemble", "mutual", "teacher"]
Features = Literal["none", "stage", "block"]

# Table 11 for mutual learning, ensemble (ONE) and teacher (KD); tables' note on feature losses for the others.
_LOGITS_FACTORS = {"none": 0.0, "ensemble": 1.0, "mutual": 1.0, "teacher": 0.1}
_LOGITS_TEMPERATURES = {"none": 1.0, "ensemble": 3.0, "mutual": 1.0, "teacher": 4.0}
_FEATURES_FACTORS = {"none": 0.0, "stage": 1e-2, "block": 1e-4}


class MethodConfig(Section):
    """How the student is trained: with ECD (paper, section 3), beside a teacher without connections, or alone.

    The fields of the teacher and of the connections (`teacher`, `kernels`, `reduction`, `temperature`,
    `backend`, `connection`, `stages`, `sites`) may stand in a recipe whose method does not use them, so that a
    baseline differs from ECD by `name` alone. A field that adds something is refused where it cannot.
    """

    name: Literal["ecd", "joint", "plain"] = Field(
        default="ecd",
        description="Teacher and connections; a teacher that nothing but losses ties to the student; none.",
    )
    teacher: Literal["daconv", "se", "cbam"] = Field(
        default="daconv",
        description="How the teacher is generated: dynamic convolutions (section 3.3), or attention (table 7).",
    )
    kernels: Annotated[int, Field(ge=2)] = Field(
        default=16, description="n, the kernels of a dynamic additive convolution (appendix A.1; table 13)."
    )
    reduction: PositiveInt = Field(
        default=4, description="Input channels over hidden units of router or attention. Not in the paper: our choice."
    )
    temperature: PositiveFloat = Field(
        default=1.0, description="Softmax temperature of the router. Not in the paper: our choice."
    )
    connection: Literal["direct", "conv1x1", "conv1x1_bn"] = Field(
        default="conv1x1", description="T in phi_T + T(phi_S) (section 3.4; table 6)."
    )
    density: Literal["layer", "dense"] = Field(
        default="layer",
        description="Whether a layer of the teacher gets the student's at its depth, or all before it too (table 14).",
    )
    stages: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(2, 3), min_length=1, description="Stages ConvK_x that are connected (table 4)."
    )
    sites: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="Names of the modules whose outputs are connected, instead of `stages`: `*` stands for anything "
        "without a dot, `**` for anything.",
    )
    backend: Literal["grouped", "chunked"] = Field(
        default="grouped", description="How per-sample kernels are applied: one grouped convolution, or by chunks."
    )
    logits: Logits = Field(
        default="none",
        description="Loss between the heads: from a learnable ensemble to both (ECD*, ED), mutual (DML), "
        "or from the teacher to the student (KD).",
    )
    logits_factor: PositiveFloat | None = Field(
        default=None, description="Its weight. Default: table 11's, 1 for ensemble and mutual, 0.1 for teacher."
    )
    logits_temperature: PositiveFloat | None = Field(
        default=None, description="Its temperature. Default: 3 for ensemble (ONE's), 1 for mutual, 4 for teacher."
    )
    features: Features = Field(
        default="none",
        description="Loss between the heads' features (table 5): after each stage, or after each block of `stages`.",
    )
    features_factor: PositiveFloat | None = Field(
        default=None, description="Its weight. Default: the paper's, 0.01 for stage and 0.0001 for block."
    )

    @property
    def used_logits_factor(self) -> float:
        """The given factor, or the default of the loss."""
        return _LOGITS_FACTORS[self.logits] if self.logits_factor is None else self.logits_factor

    @property
    def used_logits_temperature(self) -> float:
        """The given temperature, or the default of the loss."""
        return _LOGITS_TEMPERATURES[self.logits] if self.logits_temperature is None else self.logits_temperature

    @property
    def used_features_factor(self) -> float:
        """The given factor, or the default of the loss."""
        return _FEATURES_FACTORS[self.features] if self.features_factor is None else self.features_factor

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.stages)) != len(self.stages):
            raise ValueError(f"stages {list(self.stages)} names a stage twice")
        if self.name == "plain":
            for field, value in (("logits", self.logits), ("features", self.features)):
                if value != "none":
                    raise ValueError(
                        f"{field} '{value}' needs a teacher; name 'plain' has none, 'joint' and 'ecd' have"
                    )
        if self.logits == "none":
            for field, number in (("factor", self.logits_factor), ("temperature", self.logits_temperature)):
                if number is not None:
                    raise ValueError(f"logits_{field} {number} has no effect: logits is 'none'")
        if self.features == "none" and self.features_factor is not None:
            raise ValueError(f"features_factor {self.features_factor} has no effect: features is 'none'")
        return self

    @model_validator(mode="after")
    def _check_density(self) -> Self:
        if self.density == "dense":
            if self.name != "ecd":
                raise ValueError(f"density 'dense' is of connections; name '{self.name}' has none, 'ecd' has")
            if self.connection == "direct":
                raise ValueError(
                    "density 'dense' needs connection 'conv1x1' or 'conv1x1_bn': earlier layers have other widths, "
                    "which 'direct' cannot change"
                )
        return self
