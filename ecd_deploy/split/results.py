"""What each check compared and found; together they are the proof, in JSON `split.json`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.records import Record
from ecd_deploy.split.records import TensorRecord, records_digest

Count = Annotated[int, Field(ge=0)]
_LISTED = 10


class CheckResult(Record, strict=True):
    """Base of the checks' results.

    `findings` holds one line for each offence, with the path to it; `passed` says that there is none.
    """

    passed: bool
    findings: tuple[str, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.passed == bool(self.findings):
            raise ValueError(f"passed is {self.passed} with {len(self.findings)} findings")
        return self


class ReferencesResult(CheckResult):
    """No path of attributes, containers, hooks or closures leads from the student to what is not deployed."""

    objects_visited: Count = Field(description="Objects that the walk looked at.")
    modules_sought: Count = Field(description="Modules that must not be met, the joint model among them.")
    tensors_sought: Count = Field(description="Tensors whose storage must not be met.")


class HooksResult(CheckResult):
    """No forward or backward hook hangs on the student."""

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

    All are those that the exported student alone begins at. Where `torch.export` cannot express the student, the
    walk is not done and `not_done_reason` says so; the other checks must do without it.
    """

    not_done_reason: str | None = None
    nodes: Count = Field(default=0, description="Nodes of the graph that the student's logits depend on.")
    reached: tuple[str, ...] = Field(default=(), description="Names of the student's tensors that were reached.")
    literals: Count = Field(default=0, description="Numbers and short lists that a forward spells out.")
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
    logits_compared: Count = Field(description="Logits compared bit by bit, over all forwards.")
    logits_sha256: str


class BatchResult(CheckResult):
    """The student's logits of an image are the same, up to rounding, alone and in any batch."""

    batches_compared: Count = Field(description="Single images, odd batches and another order.")
    largest_difference: float | None = Field(
        description="Of a logit, as a share of the largest; None where a batch gave other shapes or NaN."
    )


class CopyResult(CheckResult):
    """The split module is a copy of its own: same tensors, same logits, no way back to the joint model."""

    tensors_compared: Count = Field(description="Tensors whose names and bits equal the original's.")
    logits_compared: Count
    objects_visited: Count
    modules_sought: Count
    tensors_sought: Count


class SplitChecks(Record, strict=True):
    """The checks of a split, in the order in which they run; none can be left out."""

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


def listed(findings: list[str]) -> tuple[str, ...]:
    """The first findings, and how many more there are: one fault often shows at hundreds of tensors."""
    if len(findings) <= _LISTED:
        return tuple(findings)
    return (*findings[:_LISTED], f"and {len(findings) - _LISTED} more")
