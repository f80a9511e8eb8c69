from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ecd_deploy.distill import ECDModel, PlainModel, TeacherOptions, training_loss
from ecd_deploy.errors import StudentError, UsageError
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.training.methods import build_training_model

Kind = Literal["direct", "conv1x1", "conv1x1_bn"]
KINDS: tuple[Kind, ...] = ("direct", "conv1x1", "conv1x1_bn")


def tiny(connection: Kind = "conv1x1", stages: tuple[int, ...] = (2, 3)) -> ECDModel:
    torch.manual_seed(0)
    student = build_student("resnet8", num_classes=5).double()
    return ECDModel(student, TeacherOptions(kernels=3, temperature=0.25), connection=connection, stages=stages)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("connection", KINDS)
def test_teachers_loss_reaches_the_student_up_to_the_last_connected_stage(connection: Kind) -> None:
    model = tiny(connection)
    torch.autograd.backward(model(images()).teacher.sum())
    reached = {name for name, weight in model.student.named_parameters() if weight.grad is not None}
    expected = {name for name, _ in model.student.named_parameters() if not name.startswith(("layer3", "fc"))}
    assert reached == expected
    assert all(weight.grad is not None for weight in model.teacher.parameters())
    assert all(weight.grad is not None for weight in model.connections.parameters())


def test_students_logits_depend_on_nothing_of_the_teacher() -> None:
    model = tiny().eval()
    before = model(images())
    with torch.no_grad():
        for part in model.auxiliary().values():
            for parameter in part.parameters():
                parameter.fill_(float("nan"))
    after = model(images())
    assert torch.equal(before.student, after.student)
    assert torch.isfinite(before.teacher).all()
    assert torch.isnan(after.teacher).all()
    model.zero_grad()
    torch.autograd.backward(after.student.sum())
    assert all(weight.grad is None for part in model.auxiliary().values() for weight in part.parameters())


def test_sites_of_resnet20() -> None:
    model = ECDModel(build_student("resnet20", num_classes=10), TeacherOptions(kernels=2))
    places = [site.place for site in model.connections.sites]
    assert (places.count("convolution"), places.count("block")) == (12, 6)
    assert {(site.stage, site.channels) for site in model.connections.sites} == {(2, 16), (3, 32)}
    assert [site.name for site in model.connections.sites][:3] == ["layer1.0.conv1", "layer1.0.conv2", "layer1.0"]
    weights = dict(model.connections.named_parameters())
    assert weights["transforms.layer2/1/conv2.weight"].shape == (32, 32, 1, 1)
    assert len(weights) == 18


