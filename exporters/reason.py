"""What a library's error says at bottom, in one line of plain text."""

from __future__ import annotations

import re

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OPERATOR = re.compile(r"OpOverload\(op='([\w.:]+)'")
_UNSUPPORTED = re.compile(r"(?:No ONNX function found for|No decompositions registered for|Unsupported)\b")
DATA_DEPENDENT = (
    "a branch of its forward depends on the values of the images, and a graph takes one way for all: torch.where or "
    "torch.cond hold both"
)

_DATA_DEPENDENT = re.compile(
    r"data-dependent|Could not guard on|symbolically traced variables as inputs to control flow"
)
_LONGEST = 300


def first_cause(error: BaseException) -> str:
    """The first line of the innermost error that says anything, without colours; a lacking operator by name."""
    chain = [error]
    while (cause := _behind(chain[-1])) is not None and cause not in chain:
        chain.append(cause)
    texts = [_COLOURS.sub("", str(entry)) for entry in chain]
    for text in reversed(texts):
        if _UNSUPPORTED.search(text) and (operator := _OPERATOR.search(text)):
            return f"it lacks the operator {operator[1]}"
    if any(_DATA_DEPENDENT.search(text) for text in texts):
        return DATA_DEPENDENT
    lines = [line.strip() for text in reversed(texts) for line in text.splitlines() if line.strip()]
    return lines[0][:_LONGEST] if lines else type(chain[-1]).__name__


def _behind(error: BaseException) -> BaseException | None:
    return error.__cause__ if error.__suppress_context__ else error.__context__
