"""Splits, exports and audits students of many families that have no leak: none may be refused.

Weights are drawn, and running statistics taken from a batch of noise; nothing is trained. The table is written after
each student, and a student that it holds is not treated again for the same proof, versions and formats: an interrupted
`make false-alarms` continues where it was. Delete the file to start over.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.families import package_versions
from benchmarks.figures import Figure, Report, rows_so_far, write
from benchmarks.untrained import metadata_of
from ecd_deploy.distill import ECDModel, PlainModel, TeacherOptions
from ecd_deploy.errors import EcdDeployError, ExportError, SplitError, StudentError
from ecd_deploy.exporters import ExportInput, exporter_for
from ecd_deploy.exporters.audit.audit import audit_artefact
from ecd_deploy.exporters.audit.sources import student_sources
from ecd_deploy.models import build_student, student_names
from ecd_deploy.recipe.export import ExportConfig
from ecd_deploy.split import SplitProof, split_student

NAME = "false_alarms"
CLASSES = 10
KERNELS = 2
FORMATS = ("safetensors", "torchscript", "onnx", "onnx-fp16", "ort", "pt2")
TORCHVISION = (
    "resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0",
    "regnet_y_400mf", "mnasnet0_5", "densenet121", "vgg11_bn", "convnext_tiny", "swin_t",
)  # fmt: skip
TIMM = (
    "resnet10t", "mobilenetv3_small_050", "efficientnet_lite0", "ghostnet_100", "regnetx_002", "repvgg_a0", "tinynet_e",
    "fbnetc_100", "dla46_c", "hardcorenas_a", "lcnet_050", "convnext_atto", "edgenext_xx_small", "mobilevit_xxs",
    "starnet_s1", "rexnet_100", "semnasnet_075",
)  # fmt: skip
_SIDES = {"swin_t": 224}


def measure() -> Report:
    """Treat every student; a refusal is counted as a false alarm, a student that the method cannot take is not."""
    students = _students()
    rows = rows_so_far(NAME, _setting())
    for name in students:
        if name in rows:
            continue
        rows[name] = check(name, students[name])
        print(f"{name}: {rows[name]['outcome']} ({rows[name]['seconds']} s)", file=sys.stderr)
        write(_report([rows[name] for name in students if name in rows]))
    return _report([rows[name] for name in students])


def _report(rows: list[dict[str, Any]]) -> Report:
    outcomes = Counter(row["outcome"] for row in rows)
    return Report(
        benchmark=NAME,
        figures=(
            Figure(name="students tried", value=len(rows), better="higher", unit=""),
            Figure(
                name="students without a leak that were refused",
                value=outcomes["false alarm"],
                better="lower",
                must=0,
                unit="",
            ),
            Figure(name="students that crashed a step", value=outcomes["crashed"], better="lower", must=0, unit=""),
            Figure(
                name="students split, exported and audited",
                value=outcomes["passed"],
                better="higher",
                must=30,
                unit="",
            ),
        ),
        setting=_setting(),
        raw={"rows": rows},
    )


def _setting() -> dict[str, Any]:
    proof = SplitProof.model_fields["schema_version"].default
    return {
        **package_versions(),
        "formats": list(FORMATS),
        "classes": CLASSES,
        "kernels": KERNELS,
        "proof": f"by construction, version {proof}",
    }


def check(name: str, size: int) -> dict[str, Any]:
    """Split, export and audit one student; say where it ended and how long that took."""
    torch.manual_seed(0)
    started = time.perf_counter()
    row: dict[str, Any] = {"student": name, "outcome": "passed", "because": None, "audits": {}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            student = build_student(name, num_classes=CLASSES)
            _treat(row, name, student, torch.randn(4, 3, size, size))
    except SplitError as error:
        row |= {"outcome": "false alarm", "because": str(error)[:500]}
    except EcdDeployError as error:
        row |= {"outcome": "not expressible", "because": str(error)[:300]}
    except Exception as error:  # noqa: BLE001 - one row of many; it is counted, and must not end the others
        row |= {"outcome": "crashed", "because": f"{type(error).__name__}: {str(error)[:300]}"}
    return {**row, "seconds": round(time.perf_counter() - started, 1)}


def _treat(row: dict[str, Any], name: str, student: nn.Module, images: torch.Tensor) -> None:
    try:
        model: ECDModel | PlainModel = ECDModel(student, TeacherOptions(kernels=KERNELS), example=images)
    except StudentError as error:
        model, row["alone"] = PlainModel(student), str(error)[:200]
    with torch.no_grad():
        model.train()(images)
    split = split_student(model, images[:2], factory=partial(build_student, name, num_classes=CLASSES))
    row["graph_not_done_reason"] = split.proof.checks.graph.not_done_reason
    metadata = metadata_of(name, CLASSES, split.example_shape)
    sources = student_sources(split, metadata)
    written: dict[str | None, bytes] = {}
    for format_name in FORMATS:
        exporter = exporter_for(format_name, ExportConfig())
        try:
            data = exporter.export(ExportInput(split, metadata, source=written.get(exporter.derived_from)))
        except ExportError as error:
            row["audits"][format_name] = f"not exported: {str(error)[:200]}"
            continue
        written[format_name] = data
        audit = audit_artefact(data, exporter, split, sources, exporter.read_metadata(data))
        row["audits"][format_name] = dict(Counter(str(tensor.origin) for tensor in audit.tensors))
        if not audit.passed:
            row |= {"outcome": "false alarm", "because": f"{format_name}: {'; '.join(audit.findings)[:500]}"}


def _students() -> dict[str, int]:
    """Names of the students, with the side of their images in pixels."""
    return (
        dict.fromkeys(student_names(), 32)
        | {f"torchvision:{name}": _SIDES.get(name, 64) for name in TORCHVISION}
        | {f"timm:{name}": 64 for name in TIMM}
    )
