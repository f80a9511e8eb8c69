"""The recipe's section `[gate]`: what decides about deployment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from ecd_deploy.errors import RecipeError
from ecd_deploy.recipe.accuracy import AccuracyLimits, ClassLimits, ColumnLimits
from ecd_deploy.recipe.section import Fraction, PositiveFloat, check_name

_TOP = 5


class GateConfig(AccuracyLimits):
    """Limits that decide about deployment; a limit that is not given is not checked.

    Accuracies are fractions, not percent. A limit on accuracy must be met by a one-sided confidence
    bound, not only by the observed value.
    """

    artefact: str = Field(
        default="recommended",
        description="Which artefact the limits on accuracy, latency, memory and size are of: the one that `validate` "
        "recommends, a format's, or `all` that a runtime of profile.runtimes runs.",
    )
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
    max_p50_ratio: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="Largest p50 latency over the baseline's, in interleaved blocks; needs --baseline."
    )
    max_size_mb: PositiveFloat | None = Field(
        default=None, description="Largest file of an artefact in MB (1e6 bytes)."
    )
    classes: Mapping[str, ClassLimits] = Field(default={}, description="Limits for single classes, by name.")
    slices: Mapping[str, ColumnLimits] = Field(
        default={}, description="Limits for parts of the test images, by a column such as the camera."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="Of each one-sided bound on accuracy and on the latency ratio."
    )

    def limits_accuracy(self) -> bool:
        """Whether any limit is on accuracy."""
        of_classes = (limit for limits in self.classes.values() for _, limit in limits)
        return (
            self.max_drop is not None
            or any(limit is not None for limit in of_classes)
            or any(part.set_limits() for part in self._parts())
        )

    def check_names(self, classes: tuple[str, ...], columns: Mapping[str, tuple[str, ...]]) -> None:
        """Refuse limits for what the test images do not have.

        Args:
            classes: names of all.
            columns: the values of each column that tells the images apart.

        Raises:
            RecipeError: naming the key, and the choices.
        """
        for name in self.classes:
            check_name("gate.classes", "class", name, classes)
        for column, limits in self.slices.items():
            check_name("gate.slices", "column", column, tuple(columns))
            for value in limits.by_value:
                check_name(f"gate.slices.{column}", "value", value, columns[column])
        if len(classes) <= _TOP and any(
            {"min_top5", "max_top5_drop"} & set(part.set_limits()) for part in self._parts()
        ):
            raise RecipeError(f"gate.min_top5 and gate.max_top5_drop: top-5 of {len(classes)} classes is always 1")

    def _parts(self) -> Iterator[AccuracyLimits]:
        yield self
        for column in self.slices.values():
            yield column
            yield from column.by_value.values()
