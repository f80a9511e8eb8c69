"""Figures as files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PictureFormat = Literal["png", "svg"]
PICTURE_FORMATS: Final[tuple[PictureFormat, ...]] = ("png", "svg")


def render(figure: Figure, format_name: PictureFormat) -> bytes:
    """Write a figure so that the same one is the same bytes: without a date or a random identifier."""
    import matplotlib as mpl

    image = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ecd-deploy"}):
        figure.savefig(image, format=format_name, metadata={"Date": None} if format_name == "svg" else None)
    return image.getvalue()
