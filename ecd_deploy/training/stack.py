# mypy: untyped-calls-exclude=accelerate

"""Several trainings of like networks, one step for all of them; each leaves what it leaves by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing

from ecd_deploy.data import Batch
from ecd_deploy.errors import EcdDeployError, Interrupted
from ecd_deploy.training.acceleration import prepare_process, prepared
from ecd_deploy.training.begin import begin
from ecd_deploy.training.loop import result_of
from ecd_deploy.training.progress import ignore
from ecd_deploy.training.scores import TrainingResult
from ecd_deploy.training.stackable import Member, NotStackedError, find_difference, find_obstacle, try_stack
from ecd_deploy.training.steps.cuda_graph import graphed
from ecd_deploy.training.steps.optimizer import build_optimizer, optimizer_state
from ecd_deploy.training.steps.precision import precision_of
from ecd_deploy.training.steps.stacked import Lane, StackedModel, StackedWork, lane_of, stacked_batch
from ecd_deploy.training.stopping import StopRequest, heed_signals
from ecd_deploy.training.trainer import Trainer


def train_stacked(members: Sequence[Member], *, resume: bool) -> list[TrainingResult | EcdDeployError]:
    """Train several models in the same steps, each on its own batches, in one process.

    Each sees the images of its own seed in their order, has its own metrics and checkpoints, and its own values but for
    rounding: a training is resumed by itself or in a stack, however it was begun. One that fails leaves the stack, and
    the others go on; so does one that ends before them.

    Args:
        members: the trainings.
        resume: continue after each one's newest whole checkpoint.

    Returns:
        What each gave, in their order.

    Raises:
        NotStackedError: they cannot share their steps.
        Interrupted: a signal came; everything is saved.
        EcdDeployError: as `train`, before the first step.
    """
    first = members[0].recipe
    accelerator = prepare_process(first.train)
    if obstacle := find_obstacle(first, accelerator):
        raise NotStackedError(obstacle)
    for member in members:
        member.model.to(accelerator.device)
    begun = [
        begin(member.model, member.data, member.recipe, member.directory, accelerator, resume=resume)
        for member in members
    ]
    if obstacle := find_difference(begun) or try_stack(members, accelerator.device):
        raise NotStackedError(obstacle)
    stacked = StackedModel([member.model for member in members])
    optimizer = build_optimizer(stacked.joint, first.train, accelerator.device)
    with ExitStack() as stack:
        for each in begun:
            stack.enter_context(closing(each.batches))
        stack.enter_context(precision_of(first.train))
        wrapped, wrapped_optimizer = stack.enter_context(prepared(accelerator, stacked, optimizer))
        kept = optimizer_state(stacked.joint, optimizer)
        stop = stack.enter_context(heed_signals())
        now = _Now(stop)
        trainers = [
            Trainer(
                begun=each,
                optimizer=wrapped_optimizer,
                optimizer_state=lane_of(kept, number),
                log=stack.enter_context(each.logging()),
                on_event=ignore,
                stop=now,
                clock=now.clock,
                stacked_with=tuple(sorted(other.name for other in members if other is not members[number])),
            )
            for number, each in enumerate(begun)
        ]
        work = graphed(
            StackedWork(
                model=wrapped,
                optimizer=wrapped_optimizer,
                accelerator=accelerator,
                lanes=tuple(Lane(one.model, one.objective, one.losses, one.average) for one in trainers),
                clip_norm=first.train.clip_norm,
            ),
            first,
        )
        epochs = _Epochs(trainers, now)
        epochs.run(work)
        return [epochs.failed.get(one) or result_of(trainer, work) for one, trainer in enumerate(trainers)]


class _Now(StopRequest):
    """What all trainings of a stack see between two steps, so that they save after the same ones.

    Args:
        heeded: of the process; a signal may come at any time.
    """

    def __init__(self, heeded: StopRequest) -> None:
        super().__init__()
        self._heeded = heeded
        self._seconds = time.monotonic()

    def look(self) -> None:
        """Look at the clock, and whether a signal came."""
        self.signal_number = self._heeded.signal_number
        self._seconds = time.monotonic()

    def clock(self) -> float:
        """Seconds at the last look."""
        return self._seconds


class _Epochs:
    """The running epoch of each training in a stack that has one.

    Args:
        trainers: all of them.
        now: what they see between two steps.

    Attributes:
        failed: the error of each training that failed, by its number.
    """

    def __init__(self, trainers: Sequence[Trainer], now: _Now) -> None:
        self._trainers = trainers
        self._now = now
        self._running: dict[int, Iterator[Batch]] = {}
        self.failed: dict[int, EcdDeployError] = {}

    def run(self, work: Callable[[Batch], None]) -> None:
        """Train until none is left that has neither ended nor failed.

        Raises:
            Interrupted: a signal came; each has saved after the same step.
        """
        everyone = range(len(self._trainers))
        while left := [one for one in everyone if one not in self.failed and not self._trainers[one].is_finished]:
            self._running = {one: self._trainers[one].epoch() for one in left}
            while batches := self._next():
                stand_in = next(iter(batches.values()))  # for the place of one that has left the stack
                work(stacked_batch([batches.get(one, stand_in) for one in everyone]))

    def _next(self) -> dict[int, Batch]:
        """Let each end its step, and give its next batch, until its epoch ends."""
        self._now.look()
        batches: dict[int, Batch] = {}
        interrupted: Interrupted | None = None
        for one, epoch in list(self._running.items()):
            try:
                batches[one] = next(epoch)
            except StopIteration:
                del self._running[one]
            except Interrupted as error:
                interrupted = error
            except EcdDeployError as error:
                self.failed[one] = error
                del self._running[one]
        if interrupted is not None:
            raise interrupted
        return batches
