"""The figures of `explain`, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_DPI = 120
_PANEL_INCHES = 3.2
_CELL_INCHES = 1.6


@dataclass(frozen=True)
class Panel:
    """One network's embeddings in two dimensions: points (N, 2) and a title."""

    title: str
    points: NDArray[np.float32]


def draw_embeddings(panels: Sequence[Panel], labels: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """Draw the panels side by side, the points coloured by their true class.

    Args:
        panels: of the same images.
        labels: (N,), indices into `classes`.
        classes: names of those that are drawn.
    """
    figure = Figure(figsize=(_PANEL_INCHES * len(panels) + 1.2, _PANEL_INCHES + 0.5), layout="constrained")
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number, title=panel.title, xticks=[], yticks=[])
        for index, name in enumerate(classes):
            chosen = panel.points[labels == index]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=6, color=f"C{index}", label=name, linewidths=0)
    handles, names = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", markerscale=2.5, frameon=False)
    return _png(figure)


@dataclass(frozen=True)
class Row:
    """One image (H, W, 3) of 0..255, its class, and a heat map (H, W) of 0..1 with the predicted class a network."""

    pixels: NDArray[np.uint8]
    true: str
    heats: tuple[NDArray[np.float32], ...]
    predicted: tuple[str, ...]


def draw_heat_maps(rows: Sequence[Row], titles: Sequence[str]) -> bytes:
    """Draw an image a row, and beside it what each network looked at; a wrong prediction is red."""
    columns = len(titles) + 1
    figure = Figure(figsize=(_CELL_INCHES * columns * 1.25, _CELL_INCHES * len(rows) * 1.2 + 0.4), layout="constrained")
    for number, row in enumerate(rows):
        axes = figure.add_subplot(len(rows), columns, number * columns + 1, xticks=[], yticks=[])
        axes.imshow(row.pixels)
        axes.set_xlabel(row.true)
        for column, (heat, predicted) in enumerate(zip(row.heats, row.predicted, strict=True), start=2):
            axes = figure.add_subplot(len(rows), columns, number * columns + column, xticks=[], yticks=[])
            axes.imshow(row.pixels)
            axes.imshow(heat, cmap="jet", alpha=0.5, vmin=0, vmax=1)
            axes.set_xlabel(predicted, color="black" if predicted == row.true else "red")
    for axes, title in zip(figure.axes, ("image", *titles), strict=False):
        axes.set_title(title, fontsize=9, wrap=True)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI)
    return data.getvalue()
