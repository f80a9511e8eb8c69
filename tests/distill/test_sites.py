from __future__ import annotations

import pytest
import torch

from ecd_deploy.distill import ECDModel, TeacherOptions, training_loss
from ecd_deploy.errors import StudentError
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.training.methods import build_training_model


def model(*patterns: str) -> ECDModel:
    torch.manual_seed(0)
    student = build_student("resnet20", num_classes=4)
    return ECDModel(student, TeacherOptions(kernels=2), sites=patterns, example=torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("layer3.*",), ["layer3.0", "layer3.1", "layer3.2"]),
        (("layer1.*.conv2", "layer2.0"), ["layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2", "layer2.0"]),
        (("layer2", "layer2"), ["layer2"]),
        (("**shortcut",), [f"layer{stage}.{block}.shortcut" for stage in (1, 2, 3) for block in (0, 1, 2)]),
        (("bn1",), ["bn1"]),
    ],
)
def test_patterns_name_modules_in_the_order_of_their_calls(patterns: tuple[str, ...], names: list[str]) -> None:
    assert [site.name for site in model(*patterns).connections.sites] == names


def test_sites_know_their_place_and_stage() -> None:
    sites = model("layer2.0", "layer2.0.conv1", "layer2.0.bn1", "bn1").connections.sites
    assert [(site.name, site.place, site.stage, site.channels) for site in sites] == [
        ("bn1", "module", 0, 16),
        ("layer2.0.conv1", "convolution", 3, 32),
        ("layer2.0.bn1", "module", 3, 32),
        ("layer2.0", "block", 3, 32),
    ]


def test_named_sites_are_connected_and_no_others() -> None:
    trained = model("bn1", "layer3.2").train()
    outputs = trained(torch.randn(2, 3, 16, 16))
    torch.autograd.backward(outputs.teacher.sum())
    assert len(trained.connections.transforms) == 2
    reached = {name.split(".")[0] for name, weight in trained.student.named_parameters() if weight.grad is not None}
    assert reached == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    assert trained.student.get_submodule("fc").get_parameter("weight").grad is None
    torch.autograd.backward(training_loss(trained(torch.randn(2, 3, 16, 16)), torch.tensor([0, 1])))
    assert all(weight.grad is not None for weight in trained.parameters())


def test_every_pattern_that_matches_nothing_is_listed() -> None:
    with pytest.raises(StudentError) as caught:
        model("layer1.0", "layr2.0", "fc", "nothing.*")
    message = str(caught.value)
    assert message.startswith("method.sites: 'layr2.0' matches no module that can be connected (did you mean 'layer2.0")
    assert "'fc' matches no module that can be connected: fc gives no tensor (N, C, H, W)" in message
    assert "'nothing.*'" in message
    assert "'layer1.0'" not in message
    assert "the student's blocks are layer1.0, layer1.1" in message


def test_recipe_names_sites() -> None:
    config = MethodConfig(kernels=2, sites=("layer3.*",))
    built = build_training_model(config, build_student("resnet8", num_classes=4), example=torch.zeros(1, 3, 16, 16))
    assert isinstance(built, ECDModel)
    assert [site.name for site in built.connections.sites] == ["layer3.0"]
