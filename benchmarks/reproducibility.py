"""Each format exported twice, the second time in another process, folder and hash seed: are the bytes the same?"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from benchmarks.figures import Figure, Report
from benchmarks.untrained import metadata_of
from ecd_deploy.data import ImageSet, Normalisation
from ecd_deploy.distill import PlainModel
from ecd_deploy.exporters import ExportContext, export_formats
from ecd_deploy.exporters.registry import writable_formats
from ecd_deploy.models import build_student
from ecd_deploy.recipe.export import ExportConfig
from ecd_deploy.split import split_student

SEEDS = ("0", "1", "4711")
"""Hash seeds; each export has a process and a folder of its own."""
_SCRIPT = "import json; from benchmarks.reproducibility import digests; print(json.dumps(digests()))"


def measure() -> Report:
    """Compare the digests of all exports."""
    found = {seed: _elsewhere(seed) for seed in SEEDS}
    first = found[SEEDS[0]]
    figures = [
        Figure(
            name=f"same bytes: {name}",
            value=100.0 * sum(digests[name] == first[name] for digests in found.values()) / len(SEEDS),
            better="higher",
            must=100.0,
            unit="%",
        )
        for name in first
    ]
    setting = {"student": "resnet8", "processes": len(SEEDS), "hash seeds": SEEDS}
    return Report(benchmark="reproducibility", figures=figures, setting=setting, raw={"sha256": found})


def digests() -> dict[str, str]:
    """Export a student, the same in every process, to every format; SHA-256 by format."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_digits()
    images = np.rint(digits.images * 15.9375).astype(np.uint8)[:, np.newaxis]
    labels = digits.target.astype(np.int64)
    normalisation = Normalisation((0.5,), (0.5,))
    example = torch.from_numpy(normalisation.apply(images[:4]))
    student = split_student(PlainModel(build_student("resnet8", num_classes=10, in_channels=1)), example)
    train, validation = (ImageSet(images[part], labels[part]) for part in (slice(0, 256), slice(256, 512)))
    context = ExportContext(train, validation, normalisation)
    metadata = metadata_of("resnet8", 10, (1, 8, 8), std=0.5)
    exported = export_formats(writable_formats(), ExportConfig(), student, metadata, context)
    return {written.exporter.format: hashlib.sha256(written.data).hexdigest() for written in exported}


def _elsewhere(seed: str) -> dict[str, str]:
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    result: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return result
