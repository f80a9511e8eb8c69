from __future__ import annotations

import torch

from benchmarks.reference import ReferenceECD, reference_loss, reference_optimizer
from ecd_deploy.distill import ECDModel, TeacherOptions, training_loss
from ecd_deploy.models import build_student
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.steps.optimizer import build_optimizer


def copy_weights(source: ECDModel, target: ReferenceECD) -> None:
    """Give the reference the weights of an `ECDModel` over the same student."""
    renamed = {"reduce.": "router.2.", "expand.": "router.4."}

    def teacher_name(name: str) -> str:
        for old, new in renamed.items():
            name = name.replace(old, new)
        return name

    target.student.load_state_dict(source.student.state_dict())
    shapes = target.teacher.state_dict()
    target.teacher.load_state_dict(
        {
            teacher_name(name): tensor.reshape(shapes[teacher_name(name)].shape)
            for name, tensor in source.teacher.state_dict().items()
            if not name.endswith(".temperature")
        }
    )
    for key, transform in target.connections.items():
        transform.load_state_dict(source.connections.transforms[key.replace("_", "/")].state_dict())


def test_loss_and_updates_of_the_reference_are_ours() -> None:
    torch.manual_seed(0)
    ours = ECDModel(build_student("resnet20", num_classes=10), TeacherOptions(kernels=4)).train()
    reference = ReferenceECD(num_classes=10, kernels=4).train()
    copy_weights(ours, reference)
    optimizers = build_optimizer(ours, TrainConfig()), reference_optimizer(reference)
    images, labels = torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
    for _ in range(2):
        found, expected = training_loss(ours(images), labels), reference_loss(reference(images), labels)
        assert abs(found.item() - expected.item()) <= 1e-5 * abs(expected.item())
        for loss, optimizer in zip((found, expected), optimizers, strict=True):
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            for group in optimizer.param_groups:
                group["lr"] = 1e-3
            optimizer.step()
