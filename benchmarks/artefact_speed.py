"""Artefacts in their own runtimes against fp32 onnxruntime, and that against PyTorch eager, in turns on this host.

One thread, one image. Formats are those whose extra is installed; LiteRT's need its converter as well.
`make bench-formats` installs them all, and writes what is found into `docs/formats.md`.

Weights and images are random: neither changes how long a convolution takes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from benchmarks.figures import Figure, Report
from benchmarks.runner import Candidate, Work, interleave
from benchmarks.untrained import metadata_of
from ecd_deploy.data import ImageSet, Normalisation
from ecd_deploy.distill import PlainModel
from ecd_deploy.exporters import ExportContext, Written, export_formats
from ecd_deploy.exporters.onnx.session import open_session
from ecd_deploy.exporters.registry import writable_formats
from ecd_deploy.measure.device.runner.runtimes import version_of
from ecd_deploy.measure.latency.measurement import Comparison, compare_onnx
from ecd_deploy.models import build_student
from ecd_deploy.recipe.export import ExportConfig, Int8Config
from ecd_deploy.recipe.profile import ProfileConfig, Runtime
from ecd_deploy.split import SplitStudent, split_student

STUDENTS = (("resnet20", 100, 32, 1.5, 64), ("torchvision:resnet18", 1000, 224, 2.5, 16))
"""Name, classes, side, least speed of INT8 against fp32, calibration images."""
RUNTIMES = get_args(Runtime)
ROUNDS = 12
_MEASURED = ProfileConfig(threads=1, warmup_seconds=0.5, min_seconds=6.0, max_seconds=60.0)


def measure() -> Report:
    """Export each student, then time its files."""
    torch.set_num_threads(1)
    figures: list[Figure] = []
    raw: dict[str, dict[str, object]] = {}
    runtimes: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for name, classes, side, least, images in STUDENTS:
            files = _export(name, classes, side, images)
            fp32 = files.pop("onnx").data
            path = Path(folder) / f"{side}.onnx"
            path.write_bytes(fp32)
            eager = interleave(
                (
                    Candidate(
                        name="eager",
                        factory=f"{__name__}:eager",
                        arguments={"name": name, "classes": classes, "side": side},
                    ),
                    Candidate(name="onnx", factory=f"{__name__}:onnx", arguments={"path": str(path), "side": side}),
                ),
                rounds=ROUNDS,
                warm_up=5,
                repeats=max(3, 40 * 32 // side),
            )
            label = f"{name.removeprefix('torchvision:')}, {side} px"
            figures.append(
                Figure.over(
                    f"fp32 onnxruntime over PyTorch eager, {label}",
                    eager.ratios("eager", "onnx"),
                    better="higher",
                    must=4.0 if side == 32 else None,
                )
            )
            raw[label] = {"eager": eager.seconds}
            for format_name, written in files.items():
                int8, size = format_name == "onnx-int8", len(written.data) / len(fp32)
                sized = f"{format_name}: size over fp32 ONNX, {label}"
                figures.append(Figure(name=sized, value=size, better="lower", must=0.30 if int8 else None))
                if written.exporter.runtime not in RUNTIMES:
                    continue
                runtimes.add(version_of(written.exporter.runtime))
                compared = compare_onnx(written.data, fp32, _MEASURED)
                timed = f"{format_name}: speed over fp32 ONNX, {label}"
                figures.append(_speed(timed, compared, least if int8 else None))
                raw[label][f"{format_name} against fp32"] = compared.model_dump(mode="json")
    return Report(
        benchmark="artefact_speed",
        figures=figures,
        setting={
            "threads": 1,
            "batch": 1,
            "int8": Int8Config().model_dump(mode="json"),
            "rounds": ROUNDS,
            "runtimes": sorted(runtimes),
        },
        raw=raw,
    )


def eager(name: str, classes: int, side: int) -> Work:
    """One image through the PyTorch student."""
    torch.set_num_threads(1)
    student = build_student(name, num_classes=classes).eval()
    images = torch.zeros(1, 3, side, side)

    def work() -> None:
        with torch.inference_mode():
            student(images)

    return work


def onnx(path: str, side: int) -> Work:
    """One image through the fp32 ONNX file by onnxruntime."""
    session = open_session(Path(path).read_bytes(), 1, "onnx")
    images = np.zeros((1, 3, side, side), dtype=np.float32)
    return lambda: session.run(["logits"], {"images": images})


def _export(name: str, classes: int, side: int, images: int) -> dict[str, Written]:
    torch.manual_seed(0)
    student: SplitStudent = split_student(
        PlainModel(build_student(name, num_classes=classes)), torch.randn(2, 3, side, side)
    )
    noise = np.random.default_rng(0).integers(0, 256, (images, 3, side, side), dtype=np.uint8)
    pixels = ImageSet(noise, np.arange(images) % classes)
    normalisation = Normalisation((0.5,) * 3, (0.25,) * 3)
    # Random weights have no accuracy to keep: with any margin below 1 layers could go back to float by chance.
    context = ExportContext(pixels, pixels, normalisation, max_drop=1.0)
    metadata = metadata_of(name, classes, (3, side, side), std=0.25)
    exported = export_formats(writable_formats(), ExportConfig(), student, metadata, context)
    return {written.exporter.format: written for written in exported}


def _speed(name: str, compared: Comparison, least: float | None) -> Figure:
    own, first, second = (session.block_p50_ms for session in compared.sessions)
    ratios = [(a + b) / 2 / c for c, a, b in zip(own, first, second, strict=True)]
    busy = " (busy host: not valid)" if compared.host.contended else ""
    return Figure.over(f"{name}{busy}", ratios, better="higher", must=least)
