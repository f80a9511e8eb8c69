"""The parts of an OpenVINO artefact, a zip that is not compressed."""

from __future__ import annotations

from typing import Final

GRAPH: Final = "student.xml"
WEIGHTS: Final = "student.bin"
METADATA: Final = "metadata.json"
