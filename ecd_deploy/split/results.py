"""What each check compared and found; together they are the proof, in JSON `split.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.records import Record
from ecd_deploy.split.records import TensorRecord, records_digest

Count = Annotated[int, Field(ge=0)]
_LISTED = 10


class CheckResult(Record, strict=True):
    """Base of the checks' results.

    `findings` holds one line for each offence, with the path to it; `passed` says that there is none. A check that
    could not be done found nothing, and `not_done_reason` says why.
    """

    passed: bool
    findings: tuple[str, ...]
    not_done_reason: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.passed == bool(self.findings):
            raise ValueError(f"passed is {self.passed} with {len(self.findings)} findings")
        return self


class ConstructionResult(CheckResult):
    """The student that leaves is a fresh build of its factory, filled with the trained values and nothing more.

    Names, shapes and types of parameters and buffers are those of the fresh build. Without a factory the student that
    leaves is a copy of the object that was trained; this check is then not done.
    """

    tensors_compared: Count = Field(default=0, description="Parameters and buffers of the fresh build.")
    own_values: tuple[str, ...] = Field(
        default=(),
        description="What was not trained, is no statistic of a batch norm, and differs from the fresh build's.",
    )


class ReferencesResult(CheckResult):
    """No path of attributes, containers, hooks or closures leads from the student to what is not deployed."""

    objects_visited: Count = Field(description="Objects that the walk looked at.")
    modules_sought: Count = Field(description="Modules that must not be met, the joint model among them.")
    tensors_sought: Count = Field(description="Tensors whose storage must not be met.")


class HooksResult(CheckResult):
    """No hook hangs on the student, and its state is its parameters and buffers, without anything beside them."""

    modules: Count = Field(description="Modules of the student that were looked at.")


class StorageResult(CheckResult):
    """No tensor of the student lives in the memory of an auxiliary tensor."""

    student_tensors: Count
    auxiliary_tensors: Count


class DataflowResult(CheckResult):
    """The autograd graph of the student's logits ends in the student's trainable parameters, all and only these."""

    nodes: Count = Field(description="Nodes of the graph that were walked.")
    reached: tuple[str, ...] = Field(description="Names of the student's parameters that were reached.")
    auxiliary_parameters: Count = Field(description="Parameters that must not be reached.")


class GraphResult(CheckResult):
    """The `torch.export` graph of the student's logits begins at tensors of the student, all and only its own.

    It is the graph of the student that leaves, operation by operation and number by number: of a fresh build with the
    trained values, or without a factory of the student alone. Where `torch.export` cannot express the student, the
    walk is not done; the other checks must do without it.
    """

    nodes: Count = Field(default=0, description="Nodes of the graph that the student's logits depend on.")
    reached: tuple[str, ...] = Field(default=(), description="Names of the student's tensors that were reached.")
    unused: tuple[str, ...] = Field(
        default=(), description="Tensors that the logits do not depend on, and that leave because they were listed."
    )
    literals: Count = Field(default=0, description="Tensors of a few numbers that a forward spells out.")
    numbers: Count = Field(default=0, description="Different numbers in the graph, in literals and as arguments.")
    auxiliary_tensors: Count = Field(default=0, description="Tensors that must not be reached.")


class TrainModeResult(CheckResult):
    """In train mode the student's logits, statistics and gradients of its own loss are those of it alone, bit by bit.

    The autograd walk is repeated in train mode too.
    """

    conditions: Count = Field(default=0, description="Joint steps compared: teacher as trained, and randomised.")
    buffers_compared: Count = Field(default=0, description="Buffers of the student, in each condition.")
    gradients_compared: Count = Field(default=0, description="Parameters' gradients, in each condition.")
    nodes: Count = Field(default=0, description="Nodes of the autograd graph that were walked.")


class ValuesResult(CheckResult):
    """No tensor that the student holds repeats the values of an auxiliary tensor or of one of its slices."""

    student_tensors: Count
    auxiliary_tensors: Count
    auxiliary_values: Count = Field(description="Tensors and leading slices whose values were looked for.")
    common: tuple[str, ...] = Field(
        default=(), description="What never changes and the student had before the teacher was made of it."
    )


class PerturbationResult(CheckResult):
    """The student's logits keep every bit, alone or in the joint model, when all else is NaN, random or deleted."""

    poisoned_tensors: Count = Field(description="Auxiliary floating-point tensors that were set to NaN.")
    poisoned_elements: Count
    nan_refused: str = Field(
        "", description="Why the joint forward cannot run on NaN, as one with an SVD: there random values alone decide."
    )
    logits_compared: Count = Field(description="Logits compared bit by bit, over all forwards.")
    logits_sha256: str


