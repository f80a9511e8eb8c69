"""Work on many files by a pool of threads, shown while it goes on."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

_BLOCK_FILES = 64  # one task of the pool: a task for each file costs as much as decoding a small one
_MOST_THREADS = 32
_SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


def map_files(function: Callable[[int], T], count: int, what: str) -> list[T]:
    """Apply `function` to 0, 1, ..., count - 1, in threads; the results in that order.

    Progress goes to stderr: a bar on a terminal, elsewhere a line every ten seconds.
    """

    def block(start: int) -> list[T]:
        return [function(index) for index in range(start, min(start + _BLOCK_FILES, count))]

    starts = range(0, count, _BLOCK_FILES)
    with ThreadPoolExecutor(max_workers=min(_MOST_THREADS, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        # Pillow warns of files that are refused or counted anyway, without saying which
        warnings.simplefilter("ignore")
        return [result for results in _shown(pool.map(block, starts), count, what) for result in results]


def _shown(blocks: Iterable[list[T]], count: int, what: str) -> Iterator[list[T]]:
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(what, total=count)
            for results in blocks:
                progress.advance(task, len(results))
                yield results
        return
    done, last = 0, time.monotonic()
    for results in blocks:
        done += len(results)
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            console.print(f"{what}: {done:,} of {count:,}", highlight=False)
            last = time.monotonic()
        yield results
