"""Times candidates against each other: each in a process of its own, in turns, a round of all at a time.

A process of its own, because the settings of the memory allocator and the peak of memory belong to a process.
In turns, because a machine gets slower and faster while it measures: what is compared is measured within
seconds, and each ratio is that of one round. While one candidate works the others wait on a pipe.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Work = Callable[[], object]
"""One measured unit of work, a training step for example; it has ended when the call returns."""


FEWEST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is measured.

    Attributes:
        name: by which its timings are found.
        factory: `package.module:function`, called once in the candidate's process; returns the `Work`.
        arguments: of the factory.
    """

    name: str
    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timings:
    """What was measured.

    Attributes:
        seconds: by candidate, one entry a round: seconds of one unit of work.
        cpu_seconds: the same of processor time, all threads together: with one thread it holds on a busy machine too.
        peak_bytes: by candidate: peak resident memory over what the process held before the factory ran.
    """

    seconds: Mapping[str, tuple[float, ...]]
    cpu_seconds: Mapping[str, tuple[float, ...]]
    peak_bytes: Mapping[str, int]

    def ratios(self, numerator: str, denominator: str, *, cpu: bool = False) -> list[float]:
        """Time of one candidate over that of another, round by round; of the processor if `cpu`."""
        seconds = self.cpu_seconds if cpu else self.seconds
        return [mine / other for mine, other in zip(seconds[numerator], seconds[denominator], strict=True)]

    def median(self, name: str) -> float:
        """Median seconds of one unit of work."""
        return statistics.median(self.seconds[name])


def interleave(
    candidates: Sequence[Candidate],
    *,
    rounds: int,
    warm_up: int = 2,
    repeats: int = 1,
    budget_seconds: float = math.inf,
) -> Timings:
    """Measure the candidates in turns; their order is rotated from round to round.

    Args:
        candidates: with different names.
        rounds: at least `FEWEST_ROUNDS`.
        warm_up: units of work that each does first, not counted.
        repeats: units of work in one timing.
        budget_seconds: no round begins after this time, but `FEWEST_ROUNDS` are done: on a machine that others
            use, a round can take ten times as long.
    """
    started = time.perf_counter()
    answers: dict[str, list[_Answer]] = {candidate.name: [] for candidate in candidates}
    with ExitStack() as processes:
        pipes = {candidate.name: processes.enter_context(_process(candidate)) for candidate in candidates}
        for pipe in pipes.values():
            _ask(pipe, warm_up)
        names = list(pipes)
        for turn in range(rounds):
            if turn >= FEWEST_ROUNDS and time.perf_counter() - started > budget_seconds:
                break
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                answers[name].append(_ask(pipes[name], repeats))
        peaks = {name: _ask(pipe, 0).peak_bytes for name, pipe in pipes.items()}
    return Timings(
        {name: tuple(answer.seconds / repeats for answer in given) for name, given in answers.items()},
        {name: tuple(answer.cpu_seconds / repeats for answer in given) for name, given in answers.items()},
        peaks,
    )


@dataclass(frozen=True)
class _Answer:
    seconds: float
    cpu_seconds: float
    peak_bytes: int


@contextmanager
def _process(candidate: Candidate) -> Iterator[Connection[Any, Any]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # Not a daemon: a candidate may start workers of its own.
    process = context.Process(target=_serve, args=(candidate, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join()


def _ask(pipe: Connection[Any, Any], repeats: int) -> _Answer:
    pipe.send(repeats)
    answer = pipe.recv()
    if isinstance(answer, BaseException):
        raise answer
    return answer  # type: ignore[no-any-return]


def _serve(candidate: Candidate, pipe: Connection[Any, Any]) -> None:
    """Run in the candidate's process: do as many units of work as is asked for, until the pipe is closed."""
    module_name, _, function = candidate.factory.partition(":")
    factory = getattr(importlib.import_module(module_name), function)
    held = _memory("VmRSS")
    work: Work = factory(**candidate.arguments)
    while True:
        try:
            repeats = pipe.recv()
        except EOFError:
            return
        try:
            started, cpu_started = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                work()
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
            answer: object = _Answer(seconds, cpu_seconds, _memory("VmHWM") - held)
        except Exception as error:  # noqa: BLE001 (raised again in the process that asked)
            answer = error
        pipe.send(answer)


def _memory(name: str) -> int:
    """Bytes of a line of the process's status; 0 where there is none (not Linux)."""
    path = Path(f"/proc/{os.getpid()}/status")
    if not path.is_file():
        return 0
    for line in path.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return 0
