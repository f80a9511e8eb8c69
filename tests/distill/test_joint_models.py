"""The models of the paper's other systems, and that none of them changes what ECD computes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ecd_deploy.distill import DenseConnections, ECDModel, JointModel, TeacherOptions, build_objective
from ecd_deploy.errors import StudentError, UsageError
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.training.methods import build_training_model

LABELS = torch.tensor([0, 4, 2, 2])


def make(**fields: object) -> JointModel:
    torch.manual_seed(0)
    student = build_student("resnet8", num_classes=5).double()
    model = build_training_model(MethodConfig.model_validate({"kernels": 2, **fields}), student)
    assert isinstance(model, JointModel)
    return model.train()


def images() -> Tensor:
    return torch.randn(4, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def outputs_of(network: nn.Module, names: list[str], batch: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _m, _i, output, name=name: kept.update({name: output}))
        for name in names
    ]
    network(batch)
    for handle in handles:
        handle.remove()
    return kept


def test_without_connections_the_heads_do_not_know_each_other() -> None:
    model = make(name="joint")
    outputs = model(images())
    torch.testing.assert_close(outputs.student, model.student(images()))
    torch.testing.assert_close(outputs.teacher, model.teacher(images()))
    assert set(model.auxiliary()) == {"teacher"}
    gradients = torch.autograd.grad(outputs.teacher.sum(), list(model.student.parameters()), allow_unused=True)
    assert set(gradients) == {None}


@pytest.mark.parametrize(
    "fields",
    [{"logits": "ensemble"}, {"logits": "mutual"}, {"features": "stage"}, {"features": "block", "logits": "teacher"}],
)
def test_what_is_added_to_ecd_changes_neither_its_start_nor_its_logits(fields: dict[str, str]) -> None:
    plain, model = make(), make(**fields)
    weights = model.state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, weights[name])
    expected, found = plain(images()), model(images())
    assert torch.equal(found.student, expected.student)
    assert torch.equal(found.teacher, expected.teacher)
    assert bool(found.pairs) == ("features" in fields)
    model.eval()
    with torch.no_grad():
        evaluated = model(images())
    assert (evaluated.ensemble is not None) == (fields.get("logits") == "ensemble")
    assert evaluated.pairs == ()


@pytest.mark.parametrize("name", ["joint", "ecd"])
def test_features_are_those_after_the_stages_and_after_the_connected_blocks(name: str) -> None:
    blocks = ["layer1.0", "layer2.0", "layer3.0"]
    for features, count in (("stage", 3), ("block", 2)):
        model = make(name=name, features=features)
        pairs = model(images()).pairs
        assert len(pairs) == count
        expected = outputs_of(model.student, blocks[:count], images())
        for block, pair in zip(blocks, pairs, strict=False):
            torch.testing.assert_close(pair.student, expected[block])
            assert pair.teacher.shape == pair.student.shape
        if name == "joint":
            expected = outputs_of(model.teacher, blocks[:count], images())
            for block, pair in zip(blocks, pairs, strict=False):
                torch.testing.assert_close(pair.teacher, expected[block])


def test_dense_connections_add_every_earlier_layer_through_a_transform_of_its_own() -> None:
    model = make(density="dense")
    connections = model.connections
    assert isinstance(connections, DenseConnections)
    names = [site.name for site in connections.sites]
    assert names == ["layer1.0.conv1", "layer1.0.conv2", "layer1.0", "layer2.0.conv1", "layer2.0.conv2", "layer2.0"]
    features = outputs_of(model.student, names, images())
    handles = []
    for index, name in enumerate(names):
        weight = dict(connections.transforms.named_parameters())[f"{name.replace('.', '/')}.weight"].flatten(1)
        widths = [features[earlier].shape[1] for earlier in names[: index + 1]]
        assert weight.shape == (widths[-1], sum(widths))
        received = torch.zeros((), dtype=torch.float64)
        side = features[name].shape[-1]
        for earlier, part in zip(names, torch.split(weight, widths, dim=1), strict=False):
            shrunk = F.avg_pool2d(features[earlier], features[earlier].shape[-1] // side)
            received = received + torch.einsum("oc,nchw->nohw", part, shrunk)
        handles.append(
            model.teacher.get_submodule(name).register_forward_hook(
                lambda _m, _i, output, received=received: output + received
            )
        )
    expected = model.teacher(images())
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(model(images()).teacher, expected)


def test_dense_connections_refuse_what_they_cannot_transform() -> None:
    with pytest.raises(UsageError, match="other widths"):
        ECDModel(build_student("resnet8", num_classes=5), density="dense", connection="direct")


def test_dense_connections_refuse_a_layer_that_is_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.shared = nn.Conv2d(4, 4, 3, padding=1)
            self.fc = nn.Linear(4, 2)

        def forward(self, batch: Tensor) -> Tensor:
            features = self.shared(self.shared(self.stem(batch)).relu()).mean((2, 3))
            logits: Tensor = self.fc(features)
            return logits

    model = ECDModel(Twice(), TeacherOptions(kernels=2), stages=(2,), density="dense")
    with pytest.raises(StudentError, match="'shared' 2 times"):
        model(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(
    "fields",
    [
        {"logits": "ensemble", "density": "dense", "connection": "conv1x1_bn"},
        {"name": "joint", "logits": "mutual", "teacher": "se"},
        {"name": "joint", "features": "stage", "teacher": "cbam"},
        {"features": "block", "logits": "teacher"},
    ],
)
def test_every_parameter_of_every_piece_is_trained(fields: dict[str, str]) -> None:
    model = make(**fields)
    objective = build_objective(MethodConfig.model_validate(fields))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    totals = []
    for _ in range(6):
        optimizer.zero_grad()
        total = objective(model(images()), LABELS).total
        total.backward()  # type: ignore[no-untyped-call]
        assert not [name for name, value in model.named_parameters() if value.grad is None]
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]
    assert all(before != after for before, after in pairwise(totals))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "plain", "logits": "mutual"}, "logits 'mutual' needs a teacher"),
        ({"name": "plain", "features": "stage"}, "features 'stage' needs a teacher"),
        ({"name": "joint", "density": "dense"}, "density 'dense' is of connections"),
        ({"density": "dense", "connection": "direct"}, "needs connection 'conv1x1'"),
        ({"logits_factor": 0.5}, "logits_factor 0.5 has no effect"),
        ({"logits_temperature": 0.5}, "logits_temperature 0.5 has no effect"),
        ({"features_factor": 0.5}, "features_factor 0.5 has no effect"),
    ],
)
def test_fields_without_effect_are_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MethodConfig.model_validate(fields)
