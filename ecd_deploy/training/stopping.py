"""SIGINT and SIGTERM as a wish that the training fulfils between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ecd_deploy.errors import Interrupted, Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal asked for the end of the training, and which."""

    def __init__(self) -> None:
        self.signal_number = 0


@contextmanager
def heed_signals() -> Iterator[StopRequest]:
    """Catch the first SIGINT or SIGTERM; a second one ends the process as it always does.

    Signals reach the main thread only: a training in another thread is not stopped by them.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield request
    finally:
        restore()


def stopped(signal_number: int, step: int, steps: int) -> Interrupted:
    """The error that ends a training which has saved everything after `step` of its `steps`."""
    kind = Terminated if signal_number == signal.SIGTERM else Interrupted
    name = signal.Signals(signal_number).name
    return kind(f"{name} after step {step} of {steps}; everything is saved: continue with --resume")
