from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ecd_deploy.data import ImageSet, Normalisation
from ecd_deploy.distill import ECDModel, TeacherOptions
from ecd_deploy.exporters import ArtefactMetadata, ExportContext, Exporter, ExportInput, Written, export_formats
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.record.environment import describe_environment
from ecd_deploy.recipe.export import ExportConfig, Int8Config
from ecd_deploy.split import SplitStudent, split_student
from tests.small import digit_images, one_thread

__all__ = ["one_thread"]

FORMATS = ("safetensors", "torchscript", "onnx", "onnx-static", "onnx-int8", "onnx-fp16", "ort", "pt2")


@dataclass(frozen=True)
class Exported:
    """One student in one format."""

    exporter: Exporter
    student: SplitStudent
    metadata: ArtefactMetadata
    data: bytes


def export_format(
    name: str,
    config: ExportConfig,
    student: SplitStudent,
    metadata: ArtefactMetadata,
    context: ExportContext | None = None,
) -> Written:
    """A student in one format."""
    return next(export_formats((name,), config, student, metadata, context))


def fresh_student() -> nn.Module:
    return build_student("resnet8", num_classes=10, in_channels=1)


def make_student() -> SplitStudent:
    """The same student in any process: seeded, its running statistics taken from real digits."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = digit_images(32)
    model = ECDModel(fresh_student(), TeacherOptions(kernels=2), example=images)
    with torch.no_grad():
        model.train()(images)
    return split_student(model, images[:4])


def make_context(normalisation: Normalisation | None = None) -> ExportContext:
    """Digits to calibrate on and to validate on; pixels of 0..255, normalised to about -1..1."""
    digits = load_digits()
    images = np.rint(digits.images * 15.9375).astype(np.uint8)[:, np.newaxis]
    labels = digits.target.astype(np.int64)
    train, validation = (ImageSet(images[part], labels[part]) for part in (slice(0, 64), slice(64, 192)))
    return ExportContext(train, validation, normalisation or Normalisation((0.5,), (0.5,)))


def make_metadata() -> ArtefactMetadata:
    return ArtefactMetadata(
        student="resnet8",
        classes=tuple("0123456789"),
        input_shape=(1, 8, 8),
        resize=9,
        mean=(0.5,),
        std=(0.5,),
        recipe_digest="a" * 64,
    )


@pytest.fixture(scope="session")
def student() -> SplitStudent:
    return make_student()


@pytest.fixture
def metadata() -> ArtefactMetadata:
    return make_metadata()


def make_config() -> ExportConfig:
    """For this machine: where it has no VNNI, products of 8-bit weights saturate."""
    flags = describe_environment().cpu_flags
    vnni = bool({"avx512_vnni", "avx_vnni"}.intersection(flags)) or "avx2" not in flags
    return ExportConfig(int8=Int8Config(vnni=vnni))


@pytest.fixture(scope="session")
def artefacts(student: SplitStudent) -> dict[str, Exported]:
    """Every format, written once: ONNX takes seconds."""
    described = make_metadata()
    return {
        written.exporter.format: Exported(written.exporter, student, described, written.data)
        for written in export_formats(FORMATS, make_config(), student, described, make_context())
    }


@pytest.fixture(scope="session")
def from_onnx(artefacts: dict[str, Exported]) -> ExportInput:
    """What the formats that are made from the fp32 ONNX file take."""
    exported = artefacts["onnx"]
    return ExportInput(exported.student, exported.metadata, make_context(), exported.data)


@pytest.fixture(params=FORMATS)
def exported(request: pytest.FixtureRequest, artefacts: dict[str, Exported]) -> Exported:
    return artefacts[request.param]