class BatchResult(CheckResult):
    """The student's logits of an image are the same, up to rounding, alone and in any batch."""

    batches_compared: Count = Field(description="Single images, odd batches and another order.")
    largest_difference: float | None = Field(
        description="Of a logit, as a share of the largest; None where a batch gave other shapes or NaN."
    )


class CopyResult(CheckResult):
    """The module that leaves is one of its own: same tensors, same logits, no way back to the joint model."""

    tensors_compared: Count = Field(description="Tensors whose names and bits equal the original's.")
    logits_compared: Count
    objects_visited: Count
    modules_sought: Count
    tensors_sought: Count


class SplitChecks(Record, strict=True):
    """The checks of a split, in the order in which they run; none can be left out."""

    construction: ConstructionResult
    references: ReferencesResult
    hooks: HooksResult
    storage: StorageResult
    values: ValuesResult
    dataflow: DataflowResult
    graph: GraphResult
    batch: BatchResult
    perturbation: PerturbationResult
    train_mode: TrainModeResult
    copied: CopyResult

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that did not pass."""
        results: dict[str, CheckResult] = dict(self)
        return tuple(name for name, result in results.items() if not result.passed)

    @property
    def not_done(self) -> Mapping[str, str]:
        """Why a check could not be done, by its name."""
        results: dict[str, CheckResult] = dict(self)
        return {name: result.not_done_reason for name, result in results.items() if result.not_done_reason is not None}

    @property
    def total(self) -> int:
        """How many checks there are, done or not."""
        return len(dict(self))


class SplitProof(Record, strict=True):
    """That a student was found separate, and by what it is recognised."""

    schema_version: Literal[3] = 3
    joint_model: str = Field(description="Class of the model that was trained.")
    auxiliary: tuple[str, ...] = Field(description="Modules that stay behind; empty if the student was trained alone.")
    example_shape: tuple[int, int, int] = Field(description="Channels, height and width of the example images.")
    example_batch: Count = Field(description="Images in the example.")
    passed: bool
    checks: SplitChecks
    student_digest: str = Field(description="SHA-256 over all of `student_tensors`.")
    parameters: Count = Field(description="Elements of the student's parameters.")
    buffers: Count = Field(description="Elements of the student's buffers and plain tensor attributes.")
    student_tensors: tuple[TensorRecord, ...]
    auxiliary_tensors: tuple[TensorRecord, ...] = Field(
        description="What stays behind, so that an artefact can be searched for it later."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        failed = self.checks.failed
        if self.passed == bool(failed):
            raise ValueError(f"passed is {self.passed}, checks that failed are {list(failed)}")
        digest = records_digest(self.student_tensors)
        if digest != self.student_digest:
            raise ValueError(f"student_digest is {self.student_digest}, the tensors listed give {digest}")
        return self

    @property
    def method(self) -> Literal["by construction", "by copy"]:
        """How the student that leaves was made: of a fresh build, or of the object that was trained."""
        return "by construction" if self.checks.construction.not_done_reason is None else "by copy"


def listed(findings: list[str]) -> tuple[str, ...]:
    """The first findings, and how many more there are: one fault often shows at hundreds of tensors."""
    if len(findings) <= _LISTED:
        return tuple(findings)
    return (*findings[:_LISTED], f"and {len(findings) - _LISTED} more")
