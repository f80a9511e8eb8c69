"""What not every operating system has, and what stands in for it there."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import IO, Any


def usable_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs that this process may use; where the system does not say, of all."""
    affinity = getattr(os, "sched_getaffinity", None)
    return tuple(range(os.cpu_count() or 1)) if affinity is None else tuple(sorted(affinity(0)))


def memory_gib() -> float | None:
    """Memory of the machine; None where the system does not say."""
    sysconf = getattr(os, "sysconf", None)
    return None if sysconf is None else round(sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES") / 2**30, 1)


def lock(file: IO[str], *, wait: bool) -> None:
    """Lock an open file against other processes until it is closed; without fcntl, as on Windows, nothing is locked.

    Args:
        file: open for writing.
        wait: for whoever holds it.

    Raises:
        OSError: another process holds it, and `wait` is false.
    """
    if find_spec("fcntl") is not None:
        fcntl: Any = import_module("fcntl")
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def allocate(file: IO[bytes], size: int) -> None:
    """Give a file its size; where the system can, the disk's space is taken at once.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
