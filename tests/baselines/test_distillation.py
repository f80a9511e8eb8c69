"""A student with a frozen teacher: what is trained, what is not, and what the student is afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet

from ecd_deploy.baselines.distillation import DistilledModel, TrainedTeacher
from ecd_deploy.baselines.knowledge import KnowledgeReader
from ecd_deploy.distill import PlainModel, TrainingModel, build_objective
from ecd_deploy.errors import SplitError, StudentError, UsageError
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.split import split_student
from ecd_deploy.training.methods import build_training_model

ALL = ("kd", "fitnet", "at", "fsp", "sp", "vid", "pkt", "ft", "nst", "rkd", "cc", "crd")
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
IMAGES = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def make(name: str = "distil", losses: tuple[str, ...] = ALL, **fields: object) -> DistilledModel:
    config = method(name, losses, **fields)
    torch.manual_seed(5)
    trained = TrainedTeacher(build_student("resnet8", num_classes=5, in_channels=1), LABELS)
    torch.manual_seed(0)
    student = build_student("resnet8", num_classes=5, in_channels=1)
    model = build_training_model(config, student, example=IMAGES, trained=trained)
    assert isinstance(model, DistilledModel)
    return model.train()


def method(name: str, losses: tuple[str, ...], **fields: object) -> MethodConfig:
    pretrained = {"run": "somewhere", "losses": losses, "negatives": 4, **fields}
    return MethodConfig.model_validate({"name": name, "kernels": 2, "pretrained": pretrained})


@pytest.mark.needs("torchdistill")
def test_a_step_trains_all_but_the_teacher_which_stays_as_it_was() -> None:
    model = make()
    before = copy.deepcopy(model.pretrained.state_dict())
    outputs = model(IMAGES, torch.arange(8))
    terms = build_objective(method("distil", ALL))(outputs, LABELS)
    assert [term.name for term in terms.terms] == ["student", "pretrained"]
    torch.autograd.backward(terms.total)
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle
    assert all(name.startswith("pretrained.") for name in idle)
    assert not any(parameter.requires_grad for parameter in model.pretrained.parameters())
    assert not any(module.training for module in model.pretrained.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.pretrained.state_dict().items())
    assert len({id(tensor) for tensor in model.parameters()}) == len(list(model.named_parameters()))


def test_factors_are_table_11_s_or_the_given_ones() -> None:
    found = dict(method("distil", ALL).pretrained.weighted_losses)  # type: ignore[union-attr]
    expected = (0.1, 0.1, 1000.0, 1.0, 3000.0, 1.0, 1000.0, 200.0, 10.0, 1.0, 100.0, 0.8)
    assert found == dict(zip(ALL, expected, strict=True))
    one, other = (make(losses=("sp", "kd"), factors=factors) for factors in ((1.0, 2.0), (1.0, 5.0)))
    alone = make(losses=("kd",), factors=(3.0,))
    values = [model(IMAGES, torch.arange(8)).transfer.item() for model in (one, other, alone)]
    assert values[1] - values[0] == pytest.approx(values[2], rel=1e-4)


@pytest.mark.needs("torchdistill")
@pytest.mark.parametrize("name", ["ecd", "joint"])
def test_what_comes_beside_it_is_computed_as_without(name: str) -> None:
    model = make(name, ("crd", "kd"))
    torch.manual_seed(0)
    student = build_student("resnet8", num_classes=5, in_channels=1)
    config = MethodConfig.model_validate({"name": name, "kernels": 2})
    plain = build_training_model(config, student, example=IMAGES).train()
    expected, found = plain(IMAGES), model(IMAGES, torch.arange(8))
    assert found.transfer is not None
    torch.testing.assert_close(found._replace(transfer=None), expected, rtol=0, atol=0)
    torch.testing.assert_close(model.eval()(IMAGES), plain.eval()(IMAGES), rtol=0, atol=0)


@pytest.mark.needs("torchdistill")
def test_in_evaluation_a_student_without_another_teacher_has_this_one() -> None:
    model = make().eval()
    outputs = model(IMAGES)
    torch.testing.assert_close(outputs.student, model.student(IMAGES))
    torch.testing.assert_close(outputs.teacher, model.pretrained.network(IMAGES))
    assert outputs.transfer is None


@pytest.mark.needs("torchdistill")
@pytest.mark.parametrize(
    ("name", "losses"), [("distil", ("crd", "vid")), pytest.param("ecd", ALL, marks=pytest.mark.slow)]
)
def test_the_student_alone_is_split_off(name: str, losses: tuple[str, ...]) -> None:
    model = make(name, losses)
    model(IMAGES, torch.arange(8)).transfer.backward()
    split = split_student(model, IMAGES)
    assert set(split.proof.auxiliary) >= {"pretrained", "transfers"}
    assert split.module.state_dict().keys() == model.student.state_dict().keys()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class _Leaky(nn.Module):
    """A student that looks at the frozen teacher."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student = student
        self._teacher = (teacher,)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.student(images) + 0.1 * self._teacher[0](images)
        return logits


