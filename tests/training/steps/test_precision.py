from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ecd_deploy.data import DataSplits
from ecd_deploy.distill.convolution.triton import check as triton_check
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.scores import DeviceUse
from ecd_deploy.training.steps.precision import precision_of
from tests.training.helpers import MakeModel, MakeRecipe, run

Switches = tuple[bool, bool, bool]


def switches() -> Switches:
    return (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.benchmark,
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TrainConfig(), (True, False, False)),
        (TrainConfig(tf32="always"), (True, True, False)),
        (TrainConfig(tf32="never", cudnn_benchmark=True), (False, False, True)),
    ],
    ids=str,
)
def test_the_recipe_decides_and_torchs_switches_are_put_back(config: TrainConfig, expected: Switches) -> None:
    before = switches()
    with precision_of(config):
        assert switches() == expected
    assert switches() == before


def test_what_is_torchs_default_is_the_recipes() -> None:
    before = switches()
    with precision_of(TrainConfig()):
        assert switches() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_training_says_how_it_used_its_device(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_check, "_unused", ["no GPU"])
    result = run(make_model(), data, make_recipe("train.epochs=1", "train.tf32=never"), tmp_path)
    assert result.use == DeviceUse(
        device="cpu",
        channels_last=True,
        tf32_convolutions=False,
        tf32_products=False,
        cudnn_benchmark=False,
        cuda_graph=False,
        triton_unused=("no GPU",),
    )
