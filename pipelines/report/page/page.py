"""A page before it is Markdown or HTML: what stands at its head, and its sections with their charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from ecd_deploy.pipelines.report.page.section import Section


@dataclass(frozen=True)
class Tile:
    """A figure at the head of the page."""

    label: str
    value: str


@dataclass(frozen=True)
class Chart:
    """An SVG and what it shows, in words."""

    svg: str
    label: str


@dataclass(frozen=True)
class Page:
    """Everything that is shown.

    Attributes:
        name: of the run or the model.
        verdict: of the gate.
        lead_in: a sentence about it; `code` in backticks.
        sections: in their order.
        tiles: of the HTML page.
        charts: of the HTML page, by the anchor of their section.
        package_version: of this project, where the results were made.
    """

    name: str
    verdict: str
    lead_in: str
    sections: tuple[Section, ...]
    tiles: tuple[Tile, ...] = ()
    charts: Mapping[str, Chart] = field(default_factory=dict)
    package_version: str = field(default_factory=lambda: version("ecd-deploy"))
