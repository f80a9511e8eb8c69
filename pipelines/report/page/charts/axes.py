"""Scales, axes, lines and points as SVG text, in the page's own text colour: one picture fits light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal
from unicodedata import east_asian_width

STUDENT_COLOUR: Final = "#2f7fd1"
TEACHER_COLOUR: Final = "#d0691b"
OTHER_COLOURS: Final = ("#2a8f5b", "#a05bc0", "#b0872b", "#c2447a")
WIDTH: Final = 760.0
LINE_HEIGHT: Final = 20.0
_CHARACTER = 8.0
_MARGIN = 0.05
_TICKS = 5
_LONGEST_NAME = 20
_MOST_LOGARITHMIC_TICKS = 9
_MARKER_PATHS = {
    "circle": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "square": "m-3.5-3.5h7v7h-7z",
    "diamond": "m0-5 5 5-5 5-5-5z",
}

Marker = Literal["circle", "square", "diamond"]


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high`, on pixels from `start` to `end`; ticks of a `whole` one are whole numbers."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values within the scale: 1, 2 or 5 times a power of ten apart, or on a logarithmic one these."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1,)):
                found = [float(f"{digit}e{power}") for power in powers for digit in digits]
                found = [value for value in found if self.low <= value <= self.high]
                if 2 <= len(found) <= _MOST_LOGARITHMIC_TICKS:
                    return found
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
        step = max(step, 1.0) if self.whole else step
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def scale_of(
    values: Iterable[float], start: float, end: float, *, logarithmic: bool = False, whole: bool = False
) -> Scale:
    """A scale with some room around these values; a single one stands in its middle."""
    kept = list(values)
    low, high = min(kept), max(kept)
    if logarithmic:
        room = (high / low) ** _MARGIN if high > low else 1.1
        return Scale(low / room, high * room, start, end, logarithmic=True)
    room = (high - low) * _MARGIN or max(abs(low) * _MARGIN, 0.5)
    return Scale(low - room, high + room, start, end, whole=whole)


@dataclass(frozen=True)
class Panel:
    """One chart of a picture; `y` starts at the lower end."""

    x: Scale
    y: Scale

    def frame(self, x_label: str, y_label: str = "", *, x_ticks: bool = True, y_ticks: bool = True) -> str:
        """Both axes with their ticks and labels."""
        left, right, low, high = self.x.start, self.x.end, self.y.start, self.y.end
        parts = [f'<path d="M{_n(left)} {_n(high)}V{_n(low)}H{_n(right)}" fill="none" stroke="currentColor"/>']
        for value in self.x.ticks() if x_ticks else ():
            at = self.x.place(value)
            parts.append(f'<path d="M{_n(at)} {_n(low)}v4" stroke="currentColor"/>')
            parts.append(text(at, low + 18, f"{value:g}", anchor="middle"))
        for value in self.y.ticks() if y_ticks else ():
            at = self.y.place(value)
            parts.append(f'<path d="M{_n(left)} {_n(at)}h-4" stroke="currentColor"/>')
            parts.append(text(left - 7, at + 5, f"{value:g}", anchor="end"))
        if x_label:
            parts.append(text((left + right) / 2, low + 38, x_label, anchor="middle"))
        if y_label:
            middle = f"{_n(left - 50)} {_n((low + high) / 2)}"
            parts.append(f'<g transform="translate({middle}) rotate(-90)">{text(0, 0, y_label, anchor="middle")}</g>')
        return "".join(parts)

    def line(self, xs: Iterable[float], ys: Iterable[float], colour: str, *, width: float = 2, dash: str = "") -> str:
        """A line through these points."""
        return polyline(((self.x.place(x), self.y.place(y)) for x, y in zip(xs, ys, strict=True)), colour, width, dash)

    def points(self, xs: Iterable[float], ys: Iterable[float], colour: str, marker: Marker = "circle") -> str:
        """A mark at each point."""
        return "".join(mark(self.x.place(x), self.y.place(y), colour, marker) for x, y in zip(xs, ys, strict=True))

    def bar(self, x: float, y: float, width: float, colour: str) -> str:
        """A bar from the lower end to a value, as many values wide."""
        left, right, top = self.x.place(x - width / 2), self.x.place(x + width / 2), self.y.place(y)
        size = f'width="{_n(right - left)}" height="{_n(self.y.start - top)}"'
        return f'<rect x="{_n(left)}" y="{_n(top)}" {size} fill="{colour}"/>'


def polyline(pixels: Iterable[tuple[float, float]], colour: str, width: float = 2, dash: str = "") -> str:
    """A line from pixel to pixel."""
    path = "L".join(f"{_n(x)} {_n(y)}" for x, y in pixels)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{_n(width)}"{dashes}/>'


def mark(x: float, y: float, colour: str, marker: Marker) -> str:
    """A mark at a pixel."""
    return f'<path d="M{_n(x)} {_n(y)}{_MARKER_PATHS[marker]}" fill="{colour}"/>'


def text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    """Words whose base line starts, ends or has its middle at a pixel."""
    anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{_n(x)}" y="{_n(y)}"{anchored}>{escape(words)}</text>'


def shortened(name: str) -> str:
    """A name as a chart has room for it."""
    return name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME:]}"


def text_width(words: str) -> float:
    """Pixels that words take at most, about: a browser chooses the font."""
    return _CHARACTER * sum(2 if east_asian_width(character) in "WF" else 1 for character in words)


def svg(height: float, parts: Sequence[str]) -> str:
    """A picture, `WIDTH` wide; the page scales it, and what is around it carries the label."""
    opening = f'<svg aria-hidden="true" viewBox="0 0 {_n(WIDTH)} {_n(height)}" xmlns="http://www.w3.org/2000/svg"'
    return f'{opening} font-family="sans-serif" font-size="14" fill="currentColor">{"".join(parts)}</svg>'


def _n(value: float) -> str:
    return f"{round(value, 1):g}"
