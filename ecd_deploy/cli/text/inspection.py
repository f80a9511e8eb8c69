"""Prints an inspection: blocks that are alike in one row, or every convolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from torch import nn

from ecd_deploy.cli.text.costs import amount, conditions, costs, heading, memory
from ecd_deploy.distill import Block, Stage, TeacherReport
from ecd_deploy.pipelines.inspect.inspection import Inspection

_NAMES_SHOWN = 4
_WIDE = 100  # characters, from which on there is room for what can be read elsewhere too


def print_inspection(inspection: Inspection, console: Console, *, every_convolution: bool) -> None:
    """Print what is replaced, what is connected and what it costs."""
    first, *others = heading(inspection).splitlines()
    console.print(Text(first, style="bold"))
    for line in others:
        console.print(Text(line))
    console.print()
    narrow = console.width < _WIDE
    tables = [_convolutions(inspection, narrow) if every_convolution else _blocks(inspection, narrow)]
    # What a pattern matches is asked for by name.
    if inspection.sites and (every_convolution or inspection.method.sites):
        tables.append(_sites(inspection))
    if inspection.report is not None:
        tables.append(_skipped(inspection.report))
    tables += [costs(inspection), memory(inspection)]
    for table in tables:
        for column in table.columns:
            # A name or a number that is cut off is of no use.
            column.overflow = "fold"
        console.print(table)
        console.print()
    console.print(Text(conditions(inspection)))


@dataclass(frozen=True)
class _Row:
    """A block in the words of the table; blocks of equal words are put together."""

    stage: str
    kind: str
    output: str
    replaced: str
    kept: str
    connected: str


def _blocks(inspection: Inspection, narrow: bool) -> Table:
    table = Table("stage", Column("blocks", no_wrap=True), box=None)
    if not narrow:
        table.add_column("class", no_wrap=True)
    table.add_column("output")
    if inspection.report is not None:
        table.add_column("replaced in each")
        if not narrow:
            table.add_column("kept")
    if inspection.sites:
        table.add_column("connected")
    table.add_column("MACs", justify="right", no_wrap=True)

    def add(**cells: str) -> None:
        table.add_row(*(cells.get(str(column.header).partition(" ")[0], "") for column in table.columns))

    places = _count if narrow else _places
    rows = [
        (_row(stage, block, inspection, places), block)
        for stage in inspection.structure.stages
        for block in stage.blocks
    ]
    for row, members in groupby(rows, key=lambda entry: entry[0]):
        blocks = [block for _, block in members]
        macs = sum(_macs_inside(block.name, inspection) for block in blocks)
        add(blocks=_span([block.name for block in blocks]), MACs=amount(macs), **{**asdict(row), "class": row.kind})
    inside = sum(_macs_inside(block.name, inspection) for block in inspection.structure.blocks)
    rest = sum(inspection.student_macs.values()) - inside
    connected = places([site.place for site in inspection.sites if site.stage == 0])
    add(blocks="outside the blocks", connected=connected, MACs=amount(rest))
    return table


def _row(stage: Stage, block: Block, inspection: Inspection, places: Callable[[list[str]], str]) -> _Row:
    module = inspection.student.get_submodule(block.name)
    inside = f"{block.name}."
    report = inspection.report
    replaced = [entry.name for entry in report.replaced if entry.block == block.name] if report else []
    kept = [entry.name for entry in report.skipped if entry.name.startswith(inside)] if report else []
    sites: list[str] = [site.place for site in inspection.sites if f"{site.name}.".startswith(inside)]
    return _Row(
        stage=str(stage.number),
        kind=type(module).__name__,
        output=_shape(block.output.channels, block.output.resolution),
        replaced=_kernels(replaced, inspection.student),
        kept=_kernels(kept, inspection.student),
        connected=places(sites),
    )


def _count(places: list[str]) -> str:
    return str(len(places)) if places else ""


def _places(places: list[str]) -> str:
    return ", ".join(f"{count} {place}{'s' if count > 1 else ''}" for place, count in sorted(Counter(places).items()))


def _convolutions(inspection: Inspection, narrow: bool) -> Table:
    report = inspection.report
    replaced = {entry.name: entry for entry in report.replaced} if report else {}
    reasons = {entry.name: entry.reason for entry in report.skipped} if report else {}
    stronger = "dynamic" if report is None or report.options.teacher == "daconv" else f"with {report.options.teacher}"
    features = {entry.name: entry for entry in inspection.structure.feature_maps}
    table = Table(Column("convolution", no_wrap=True), "kernel", box=None)
    if not narrow:
        table.add_column("output")
    if report is not None:
        table.add_column("teacher")
    table.add_column("parameters")
    table.add_column("MACs", justify="right", no_wrap=True)
    for name, module in inspection.student.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        own = sum(parameter.numel() for parameter in module.parameters())
        cells = [name, _kernel(module)]
        if not narrow:
            found = features.get(name)
            cells.append("" if found is None else _shape(found.channels, found.resolution))
        if report is not None:
            kept = "kept" if narrow else f"kept: {reasons.get(name)}"
            cells.append(stronger if name in replaced else kept)
        cells.append(f"{own:,} -> {replaced[name].parameters:,}" if name in replaced else f"{own:,}")
        table.add_row(*cells, amount(inspection.student_macs.get(name, 0)))
    return table


def _skipped(report: TeacherReport) -> Table:
    table = Table("kept convolutions", "why", "which", box=None)
    reasons = sorted(report.skipped, key=lambda entry: entry.reason)
    for reason, members in groupby(reasons, key=lambda entry: entry.reason):
        names = [entry.name for entry in members]
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        table.add_row(str(len(names)), reason, shown)
    return table


def _sites(inspection: Inspection) -> Table:
    table = Table("connected", "place", "stage", "feature", box=None)
    features = {entry.name: entry for entry in inspection.structure.feature_maps}
    for site in inspection.sites:
        shape = _shape(site.channels, features[site.name].resolution)
        table.add_row(site.name, site.place, str(site.stage or "outside"), shape)
    return table


def _macs_inside(block: str, inspection: Inspection) -> int:
    return sum(macs for name, macs in inspection.student_macs.items() if f"{name}.".startswith(f"{block}."))


def _kernels(names: Iterable[str], student: nn.Module) -> str:
    counts = Counter(_kernels_of(names, student))
    return ", ".join(kernel if count == 1 else f"{count} of {kernel}" for kernel, count in counts.items())


def _kernels_of(names: Iterable[str], student: nn.Module) -> Iterator[str]:
    for name in names:
        module = student.get_submodule(name)
        if isinstance(module, nn.Conv2d):
            yield _kernel(module)


def _kernel(conv: nn.Conv2d) -> str:
    words = ["x".join(map(str, conv.kernel_size))]
    if 1 < conv.groups == conv.in_channels:
        words.append("depthwise")
    elif conv.groups > 1:
        words.append(f"groups {conv.groups}")
    if max(conv.stride) > 1:
        words.append(f"/{max(conv.stride)}")
    return " ".join(words)


def _span(names: list[str]) -> str:
    """The first name and what differs from it in the last."""
    if len(names) == 1:
        return names[0]
    parts = list(zip(names[0].split("."), names[-1].split("."), strict=False))
    common = next((index for index, (first, last) in enumerate(parts) if first != last), 0)
    return f"{names[0]}\nto {'.'.join(names[-1].split('.')[common:])} ({len(names)})"


def _shape(channels: int, resolution: tuple[int, int]) -> str:
    return f"{channels}x{resolution[0]}x{resolution[1]}"
