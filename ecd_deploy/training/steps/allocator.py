"""Keeping the memory of a training step for the next one.

glibc gives blocks above a threshold back to the kernel when they are freed, and a step frees every feature map:
the next one then takes a page fault for each 4 KiB of them again, about 100,000 a step of ResNet-20 at batch 128.
"""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**31 - 1  # mallopt takes an int
_LARGEST_MMAP_THRESHOLD = 2**30


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 2 GiB; returns whether the allocator is one that can.

    Nothing is changed elsewhere than with glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))
