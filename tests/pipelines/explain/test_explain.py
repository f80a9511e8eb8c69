"""The figures of `explain`: Grad-CAM++ by its formula, the teacher in its joint model, and equal bytes for a seed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ecd_deploy.baselines.knowledge import KnowledgeReader
from ecd_deploy.data import Normalisation
from ecd_deploy.errors import RunDirectoryError
from ecd_deploy.pipelines.explain.explain import explain, heat_maps, project
from ecd_deploy.pipelines.explain.networks import Seen, networks_of
from ecd_deploy.pipelines.record.run_directory import open_run
from tests.commands import Ended

UNCHANGED = Normalisation((0.0,), (1.0,))


class Tiny(nn.Module):
    """Its last stage has the images' resolution, so that heat maps are not resized."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1))
        self.fc = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layers(images).tanh().mean((2, 3)))
        return logits


@pytest.mark.needs("pytorch_grad_cam")
def test_heat_maps_are_grad_cam_plus_plus() -> None:
    torch.manual_seed(0)
    network, images, labels = Tiny().eval(), torch.randn(3, 1, 6, 6), torch.tensor([2, 0, 1])
    reader = KnowledgeReader(network, images)
    assert reader.last_block == "layers.1"
    found = heat_maps(Seen("tiny", network, network, reader, UNCHANGED), images, labels)

    features = network.layers(images).detach().requires_grad_()
    logits = network.fc(features.tanh().mean((2, 3)))
    (slopes,) = torch.autograd.grad(logits[range(3), labels].sum(), features)
    for image in range(3):
        # equation 19, then the weights of equation 5 and the map of equation 2
        slope, feature = slopes[image], features[image].detach()
        share = slope**2 / (2 * slope**2 + feature.sum((1, 2), keepdim=True) * slope**3 + 1e-6)
        weights = (share * slope.clamp(min=0)).sum((1, 2))
        heat = (weights.view(-1, 1, 1) * feature).sum(0).clamp(min=0)
        heat = (heat - heat.min()) / (heat - heat.min()).max()
        np.testing.assert_allclose(found[image], heat.numpy(), atol=1e-4)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


class Paired(nn.Conv2d):
    """Returns its feature in a list, behind a number."""

    def forward(self, input: Tensor) -> Any:
        return [3, super().forward(input)]


class Packed(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.layers[1] = Paired(4, 5, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layers(images)[1].tanh().mean((2, 3)))
        return logits


@pytest.mark.needs("pytorch_grad_cam")
def test_heat_maps_are_the_same_where_a_block_returns_its_feature_in_a_list() -> None:
    torch.manual_seed(0)
    network, images, labels = Packed().eval(), torch.randn(3, 1, 6, 6), torch.tensor([2, 0, 1])
    plain = Tiny().eval()
    plain.load_state_dict(network.state_dict())
    found, expected = (
        heat_maps(Seen("tiny", one, one, KnowledgeReader(one, images), UNCHANGED), images, labels)
        for one in (network, plain)
    )
    np.testing.assert_array_equal(found, expected)
    assert found.any()


def test_embeddings_are_laid_out_the_same_for_a_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.cat([torch.randn(20, 8, generator=generator) + 20 * number for number in range(3)])
    points = project(groups, seed=1)
    assert points.shape == (60, 2)
    np.testing.assert_array_equal(points, project(groups, seed=1))
    centres = points.reshape(3, 20, 2).mean(1)
    spread = np.abs(points.reshape(3, 20, 2) - centres[:, None]).max()
    assert np.linalg.norm(centres[0] - centres[1]) > spread


@pytest.mark.needs("pytorch_grad_cam")
def test_a_run_and_its_baseline_are_drawn(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    root, other = (Path(shutil.copytree(finished_run[0], tmp_path / name)) for name in ("run", "baseline"))
    first = {path: path.read_bytes() for path in explain(root, [other], samples=60, images=2, seed=3)}
    assert [path.name for path in first] == ["embeddings.png", "grad_cam.png", "explain.html"]
    for path in first:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width > 500
    page = (root / "explain" / "explain.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    again = explain(root, [other], samples=60, images=2, seed=3)
    assert {path: path.read_bytes() for path in again} == first
    with open_run(root) as directory:
        for name in directory.manifest.files:
            directory.read(name)
        assert "explain/explain.html" in directory.manifest.files
        student, teacher = networks_of(directory, with_teacher=True)
    images = torch.randn(2, 1, 8, 8)
    assert (student.title, teacher.title) == ("digits (run): student", "digits (run): teacher, connected")
    assert torch.equal(student.network(images).argmax(1), student.embeddings(images)[1])
    embedding, predicted = teacher.embeddings(images)
    logits = teacher.inside.fc(embedding)  # type: ignore[operator]
    torch.testing.assert_close(logits, teacher.network(images))
    assert torch.equal(logits.argmax(1), predicted)


def test_runs_of_other_images_are_refused(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    root, other = (Path(shutil.copytree(finished_run[0], tmp_path / name)) for name in ("run", "other"))
    with open_run(other) as directory:
        directory.bind_data("0" * 64, accept_changes=True)
    with pytest.raises(RunDirectoryError, match="was trained on other images"):
        explain(root, [other], samples=60, images=2, seed=0)
