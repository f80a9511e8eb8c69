"""The limits on accuracy: of all test images, of one class, and of a slice of the images."""

from __future__ import annotations

from pydantic import Field, model_validator

from ecd_deploy.errors import did_you_mean
from ecd_deploy.recipe.section import Fraction, NonNegativeFloat, Section

_AGAINST = "against the baseline, paired by image; needs --baseline."


class ClassLimits(Section):
    """Limits for one class, `[gate.classes."NAME"]`."""

    min_recall: Fraction | None = Field(default=None, description="Least share of its images that are recognised.")
    min_precision: Fraction | None = Field(
        default=None, description="Least share of the images taken for it that are of it."
    )
    max_recall_drop: Fraction | None = Field(default=None, description=f"Largest loss of recall {_AGAINST}")
    max_precision_drop: Fraction | None = Field(
        default=None, description="Largest loss of precision against the baseline; needs --baseline."
    )


class AccuracyLimits(Section):
    """Limits on a set of labelled images: the test set, or a slice of it."""

    min_top1: Fraction | None = Field(default=None, description="Least top-1.")
    min_balanced_accuracy: Fraction | None = Field(default=None, description="Least average recall of the classes.")
    min_class_recall: Fraction | None = Field(default=None, description="Least recall of each class.")
    min_top5: Fraction | None = Field(default=None, description="Least top-5; of six classes or more.")
    max_brier: NonNegativeFloat | None = Field(
        default=None, description="Largest mean Brier score: squared error of the probabilities, 0 to 2."
    )
    max_log_loss: NonNegativeFloat | None = Field(
        default=None, description="Largest mean log loss, of probabilities of at least 1e-6."
    )
    max_baseline_drop: Fraction | None = Field(default=None, description=f"Largest loss of top-1 {_AGAINST}")
    max_balanced_accuracy_drop: Fraction | None = Field(
        default=None, description=f"Largest loss of balanced accuracy {_AGAINST}"
    )
    max_class_recall_drop: Fraction | None = Field(
        default=None, description=f"Largest loss of any class's recall {_AGAINST}"
    )
    max_top5_drop: Fraction | None = Field(default=None, description=f"Largest loss of top-5 {_AGAINST}")
    max_brier_rise: NonNegativeFloat | None = Field(
        default=None, description=f"Largest rise of the Brier score {_AGAINST}"
    )
    max_log_loss_rise: NonNegativeFloat | None = Field(
        default=None, description=f"Largest rise of the log loss {_AGAINST}"
    )

    def set_limits(self) -> dict[str, float]:
        """The limits on accuracy that are set, by key."""
        return {name: limit for name in AccuracyLimits.model_fields if (limit := getattr(self, name)) is not None}


class ColumnLimits(AccuracyLimits, extra="allow"):
    """Limits for every value of a column, `[gate.slices.COLUMN]`, or for one, `[gate.slices.COLUMN."VALUE"]`."""

    __pydantic_extra__: dict[str, AccuracyLimits] = Field(init=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: object) -> object:
        if isinstance(given, dict):
            for key, value in given.items():
                if key not in AccuracyLimits.model_fields and not isinstance(value, dict | AccuracyLimits):
                    hint = did_you_mean(str(key), tuple(AccuracyLimits.model_fields))
                    raise ValueError(
                        f"{key} is neither a limit{hint} nor a table of limits for one value of the column"
                    )
        return given

    @property
    def by_value(self) -> dict[str, AccuracyLimits]:
        """The limits of single values, which for these take the place of those of all."""
        return self.__pydantic_extra__
