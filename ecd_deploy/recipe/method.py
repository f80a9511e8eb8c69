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
| two-stage methods, tables 11, 14, 15 | `name = "distil"` with `[method.pretrained]` |
| ECD + KD, + FitNet, + CRD | `name = "ecd"` with `[method.pretrained]` |
| ONE | `name = "one"` |
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.recipe.section import PositiveFloat, PositiveInt, Section

Logits = Literal["none", "ensemble", "mutual", "teacher"]
Features = Literal["none", "stage", "block"]

# Table 11 for mutual learning, ensemble (ONE) and teacher (KD); tables' note on feature losses for the others.
_LOGITS_FACTORS = {"none": 0.0, "ensemble": 1.0, "mutual": 1.0, "teacher": 0.1}
_LOGITS_TEMPERATURES = {"none": 1.0, "ensemble": 3.0, "mutual": 1.0, "teacher": 4.0}
_FEATURES_FACTORS = {"none": 0.0, "stage": 1e-2, "block": 1e-4}

PretrainedLoss = Literal["kd", "fitnet", "at", "fsp", "sp", "vid", "pkt", "ft", "nst", "rkd", "cc", "crd"]

# Table 11 has the distance at 50 and the angle at 25; CRD's code has them the other way round.
_RKD_FACTORS = (50.0, 25.0)

# Table 11; that of RKD is its pair above.
_PRETRAINED_FACTORS: dict[PretrainedLoss, float] = {
    "kd": 0.1,
    "fitnet": 0.1,
    "at": 1000.0,
    "fsp": 1.0,
    "sp": 3000.0,
    "vid": 1.0,
    "pkt": 1000.0,
    "ft": 200.0,
    "nst": 10.0,
    "rkd": 1.0,
    "cc": 100.0,
    "crd": 0.8,
}
_BRANCHES = 3


class PretrainedConfig(Section):
    """A teacher that was trained before, and what the student learns from it (paper, equation 1 and table 11).

    `run` is a run directory of this program, of the same images; its student is the teacher, frozen and in
    evaluation mode. Losses other than kd, fitnet, sp and nst need the extra `[baselines]`.
    """

    run: Annotated[str, Field(min_length=1)] = Field(description="Run directory whose trained student is the teacher.")
    losses: tuple[PretrainedLoss, ...] = Field(min_length=1, description="Which are summed, each with its factor.")
    factors: tuple[PositiveFloat, ...] | None = Field(
        default=None, description="Their weights in the order of `losses`. Default: table 11's."
    )
    temperature: PositiveFloat = Field(default=4.0, description="Of kd (table 11).")
    rkd: tuple[PositiveFloat, PositiveFloat] = Field(
        default=_RKD_FACTORS,
        description="Of rkd, the weights of its distances and of its angles (table 11).",
    )
    negatives: PositiveInt = Field(
        default=16384, description="Of crd, negatives for each image, of other classes. As in CRD's code."
    )

    @property
    def weighted_losses(self) -> tuple[tuple[PretrainedLoss, float], ...]:
        """Each loss with the given factor, or table 11's."""
        factors = self.factors or tuple(_PRETRAINED_FACTORS[loss] for loss in self.losses)
        return tuple(zip(self.losses, factors, strict=True))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.losses)) != len(self.losses):
            raise ValueError(f"losses {list(self.losses)} names a loss twice")
        if self.factors is not None and len(self.factors) != len(self.losses):
            raise ValueError(f"factors {list(self.factors)} must be as many as losses {list(self.losses)}")
        return self


