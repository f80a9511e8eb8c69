"""Where the runs of a study run: here, in processes of this machine, or by submitit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol

from rich.console import Console

from ecd_deploy.errors import EcdDeployError, Interrupted, Terminated
from ecd_deploy.pipelines.study.run import ArmRun, StackEnd, run_arm, run_stack
from ecd_deploy.pipelines.study.slurm import Jobs, Settings
from ecd_deploy.pipelines.study.study import Study
from ecd_deploy.pipelines.study.worker import leave_signals_to_training

Place = Literal["here", "processes", "slurm", "local"]
"""In this process, in processes of this machine, or by submitit: on a Slurm cluster, or its local stand-in."""

_SECONDS_BETWEEN_SIGNALS = 0.5


class Handle(Protocol):
    """What a Future and a submitit Job have in common."""

    def done(self) -> bool:
        """Whether the run has ended."""
        ...

    def result(self) -> ArmRun | StackEnd:
        """The run, or the error that ended it; several runs of one step end together."""
        ...


Key = tuple[str, int]
"""An arm's name and a seed."""

Start = Callable[[Study, tuple[Key, ...], Path], Handle]
"""Starts a run below the study's folder, or several in the same steps."""


@contextmanager
def executor(place: Place, jobs: int, out: Path, console: Console, settings: Settings) -> Iterator[Start]:
    """Give a function that starts a run; on an interruption the runs save and end: processes first, jobs by themselves.

    Args:
        place: where runs run.
        jobs: processes at one time.
        out: the study's folder.
        console: for what becomes of the runs.
        settings: what a job of Slurm asks for.

    Raises:
        UsageError: submitit or Slurm is needed and not there, or does not know a setting.
    """
    if place == "here":
        yield _run_here
    elif place == "processes":
        # a fresh process for each run, so that its peak memory is its own
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            jobs, mp_context=context, initializer=leave_signals_to_training, max_tasks_per_child=1
        )
        try:
            yield lambda study, keys, out: pool.submit(_run, study, keys, out, own_process=True)
        except EcdDeployError as error:
            if isinstance(error, Interrupted):
                _stop_children(signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT, console)
            raise
        except BaseException as stop:
            if not isinstance(stop, Exception):  # a signal
                _stop_children(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM, console)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    else:
        submitted = Jobs(place, out, settings, console)
        try:
            yield lambda study, keys, out: submitted.start(study, *keys[0], out)
        except BaseException:
            submitted.cancel()
            raise


def _stop_children(number: signal.Signals, console: Console) -> None:
    """Send the signal on until all have ended: one that does not train yet would miss it. A second one kills them."""
    console.print(f"{number.name}: waiting for the runs to save; a second {number.name} kills them", highlight=False)
    # the pool replaces one that has ended: its successor has nothing to do
    running = multiprocessing.active_children()
    try:
        while running := [child for child in running if child.is_alive()]:
            for child in running:
                if child.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(child.pid, number)
            time.sleep(_SECONDS_BETWEEN_SIGNALS)
    except BaseException:
        for child in running:
            child.kill()
        raise


def _run(study: Study, keys: tuple[Key, ...], out: Path, *, own_process: bool) -> ArmRun | StackEnd:
    if len(keys) > 1:
        return run_stack(study, keys, out)
    return run_arm(study, *keys[0], out, own_process=own_process)


def _run_here(study: Study, keys: tuple[Key, ...], out: Path) -> Handle:
    future: Future[ArmRun | StackEnd] = Future()
    try:
        future.set_result(_run(study, keys, out, own_process=False))
    except EcdDeployError as error:
        future.set_exception(error)
    return future
