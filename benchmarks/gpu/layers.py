# mypy: untyped-calls-exclude=torch

"""Time of each dynamic convolution of a network, forward and backward, by the backends that keep all kernels."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from benchmarks.gpu.parts import PartRun, Precision, milliseconds
from benchmarks.gpu.steps import METHODS, Workload
from ecd_deploy.distill import DynamicConv2d
from ecd_deploy.distill.convolution.triton.support import find_lack
from ecd_deploy.models import build_student
from ecd_deploy.records import Record
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.steps.cuda_graph import CudaRecorder

LayerBackend = Literal["grouped", "triton"]
Work = Callable[[], None]

_ROUNDS, _REPEATS = 5, 20
_WARM_UP = 3


class LayerTiming(Record):
    """A dynamic convolution of one shape by one backend.

    Attributes:
        workload: network and size of the images.
        layer: its channels, the size of its features and its stride.
        count: of such layers in the network.
        precision: "no" is fp32, with TF32 as torch's defaults have it.
        backend: that computed it.
        milliseconds: of forward and backward as a CUDA graph, one value a round.
    """

    workload: str
    layer: str
    count: int
    precision: Precision
    backend: LayerBackend
    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median milliseconds."""
        return statistics.median(self.milliseconds)


def time_layers(workload: Workload, run: PartRun) -> tuple[LayerTiming, ...]:
    """Time each shape by each backend and in each precision, in turns; nothing where Triton cannot run."""
    if not workload.has_triton or find_lack(run.device, torch.float32) is not None:
        return ()
    shapes = list(_shapes(workload, run.device))
    names = [name for name, *_ in shapes]
    found = []
    for name, layer, size in {name: (name, layer, size) for name, layer, size in shapes}.values():
        for precision in get_args(Precision):
            works = {backend: _work(layer, backend, size, precision, run) for backend in get_args(LayerBackend)}
            seconds: dict[LayerBackend, list[float]] = {backend: [] for backend in works}
            for _ in range(1 if run.tiny else _ROUNDS):
                for backend, work in works.items():
                    seconds[backend].append(milliseconds(work, run.device, 1 if run.tiny else _REPEATS))
            found += [
                LayerTiming(
                    workload=workload.name,
                    layer=name,
                    count=names.count(name),
                    precision=precision,
                    backend=backend,
                    milliseconds=tuple(round(value, 4) for value in values),
                )
                for backend, values in seconds.items()
            ]
        if run.tiny:
            break
    return tuple(found)


def summary_of(timings: tuple[LayerTiming, ...]) -> tuple[str, ...]:
    """A line for each layer and precision."""
    by_layer: dict[tuple[str, str, Precision], list[LayerTiming]] = {}
    for timing in timings:
        by_layer.setdefault((timing.workload, timing.layer, timing.precision), []).append(timing)
    return tuple(
        f"{workload}, {found[0].count} x {layer}, {'fp32' if precision == 'no' else precision}: "
        + ", ".join(f"{timing.backend} {timing.median:.3f} ms" for timing in found)
        for (workload, layer, precision), found in by_layer.items()
    )


def _shapes(workload: Workload, device: torch.device) -> Iterator[tuple[str, DynamicConv2d, torch.Size]]:
    """Name, layer and size of the features of each dynamic convolution, in their order."""
    torch.manual_seed(0)
    method = METHODS["ecd"].model_copy(update={"kernels": workload.kernels})
    images = torch.zeros(2, 3, workload.side, workload.side)
    model = build_training_model(method, build_student(workload.student, num_classes=10), example=images).to(device)
    sizes: dict[DynamicConv2d, torch.Size] = {}

    def see(layer: DynamicConv2d, inputs: tuple[Tensor]) -> None:
        sizes[layer] = inputs[0].shape

    layers = [module for module in model.modules() if isinstance(module, DynamicConv2d)]
    handles = [layer.register_forward_pre_hook(see) for layer in layers]
    with torch.no_grad():
        model(images.to(device))
    for handle in handles:
        handle.remove()
    for layer, size in sizes.items():
        channels = f"{layer.in_channels} to {layer.out_channels} channels"
        name = f"{channels}, {size[2]}x{size[3]}, stride {layer.stride[0]}"
        yield name, layer, torch.Size((workload.batch, *size[1:]))


def _work(layer: DynamicConv2d, backend: LayerBackend, size: torch.Size, precision: Precision, run: PartRun) -> Work:
    """Forward and backward, as a CUDA graph where there is CUDA."""
    device = run.device
    features = torch.randn(size, device=device, requires_grad=True)
    inputs = [features, *layer.parameters()]
    direction: list[Tensor] = []

    def body() -> None:
        layer.backend = backend
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = layer(features)
        if not direction:
            direction.append(torch.randn_like(output))
        torch.autograd.grad(output, inputs, direction[0])

    if device.type != "cuda":
        return body
    recorder = CudaRecorder(device)
    with recorder.apart():
        for _ in range(_WARM_UP):
            body()
    return recorder.record(body)
