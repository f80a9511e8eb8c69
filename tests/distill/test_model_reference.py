"""The merged model against a network that is written out by hand."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ecd_deploy.distill import ECDModel, TeacherOptions, TrainingOutputs, training_loss
from ecd_deploy.models import build_student

Kind = Literal["direct", "conv1x1", "conv1x1_bn"]
TEMPERATURE = 0.25


class Reference:
    """ResNet-8 and its teacher written out from their tensors, in training mode."""

    def __init__(self, model: ECDModel, connection: Kind, stages: tuple[int, ...]) -> None:
        self.student: dict[str, Tensor] = dict(model.student.named_parameters())
        self.teacher: dict[str, Tensor] = dict(model.teacher.named_parameters())
        self.transforms: dict[str, Tensor] = dict(model.connections.named_parameters())
        self.connection, self.stages = connection, stages

    def forward(self, batch: Tensor) -> TrainingOutputs:
        student_features: dict[str, Tensor] = {}
        student = self.network(self.student, batch, {}, student_features, dynamic=False)
        return TrainingOutputs(student, self.network(self.teacher, batch, student_features, {}, dynamic=True))

    def network(
        self, weights: dict[str, Tensor], x: Tensor, given: dict[str, Tensor], kept: dict[str, Tensor], dynamic: bool
    ) -> Tensor:
        x = self.norm(weights, "bn1", F.conv2d(x, weights["conv1.weight"], padding=1)).relu()
        for stage, stride in ((1, 1), (2, 2), (3, 2)):
            block = f"layer{stage}.0"
            y = self.convolve(weights, f"{block}.conv1", x, stride, dynamic)
            y = self.connect(f"{block}.conv1", stage + 1, y, given, kept)
            y = self.norm(weights, f"{block}.bn1", y).relu()
            y = self.convolve(weights, f"{block}.conv2", y, 1, dynamic)
            y = self.connect(f"{block}.conv2", stage + 1, y, given, kept)
            y = self.norm(weights, f"{block}.bn2", y)
            if stage > 1:
                x = F.conv2d(x, weights[f"{block}.shortcut.0.weight"], stride=2)
                x = self.norm(weights, f"{block}.shortcut.1", x)
            x = self.connect(block, stage + 1, (x + y).relu(), given, kept)
        return x.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]

    def connect(self, name: str, stage: int, x: Tensor, given: dict[str, Tensor], kept: dict[str, Tensor]) -> Tensor:
        kept[name] = x
        if stage not in self.stages or name not in given:
            return x
        key = f"transforms.{name.replace('.', '/')}"
        if self.connection == "direct":
            return x + given[name]
        if self.connection == "conv1x1":
            return x + torch.einsum("oc,nchw->nohw", self.transforms[f"{key}.weight"].flatten(1), given[name])
        mixed = torch.einsum("oc,nchw->nohw", self.transforms[f"{key}.0.weight"].flatten(1), given[name])
        return x + self.norm(self.transforms, f"{key}.1", mixed)

    def convolve(self, weights: dict[str, Tensor], name: str, x: Tensor, stride: int, dynamic: bool) -> Tensor:
        if not dynamic:
            return F.conv2d(x, weights[f"{name}.weight"], stride=stride, padding=1)
        hidden = (x.mean((2, 3)) @ weights[f"{name}.reduce.weight"].T + weights[f"{name}.reduce.bias"]).relu()
        scores = hidden @ weights[f"{name}.expand.weight"].T + weights[f"{name}.expand.bias"]
        mixing = (scores / TEMPERATURE).softmax(1)
        kernels = torch.einsum("bn,nocij->bocij", mixing, weights[f"{name}.weight"])
        outputs = [
            F.conv2d(sample[None], kernel, stride=stride, padding=1) for sample, kernel in zip(x, kernels, strict=True)
        ]
        return torch.cat(outputs)

    @staticmethod
    def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = x.var((0, 2, 3), correction=0, keepdim=True)
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return (x - mean) / (variance + 1e-5).sqrt() * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


@pytest.mark.parametrize("stages", [(2, 3), (4,), (2, 3, 4)])
@pytest.mark.parametrize("connection", ["direct", "conv1x1", "conv1x1_bn"])
def test_logits_and_gradients_are_those_of_a_network_written_out_by_hand(
    connection: Kind, stages: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    student = build_student("resnet8", num_classes=5).double()
    model = ECDModel(
        student, TeacherOptions(kernels=3, temperature=TEMPERATURE), connection=connection, stages=stages
    ).train()
    batch, labels = torch.randn(4, 3, 12, 12, dtype=torch.float64), torch.tensor([0, 4, 2, 2])
    expected = Reference(model, connection, stages).forward(batch)
    found = model(batch)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(training_loss(found, labels), parameters)
    references = torch.autograd.grad(training_loss(expected, labels), parameters)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-6, atol=1e-8)