@pytest.mark.slow
def test_a_student_that_needs_the_frozen_teacher_is_refused() -> None:
    trained = TrainedTeacher(build_student("resnet8", num_classes=5, in_channels=1), LABELS)
    student = _Leaky(build_student("resnet8", num_classes=5, in_channels=1), trained.network)
    config = method("distil", ("kd",)).pretrained
    assert config is not None
    model: TrainingModel = DistilledModel(PlainModel(student), trained, config, IMAGES)
    with pytest.raises(SplitError, match="pretrained"):
        split_student(model, IMAGES)


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-1", "torchvision:mobilenet_v3_small", "torchvision:squeezenet1_1"])
def test_knowledge_is_what_stages_and_classifier_see(name: str) -> None:
    torch.manual_seed(0)
    network = build_student(name, num_classes=7).eval()
    images = torch.randn(2, 3, 64, 64)
    reader = KnowledgeReader(network, images)
    with torch.no_grad(), reader.reading(network) as found:
        logits = network(images)
    assert len(found.stages) == len(found.inputs) > 1
    assert found.stages[0].shape[2] > found.stages[-1].shape[2]
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if linear and not name.endswith("mobilenet_v3_small"):
        torch.testing.assert_close(linear[-1](found.embedding), logits)
    else:
        assert found.embedding.shape[0] == 2
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.fixture(scope="module")
def densenet() -> DistilledModel:
    """Its layers are called with the list of all features before them."""
    torch.manual_seed(5)
    teacher, student = (DenseNet(4, (2, 2, 2), 8, num_classes=5) for _ in range(2))
    trained = TrainedTeacher(teacher, LABELS)
    model = build_training_model(method("distil", ALL), student, example=torch.randn(2, 3, 32, 32), trained=trained)
    assert isinstance(model, DistilledModel)
    return model.train()


@pytest.mark.needs("torchdistill")
def test_all_losses_compare_networks_whose_blocks_get_lists(densenet: DistilledModel) -> None:
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.autograd.backward(densenet(images, torch.arange(8)).transfer)
    missing = {name for name, one in densenet.named_parameters() if one.requires_grad and one.grad is None}
    assert missing == set()


@pytest.mark.needs("torchdistill")
def test_the_feature_of_a_list_is_what_the_block_before_gave(densenet: DistilledModel) -> None:
    network = densenet.student
    reader = KnowledgeReader(network, torch.randn(2, 3, 32, 32))
    given: list[Tensor] = []
    handle = network.get_submodule("features.transition1").register_forward_hook(
        lambda _module, _arguments, output: given.append(output.clone())
    )
    with torch.no_grad(), reader.reading(network) as found:
        network(torch.randn(2, 3, 32, 32))
    handle.remove()
    assert torch.equal(found.inputs[1], given[0])


class Packed(nn.Module):
    """A block that gets its feature in a dict, where nothing finds it, and returns it behind a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, stride=2)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, packed: dict[str, Tensor]) -> tuple[int, Tensor]:
        return 3, self.conv2(self.conv1(packed["feature"]).relu())


class Unusual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Packed(), Packed()])
        self.fc = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        feature = self.stem(images)
        for block in self.blocks:
            _, feature = block({"feature": feature})
        logits: Tensor = self.fc(feature.mean((2, 3)))
        return logits


@pytest.mark.needs("torchdistill")
def test_only_fsp_needs_what_blocks_get() -> None:
    trained = TrainedTeacher(Unusual(), LABELS)
    others = tuple(loss for loss in ALL if loss != "fsp")
    model = build_training_model(method("distil", others), Unusual(), example=IMAGES, trained=trained).train()
    torch.autograd.backward(model(IMAGES, torch.arange(8)).transfer)
    with pytest.raises(StudentError, match=r"'fsp' compares what each stage gets .* and blocks.0, blocks.1 is called"):
        build_training_model(method("distil", ("kd", "fsp")), Unusual(), example=IMAGES, trained=trained)


def test_a_stage_that_is_not_called_is_named() -> None:
    network = build_student("resnet8", num_classes=5, in_channels=1)
    reader = KnowledgeReader(network, IMAGES)
    message = r"^the network did not call layer1.0, layer2.0, layer3.0, or got no tensor"
    with pytest.raises(StudentError, match=message), reader.reading(network):
        pass


def test_what_is_missing_is_named() -> None:
    student = build_student("resnet8", num_classes=5, in_channels=1)
    with pytest.raises(UsageError, match="needs the trained teacher"):
        build_training_model(method("distil", ("kd",)), student, example=IMAGES)
