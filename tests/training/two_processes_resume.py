"""One of two processes that train a tiny model on digits and resume where checkpoints are; ends with the error's code.

Arguments: the folder; then, if it is to be interrupted, the rank, the number of the forward and the signal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from ecd_deploy.data import load_data
from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import EcdDeployError
from ecd_deploy.recipe.recipe import load_recipe
from ecd_deploy.training import train
from tests.training.helpers import at_forward


def main(directory: Path, rank: int = -1, forward: int = 0, number: int = 0) -> None:
    short = ("train.epochs=2", "data.train_limit=325", "train.gradient_accumulation=2", "train.trackers=[]")
    recipe = load_recipe("digits", (*short, "train.checkpoint_steps=2"))
    data = load_data(recipe.data, seed=recipe.seed)
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(144, 10)]
    model = PlainModel(nn.Sequential(*layers))
    if rank == int(os.environ["RANK"]):
        at_forward(model, forward, lambda _: os.kill(os.getpid(), number))
    try:
        train(model, data, recipe, directory, resume=True)
    except EcdDeployError as error:
        sys.exit(error.exit_code)
    (directory / f"rank-{os.environ['RANK']}.safetensors").write_bytes(safetensors.torch.save(model.state_dict()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
