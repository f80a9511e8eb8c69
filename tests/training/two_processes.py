"""Trains a tiny model on digits into the folder given; run by `accelerate launch`, or alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from ecd_deploy.data import load_data
from ecd_deploy.distill import PlainModel
from ecd_deploy.recipe.recipe import load_recipe
from ecd_deploy.training import train


def main(directory: Path) -> None:
    # 292 images in steps of 64: the last step's 36 are shared out, and cut into parts, unevenly
    recipe = load_recipe(
        "digits",
        ("train.epochs=2", "data.train_limit=325", "train.gradient_accumulation=3", "train.trackers=[]"),
    )
    data = load_data(recipe.data, seed=recipe.seed)
    torch.manual_seed(0)
    model = PlainModel(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)))
    directory.mkdir(exist_ok=True)
    train(model, data, recipe, directory, resume=False)
    rank = os.environ.get("RANK", "alone")
    (directory / f"rank-{rank}.safetensors").write_bytes(safetensors.torch.save(model.state_dict()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
