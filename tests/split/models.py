from __future__ import annotations

import torch
from torch import Tensor

from ecd_deploy.distill import ECDModel, TeacherOptions
from ecd_deploy.models import build_student


def make_joint(images: Tensor) -> ECDModel:
    """A joint model whose running statistics have seen a batch, left in train mode."""
    torch.manual_seed(0)
    student = build_student("resnet8", num_classes=10, in_channels=1)
    model = ECDModel(student, TeacherOptions(kernels=2), example=images)
    with torch.no_grad():
        model.train()(images)
    return model