@pytest.mark.parametrize(("connection", "parameters"), [("direct", 0), ("conv1x1", 256), ("conv1x1_bn", 288)])
def test_parameters_of_one_connection(connection: Kind, parameters: int) -> None:
    model = ECDModel(
        build_student("resnet8", num_classes=10), TeacherOptions(kernels=2), connection=connection, stages=(2,)
    )
    assert sum(weight.numel() for weight in model.connections.parameters()) == 3 * parameters


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_no_hook_is_left_after_a_forward_or_an_exception() -> None:
    model = tiny()
    model(images())
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="expected input"):
        model(torch.zeros(2, 4, 12, 12, dtype=torch.float64))
    assert hooks(model) == 0
    model.teacher.get_submodule("layer3.0").register_forward_pre_hook(lambda _m, _i: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(images())
    assert hooks(model) == 1  # ours of this test
    assert hooks(model.student) == 0


def test_student_trains_its_batch_norm_as_it_does_alone() -> None:
    model = tiny().train()
    alone = copy.deepcopy(model.student)
    logits = model(images()).student
    assert torch.equal(alone(images()), logits)
    assert all(torch.equal(buffer, model.student.get_buffer(name)) for name, buffer in alone.named_buffers())


def test_student_is_the_given_object_and_stays_as_it_was() -> None:
    student = build_student("resnet8", num_classes=10)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    model = ECDModel(student, TeacherOptions(kernels=2))
    assert model.student is student
    assert {name.split(".")[0] for name in model.state_dict()} == {"student", "teacher", "connections"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_batch_of_one() -> None:
    outputs = tiny().eval()(images(1))
    assert outputs.student.shape == outputs.teacher.shape == (1, 5)


@pytest.mark.parametrize("connection", KINDS)
def test_autocast(connection: Kind) -> None:
    model = tiny(connection).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images().float())
        loss = training_loss(outputs, torch.tensor([0, 1, 2, 3]))
    torch.autograd.backward(loss)
    assert {logits.dtype for logits in outputs.heads().values()} == {torch.bfloat16}
    assert torch.isfinite(loss)
    assert all(weight.grad is not None for weight in model.parameters())


class Overwriting(nn.Module):
    """Its activation overwrites the convolution's output, in training mode only if so asked."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.always = always

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.conv1(features)
        hidden = F.relu(hidden, inplace=self.always or self.training)
        output: Tensor = self.conv2(hidden)
        return output


def small(block: nn.Module) -> nn.Module:
    stem = nn.Conv2d(3, 4, 3, padding=1)
    return nn.Sequential(stem, block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_a_feature_that_the_student_overwrites_is_connected_as_it_was() -> None:
    torch.manual_seed(0)
    model = ECDModel(small(Overwriting(always=True)), TeacherOptions(kernels=2), connection="direct", stages=(2,))
    clean = copy.deepcopy(model)
    for network in (clean.student, clean.teacher):
        block = network.get_submodule("1")
        assert isinstance(block, Overwriting)
        block.always = False
    batch = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model.train()(batch).teacher, clean.eval()(batch).teacher)
    torch.autograd.backward(training_loss(model(batch), torch.tensor([0, 1])))
    assert model.student.get_submodule("1.conv1").get_parameter("weight").grad is not None


def test_overwriting_that_the_probe_could_not_see_is_an_error() -> None:
    model = ECDModel(small(Overwriting(always=False)), TeacherOptions(kernels=2), stages=(2,)).train()
    with pytest.raises(StudentError, match=r"output of '1.conv1' in place in training mode only"):
        model(torch.randn(2, 3, 8, 8))


class Repeating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.calls = 3

    def forward(self, features: Tensor) -> Tensor:
        for _ in range(self.calls):
            features = torch.tanh(self.mix(self.conv(features)))
        return features


def repeating() -> tuple[ECDModel, Repeating, Repeating]:
    torch.manual_seed(0)
    model = ECDModel(small(Repeating()), TeacherOptions(kernels=2), connection="direct", stages=(2,))
    student, teacher = (network.get_submodule("1") for network in (model.student, model.teacher))
    assert isinstance(student, Repeating)
    assert isinstance(teacher, Repeating)
    return model, student, teacher


def test_a_module_called_several_times_gives_its_features_in_order() -> None:
    model, student, teacher = repeating()
    batch = torch.randn(2, 3, 8, 8)
    features, queue = model.student.get_submodule("0")(batch), []
    for _ in range(3):
        queue.append(student.conv(features))
        features = torch.tanh(student.mix(queue[-1]))
    expected = model.teacher.get_submodule("0")(batch)
    for given in queue:
        expected = torch.tanh(teacher.mix(teacher.conv(expected) + given))
    expected = expected + features
    for index in ("2", "3", "4"):
        expected = model.teacher.get_submodule(index)(expected)
    torch.testing.assert_close(model(batch).teacher, expected)


@pytest.mark.parametrize(("calls", "message"), [(4, "'1.conv' more often"), (2, "calls 1.conv less often")])
def test_a_teacher_that_goes_another_way_is_an_error(calls: int, message: str) -> None:
    model, _, teacher = repeating()
    teacher.calls = calls
    with pytest.raises(StudentError, match=message):
        model(torch.randn(2, 3, 8, 8))
    assert hooks(model) == 0


def test_stage_that_does_not_exist() -> None:
    with pytest.raises(StudentError, match=r"no stage 5; .* 2 \(32x32\), 3 \(16x16\), 4 \(8x8\)"):
        ECDModel(build_student("resnet8", num_classes=10), TeacherOptions(kernels=2), stages=(2, 5))


def test_unknown_connection() -> None:
    with pytest.raises(UsageError, match="no connection 'dense'; choices are direct, conv1x1, conv1x1_bn"):
        ECDModel(build_student("resnet8", num_classes=10), TeacherOptions(kernels=2), connection="dense")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "torchvision:squeezenet1_1"])
def test_any_student_trains(name: str) -> None:
    model = ECDModel(build_student(name, num_classes=4), TeacherOptions(kernels=2), stages=(2, 3))
    outputs = model(torch.randn(2, 3, 64, 64))
    torch.autograd.backward(training_loss(outputs, torch.tensor([0, 3])))
    assert all(weight.grad is not None for weight in model.parameters())


def test_plain_model_is_the_student_alone() -> None:
    student = build_student("resnet8", num_classes=10).eval()
    model = PlainModel(student)
    batch = torch.randn(2, 3, 16, 16)
    outputs = model(batch)
    assert torch.equal(outputs.student, student(batch))
    assert list(outputs.heads()) == ["student"]
    assert not model.auxiliary()


def test_recipe_decides_the_model() -> None:
    student = build_student("resnet8", num_classes=10, in_channels=1)
    assert isinstance(build_training_model(MethodConfig(name="plain"), student), PlainModel)
    by_default = build_training_model(MethodConfig(), student)
    assert isinstance(by_default, ECDModel)
    assert by_default.report.options == TeacherOptions()
    config = MethodConfig(kernels=3, reduction=2, temperature=5.0, connection="direct", stages=(4,), backend="chunked")
    model = build_training_model(config, student, example=torch.zeros(1, 1, 8, 8))
    assert isinstance(model, ECDModel)
    assert model.report.options == TeacherOptions(kernels=3, reduction=2, temperature=5.0, backend="chunked")
    assert model.report.structure.image_shape == (1, 8, 8)
    assert model.connections.kind == "direct"
    assert {site.stage for site in model.connections.sites} == {4}
    layer = model.teacher.get_submodule("layer3.0.conv1")
    assert "backend='chunked'" in repr(layer)
    assert float(layer.get_buffer("temperature")) == 5.0
