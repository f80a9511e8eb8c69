"""What a run tells of its progress, event by event."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ecd_deploy.training.progress import TrainingEvent

Step = Literal["rehearse", "train", "split", "export", "validate", "profile", "gate", "report"]


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    """A step of the run began."""

    step: Step


@dataclass(frozen=True, kw_only=True)
class StepEnded:
    """A step of the run ended well; one that fails raises instead.

    Attributes:
        step: which.
        seconds: that it took.
    """

    step: Step
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """The rehearsal found nothing to refuse.

    Attributes:
        words: what was tried and how long it took, one line, and a line for each warning.
    """

    words: str


Event = StepStarted | StepEnded | Rehearsed | TrainingEvent
OnEvent = Callable[[Event], None]


@contextmanager
def step(name: Step, on_event: OnEvent) -> Iterator[None]:
    """Tell of the begin and the end of a step."""
    on_event(StepStarted(step=name))
    begun = time.perf_counter()
    yield
    on_event(StepEnded(step=name, seconds=time.perf_counter() - begun))
