"""Prints an inspection: blocks that are alike in one row, or every convolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.table import Column, Table
from torch import nn

from ecd_deploy.distill import Block, Stage
from ecd_deploy.pipelines.inspection import Inspection

BATCH_SIZE = 128
_NAMES_SHOWN = 4


def print_inspection(inspection: Inspection, console: Console, *, every_convolution: bool) -> None:
    """Print what is replaced, what is connected and what it costs."""
    channels, height, width = inspection.report.structure.image_shape
    console.print(f"[bold]{inspection.name}[/bold] for images of {channels}x{height}x{width}\n")
    tables = (_convolutions, _sites) if every_convolution else (_blocks,)
    for table in (*tables, _skipped, _costs, _memory):
        console.print(table(inspection))
        console.print()


@dataclass(frozen=True)
class _Row:
    """A block in the words of the table; blocks of equal words are put together."""

    stage: int
    kind: str
    output: str
    replaced: str
    kept: str
    connected: str


def _blocks(inspection: Inspection) -> Table:
    # A name that is cut off is of no use for `method.sites`; the other columns may take two lines.
    names = Column("blocks", overflow="fold", no_wrap=True)
    kind = Column("class", overflow="fold", no_wrap=True)
    table = Table("stage", names, kind, "output", "replaced in each", "kept", "connected", box=None)
    table.add_column("MACs", justify="right", no_wrap=True)
    rows = [
        (_row(stage, block, inspection), block)
        for stage in inspection.report.structure.stages
        for block in stage.blocks
    ]
    for row, members in groupby(rows, key=lambda entry: entry[0]):
        blocks = [block for _, block in members]
        macs = sum(_macs_inside(block.name, inspection) for block in blocks)
        words = (row.kind, row.output, row.replaced, row.kept, row.connected, _amount(macs))
        table.add_row(str(row.stage), _span([block.name for block in blocks]), *words)
    inside = sum(_macs_inside(block.name, inspection) for block in inspection.report.structure.blocks)
    rest = sum(inspection.student_macs.values()) - inside
    table.add_row("", "outside the blocks", "", "", "", "", "", _amount(rest))
    return table


def _row(stage: Stage, block: Block, inspection: Inspection) -> _Row:
    module = inspection.student.get_submodule(block.name)
    inside = f"{block.name}."
    replaced = [entry.name for entry in inspection.report.replaced if entry.block == block.name]
    kept = [entry.name for entry in inspection.report.skipped if entry.name.startswith(inside)]
    sites = Counter(site.place for site in inspection.sites if site.name == block.name or site.name.startswith(inside))
    return _Row(
        stage=stage.number,
        kind=type(module).__name__,
        output=_shape(block.output.channels, block.output.resolution),
        replaced=_kernels(replaced, inspection.student),
        kept=_kernels(kept, inspection.student),
        connected=", ".join(f"{count} {place}" for place, count in sorted(sites.items())),
    )


def _convolutions(inspection: Inspection) -> Table:
    table = Table("convolution", "kernel", "output", "teacher", "parameters", "MACs", box=None)
    features = {entry.name: entry for entry in inspection.report.structure.feature_maps}
    replaced = {entry.name: entry for entry in inspection.report.replaced}
    reasons = {entry.name: entry.reason for entry in inspection.report.skipped}
    for name, module in inspection.student.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        own = sum(parameter.numel() for parameter in module.parameters())
        found = features.get(name)
        table.add_row(
            name,
            _kernel(module),
            "" if found is None else _shape(found.channels, found.resolution),
            "dynamic" if name in replaced else f"kept: {reasons[name]}",
            f"{own:,} -> {replaced[name].parameters:,}" if name in replaced else f"{own:,}",
            _amount(inspection.student_macs.get(name, 0)),
        )
    return table


def _skipped(inspection: Inspection) -> Table:
    table = Table("kept convolutions", "why", "which", box=None)
    reasons = sorted(inspection.report.skipped, key=lambda entry: entry.reason)
    for reason, members in groupby(reasons, key=lambda entry: entry.reason):
        names = [entry.name for entry in members]
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        table.add_row(str(len(names)), reason, shown)
    return table


def _sites(inspection: Inspection) -> Table:
    table = Table("connected", "place", "stage", "feature", box=None)
    features = {entry.name: entry for entry in inspection.report.structure.feature_maps}
    for site in inspection.sites:
        table.add_row(site.name, site.place, str(site.stage), _shape(site.channels, features[site.name].resolution))
    return table


def _costs(inspection: Inspection) -> Table:
    report = inspection.report
    stages = sorted({site.stage for site in inspection.sites})
    table = Table("", "student", f"teacher, n = {report.kernels}", "connections", box=None)
    table.add_row(
        "parameters",
        f"{report.student_parameters:,}",
        f"{report.teacher_parameters:,}",
        f"{inspection.connection_parameters:,} at {len(inspection.sites)} sites in {_words('stage', stages)}",
    )
    table.add_row(
        "MACs of an image",
        _amount(sum(inspection.student_macs.values())),
        _amount(sum(inspection.teacher_macs.values())),
        "",
    )
    return table


def _memory(inspection: Inspection) -> Table:
    memory = inspection.memory
    table = Table("training memory: torch's tensors, float32, estimated", "", box=None)
    table.add_row("parameters, gradients and momentum", _size(3 * memory.parameters))
    table.add_row("kept for the backward pass, per image", _size(memory.saved_per_image))
    table.add_row("  of it per-sample kernels", _size(memory.kernels_per_image))
    table.add_row(f"a step at batch {BATCH_SIZE}", _size(memory.total(BATCH_SIZE)))
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


def _words(what: str, numbers: list[int]) -> str:
    return f"{what}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _shape(channels: int, resolution: tuple[int, int]) -> str:
    return f"{channels}x{resolution[0]}x{resolution[1]}"


def _amount(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def _size(number: float) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
