"""Builds the images of the Dockerfile without a daemon, measures them by layer, and tries them.

Needs root and Debian's packages of `build.NEEDED`; the arm64 image also the emulation of its processor. The base is
made of Debian's packages, or is the image that `BASE` names in the environment.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures import Figure, Report
from benchmarks.images.archive import Image
from benchmarks.images.build import ROOT, Builder, CannotBuild, check_tools, copy_context
from benchmarks.images.container import Container
from benchmarks.images.trial import Check, check_image

IMAGES = (("train", "amd64"), ("gate", "amd64"), ("edge", "amd64"), ("edge", "arm64"))
"""Targets and architectures, each after what its trial needs."""
_LARGEST = {"edge, amd64": 200, "gate, amd64": 550}
"""MB, unpacked."""
_USER = 1000
"""Of the images; owns the folder that they share."""


@dataclass(frozen=True)
class Row:
    """What became of one image."""

    name: str
    image: Image
    checks: tuple[Check, ...]


def measure() -> Report:
    """Build, read and try every image; the first one that cannot be built ends it."""
    try:
        check_tools()
        return _report(_rows(Builder.in_folder(ROOT / "build" / "images")))
    except CannotBuild as error:
        sys.exit(f"Error: {error}")


def _rows(builder: Builder) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as context, tempfile.TemporaryDirectory() as shared:
        copy_context(Path(context))
        os.chown(shared, _USER, _USER)
        for target, architecture in IMAGES:
            name = builder.build(target, architecture, builder.base(architecture), Path(context))
            image = builder.read(name)
            print(f"{target}, {architecture}: {image.bytes / 1e6:.1f} MB", file=sys.stderr)
            with builder.mounted(name) as root:
                checks = check_image(target, Container(root, image.configuration, Path(shared)))
            left = Check("no secrets, no leftovers", not image.left_behind, ", ".join(image.left_behind[:5]) or "none")
            for check in (*checks, left):
                print(f"  {check.name}: {'passed' if check.passed else 'FAILED'}, {check.found}", file=sys.stderr)
            rows.append(Row(f"{target}, {architecture}", image, (*checks, left)))
    return rows


def _report(rows: list[Row]) -> Report:
    sizes = [
        Figure(
            name=f"{row.name}: unpacked",
            value=row.image.bytes / 1e6,
            better="lower",
            must=_LARGEST.get(row.name),
            unit="MB",
        )
        for row in rows
    ]
    checks = [check for row in rows for check in row.checks]
    tried = Figure(name="what was tried in the images", value=len(checks), better="higher", unit="")
    failed = sum(not check.passed for check in checks)
    return Report(
        benchmark="images",
        figures=(*sizes, tried, Figure(name="of it, what failed", value=failed, better="lower", must=0, unit="")),
        setting={
            "base": "named by BASE" if os.environ.get("BASE") else "Debian's packages, bookworm",
            "torch": os.environ.get("TORCH") or "as constraints.txt says",
        },
        raw={
            "images": [
                {
                    "name": row.name,
                    "bytes": row.image.bytes,
                    "layers": [asdict(layer) for layer in row.image.layers if layer.files],
                    "checks": [asdict(check) for check in row.checks],
                }
                for row in rows
            ]
        },
    )
