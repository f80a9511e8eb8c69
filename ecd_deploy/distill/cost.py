"""What a student and its teacher cost: multiply-accumulates, and the memory of a training step."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ecd_deploy.distill.convolution.dynamic_conv import DynamicConv2d

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ecd_deploy.distill.model import TrainingModel
    from ecd_deploy.distill.objective import Objective

_COUNTED_BATCHES = (2, 3)


@dataclass(frozen=True, kw_only=True)
class SampleKernels:
    """The per-sample kernels of one dynamic convolution.

    Attributes:
        per_image: their bytes for one image.
        chunk: images whose kernels are made at one time and made anew backward, with the backend `chunked`; None
            with `grouped`, which makes them for the whole batch and keeps them.
    """

    per_image: int
    chunk: int | None

    @property
    def kept_per_image(self) -> int:
        """Bytes that are kept from the forward pass to the backward pass, for one image."""
        return self.per_image if self.chunk is None else 0

    def at_one_time(self, batch_size: int) -> int:
        """Bytes on top while its backward pass runs: the kernels' gradients, and the kernels of a chunk made anew."""
        if self.chunk is None:
            return batch_size * self.per_image
        return 2 * min(batch_size, self.chunk) * self.per_image


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes that a training step holds at its peak, early in the backward pass; workspaces are not counted.

    Attributes:
        parameters: of student, teacher and connections.
        trained: those of them that have a gradient and a momentum, which take as much again, each.
        buffers: running statistics and the like.
        saved: what autograd keeps for the backward pass whatever the batch.
        saved_per_image: what it keeps for each image, per-sample kernels included where they are kept.
        kernels: of each dynamic convolution.
    """

    parameters: int
    trained: int
    buffers: int
    saved: int
    saved_per_image: int
    kernels: tuple[SampleKernels, ...]

    @property
    def kernels_per_image(self) -> int:
        """The part of `saved_per_image` that is per-sample kernels."""
        return sum(entry.kept_per_image for entry in self.kernels)

    def kernels_at_one_time(self, batch_size: int) -> int:
        """Bytes for per-sample kernels besides those that are kept: of the convolution that needs most of them."""
        return max((entry.at_one_time(batch_size) for entry in self.kernels), default=0)

    @property
    def parameters_with_state(self) -> int:
        """Bytes of the parameters, their gradients and momentum."""
        return self.parameters + 2 * self.trained

    def total(self, batch_size: int) -> int:
        """Bytes at a batch size, with SGD and momentum in float32."""
        held = self.parameters_with_state + self.buffers + self.saved + batch_size * self.saved_per_image
        return held + self.kernels_at_one_time(batch_size)


def count_macs(network: nn.Module, image: Tensor) -> Mapping[str, int]:
    """Count the multiply-accumulates of convolutions and linear layers, by module, for one image (1, C, H, W).

    The network is run in evaluation mode and left in the mode it had. A dynamic convolution counts with its
    router and the mixing of its kernels; attention and element-wise operations are not counted.
    """
    macs: Counter[str] = Counter()
    dynamic = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, DynamicConv2d))

    def counter(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
            # A copy of ONE is given what its early layers return: see `replaying`.
            if "forward" not in vars(module):
                macs[name] += _macs(module, output)

        return count

    handles = [
        module.register_forward_hook(counter(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | DynamicConv2d) and not name.startswith(dynamic or ("\0",))
    ]
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return macs


def measure_training_memory(model: TrainingModel, images: Tensor, objective: Objective | None = None) -> TrainingMemory:
    """Count the bytes that autograd really keeps in a forward, at two small batch sizes, and take the line through.

    The model must be one that may be changed: running statistics move.

    Args:
        model: is put into training mode.
        images: (N, C, H, W), at least three.
        objective: what is minimised; without, the losses' own tensors are not counted.
    """
    model.train()
    small, large = (_saved_bytes(model, images[:count], objective) for count in _COUNTED_BATCHES)
    per_image = (large - small) // (_COUNTED_BATCHES[1] - _COUNTED_BATCHES[0])
    kernels = [module for module in model.modules() if isinstance(module, DynamicConv2d)]
    return TrainingMemory(
        parameters=sum(_bytes(parameter) for parameter in model.parameters()),
        trained=sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad),
        buffers=sum(_bytes(buffer) for buffer in model.buffers()),
        saved=max(0, small - _COUNTED_BATCHES[0] * per_image),
        saved_per_image=per_image,
        kernels=tuple(map(_sample_kernels, kernels)),
    )


def _sample_kernels(module: DynamicConv2d) -> SampleKernels:
    chunk = module.samples_per_chunk() if module.backend == "chunked" else None
    return SampleKernels(per_image=_bytes(module.weight[0]), chunk=chunk)


def _saved_bytes(model: nn.Module, images: Tensor, objective: Objective | None) -> int:
    """Bytes of the distinct storages kept for the backward pass, without the model's own, images and labels."""
    labels = torch.zeros(len(images), dtype=torch.long)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), images, labels)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(images)
        loss = None if objective is None else objective(outputs, labels).total
    total = sum(kept.values())
    del outputs, loss  # until here the graph keeps every storage alive, so that no address is used twice
    return total


def _macs(module: nn.Module, output: Tensor) -> int:
    """Of all positions of an output for one image, which need not be its first dimension."""
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, DynamicConv2d):
        mixing = module.weight.numel() + (0 if module.bias is None else module.bias.numel())
        router = module.reduce.weight.numel() + module.expand.weight.numel()
        return output.numel() * module.weight[0, 0].numel() + mixing + router
    if isinstance(module, nn.Conv2d):
        return output.numel() * math.prod(module.kernel_size) * (module.in_channels // module.groups)
    return 0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
