"""Errors of others in one line."""

from __future__ import annotations

_LONGEST = 300


def first_line(error: Exception) -> str:
    """The class of an error and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:_LONGEST] if lines else 'no message'}"
