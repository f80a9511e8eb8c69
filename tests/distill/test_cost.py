from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ecd_deploy.distill import ECDModel, PlainModel
from ecd_deploy.distill.cost import count_macs, measure_training_memory
from ecd_deploy.models import build_student

NAMES = ["resnet20", "timm:mobilenetv3_small_050", "torchvision:regnet_x_400mf", "timm:test_convnext"]


def counted_by_torch(network: nn.Module, image: Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.eval()(image)
    flops: int = counter.get_total_flops()
    return flops // 2


@pytest.mark.parametrize("name", NAMES)
def test_macs_are_those_that_torch_counts(name: str) -> None:
    image = torch.zeros(1, 3, 64, 64)
    model = ECDModel(build_student(name, num_classes=10), kernels=3, stages=(2,), example=image).train()
    student, teacher = count_macs(model.student, image), count_macs(model.teacher, image)
    assert model.student.training
    assert sum(student.values()) == counted_by_torch(model.student, image)
    # Torch does not count a bias; where a convolution has one, its dynamic counterpart mixes n of them.
    counted = counted_by_torch(model.teacher, image)
    assert counted <= sum(teacher.values()) <= counted * 1.01


def test_memory_of_a_network_whose_saved_tensors_are_known() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(4 * 6 * 5, 2))
    memory = measure_training_memory(PlainModel(network), torch.randn(3, 3, 8, 7))
    # The sigmoid keeps its output, which is also the linear layer's input; images and weights are held anyway.
    assert memory.saved_per_image == 4 * 6 * 5 * 4
    assert memory.saved == 0
    parameters = (4 * 27 + 4 + 2 * 120 + 2) * 4
    assert memory.parameters == parameters
    assert memory.total(10) == 3 * parameters + 10 * 480


def test_per_sample_kernels_are_kept_for_each_image() -> None:
    student = build_student("resnet8", num_classes=10)
    model = ECDModel(student, kernels=2, stages=(2,), example=torch.zeros(1, 3, 8, 8))
    memory = measure_training_memory(model, torch.randn(3, 3, 8, 8))
    weights = sum(conv.numel() for name, conv in student.named_parameters() if ".conv" in name)
    assert memory.kernels_per_image == 4 * weights
    assert memory.saved_per_image > memory.kernels_per_image
