"""The table of planted leaks: which check of the split, or which line of the audit, caught each."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.artefact_leaks import ARTEFACT_LEAKS
from benchmarks.encoded_leaks import ENCODED_LEAKS
from benchmarks.figures import Figure, Report
from benchmarks.model_leaks import GLOBAL, MODEL_LEAKS, ModelLeak
from benchmarks.untrained import metadata_of
from ecd_deploy.data import ImageSet, Normalisation
from ecd_deploy.distill import ECDModel, TeacherOptions
from ecd_deploy.errors import SplitError
from ecd_deploy.exporters import ExportContext, ExportInput, OnnxExporter, Written, export_formats
from ecd_deploy.exporters.audit.audit import audit_artefact
from ecd_deploy.exporters.audit.sources import student_sources
from ecd_deploy.models import build_student
from ecd_deploy.recipe.export import ExportConfig
from ecd_deploy.split import SplitStudent, split_student
from ecd_deploy.split.checks.construction import Factory


def measure() -> Report:
    """Plant every leak in a fresh model or file, and split or audit it; first see that without one all is well."""
    images = _digits()
    clean = split_student(_joint(), images, factory=_student)
    rows = [*_model_rows(images, _onnx(clean)), *_artefact_rows(clean)]
    caught = sum(bool(row["caught_by"]) and bool(row.get("caught_without_factory_by", True)) for row in rows)
    return Report(
        benchmark="leaks",
        figures=(
            Figure(name="planted leaks", value=len(rows), better="higher", must=20, unit=""),
            Figure(name="share of them that is caught", value=caught / len(rows), better="higher", must=1.0, unit=""),
        ),
        setting={"student": "resnet8 on digits", "kernels": 2, "proof": clean.proof.method},
        raw={"leaks": rows},
    )


def _model_rows(images: Tensor, clean: bytes) -> list[dict[str, Any]]:
    rows = []
    for leak in (*MODEL_LEAKS, *ENCODED_LEAKS):
        caught = _caught(leak, images, clean, factory=_student)
        row = {"leak": leak.name, "where": "model", "caught_by": caught, "made_for_it": leak.caught_by}
        if leak in ENCODED_LEAKS and leak.caught_by != "construction":
            row["caught_without_factory_by"] = _caught(leak, images, clean, factory=None)
        rows.append(row)
    GLOBAL.clear()
    return rows


def _caught(leak: ModelLeak, images: Tensor, clean: bytes, factory: Factory | None) -> list[str]:
    """Names of the checks that refused; "construction" also if what was planted stayed behind, by the file's bytes."""
    joint = _joint()
    leak.plant(joint, images)
    try:
        student = split_student(joint, images, factory=factory)
    except SplitError as error:
        return list(dict.fromkeys(re.findall(r"^  (\w+): ", str(error), flags=re.MULTILINE)))
    return ["construction"] if factory is not None and _onnx(student) == clean else []


def _onnx(student: SplitStudent) -> bytes:
    return OnnxExporter().export(ExportInput(student, metadata_of("resnet8", 10, student.example_shape)))


def _artefact_rows(student: SplitStudent) -> list[dict[str, Any]]:
    metadata = metadata_of("resnet8", 10, student.example_shape, std=0.5)
    digits = load_digits()
    pixels = np.rint(digits.images * 15.9375).astype(np.uint8)[:, np.newaxis]
    labels = digits.target.astype(np.int64)
    train, validation = (ImageSet(pixels[part], labels[part]) for part in (slice(0, 64), slice(64, 192)))
    context = ExportContext(train, validation, Normalisation((0.5,), (0.5,)))
    sources = student_sources(student, metadata)
    secret = np.random.default_rng(0).standard_normal((16, 1, 3, 3)).astype(np.float32)
    formats = dict.fromkeys(leak.format for leak in ARTEFACT_LEAKS)
    exported = export_formats(formats, ExportConfig(), student, metadata, context)
    written: dict[str, Written] = {one.exporter.format: one for one in exported}
    rows = []
    for leak in ARTEFACT_LEAKS:
        exporter, data = written[leak.format].exporter, written[leak.format].data
        audit = audit_artefact(leak.plant(data, secret), exporter, student, sources, exporter.read_metadata(data))
        rows.append(
            {
                "leak": leak.name,
                "where": leak.format,
                "caught_by": ["audit"] if audit.findings else [],
                "made_for_it": "audit",
                "findings": audit.findings,
            }
        )
    return rows


def _joint() -> ECDModel:
    torch.manual_seed(0)
    model = ECDModel(_student(), TeacherOptions(kernels=2), example=_digits())
    with torch.no_grad():
        model.train()(_digits())
    return model


def _student() -> nn.Module:
    return build_student("resnet8", num_classes=10, in_channels=1)


def _digits() -> Tensor:
    return torch.tensor(load_digits().images[:4], dtype=torch.float32).div(8).sub(1).unsqueeze(1)
