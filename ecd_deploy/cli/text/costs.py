"""The parts of an inspection's text that speak of the method and of what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Column, Table

from ecd_deploy.pipelines.inspect.inspection import Inspection, PartCost
from ecd_deploy.recipe.method import MethodConfig


def heading(inspection: Inspection) -> str:
    """What is inspected, how it is trained, and what is left out, a line each."""
    subject = inspection.subject
    channels, height, width = inspection.structure.image_shape
    name = f"{subject.recipe.name}: {subject.student}" if subject.recipe else subject.student
    lines = [f"{name} for images of {channels}x{height}x{width}, {subject.classes} classes", *_method(inspection)]
    if subject.method.pretrained is not None:
        losses = ", ".join(subject.method.pretrained.losses)
        lines.append(f"not counted: the pretrained teacher, its losses ({losses}) and their parameters")
    return "\n".join(lines)


def _method(inspection: Inspection) -> Iterator[str]:
    method = inspection.method
    yield f"method {inspection.subject.method.name}: {'; '.join(_pieces(inspection))}"
    losses = [f"{what} {kind}" for what, kind in (("logits", method.logits), ("features", method.features))]
    losses = [loss for loss in losses if not loss.endswith(" none")]
    if losses:
        yield f"losses between the heads: {', '.join(losses)}"
    if inspection.compared:
        yield f"features are compared after {', '.join(inspection.compared)}"


def _pieces(inspection: Inspection) -> Iterator[str]:
    method = inspection.method
    if method.name == "one":
        last = inspection.structure.stages[-1]
        yield f"{method.used_branches} branches, the student among them, from {last.blocks[0].name} on"
        return
    if inspection.report is None:
        yield "the student alone"
        return
    yield f"teacher {method.teacher}{_dynamic(method)}"
    if method.name == "joint":
        yield "no connections"
        return
    where = f"sites {', '.join(method.sites)}" if method.sites else words("stage", sorted(method.stages))
    yield f"connections {method.connection}, density {method.density}, {where}"


def _dynamic(method: MethodConfig) -> str:
    if method.teacher != "daconv":
        return ""
    mixture = "" if method.mixture == "convex" else f", mixture {method.mixture}"
    return f", n = {method.kernels}{mixture}, backend {method.backend}"


def costs(inspection: Inspection) -> Table:
    """Parameters and multiply-accumulates of each part."""
    table = Table("", *(_title(part, inspection) for part in inspection.parts), box=None)
    table.add_row("parameters", *(f"{part.parameters:,}" for part in inspection.parts))
    table.add_row("MACs per image", *(amount(part.macs) for part in inspection.parts))
    if inspection.sites:
        stages = sorted({site.stage for site in inspection.sites if site.stage})
        count = len(inspection.sites)
        where = f"at {count} site{'s' if count > 1 else ''} in {words('stage', stages)}" if stages else f"at {count}"
        outside = any(site.stage == 0 for site in inspection.sites)
        where += " and outside" if outside and stages else " outside the stages" if outside else ""
        table.add_row("", *(where if part.name == "connections" else "" for part in inspection.parts))
    return table


def _title(part: PartCost, inspection: Inspection) -> str:
    if part.name == "teacher" and inspection.method.teacher == "daconv":
        return f"teacher, n = {inspection.method.kernels}"
    if part.name == "branches":
        return f"{inspection.method.used_branches - 1} other branches"
    return part.name


def memory(inspection: Inspection) -> Table:
    """What a training step holds."""
    found, subject = inspection.memory, inspection.subject
    images = subject.images_at_one_time
    title = f"training memory at batch {subject.batch_size}"
    if found.kernels:
        title += f", backend {inspection.method.backend}"
    table = Table(title, Column("", justify="right", no_wrap=True), box=None)
    table.add_row("parameters, gradients and momentum", size(found.parameters_with_state))
    table.add_row("kept for the backward pass, per image", size(found.saved_per_image))
    if found.kernels:
        chunked = inspection.method.backend == "chunked"
        table.add_row("  of which per-sample kernels", "none" if chunked else size(found.kernels_per_image))
        what = "a chunk of per-sample kernels, with gradients" if chunked else "gradients of a layer's kernels"
        table.add_row(f"{what}, at one time", size(found.kernels_at_one_time(images)))
    parts = "" if images == subject.batch_size else f", in {subject.used_parts} parts of at most {images}"
    table.add_row(f"a step at batch {subject.batch_size}{parts}", size(found.total(images)))
    return table


def conditions(inspection: Inspection) -> str:
    """What the numbers of the memory are of."""
    precision = inspection.subject.precision
    other = "" if precision == "no" else f"; mixed precision '{precision}' is not counted; it needs less"
    return f"estimated, of one process: torch's tensors in float32, without workspaces{other}"


def words(what: str, numbers: Iterable[int]) -> str:
    """`stage 2` or `stages 2, 3`."""
    listed = [str(number) for number in numbers]
    return f"{what}{'s' if len(listed) > 1 else ''} {', '.join(listed)}"


def amount(number: float) -> str:
    """A count with a unit of thousands."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes with a unit."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
