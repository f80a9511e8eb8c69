"""The recipe's section `[train]`: the optimisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ecd_deploy.recipe.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section

Select = Literal["best", "balanced_accuracy", "last"]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]

_EFFECTIVE_BETA = 0.999


class TrainConfig(Section):
    """The optimisation; by default SGD, as in the paper's appendix A.1."""

    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd", description="SGD, or AdamW, whose first beta is `momentum`; torch's fused ones."
    )
    epochs: PositiveInt = Field(default=200, description="Passes over the training images.")
    batch_size: PositiveInt = Field(default=128, description="Images of one optimiser step, over all processes.")
    learning_rate: PositiveFloat = Field(default=0.1, description="To be given with adamw, for which it is too high.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="Of SGD; the first beta of AdamW.")
    nesterov: bool = Field(default=False, description="Nesterov's momentum, for SGD.")
    weight_decay: NonNegativeFloat = Field(default=5e-4, description="L2 penalty of SGD, decoupled decay of AdamW.")
    clip_norm: PositiveFloat | None = Field(
        default=None, description="Largest norm of all gradients together; longer ones are scaled to it."
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Evaluate and deploy a running average of the student's weights and statistics: the share of it "
        "that each step keeps, at first (1 + step) / (10 + step) where that is less.",
    )
    patience: PositiveInt | None = Field(
        default=None,
        description="End the training after this many epochs without a better one on the validation split.",
    )
    schedule: Literal["multistep", "cosine"] = Field(
        default="multistep",
        description="How the learning rate falls: by steps at `milestones`, or along a half cosine.",
    )
    milestones: tuple[PositiveInt, ...] = Field(
        default=(100, 150), description="Epochs after which multistep multiplies the rate by `decay`."
    )
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="Factor of the learning rate at each of the `milestones`."
    )
    warmup_epochs: NonNegativeFloat = Field(default=0.0, description="Epochs of linear rise from zero.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of each label that is spread evenly over all classes."
    )
    class_weights: Literal["balanced", "effective"] | Mapping[str, PositiveFloat] | None = Field(
        default=None,
        description="How much an image of each class counts in the cross-entropies: the inverse of its class's images, "
        "or of their effective number (Cui et al., 2019), or a table by class name, 1 for those not in it. Only their "
        "ratios matter: the mean over the images trained on is 1.",
    )
    effective_beta: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Of class_weights 'effective': n images count as (1 - beta^n) / (1 - beta). Default: "
        f"{_EFFECTIVE_BETA}.",
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        default="shuffle",
        description="What an epoch draws: every image once, or as many images, equally many of each class. Repeated "
        "images are augmented anew.",
    )
    logit_adjustment: PositiveFloat | None = Field(
        default=None,
        description="tau, often 1: while training, add tau log(share of the class) to each logit (Menon et al., 2021). "
        "The student is deployed without, and so no longer prefers the frequent classes.",
    )
    gradient_accumulation: PositiveInt = Field(
        default=1, description="Parts into which a batch is cut, to bound memory; BN sees the parts."
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = Field(
        default="no", description="Number format of the forward and backward pass; the weights stay float32."
    )
    cuda_graph: Literal["auto", "fused", "never"] = Field(
        default="auto",
        description="Whether a training step on a GPU is recorded as a CUDA graph and then launched as a whole. With "
        "auto it is, unless something in it cannot be recorded; the log then says what. With fused, batch norms and "
        "the sums and ReLUs that follow them are single launches by programs of our own, and so are their gradients.",
    )
    tf32: Literal["convolutions", "always", "never"] = Field(
        default="convolutions",
        description="Where an NVIDIA GPU rounds factors of float32 to TF32, ten bits of mantissa, which is faster: in "
        "convolutions alone, torch's default; in matrix products too; nowhere.",
    )
    cudnn_benchmark: bool = Field(
        default=False,
        description="Let cuDNN try its algorithms for each new shape and keep the fastest. Which that is, and so the "
        "last bits, may differ from run to run.",
    )
    threads: PositiveInt | None = Field(default=None, description="CPU threads of torch; default: all cores.")
    channels_last: Literal["cpu", "always", "never"] = Field(
        default="cpu",
        description="Where the student's features are held in channels_last, if it runs in it: on a CPU, where it was "
        "measured to be faster; on a GPU too; nowhere.",
    )
    teacher_accuracy: bool = Field(
        default=True, description="Also evaluate the teacher after each epoch; evaluation is cheaper without."
    )
    select: Select = Field(
        default="best",
        description="Which weights are deployed: of the epoch with the best top-1 on the validation split, with the "
        "best balanced accuracy (the average recall of the classes) there, or of the last. Without a validation split "
        "(data.validation_fraction 0) it must be last.",
    )
    checkpoint_minutes: NonNegativeFloat = Field(
        default=10.0, description="Minutes after which a checkpoint is saved within an epoch; 0: at its end only."
    )
    checkpoint_steps: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Steps after which a checkpoint is saved within an epoch; 0: by the clock only."
    )
    trackers: tuple[TrackerName, ...] = Field(
        default=("tensorboard",),
        description="Where curves go besides metrics.jsonl: TensorBoard's events in the run directory, and with the "
        "extra [tracking] MLflow, on the server of MLFLOW_TRACKING_URI, and Weights & Biases, which also get the "
        "recipe, the verdict and the artefacts.",
    )

    @property
    def used_effective_beta(self) -> float:
        """The given beta, or the default."""
        return self.effective_beta or _EFFECTIVE_BETA

    @field_validator("class_weights", mode="before")
    @classmethod
    def _check_class_weights(cls, given: object) -> object:
        """Refuse in one sentence what is neither of the two forms."""
        if isinstance(given, dict):
            for name, weight in given.items():
                is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
                if not is_number or not 0 < weight < math.inf:
                    raise ValueError(f'the weight of class "{name}" is {weight!r}, and must be a number above 0')
        elif given not in (None, "balanced", "effective"):
            raise ValueError("must be 'balanced', 'effective', or a table of weights by class name")
        return given

    @model_validator(mode="after")
    def _check_class_sizes(self) -> Self:
        corrections = {
            f"class_weights '{self.class_weights}'": isinstance(self.class_weights, str),
            "sampling 'balanced'": self.sampling == "balanced",
            f"logit_adjustment {self.logit_adjustment}": self.logit_adjustment is not None,
        }
        if len(used := [name for name, is_used in corrections.items() if is_used]) > 1:
            raise ValueError(f"{' and '.join(used)} make up for the same unequal classes: set one of them")
        if self.effective_beta is not None and self.class_weights != "effective":
            raise ValueError(f"effective_beta {self.effective_beta} has no effect: class_weights is not 'effective'")
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.trackers)) != len(self.trackers):
            raise ValueError(f"trackers {list(self.trackers)} names a tracker twice")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {list(self.milestones)} must rise strictly")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} is longer than epochs {self.epochs}")
        if self.gradient_accumulation > self.batch_size:
            raise ValueError(f"gradient_accumulation {self.gradient_accumulation} exceeds batch_size {self.batch_size}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        if self.optimizer == "adamw" and self.nesterov:
            raise ValueError("nesterov is of optimizer 'sgd', not of 'adamw'")
        if self.optimizer == "adamw" and "learning_rate" not in self.model_fields_set:
            raise ValueError("optimizer 'adamw' needs learning_rate, often 0.001: the default 0.1 is for 'sgd'")
        return self
