"""Where an artefact leaves its student, as it is written down."""

from __future__ import annotations

from ecd_deploy.records import Record


class Divergence(Record):
    """The first node, in the order of the graph, whose output is not the student's."""

    node: str
    operator: str
    module: str
    """Path of the PyTorch module that computes the same; empty for the student itself."""
    relative_error: float | None
    """Largest difference as a share of the largest value; None where a value is not finite or shapes differ."""
    nodes_compared: int
