"""What not every operating system has, and what stands in for it there."""

from __future__ import annotations

import os


def usable_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs that this process may use; where the system does not say, of all."""
    affinity = getattr(os, "sched_getaffinity", None)
    return tuple(range(os.cpu_count() or 1)) if affinity is None else tuple(sorted(affinity(0)))
