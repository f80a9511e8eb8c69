"""How a process that runs a part of a study begins; nothing heavy is imported, since some end without a run."""

from __future__ import annotations

import signal


def leave_signals_to_training() -> None:
    """Ignore signals but while training, which heeds the first: Ctrl-C in a terminal reaches this process twice."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
