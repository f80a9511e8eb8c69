"""One student of each convolutional family of torchvision and timm, taken through the whole way with fresh weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

from benchmarks.untrained import metadata_of
from ecd_deploy.distill import ECDModel, TeacherOptions, TrainingOutputs, find_structure, training_loss
from ecd_deploy.exporters import ExportInput, OnnxExporter
from ecd_deploy.measure.scores.parity import compare_logits
from ecd_deploy.models import build_student
from ecd_deploy.split import split_student

CLASSES = 4
SIDE = 64
IMAGES = 2
TOLERANCE = 1e-4
"""Largest difference of a logit between onnxruntime and PyTorch, as a share of the largest logit."""

_TORCHVISION = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 "
    "mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 "
    "squeezenet1_1 vgg11_bn wide_resnet50_2"
)
# By module of timm, the smallest model that takes small images; attention is in some, convolutions in all.
_TIMM = (
    "test_byobnet test_convnext cs3darknet_s cspnext_tiny dla46_c dpn48b edgenext_xx_small efficientformerv2_s0 "
    "mnasnet_small tf_efficientnet_b0 efficientvit_b0 fasternet_t0 fastvit_t8 ghostnet_050 hardcorenas_a hgnetv2_b0 "
    "hrnet_w18_small inception_next_atto lcnetv2_small lowformer_b0 test_mambaout test_coatnet poolformer_s12 "
    "lcnet_035 mobilenetv3_small_050 tf_mobilenetv3_small_minimal_100 mobilevit_xxs test_nfnet nf_regnet_b0 "
    "regnetx_002 regnety_002 repghostnet_050 repvit_m1 res2next50 resnest14d test_resnet resnetv2_18d "
    "resnetv2_50x1_bit rexnet_100 selecsls42 legacy_seresnet18 shvit_s1 skresnet18 starnet_s1 swiftformer_xs tresnet_m "
    "visformer_tiny ese_vovnet19b_slim_dw legacy_xception xception41 densenet121 vgg11 focalnet_tiny_srf "
    "convmixer_768_32 inception_v3"
)
_SIDES = {
    "torchvision:inception_v3": 96,
    "torchvision:maxvit_t": 224,
    "timm:inception_v3": 96,
    "timm:efficientformerv2_s0": 224,
    "timm:test_coatnet": 160,
    "timm:visformer_tiny": 224,
}
FAMILIES = (*(f"timm:{name}" for name in _TIMM.split()), *(f"torchvision:{name}" for name in _TORCHVISION.split()))


def package_versions() -> dict[str, str]:
    """Versions of the packages on which the outcome of a family depends."""
    return {package: version(package) for package in ("torch", "torchvision", "timm", "onnxruntime")}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How far a family came.

    Attributes:
        student: its name, as in a recipe.
        side: of the images, in pixels.
        passed: the steps that succeeded, in order.
        reason: why the next step failed; empty if none did.
        stages: blocks of each stage that was found.
        replaced: convolutions of the teacher that are dynamic.
        connected: sites in the first stage.
        relative_difference: of the ONNX logits, as a share of the largest.
        seconds: of the whole way.
    """

    student: str
    side: int
    passed: tuple[str, ...]
    reason: str
    stages: tuple[int, ...]
    replaced: int
    connected: int
    relative_difference: float | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every step succeeded."""
        return not self.reason


class _Way:
    """The steps, each with what the next ones need."""

    def __init__(self, student: str, side: int, *, onnx: bool) -> None:
        self.name, self.onnx = student, onnx
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(IMAGES, 3, side, side, generator=generator)
        self.stages: tuple[int, ...] = ()
        self.replaced = self.connected = 0
        self.outputs: TrainingOutputs
        self.difference: float | None = None

    def steps(self) -> tuple[Callable[[], None], ...]:
        exports = (self.export, self.parity) if self.onnx else ()
        return (self.build, self.merge, self.forward, self.backward, self.split, *exports)

    def build(self) -> None:
        torch.manual_seed(0)
        self.student = self.fresh()

    def fresh(self) -> nn.Module:
        return build_student(self.name, num_classes=CLASSES)

    def merge(self) -> None:
        structure = find_structure(self.student, self.images)
        self.stages = tuple(len(stage.blocks) for stage in structure.stages)
        first = structure.stages[0].number
        self.model = ECDModel(self.student, TeacherOptions(kernels=2), stages=(first,), example=self.images).train()
        self.replaced = len(self.model.report.replaced)
        self.connected = len(self.model.connections.sites)

    def forward(self) -> None:
        self.outputs = self.model(self.images)
        heads = self.outputs.heads().values()
        if any(logits.shape != (IMAGES, CLASSES) or not logits.isfinite().all() for logits in heads):
            raise ValueError(f"logits of shapes {[tuple(logits.shape) for logits in heads]}, or not finite")

    def backward(self) -> None:
        torch.autograd.backward(training_loss(self.outputs, torch.tensor([0, CLASSES - 1])))
        called = self.model.report.structure.called
        for name, parameter in self.model.named_parameters():
            module = name.partition(".")[2].rpartition(".")[0]
            if parameter.grad is None and module in called:
                raise ValueError(f"no gradient reaches {name}")
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise ValueError(f"the gradient of {name} is not finite")

    def split(self) -> None:
        self.separate = split_student(self.model, self.images, factory=self.fresh)

    def export(self) -> None:
        metadata = metadata_of(self.name, CLASSES, self.separate.example_shape)
        exporter = OnnxExporter()
        self.predict = exporter.open(exporter.export(ExportInput(self.separate, metadata)), lambda: self.student)

    def parity(self) -> None:
        with torch.inference_mode():
            expected = self.separate.module(self.images).numpy()
        found = compare_logits(expected, self.predict(self.images.numpy().astype(np.float32)))
        self.difference = found.relative_diff
        if self.difference is None or self.difference > TOLERANCE:
            raise ValueError(found.problem() or f"logits differ by {self.difference:.2g} of the largest")


def check_family(student: str, *, onnx: bool = True) -> Outcome:
    """Take one student through build, teacher and connections, training step, split and (unless not asked) ONNX."""
    started = time.perf_counter()
    side = _SIDES.get(student, SIDE)
    way = _Way(student, side, onnx=onnx)
    passed: list[str] = []
    reason = ""
    for step in way.steps():
        try:
            step()
        except Exception as error:  # noqa: BLE001 (whatever a family breaks on is its outcome)
            first_line = (str(error).strip() or "no message").splitlines()[0]
            reason = f"{step.__name__}: {type(error).__name__}: {first_line[:300]}"
            break
        passed.append(step.__name__)
    return Outcome(
        student=student,
        side=side,
        passed=tuple(passed),
        reason=reason,
        stages=way.stages,
        replaced=way.replaced,
        connected=way.connected,
        relative_difference=way.difference,
        seconds=round(time.perf_counter() - started, 1),
    )
