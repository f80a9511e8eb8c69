"""The split as a picture: what was trained together, and where it was cut."""

from __future__ import annotations

from ecd_deploy.pipelines.report.page.charts.axes import STUDENT_COLOUR, TEACHER_COLOUR, svg, text
from ecd_deploy.split import SplitProof

_BOX = '<rect x="130" y="{y}" width="420" height="{h}" rx="8" fill="none" stroke="{stroke}" stroke-width="2"{dash}/>'
_ARROW = '<path d="{path}" fill="none" stroke="{stroke}" stroke-width="2" marker-end="url(#head)"{dash}/>'
_HEAD = (
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="currentColor"/></marker></defs>'
)
_DASHED = ' stroke-dasharray="6 5" opacity=".75"'


def split_picture(proof: SplitProof) -> str:
    """Draw student, teacher side and the one-way connections, with the counts of the proof."""
    dataflow, storage = proof.checks.dataflow, proof.checks.storage
    parts = [
        _HEAD,
        text(10, 66, "images"),
        _arrow("M62 61 H128", "currentColor"),
        _box(20, 84, STUDENT_COLOUR),
        text(146, 46, "student, ships whole"),
        text(146, 70, f"{storage.student_tensors} tensors, {proof.parameters:,} parameters"),
        text(146, 92, f"{len(dataflow.reached)} trainable tensors reached from the logits"),
        _arrow("M550 61 H636", "currentColor"),
        text(644, 66, "logits"),
    ]
    if proof.auxiliary:
        parts += [
            _box(156, 74, TEACHER_COLOUR, dashed=True),
            text(146, 182, f"{' and '.join(proof.auxiliary)}, discarded"),
            text(146, 206, f"{storage.auxiliary_tensors} tensors, none reached from the logits"),
            *(_arrow(f"M{x} 104 V154", TEACHER_COLOUR, dashed=True) for x in (200, 300, 400, 500)),
            '<path d="M20 130 H740" stroke="currentColor" stroke-dasharray="2 6" stroke-width="2"/>',
            text(600, 122, "cut here"),
        ]
    return svg(250, parts)


def _box(y: int, height: int, stroke: str, *, dashed: bool = False) -> str:
    return _BOX.format(y=y, h=height, stroke=stroke, dash=_DASHED if dashed else "")


def _arrow(path: str, stroke: str, *, dashed: bool = False) -> str:
    return _ARROW.format(path=path, stroke=stroke, dash=_DASHED if dashed else "")
