"""A student that was proved separate: the only thing that exporters accept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from torch import nn

from ecd_deploy.errors import DigestError, SplitError
from ecd_deploy.split.inventory import tensor_records
from ecd_deploy.split.results import SplitProof

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class SplitStudent:
    """A plain student, in eval mode and with nothing to train, and the proof that belongs to it.

    The proof is checked against the module whenever one is made: a proof of other tensors, or one that did not
    pass, is refused. This guards against mistakes; whoever writes both the module and a proof can still lie.

    Raises:
        SplitError: the proof did not pass, or the module is trainable or in train mode.
        DigestError: the module's tensors are not those of the proof.
    """

    module: nn.Module
    proof: SplitProof

    def __post_init__(self) -> None:
        failed = self.proof.checks.failed
        if failed or not self.proof.passed:
            raise SplitError(f"the split proof did not pass: {', '.join(failed) or 'passed is false'}")
        try:  # A proof checks itself when it is parsed, but not when it is copied with other fields.
            SplitProof.model_validate(self.proof.model_dump())
        except ValidationError as error:
            raise SplitError(f"the split proof contradicts itself: {error.errors()[0]['msg']}") from error
        self._check_mode()
        self._check_tensors()

    @property
    def example_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.proof.example_shape

    @cached_property
    def program(self) -> ExportedProgram:
        """The graph for any number of images, made once: what is written from it, the audit reads. Not to be changed.

        Raises:
            SplitError: `torch.export` cannot express the student for any number of images.
        """
        from ecd_deploy.split.exported import exported_program  # loads torch's compiler, which few who read this need

        example = torch.zeros(2, *self.example_shape)
        return exported_program(self.module, example, any_batch=True)

    def _check_mode(self) -> None:
        training = [name or "the module" for name, child in self.module.named_modules() if child.training]
        if training:
            raise SplitError(f"a split student is in eval mode, but {training[0]} is in train mode")
        trainable = [name for name, parameter in self.module.named_parameters() if parameter.requires_grad]
        if trainable:
            raise SplitError(f"a split student is not trainable, but {trainable[0]} requires a gradient")

    def _check_tensors(self) -> None:
        found = {record.name: record for record in tensor_records(self.module)}
        proved = {record.name: record for record in self.proof.student_tensors}
        for name in chain(proved, found):
            if name not in found:
                raise DigestError(f"the student lacks {name}, which its proof lists")
            if name not in proved:
                raise DigestError(f"the student has {name}, which its proof does not list")
            if found[name] != proved[name]:
                raise DigestError(
                    f"the student's {name} is not the tensor that was proved: "
                    f"{found[name].dtype} {found[name].shape}, SHA-256 {found[name].sha256}; "
                    f"proved was {proved[name].dtype} {proved[name].shape}, {proved[name].sha256}"
                )