class MethodConfig(Section):
    """How the student is trained: with ECD (paper, section 3), beside a teacher without connections, or alone.

    The fields of the teacher and of the connections (`teacher`, `kernels`, `reduction`, `temperature`,
    `mixture`, `backend`, `teacher_init`, `connection`, `stages`, `sites`) may stand in a recipe whose method
    does not use them, so that a baseline differs from ECD by `name` alone. A field that adds something is
    refused where it cannot.
    """

    name: Literal["ecd", "joint", "plain", "distil", "one"] = Field(
        default="ecd",
        description="Teacher and connections; a teacher that nothing but losses ties to the student; none; "
        "a pre-trained teacher; branches of the student and their gated ensemble.",
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
    mixture: Literal["convex", "balanced"] = Field(
        default="convex",
        description="Whether the kernels are mixed as they are, or times sqrt(n), so that an equal mixture starts and "
        "moves as an ordinary kernel does. Not in the paper: our choice.",
    )
    teacher_init: Literal["fresh", "student"] = Field(
        default="fresh",
        description="How the teacher starts: drawn anew, or as the student's function, half of each connected feature "
        "its own and half the student's. Not in the paper: our choice. With student.weights the default is student.",
    )
    connection: Literal["direct", "conv1x1", "conv1x1_bn"] = Field(
        default="conv1x1", description="T in phi_T + T(phi_S) (section 3.4; table 6)."
    )
    density: Literal["layer", "dense"] = Field(
        default="layer",
        description="Whether a layer of the teacher gets the student's at its depth, or all connected ones before it "
        "too (table 14).",
    )
    stages: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(2, 3), min_length=1, description="Stages ConvK_x that are connected (table 4)."
    )
    sites: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="Names of the modules whose outputs are connected, instead of `stages`: `*` stands for anything "
        "without a dot, `**` for anything.",
    )
    backend: Literal["grouped", "chunked", "triton"] = Field(
        default="grouped",
        description="How per-sample kernels are applied: as one grouped convolution, by chunks, or on an NVIDIA GPU by "
        "programs of our own, in Triton; where these cannot run or do not agree with the first, it takes their place.",
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
    pretrained: PretrainedConfig | None = Field(
        default=None, description="Losses from a teacher that was trained before."
    )
    branches: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Of 'one', the student among them. Default: 3 (table 11).",
    )

    @property
    def used_branches(self) -> int:
        """The given number, or the paper's."""
        return self.branches or _BRANCHES

    @property
    def used_logits_factor(self) -> float:
        """The given factor, or the default of the loss."""
        return _LOGITS_FACTORS[self.used_logits] if self.logits_factor is None else self.logits_factor

    @property
    def used_logits_temperature(self) -> float:
        """The given temperature, or the default of the loss."""
        return _LOGITS_TEMPERATURES[self.used_logits] if self.logits_temperature is None else self.logits_temperature

    @property
    def used_logits(self) -> Logits:
        """The loss between the heads; that of ONE is given by its name."""
        return "ensemble" if self.name == "one" else self.logits

    @property
    def used_features_factor(self) -> float:
        """The given factor, or the default of the loss."""
        return _FEATURES_FACTORS[self.features] if self.features_factor is None else self.features_factor

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.stages)) != len(self.stages):
            raise ValueError(f"stages {list(self.stages)} names a stage twice")
        if self.name in ("plain", "distil", "one"):
            for field, value in (("logits", self.logits), ("features", self.features)):
                if value != "none":
                    raise ValueError(
                        f"{field} '{value}' needs a teacher; name '{self.name}' generates none, 'joint' and 'ecd' do"
                    )
        if self.used_logits == "none":
            for field, number in (("factor", self.logits_factor), ("temperature", self.logits_temperature)):
                if number is not None:
                    raise ValueError(f"logits_{field} {number} has no effect: logits is 'none'")
        if self.features == "none" and self.features_factor is not None:
            raise ValueError(f"features_factor {self.features_factor} has no effect: features is 'none'")
        return self

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.name == "distil" and self.pretrained is None:
            raise ValueError("name 'distil' needs [method.pretrained] with run and losses")
        if self.name in ("plain", "one") and self.pretrained is not None:
            raise ValueError(f"pretrained is for name 'distil', 'ecd' or 'joint', not '{self.name}'")
        if self.name != "one" and self.branches is not None:
            raise ValueError(f"branches {self.branches} has no effect: name is '{self.name}' and not 'one'")
        return self

    @model_validator(mode="after")
    def _check_teacher_init(self) -> Self:
        self.check_teacher_init()
        return self

    def check_teacher_init(self) -> None:
        """Refuse a start as the student that a connection would change.

        Raises:
            ValueError: it would.
        """
        if self.teacher_init == "student" and self.name == "ecd" and self.connection == "conv1x1_bn":
            raise ValueError(
                "teacher_init 'student', the default with student.weights, needs connection 'direct' or 'conv1x1': the "
                "batch norm of 'conv1x1_bn' would change the student's feature; or set teacher_init 'fresh'"
            )

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
