# mypy: untyped-calls-exclude=accelerate

"""One optimiser step of several trainings at once: their networks are alike, and each operation does its work for all.

What takes a launch for each training takes one for all of them, by `torch.func.vmap`: the convolutions of S students
become one of S groups of channels. <https://docs.pytorch.org/tutorials/intermediate/ensembling.html>
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from accelerate.accelerator import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import clip_grad_norm_
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ecd_deploy.compat.torch import own_buffers
from ecd_deploy.data import Batch
from ecd_deploy.distill import Objective, TrainingModel, TrainingOutputs
from ecd_deploy.training.steps.average import WeightAverage
from ecd_deploy.training.steps.losses import EpochLosses

_CONVOLUTIONS: tuple[object, ...] = (
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
)


class StackedModel(nn.Module):
    """Several models of one architecture as one whose every tensor has a dimension in front, of the models.

    The models keep their names and modules, but their parameters and buffers become views of the stacked ones: what a
    step changes, each of them sees at once, and what is written to one of them the next step uses.

    Args:
        models: on one device already; their values stay.

    Attributes:
        joint: a copy of the first model with the stacked tensors, (models, *shape) each, always in training mode.
    """

    def __init__(self, models: Sequence[TrainingModel]) -> None:
        super().__init__()
        self.joint = copy.deepcopy(models[0]).train()
        self.joint.layout = torch.contiguous_format
        with torch.no_grad():
            for stacked, *own in zip(self.joint.parameters(), *(model.parameters() for model in models), strict=True):
                stacked.data = torch.stack([parameter.detach() for parameter in own])
                for number, parameter in enumerate(own):
                    parameter.data = stacked.data[number]
            for module, *others in zip(self.joint.modules(), *(model.modules() for model in models), strict=True):
                for name, buffer in own_buffers(module).items():
                    if buffer is not None:
                        _stack_buffer(name, module, others)

    def forward(self, images: Tensor, indices: Tensor | None = None) -> tuple[TrainingOutputs, ...]:
        """Return what each model gives for its own images, (models, N, C, H, W), and their indices, (models, N)."""
        arguments = (images,) if indices is None else (images, indices)
        forms: list[tuple[list[bool], TreeSpec]] = []

        def one(tensors: Mapping[str, Tensor], *own: Tensor) -> list[Tensor]:
            leaves, spec = tree_flatten(functional_call(self.joint, dict(tensors), own))
            forms.append(([isinstance(leaf, Tensor) for leaf in leaves], spec))  # what a model does not have is None
            return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

        tensors = {**dict(self.joint.named_parameters()), **dict(self.joint.named_buffers())}
        # unbound once, so that the gradients come back by one operation
        with _operations_one_by_one(), _Casts():
            outputs = [output.unbind() for output in vmap(one)(tensors, *arguments)]
        [(is_there, spec)] = forms
        return tuple(_outputs(own, is_there, spec) for own in zip(*outputs, strict=True))


@contextmanager
def _operations_one_by_one() -> Iterator[None]:
    """Let an operation that torch cannot stack be done for each model in turn without a word: it is as right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented")
        yield


class _Casts(TorchFunctionMode):
    """The casts of autocast that do not take place within `vmap`: what convolutions and batch norms are given."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in (*_CONVOLUTIONS, F.batch_norm) or not torch.is_autocast_enabled(args[0].device.type):
            return func(*args, **kwargs)
        features, *others = args
        if features.dtype == torch.float64:  # which autocast leaves alone
            return func(*args, **kwargs)
        dtype = torch.get_autocast_dtype(features.device.type)
        if func is F.batch_norm:
            return func(features.float(), *others, **kwargs).to(dtype)
        return func(*(one.to(dtype) if isinstance(one, Tensor) else one for one in args), **kwargs)


def _outputs(tensors: Sequence[Tensor], is_there: Sequence[bool], spec: TreeSpec) -> TrainingOutputs:
    left = iter(tensors)
    outputs: TrainingOutputs = tree_unflatten([next(left) if there else None for there in is_there], spec)
    return outputs


def _stack_buffer(name: str, module: nn.Module, others: Sequence[nn.Module]) -> None:
    own = [own_buffers(other)[name] for other in others]
    stacked = torch.stack([buffer for buffer in own if buffer is not None])
    own_buffers(module)[name] = stacked
    for number, other in enumerate(others):
        own_buffers(other)[name] = stacked[number]


def lane_of(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """The part of one training in what an optimiser keeps; a number without dimensions, its steps, is of all."""
    return {name: tensor[number] if tensor.ndim else tensor for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Lane:
    """What a stacked step needs of one of its trainings.

    Attributes:
        model: whose tensors are views of the stacked ones.
        objective: what it minimises.
        losses: adds up its losses.
        average: of its student's weights, if there is one.
    """

    model: TrainingModel
    objective: Objective
    losses: EpochLosses
    average: WeightAverage | None = None


@dataclass(frozen=True, kw_only=True)
class StackedWork:
    """What the device does in a step of several trainings, as `StepWork` does it for one.

    Attributes:
        model: the `StackedModel`, as Accelerate prepared it.
        optimizer: of its tensors, likewise.
        accelerator: of one process.
        lanes: the trainings, in the order of the stack.
        clip_norm: of the gradients of each training; None leaves them as they are.
    """

    model: nn.Module
    optimizer: AcceleratedOptimizer
    accelerator: Accelerator
    lanes: tuple[Lane, ...]
    clip_norm: float | None = None
    parts: int = 1

    def __call__(self, batch: Batch) -> None:
        """Compute the gradients and update; each tensor of the batch is stacked."""
        self.optimizer.zero_grad()
        needs_indices = self.lanes[0].objective.pretrained
        outputs = self.model(batch.images, batch.indices if needs_indices else None)
        totals = []
        for lane, own, targets in zip(self.lanes, outputs, batch.targets.unbind(), strict=True):
            terms = lane.objective(own, targets)
            totals.append(terms.total)
            lane.losses.add(totals[-1], terms, len(targets))
            lane.losses.watch()
        # no training's loss depends on another's tensors, so the gradient of the sum is each one's own
        self.accelerator.backward(torch.stack(totals).sum())
        if self.clip_norm is not None:
            self._clip(self.clip_norm)
        self.optimizer.step()
        for lane in self.lanes:
            if lane.average is not None:
                lane.average.update()

    def _clip(self, norm: float) -> None:
        stacked = list(self.model.parameters())
        for number, lane in enumerate(self.lanes):
            own = list(lane.model.parameters())
            for parameter, whole in zip(own, stacked, strict=True):
                parameter.grad = None if whole.grad is None else whole.grad[number]
            clip_grad_norm_(own, norm)
            for parameter in own:
                parameter.grad = None

    def changed(self) -> list[Tensor]:
        """Every tensor that a step changes in place."""
        state = (value for values in self.optimizer.state.values() for value in values.values())
        averages = [lane.average for lane in self.lanes if lane.average is not None]
        return [
            *(parameter.detach() for parameter in self.model.parameters()),
            *self.model.buffers(),
            *(value for value in state if isinstance(value, Tensor)),
            *(tensor for lane in self.lanes for tensor in lane.losses.tensors),
            *(tensor for average in averages for tensor in average.tensors),
        ]


def stacked_batch(batches: Sequence[Batch]) -> Batch:
    """The batches of several trainings, of one size each, as one: images (trainings, N, C, H, W), and so on."""
    together = zip(*(batch.tensors() for batch in batches), strict=True)
    return batches[0].like(tuple(torch.stack(tensors) for tensors in together))
