"""What a student and its teacher cost: multiply-accumulates, and the memory of a training step."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ecd_deploy.distill.dynamic_conv import DynamicConv2d

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ecd_deploy.distill.model import TrainingModel

_COUNTED_BATCHES = (2, 3)


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes that a training step holds at its peak, at the start of the backward pass; workspaces are not counted.

    Attributes:
        parameters: of student, teacher and connections; gradients and momentum take as much again, each.
        buffers: running statistics and the like.
        saved: what autograd keeps for the backward pass whatever the batch.
        saved_per_image: what it keeps for each image, the per-sample kernels included.
        kernels_per_image: the per-sample kernels of the dynamic convolutions.
    """

    parameters: int
    buffers: int
    saved: int
    saved_per_image: int
    kernels_per_image: int

    def total(self, batch_size: int) -> int:
        """Bytes at a batch size, with SGD and momentum in float32."""
        return 3 * self.parameters + self.buffers + self.saved + batch_size * self.saved_per_image


def count_macs(network: nn.Module, image: Tensor) -> Mapping[str, int]:
    """Count the multiply-accumulates of convolutions and linear layers, by module, for one image (1, C, H, W).

    The network is run in evaluation mode and left in the mode it had. A dynamic convolution counts with its
    router and the mixing of its kernels; attention and element-wise operations are not counted.
    """
    macs: Counter[str] = Counter()
    dynamic = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, DynamicConv2d))

    def counter(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
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


def measure_training_memory(model: TrainingModel, images: Tensor) -> TrainingMemory:
    """Count the bytes that autograd really keeps in a forward, at two small batch sizes, and take the line through.

    The model must be one that may be changed: running statistics move.

    Args:
        model: is put into training mode.
        images: (N, C, H, W), at least three.
    """
    model.train()
    small, large = (_saved_bytes(model, images[:count]) for count in _COUNTED_BATCHES)
    per_image = (large - small) // (_COUNTED_BATCHES[1] - _COUNTED_BATCHES[0])
    kernels = [module for module in model.modules() if isinstance(module, DynamicConv2d)]
    return TrainingMemory(
        parameters=sum(_bytes(parameter) for parameter in model.parameters()),
        buffers=sum(_bytes(buffer) for buffer in model.buffers()),
        saved=max(0, small - _COUNTED_BATCHES[0] * per_image),
        saved_per_image=per_image,
        kernels_per_image=sum(_bytes(module.weight[0]) for module in kernels),
    )


def _saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes of the distinct storages kept for the backward pass, without the model's own and the images."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), images)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(images)
    total = sum(kept.values())
    del outputs  # until here the graph keeps every storage alive, so that no address is used twice
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
