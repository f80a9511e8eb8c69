"""Text of others in Markdown: names of classes and students, reasons, descriptions."""

from __future__ import annotations

import re

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINK = re.compile(r"\](?=[\[(:])")


def escape(text: str) -> str:
    """One line of Markdown that shows the text as it is, in a table's cell too: no HTML, no links, no line breaks."""
    line = "".join(_ENTITIES.get(letter, letter if letter.isprintable() else " ") for letter in text)
    return _LINK.sub(r"\\]", line.replace("\\", "\\\\").replace("|", "\\|"))
