"""What the commands for models and images have in common."""

from __future__ import annotations

from typing import Final

from ecd_deploy.errors import UsageError

DATA_HELP: Final = "Images as FOLDER/CLASS/*, or a CSV file with the columns path and label; other columns are slices."


def size_override(shape: str | None) -> tuple[str, ...]:
    """`--shape` as the value of `input.size`.

    Raises:
        UsageError: it is no height and width.
    """
    if shape is None:
        return ()
    height, separator, width = shape.lower().partition("x")
    if not (separator and height.isdecimal() and width.isdecimal()):
        raise UsageError(f"--shape {shape}: expected HEIGHTxWIDTH in pixels, for example 224x224")
    return (f"input.size=[{int(height)}, {int(width)}]",)
