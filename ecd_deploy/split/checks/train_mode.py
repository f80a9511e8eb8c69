"""Check: training the student beside the teacher does to the student what training it alone does."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from ecd_deploy.errors import SplitError
from ecd_deploy.split.checks.dataflow import Ends, graph_ends, make_visible
from ecd_deploy.split.inventory import auxiliary_tensors, named_tensors, tensor_bytes
from ecd_deploy.split.joint import joint_logits, student_logits
from ecd_deploy.split.results import TrainModeResult, listed
from ecd_deploy.split.storages import randomised, saved_storages

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ecd_deploy.distill import TrainingModel


@dataclass(frozen=True)
class _Step:
    """What a forward and a backward of the student's own loss leave, as bytes by name."""

    values: dict[str, bytes]
    buffers: int
    gradients: int


def check_train_mode(model: TrainingModel, images: Tensor, unused: Collection[str] = ()) -> TrainModeResult:
    """Compare logits, buffers and gradients bit by bit: student alone, and in the joint model.

    The joint model is taken as trained and with the teacher side randomised; the loss is the cross entropy of the
    student's logits alone. Dropout agrees because every forward begins with the same random state. The autograd
    walk is repeated in train mode, where a parameter need not be reached: what is left out at random is not.
    Call within `preserved(model)`; values are put back here.
    """
    # Batch norm needs more than one value a channel.
    images = images.detach() if len(images) > 1 else torch.cat([images, images.flip(-1)]).detach()
    auxiliary = [entry.tensor for entry in auxiliary_tensors(model.auxiliary()) if entry.tensor.is_floating_point()]
    make_visible(model)
    findings: list[str] = []
    compared = 0
    try:
        alone, _ = _step(model, lambda: student_logits(model.student, images), unused)
    except SplitError as error:
        return TrainModeResult(findings=(f"{error} (in train mode)",), passed=False)
    ends: Ends | None = None
    for condition, randomise in (("as trained", False), ("with the teacher side randomised", True)):
        with randomised(auxiliary if randomise else ()):
            try:
                joint, ends = _step(model, lambda: joint_logits(model, images), unused)
            except SplitError as error:
                findings.append(f"{error} (in train mode, {condition})")
                continue
        compared += 1
        findings += [
            f"in train mode, {condition}, {name} differ from those of the student trained alone"
            for name in sorted(alone.values.keys() | joint.values.keys())
            if alone.values.get(name) != joint.values.get(name)
        ]
        findings += [f"in train mode, {condition}: {finding}" for finding in ends.findings]
    return TrainModeResult(
        findings=listed(findings),
        passed=not findings,
        conditions=compared,
        buffers_compared=alone.buffers,
        gradients_compared=alone.gradients,
        nodes=0 if ends is None else ends.nodes,
    )


def _step(model: TrainingModel, forward: Callable[[], Tensor], unused: Collection[str]) -> tuple[_Step, Ends]:
    with _train_mode(model), torch.enable_grad():
        logits = forward()
        labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
        loss = F.cross_entropy(logits, labels)
        tensors = named_tensors(model.student, "student")
        trainable = {entry.name: entry.tensor for entry in tensors if entry.tensor.requires_grad}
        gradients: tuple[Tensor | None, ...] = ()
        if trainable and loss.requires_grad:
            try:
                gradients = torch.autograd.grad(loss, tuple(trainable.values()), allow_unused=True, retain_graph=True)
            except RuntimeError as error:  # a tensor of the student was changed between forward and backward
                raise SplitError(f"the student's loss has no gradient: {error}") from error
        values = {"the student's logits": tensor_bytes(logits)}
        buffers = {f"the values of {e.name}": tensor_bytes(e.tensor) for e in tensors if e.kind != "parameter"}
        slopes = {
            f"the gradients of {name}": b"" if gradient is None else tensor_bytes(gradient)
            for name, gradient in zip(trainable, gradients, strict=bool(gradients))
        }
        return _Step({**values, **buffers, **slopes}, len(buffers), len(slopes)), graph_ends(model, logits, unused)


@contextmanager
def _train_mode(model: TrainingModel) -> Iterator[None]:
    modules = tuple(model.modules())
    with saved_storages([entry.tensor for entry in named_tensors(model)]), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in modules:
            module.training = True
        try:
            yield
        finally:
            for module in modules:
                module.training = False
