"""Keeps what libraries say while they export away from the user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def library_quiet(logger_name: str) -> Iterator[None]:
    """Keep a library's warnings and log lines in here: what they warn of is asserted from what it wrote."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
