# mypy: untyped-calls-exclude=accelerate

"""A step's work as a CUDA graph: recorded once for each size of batch, then launched as a whole.

A step of a small network is a thousand kernels of a few microseconds, and launching them one by one takes longer than
they do. A graph repeats the kernels of the step that was recorded, on the same memory: so inputs are copied to where
that step had them, and whatever else may change must be in a tensor. A step of which that is not known is done as it
is, and the log says why.

<https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs>
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ecd_deploy.compat.torch import accumulation_hooks, gradient_hooks, hooks_of
from ecd_deploy.data import Batch
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.fused.fusing import lightened
from ecd_deploy.training.steps.repeatable import find_change, host_state_kept
from ecd_deploy.training.steps.stacked import StackedWork
from ecd_deploy.training.steps.step import StepWork

_READS_THE_HOST = ("rkd", "crd")  # torchdistill's code of these losses does

_WARM_UP_STEPS = 2  # libraries choose and allocate in the first

_logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Records work on a device, to repeat it."""

    def apart(self) -> AbstractContextManager[None]:
        """Where the work is done before it is recorded."""

    def find_wait(self, work: Callable[[], None]) -> str | None:
        """Do the work, and say where the host waits for the device in it; None if it does not."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats the work; nothing is computed yet.

        Raises:
            RuntimeError: the work cannot be recorded.
        """


def graphed(work: StepWork | StackedWork, recipe: Recipe) -> Callable[[Batch], None]:
    """Return what does the step's work: by CUDA graphs where there is CUDA, the recipe wants it and they can."""
    if work.accelerator.device.type != "cuda" or recipe.train.cuda_graph == "never":
        return work
    if obstacle := find_obstacle(work, recipe):
        _log_eager(obstacle)
        return work
    return GraphedWork(work, CudaRecorder(work.accelerator.device), fuses=recipe.train.cuda_graph == "fused")


def find_obstacle(work: StepWork | StackedWork, recipe: Recipe) -> str | None:
    """What keeps a step from being recorded, as far as it can be known before the first one; None if nothing does."""
    if work.accelerator.num_processes > 1:
        return "there are several processes, which exchange gradients in each step"
    if work.accelerator.scaler is not None:
        return "the scaler of train.mixed_precision 'fp16' reads in each step whether gradients overflowed"
    if work.parts > 1:
        return f"train.gradient_accumulation is {work.parts}"
    losses = () if recipe.method.pretrained is None else recipe.method.pretrained.losses
    if reading := [loss for loss in losses if loss in _READS_THE_HOST]:
        return f"the loss '{reading[0]}' of method.pretrained.losses reads values of the device in each step"
    for name, module in work.model.named_modules():
        path = f"'{name}'" if name else "the model"
        if _has_hooks(module):
            return f"{path} has hooks, which a graph would not call"
        if any(isinstance(value, torch.Generator) for value in vars(module).values()):
            return f"{path} has a random generator of its own"
    for name, parameter in work.model.named_parameters():
        if gradient_hooks(parameter) or accumulation_hooks(parameter):
            return f"'{name}' has hooks, which a graph would not call"
    return None


class GraphedWork:
    """Does a step's work by graphs, one for each size of batch; the results are those of the work itself.

    Args:
        work: of a step.
        recorder: of the device.
        fuses: whether chains of small operations are to be single launches.

    Attributes:
        is_eager: whether a size of batch could not be recorded, so that all steps are done as they are.
        saved: operations that a step of the last size recorded has less than without fusing.
    """

    def __init__(self, work: StepWork | StackedWork, recorder: Recorder, *, fuses: bool = False) -> None:
        self._work = work
        self._recorder = recorder
        self._fuses = fuses
        self.saved = 0
        self._recorded: dict[torch.Size, _Recorded] = {}
        self.is_eager = False

    def __call__(self, batch: Batch) -> None:
        """Repeat the recorded work on another batch; the first of each size is recorded."""
        if not self.is_eager and batch.images.shape not in self._recorded:
            self._record(batch)
        if self.is_eager:
            self._work(batch)
        else:
            self._recorded[batch.images.shape].repeat(batch)

    def _record(self, batch: Batch) -> None:
        """Record the work for batches of this size, or find that it cannot be; what it changed is put back."""
        inputs = batch.like(tuple(tensor.clone() for tensor in batch.tensors()))
        changed = self._work.changed()
        before = [tensor.clone() for tensor in changed]
        devices = [batch.images.device] if batch.images.device.type == "cuda" else []

        def work() -> None:
            self._work(inputs)

        recorded: Callable[[], None] = work
        try:
            with torch.random.fork_rng(devices=devices), host_state_kept(self._work.model):
                with self._recorder.apart():
                    for _ in range(_WARM_UP_STEPS):
                        work()
                    obstacle = self._recorder.find_wait(work) or find_change(self._work.model, work)
                    if obstacle is None and self._fuses:
                        lighter = lightened(work, changed, self._work.optimizer.zero_grad)
                        recorded, self.saved = lighter.run, lighter.saved
                if obstacle is None:
                    self._recorded[batch.images.shape] = _Recorded(inputs, self._recorder.record(recorded))
        except RuntimeError as error:
            obstacle = f"recording it failed: {str(error).partition(chr(10))[0]}"
        finally:
            # those of the recorded step lie in the graph's memory, which the next one uses again
            self._work.optimizer.zero_grad()
            with torch.no_grad():
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(value)
        if obstacle is not None:
            self.is_eager = True
            self._recorded.clear()
            _log_eager(obstacle)


@dataclass(frozen=True)
class _Recorded:
    """Recorded work.

    Attributes:
        inputs: the batch that it reads.
        launch: repeats it.
    """

    inputs: Batch
    launch: Callable[[], None]

    def repeat(self, batch: Batch) -> None:
        """Do the work on another batch of the same size."""
        for recorded, tensor in zip(self.inputs.tensors(), batch.tensors(), strict=True):
            recorded.copy_(tensor)
        self.launch()


class CudaRecorder:
    """Records CUDA graphs, which share their memory: no two are launched at the same time.

    Args:
        device: of the training.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """On the stream that is recorded: not even what is left of an earlier step may lead to another one."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def find_wait(self, work: Callable[[], None]) -> str | None:
        """Do the work with every wait that torch knows of an error."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
        try:
            work()
        except RuntimeError as error:
            return f"the host waits for the device: {str(error).partition(chr(10))[0]}"
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return None

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return the launch of a graph of the work.

        Raises:
            RuntimeError: CUDA or torch refuses to record it.
        """
        current = torch.cuda.current_stream(self._device)
        generator = torch.cuda.default_generators[current.device_index]
        untouched = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: the thread that pins the memory of the next batches may go on
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        except BaseException:
            # a recording that failed keeps its stream, and the generator's mark that one is under way
            torch.cuda.set_stream(current)
            generator.graphsafe_set_state(untouched)
            raise
        return graph.replay


def _has_hooks(module: nn.Module) -> bool:
    return any(hooks_of(module).values())


def _log_eager(obstacle: str) -> None:
    _logger.warning("the training step is not recorded as a CUDA graph, and so is slower: %s", obstacle)
